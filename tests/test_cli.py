"""The contract of the command line: exit codes, errors of two lines, help that costs nothing."""

import subprocess
import sys
from pathlib import Path

import pytest

from imnetprep import cli
from tests.conftest import Run

_HEAVY = ("torch", "torchvision", "boto3", "libtorrent", "numpy", "PIL", "matplotlib", "tqdm")


def test_help_loads_nothing_heavy() -> None:
    code = (
        "import sys; from imnetprep.cli import run; code = run(['--help']);"
        f"print([name for name in {_HEAVY} if name in sys.modules], code)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[] 0"


@pytest.mark.parametrize("verb", list(cli.imnetprep.commands))
def test_every_verb_has_help_with_an_example(verb: str, run: Run) -> None:
    done = run(verb, "--help")
    assert done.returncode == 0
    assert f"\n  imnetprep {verb}" in done.stdout


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["fly"], "No such command 'fly'"),
        (["verify", "--wrong"], "No such option"),
        (["download", "--split", "vale"], "'vale' is not one of"),
    ],
)
def test_wrong_usage_is_two_lines_and_exit_code_2(words: list[str], told: str, run: Run) -> None:
    done = run(*words)
    assert done.returncode == 2
    error, hint = done.stderr.splitlines()
    assert error.startswith("Error: ") and told in error
    assert hint.startswith("Hint: imnetprep ") and hint.endswith("--help")


@pytest.mark.parametrize("verb", ["train", "evaluate", "predict", "inspect", "demo"])
def test_without_torch_what_needs_it_says_what_to_install(
    verb: str, organized_once: Path, tmp_path: Path
) -> None:
    words = {
        "predict": [str(tmp_path / "best.pt"), str(tmp_path / "image.JPEG")],
        "demo": ["--root", str(tmp_path / "demo")],
    }.get(verb, ["--root", str(organized_once)])
    for file in ("best.pt", "image.JPEG"):
        (tmp_path / file).touch()
    code = "import sys; sys.modules['torch'] = None; from imnetprep.cli import run\n"
    code += "sys.exit(run(sys.argv[1:]))"
    command = [sys.executable, "-c", code, verb, *words]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 1, done.stderr
    error, hint = done.stderr.splitlines()
    assert error == f"Error: imnetprep {verb} needs torch, which is not installed"
    assert hint == f"Hint: {sys.executable} -m pip install 'imnetprep[train]'"
    assert not (tmp_path / "demo").exists()


def test_a_bug_of_ours_keeps_its_traceback_in_a_file(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("imnetprep.checking.recognise.recognise", None)
    assert cli.run(["verify"]) == 70
    error, hint = capsys.readouterr().err.splitlines()
    assert error.startswith("Error: a bug in imnetprep: TypeError")
    path = Path(hint.split(" is in ")[1].split(";")[0])
    assert "Traceback" in path.read_text()
    path.unlink()


def test_a_place_that_cannot_be_written_is_told(tmp_path: Path, packed: Path, run: Run) -> None:
    (tmp_path / "file").write_text("")
    words = ["--dataset", packed, "--archives", packed.parent]
    done = run("organize", "--root", tmp_path / "file" / "root", *words)
    assert done.returncode == 1, done.stderr
    assert "Error: " in done.stderr and "Hint: " in done.stderr


def test_one_process_at_a_time_works_in_a_root(organized: Path, packed: Path, run: Run) -> None:
    from imnetprep.fs import locked

    with locked(organized / ".organizing"):
        done = run("organize", "--root", organized, "--archives", packed.parent)
    assert done.returncode == 1
    assert "another imnetprep is at work" in done.stderr
