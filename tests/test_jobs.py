"""How many jobs work at once is decided in one module."""

import os
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


def test_threads_give_results_in_order_and_draw_few_items_ahead() -> None:
    items = iter(range(1000))
    results = jobs.FILES.in_threads(lambda item: item * item, items, jobs=3)
    assert [next(results) for _ in range(10)] == [item * item for item in range(10)]
    assert next(items) < 20
    assert len(list(results)) == 989  # all but ten, and the one drawn here


def test_what_a_thread_raises_ends_the_rest() -> None:
    def fail(item: int) -> int:
        if item == 5:
            raise OSError("no disk")
        return item

    results = jobs.FILES.in_threads(fail, range(100), jobs=2)
    found: list[int] = []
    with pytest.raises(OSError, match="no disk"):
        found.extend(each for each in results)
    assert found == [0, 1, 2, 3, 4]


@pytest.mark.parametrize(
    ("typed", "turns"),
    [({}, "1000"), ({"GOMP_SPINCOUNT": "7"}, "7"), ({"OMP_WAIT_POLICY": "active"}, None)],
)
def test_threads_that_wait_leave_their_core_unless_the_user_says_how_they_wait(
    typed: dict[str, str], turns: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY"):
        monkeypatch.setenv(name, typed.get(name, ""))
        if name not in typed:
            monkeypatch.delenv(name)
    jobs.share_cores()
    assert os.environ.get("GOMP_SPINCOUNT") == turns
