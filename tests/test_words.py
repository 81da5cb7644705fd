"""Words as a ratchet: what `scripts/measure` counts against them may fall, and never rise."""

import importlib.util
from importlib.machinery import SourceFileLoader
from pathlib import Path
from types import ModuleType

import pytest

MEASURE = Path(__file__).parent.parent / "scripts" / "measure"
# Lower them as the counts fall; `scripts/measure names` and `docstrings` list what is counted.
BAD_NAMES = 0
POINTING_SENTENCES = 0


@pytest.fixture(scope="module")
def measure() -> ModuleType:
    loader = SourceFileLoader("measure", str(MEASURE))
    spec = importlib.util.spec_from_loader("measure", loader)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    loader.exec_module(module)
    return module


def test_no_more_names_are_adverbs_participles_or_pronouns(measure: ModuleType) -> None:
    found = measure.bad_names()
    assert len(found) <= BAD_NAMES, "\n".join(map(str, found))


def test_no_more_docstrings_and_helps_point_elsewhere(measure: ModuleType) -> None:
    found = measure.pointing_sentences()
    assert len(found) <= POINTING_SENTENCES, "\n".join(map(str, found))


def test_no_function_of_a_verb_is_longer_than_a_screen(measure: ModuleType) -> None:
    lines, name = measure.longest_door()
    assert lines <= 60, name


@pytest.mark.parametrize(
    ("source", "is_counted"),
    [
        ("def f(told: int) -> None: ...", True),
        ("class Known: ...", True),
        ("device_here = 1", True),
        ("def f(resized: bool) -> None: ...", False),
        ("for each in (): ...", True),
        ("def f() -> None:\n    for each in (): ...", False),
        ("seed = padding = left_bytes = 1", False),
        ("def written() -> int: ...", False),
    ],
)
def test_what_counts_as_a_bad_name(measure: ModuleType, source: str, is_counted: bool) -> None:
    measure.MODULES["m"] = (MEASURE, measure.ast.parse(source))
    assert any(map(measure.is_no_noun, measure.bound_names("m"))) is is_counted
    del measure.MODULES["m"]


@pytest.mark.parametrize(
    ("sentence", "is_pointing"),
    [
        ("The same of several.", True),
        ("So many bytes more.", True),
        ("As it was before.", True),
        ("As `Reader.chunks`.", False),
        ("These", True),
        ("Theses of a university.", False),
        ("Which archives to read.", False),
    ],
)
def test_what_counts_as_pointing(measure: ModuleType, sentence: str, is_pointing: bool) -> None:
    assert bool(measure.POINTING.match(sentence)) is is_pointing


def test_a_train_byte_is_read_under_few_frames(measure: ModuleType) -> None:
    frames = measure.deepest_read()
    assert 0 < len(frames) <= 14, "\n".join(frames)
