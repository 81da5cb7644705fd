"""How many jobs work at once is decided in one module."""

from pathlib import Path

import pytest

from imnetprep import jobs

PACKAGE = Path(jobs.__file__).parent


@pytest.mark.parametrize(("cores", "count"), [(1, 4), (2, 8), (64, 16)])
def test_the_machine_says_how_many_up_to_where_more_would_wait(
    cores: int, count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jobs, "usable_cores", lambda: cores)
    assert jobs.FAR_RANGES.count() == count
    assert jobs.FAR_RANGES.count(100) == 100  # --jobs 100


def test_no_other_module_counts_cores() -> None:
    for file in PACKAGE.rglob("*.py"):
        text = file.read_text()
        counts = any(word in text for word in ("cpu_count", "sched_getaffinity", "usable_cores"))
        assert counts == (file.name == "jobs.py" and file.parent == PACKAGE), file
