"""No input, however hostile, makes more than an error of two lines: ten thousand of them.

The cases are the same in every run; `scripts/fuzz` draws others.
"""

import itertools
import tempfile
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from tests.fuzzing.ground import Ground, read_by_gnu_tar
from tests.fuzzing.inputs import inputs

pytestmark = pytest.mark.slow

_FORMS = {"flat": 2500, "class tars": 2500}
_INPUTS = {"header": 3000, "index": 500, "magnet": 600, "torrent": 300}
_INPUTS |= {"receipt": 300, "manifest": 300, "definition": 300}
_THOROUGHLY_EVERY, _BY_GNU_TAR_EVERY = 200, 10
_MOST_MEMORY_BYTES = 4 << 20


def test_there_are_ten_thousand_cases() -> None:
    assert sum(_FORMS.values()) + sum(_INPUTS.values()) >= 10_000


@pytest.fixture(scope="module")
def ground(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ground]:
    memory = Path("/dev/shm")
    if not memory.is_dir():
        yield Ground(tmp_path_factory.mktemp("ground"))
        return
    with tempfile.TemporaryDirectory(dir=memory) as folder:
        yield Ground(Path(folder))


def _for_all(drawn: st.SearchStrategy[Any], cases: int, check: Callable[[Any], object]) -> None:
    @settings(
        max_examples=cases,
        derandomize=True,
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
        phases=[Phase.generate],  # scripts/fuzz makes what it finds small
    )
    @given(drawn)
    def all_(case: Any) -> None:
        check(case)

    all_()


@pytest.mark.parametrize("form", _FORMS)
def test_the_corpus_is_organized_as_gnu_tar_has_it_or_refused(form: str, ground: Ground) -> None:
    known, number = ground.forms[form]._replace(read=read_by_gnu_tar), itertools.count()
    organized = {
        name
        for name, body in known.corpus.items()
        if ground.check(known, body, thoroughly=next(number) % 40 == 0)
    }
    assert len(organized) >= 40, "the right ones are not refused"
    assert len(organized) <= len(known.corpus) / 2


@pytest.mark.parametrize("form", _FORMS)
def test_the_corpus_takes_no_memory_that_it_says_it_needs(form: str, ground: Ground) -> None:
    known, peaks = ground.forms[form], {}
    ground.check(known, known.corpus[min(known.corpus)])
    for name, body in known.corpus.items():
        if "8 GB" in name or "size" in name or "many" in name:
            tracemalloc.start()
            ground.check(known, body)
            peaks[name] = tracemalloc.get_traced_memory()[1] - 8 * len(body)
            tracemalloc.stop()
    assert max(peaks.values()) < _MOST_MEMORY_BYTES, max(peaks, key=peaks.__getitem__)


@pytest.mark.parametrize("form", _FORMS)
def test_drawn_archives_are_organized_or_refused(form: str, ground: Ground) -> None:
    known, number = ground.forms[form], itertools.count(1)
    organized = 0

    def check(body: bytes) -> None:
        nonlocal organized
        at = next(number)
        by_gnu_tar = at % _BY_GNU_TAR_EVERY == 0
        reading = known._replace(read=read_by_gnu_tar) if by_gnu_tar else known
        organized += ground.check(reading, body, thoroughly=at % _THOROUGHLY_EVERY == 0)

    _for_all(known.drawn, _FORMS[form], check)
    assert organized > _FORMS[form] / 50


@pytest.mark.parametrize("name", _INPUTS)
def test_drawn_tables_links_and_databases_are_read_or_refused(
    name: str, ground: Ground, organized: Path, tmp_path: Path
) -> None:
    known = inputs(ground.packed, organized, tmp_path)[name]
    read: list[bool] = []
    _for_all(known.drawn, _INPUTS[name], lambda case: read.append(known.check(case)))
    assert 0 < sum(read) < len(read)
