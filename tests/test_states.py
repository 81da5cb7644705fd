"""Whatever state a process is started in, a verb does its work or says in two lines what it lacks.

A few of them; `scripts/fuzz states` runs every verb in every state.
"""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.fuzzing.states import Places, problem_of


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Places]:
    with Places.open(tmp_path_factory.mktemp("states")) as opened:
        yield opened


@pytest.mark.parametrize(
    ("state", "verb"),
    [
        ("few open files", "organize"),
        ("a locale of ASCII", "push"),
        ("TMPDIR is a file", "shards"),
        ("all are closed", "verify"),
    ],
)
def test_no_state_is_a_bug(state: str, verb: str, places: Places, tmp_path: Path) -> None:
    assert problem_of(state, verb, places, tmp_path) is None
