"""Whatever stands in a field of a file that is read back, a command answers in two lines.

A draw of the cases, the same in every run; `scripts/fuzz fields` runs all of them.
"""

import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fuzzing.cases import run_case
from tests.fuzzing.fields import Subjects
from tests.fuzzing.folder_bucket import folder_served

pytestmark = pytest.mark.slow

_KINDS = [
    *("receipt", "manifest", "definition", "shards", "ranges", "pieces", "journal", "torrent"),
    *("manifest in a bucket", "receipt in a bucket", "index in a bucket", "journal of syncs"),
    *("parquet", "subset", "labels"),
]
_CASES, _CASES_IN_A_BUCKET = 40, 8  # a sync takes a quarter of a second


@pytest.fixture(scope="module")
def subjects(tmp_path_factory: pytest.TempPathFactory, packed: Path) -> Iterator[Subjects]:
    folder = tmp_path_factory.mktemp("fields")
    with folder_served(folder) as endpoint:
        yield Subjects(folder, packed, endpoint)


def test_every_kind_of_file_is_drawn_from(subjects: Subjects) -> None:
    assert list(subjects.cases()) == _KINDS


@pytest.mark.parametrize("kind", _KINDS)
def test_no_field_of_a_file_is_a_bug(kind: str, subjects: Subjects) -> None:
    if kind == "parquet":
        pytest.importorskip("pyarrow")
    cases = list(subjects.cases()[kind])
    limit = _CASES_IN_A_BUCKET if "bucket" in kind or "sync" in kind else _CASES
    drawn = random.Random(1).sample(cases, min(limit, len(cases)))
    problems = [problem for case in drawn if (problem := run_case(case))]
    assert not problems, "\n".join(problems)
