"""The demo: the whole story once, small, and how it begins again and ends early."""

import json
import re
import shlex
from pathlib import Path
from typing import NoReturn

import pytest

from imnetprep.catalog.datasets import load_dataset
from imnetprep.demo import DemoFolder, DemoSize, StepFailed, run_demo
from imnetprep.manifest import create_manifest, open_manifest
from imnetprep.messages import ImnetprepError, Silent

from .conftest import Run, snapshot, tree

pytestmark = pytest.mark.training

SMALL = DemoSize(train_per_class=8, val_per_class=3, epochs=1)
VERBS = ["download", "organize", "verify", "inspect", "train", "evaluate", "predict"]


class Enough(Exception):
    """The test has seen enough."""


class StopsDrawing(Silent):
    """Stops the demo when it is about to draw."""

    def task(self, title: str, *, total: int, unit: str, initial: int = 0) -> NoReturn:
        raise Enough(title)


def commands(lines: list[str]) -> list[list[str]]:
    """The commands that were shown, as a shell would split them."""
    return [shlex.split(found[1]) for line in lines if (found := re.match(r"\s*\$ (.*)", line))]


def test_the_whole_story_runs_and_goes_on_from_where_it_was_stopped(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    folder = DemoFolder(tmp_path / "demo")

    def stop_at_evaluate(line: str) -> None:
        if "imnetprep evaluate" in line:
            raise Enough(line)

    with pytest.raises(Enough):
        run_demo(folder.path, size=SMALL, tell=stop_at_evaluate, progress=Silent())
    log = folder.root.run("demo") / "log.jsonl"
    before = tree(folder.published) | {"log": log.read_bytes()}
    capfd.readouterr()

    lines: list[str] = []
    run_demo(folder.path, size=SMALL, tell=lines.append, progress=Silent())
    assert "Resumes" in lines[0]
    assert tree(folder.published) | {"log": log.read_bytes()} == before
    shown = commands(lines)
    assert [words[:2] for words in shown] == [["imnetprep", verb] for verb in VERBS]
    assert all(str(folder.root.path) in " ".join(words) for words in shown)
    assert "--resume" in shown[VERBS.index("train")]

    with open_manifest(folder.root.manifest) as manifest:
        counts = {record.split: record.samples for record in manifest.splits().values()}
    assert counts == {"train": 80, "val": 30}
    out = capfd.readouterr().out
    assert "0 findings" in out
    assert len(re.findall(r"^ +[0-9.]+ %  n\d{8}  ", out, re.MULTILINE)) == 3 * 5
    assert "In truth: goldfish, starfish, hammer" in lines
    top1 = json.loads(log.read_text().splitlines()[-1])["val"]["top1"]
    assert f"({top1} of 30 validation images)" in lines[-1]


def test_ends_with_the_exit_code_of_the_step_that_failed(
    tmp_path: Path, packed: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    folder = DemoFolder(tmp_path / "demo")
    lines: list[str] = []
    folder.path.mkdir()
    (folder.path / ".imnetprep-demo").touch()
    create_manifest(folder.root.manifest, load_dataset(str(packed)))
    with pytest.raises(StepFailed, match="download ended with exit code 1") as failed:
        run_demo(folder.path, size=SMALL, tell=lines.append, progress=Silent())
    assert failed.value.exit_code == 1
    assert [words[1] for words in commands(lines)] == ["download"]
    assert "holds packed, not drawn" in capfd.readouterr().err


def test_a_folder_that_is_not_a_demo_is_refused_and_left_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("mine")
    (tmp_path / "imagenet").mkdir()
    (tmp_path / "imagenet" / "image.JPEG").write_text("mine too")
    before = tree(tmp_path)
    for fresh in (False, True):
        with pytest.raises(ImnetprepError, match="is not a demo"):
            run_demo(tmp_path, fresh=fresh, tell=print, progress=Silent())
    assert tree(tmp_path) == before


def test_fresh_removes_what_a_demo_left_and_nothing_else(tmp_path: Path) -> None:
    folder = DemoFolder(tmp_path / "demo")
    with pytest.raises(Enough):
        run_demo(folder.path, tell=print, progress=StopsDrawing())
    for left in (folder.published / "old.tar", folder.root.path / "train" / "old.JPEG"):
        left.parent.mkdir(parents=True, exist_ok=True)
        left.write_text("old")
    (folder.path / "notes.txt").write_text("mine")
    lines: list[str] = []
    with pytest.raises(Enough):
        run_demo(folder.path, fresh=True, tell=lines.append, progress=StopsDrawing())
    assert "starts over" in lines[0]
    assert [path for path in tree(folder.path) if not Path(path).name.startswith(".")] == [
        "notes.txt"
    ]


def test_help_says_how_long_it_takes_and_shows_an_example(run: Run) -> None:
    shown = run("demo", "--help")
    assert shown.returncode == 0
    assert "4 minutes" in shown.stdout
    assert "imnetprep demo --fresh" in shown.stdout


@pytest.mark.parametrize("fresh", [False, True])
def test_a_dry_run_shows_the_commands_and_changes_nothing(tmp_path: Path, fresh: bool) -> None:
    folder = DemoFolder(tmp_path / "demo")
    for place in (folder.run, folder.published):
        place.mkdir(parents=True)
    for file in (folder.mark, folder.definition, folder.run / "last.pt"):
        file.touch()
    before = snapshot(tmp_path)
    lines: list[str] = []
    run_demo(folder.path, fresh=fresh, dry_run=True, tell=lines.append, progress=Silent())
    assert snapshot(tmp_path) == before
    assert lines[0].startswith("Removes" if fresh else "Resumes")
    shown = commands(lines)
    assert [words[1] for words in shown] == VERBS
    assert ("--resume" in shown[VERBS.index("train")]) is not fresh
