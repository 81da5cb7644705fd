"""The task for SkyPilot, as SkyPilot's own parser reads it."""

import os
import subprocess
from pathlib import Path

import pytest

from tests.conftest import Run
from tests.launching.launched import PLACE

CHECK = Path(__file__).parents[2] / "scripts" / "skypilot_check.py"


def skypilot() -> str:
    """The Python that has SkyPilot."""
    python = os.environ.get("IMNETPREP_SKYPILOT")
    if not python:
        pytest.skip("IMNETPREP_SKYPILOT names no Python that has SkyPilot: scripts/test --all")
    return python


def test_skypilot_takes_the_task(archives: None, here: Run, packed: Path, tmp_path: Path) -> None:
    python, files = skypilot(), []
    words = ["launch", "--print", "skypilot", "--root", PLACE, "--dataset", packed]
    for name, types, way in (
        ("spot", "g5.2xlarge,g6.2xlarge", []),
        ("demand", "g5.2xlarge", ["--on-demand"]),
    ):
        done = here(*words, "--instance", types, *way, "--", "train", "--lr", "0.1")
        assert done.returncode == 0, done.stderr
        files.append(tmp_path / f"{name}.yaml")
        files[-1].write_text(done.stdout)
    typo = tmp_path / "typo.yaml"
    typo.write_text(files[0].read_text().replace("use_spot", "use_spott"))
    check = subprocess.run(
        [python, CHECK, *files, typo], capture_output=True, text=True, check=False
    )
    answers = [line for line in check.stdout.splitlines() if line[:4] in ("ok  ", "no  ")]
    assert len(answers) == 3, check.stdout
    spot, demand, wrong = answers
    assert spot.startswith("ok  ") and "g5.2xlarge[Spot]" in spot and "g6.2xlarge[Spot]" in spot
    assert demand.startswith("ok  ") and "[Spot]" not in demand
    assert wrong.startswith("no  "), "or the check could not fail"


def test_the_script_of_the_task_is_one_that_a_shell_can_read(
    archives: None, here: Run, packed: Path
) -> None:
    done = here(
        "launch", "--print", "skypilot", "--root", PLACE, "--dataset", packed,
        "--instance", "g5.2xlarge", "--", "train", "--arch", "resnet18",
    )  # fmt: skip
    script = done.stdout.partition("run: |\n")[2]
    assert "imnetprep train --arch resnet18 --run resnet18 --resume" in script
    checked = subprocess.run(["sh", "-n"], input=script, text=True, check=False)
    assert checked.returncode == 0
