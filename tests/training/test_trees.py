"""A plain tree of images is trained on where it lies, and nothing is written into it."""

import shutil
from pathlib import Path

import pytest

from imnetprep.catalog.datasets import Root
from imnetprep.training.checkpoint import load_checkpoint
from tests.conftest import Run, tree

NETWORK = "--arch mlp-small --image-size 32 --batch-size 8 --workers 0 --device cpu"


@pytest.fixture
def plain(drawn: Root, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Class folders as another program leaves them; the working directory is elsewhere."""
    folder = tmp_path / "photos"
    shutil.copytree(drawn.path / "train", folder / "train")
    shutil.copytree(drawn.path / "val", folder / "valid")
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    return folder


def test_it_is_scanned_trained_resumed_and_scored(plain: Path, drawn: Root, here: Run) -> None:
    before = tree(plain)
    done = here("train", "--root", plain, *NETWORK.split(), "--epochs", "1")
    assert done.returncode == 0, done.stderr
    assert "is no root: 3 classes by their folders" in done.stderr
    assert "the training goes to runs/mlp-small" in done.stderr
    done = here("train", "--root", plain, "--resume", "--epochs", "2", "--restart-schedule")
    assert done.returncode == 0, done.stderr
    scored = here("evaluate", "--root", plain, "--workers", "0", "--device", "cpu")
    assert scored.returncode == 0, scored.stderr
    assert "/21 " in scored.stdout
    assert tree(plain) == before
    checkpoint = load_checkpoint(Path("runs/mlp-small/last.pt"))
    assert checkpoint.train_samples == 60
    organized = here("evaluate", "runs/mlp-small/best.pt", "--root", drawn.path, "--workers", "0")
    assert organized.returncode == 0, organized.stderr
    assert organized.stdout == scored.stdout


@pytest.mark.parametrize(
    ("spoil", "told"),
    [
        (lambda folder: (folder / "train" / "lost.JPEG").touch(), "lost.JPEG is in no class"),
        (lambda folder: shutil.rmtree(folder / "valid"), "has no val split"),
    ],
)
def test_what_is_no_tree_of_classes_is_refused(
    spoil: object, told: str, plain: Path, here: Run
) -> None:
    assert callable(spoil)
    spoil(plain)
    done = here("train", "--root", plain, *NETWORK.split())
    error, hint = done.stderr.splitlines()[-2:]
    assert done.returncode == 1 and told in error and hint.startswith("Hint: "), done.stderr
    assert not Path("runs").exists()
