"""Whatever stands in a field of a checkpoint, a log or a recipe, a command answers in two lines."""

import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from imnetprep import cli
from imnetprep.catalog.datasets import Root
from imnetprep.training.runs import Run
from tests.fuzzing.cases import JSON_VALUES, Case, paths_in, run_case, with_value

_SMALL = "--arch squeezenet1_1 --image-size 32 --epochs 2 --batch-size 32 --device cpu --run r"
_ON_CPU = ["--workers", "0", "--device", "cpu", "--quiet"]
_VALUES = (
    *(value for value in JSON_VALUES if value != "\ud800"),  # which no pickle of torch has
    *(10**400, torch.zeros(2), torch.full((1,), float("nan")), ("x",), b"x"),
)


@pytest.fixture(scope="module")
def trained(drawn: Root, tmp_path_factory: pytest.TempPathFactory) -> Root:
    """A root with a run of one epoch of two."""
    root = Root(tmp_path_factory.mktemp("trained"))
    for part in ("train", "val", "manifest.db"):
        (root.path / part).symlink_to(drawn.path / part)
    assert cli.run(["train", *_SMALL.split(), "--root", str(root.path), *_ON_CPU[:2]]) == 0
    run = Run(root.run("r"))
    state = torch.load(run.last, weights_only=True)
    state["position"], state["scores"] = {"epoch": 1, "step": 1}, [9.0]
    state["sums"] = {"loss": 1.0, "top1": 1, "top5": 1, "images": 32, "seconds": 1, "waited_s": 0}
    torch.save(state, run.last)
    lines = run.log.read_text().splitlines()
    run.log.write_text("\n".join(lines[:2]) + "\n")  # of steps, and of the epoch
    return root


def _of_the_checkpoint(root: Root) -> Iterator[Case]:
    file = "runs/r/last.pt"
    state = torch.load(root.path / file, weights_only=True)
    image = next((root.path / "val").rglob("*.JPEG"))
    commands = [
        ["predict", f"ROOT/{file}", str(image), *_ON_CPU[2:4]],
        ["show", f"ROOT/{file}"],
        ["evaluate", f"ROOT/{file}", "--root", "ROOT", *_ON_CPU],
        ["train", "--resume", "--run", "r", "--root", "ROOT", *_ON_CPU],
    ]
    tables = {name: [*state[name]][1:] for name in ("weights", "optimizer", "average")}
    for keys in paths_in(state):
        if len(keys) > 1 and keys[1] in tables.get(keys[0], ()):
            continue  # one parameter stands for all
        for value in _VALUES:

            def write(path: Path, keys: Any = keys, value: Any = value) -> None:
                torch.save(with_value(state, keys, value), path)

            name = f"{file}: {keys} = {value!r:.30}"
            yield Case(name, root.path, file, write, commands, is_copied=True)


def _of_the_log(root: Root) -> Iterator[Case]:
    commands = [["train", "--resume", "--run", "r", "--root", "ROOT", *_ON_CPU]]
    commands += [["status", "--root", "ROOT"], ["clean", "--root", "ROOT"]]
    log = root.path / "runs/r/log.jsonl"
    files = [(f"runs/r/{log.name}", line) for line in log.read_text().splitlines()]
    files.append(("runs/r/recipe.json", (root.path / "runs/r/recipe.json").read_text()))
    for file, text in files:
        table = json.loads(text)
        for keys in paths_in(table):
            for value in JSON_VALUES:

                def write(
                    path: Path, table: Any = table, keys: Any = keys, value: Any = value
                ) -> None:
                    path.write_text(json.dumps(with_value(table, keys, value)) + "\n")

                name = f"{file}: {keys} = {value!r:.30}"
                yield Case(name, root.path, file, write, commands, is_copied=True)


@pytest.mark.parametrize(("cases", "number"), [(_of_the_checkpoint, 60), (_of_the_log, 20)])
def test_no_field_of_a_run_is_a_bug(cases: Any, number: int, trained: Root) -> None:
    drawn = random.Random(1).sample(list(cases(trained)), number)
    problems = [problem for case in drawn if (problem := run_case(case))]
    assert not problems, "\n".join(problems)
