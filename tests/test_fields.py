"""Whatever stands in a field of a file that is read back, a command answers in two lines.

A draw of the cases, the same in every run; `scripts/fuzz fields` runs all of them.
"""

import random
from pathlib import Path

import pytest

from tests.fuzzing.fields import Subjects, run_case

pytestmark = pytest.mark.slow

_KINDS = ["receipt", "manifest", "definition", "shards", "ranges", "pieces", "journal", "torrent"]
_CASES = 40


@pytest.fixture(scope="module")
def subjects(tmp_path_factory: pytest.TempPathFactory, packed: Path) -> Subjects:
    return Subjects(tmp_path_factory.mktemp("fields"), packed)


@pytest.mark.parametrize("kind", _KINDS)
def test_no_field_of_a_file_is_a_bug(kind: str, subjects: Subjects) -> None:
    cases = list(subjects.cases()[kind])
    drawn = random.Random(1).sample(cases, min(_CASES, len(cases)))
    problems = [problem for case in drawn if (problem := run_case(case))]
    assert not problems, "\n".join(problems)
