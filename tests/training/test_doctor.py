"""`imnetprep doctor`: what a network sees, whether images and labels fit it, and the machine."""

import resource
import shutil
from itertools import pairwise
from pathlib import Path

import pytest
from PIL import Image

from imnetprep.catalog.datasets import Root
from imnetprep.networks.geometry import geometry
from tests.conftest import Run

SMALL = ["--arch", "cnn-small", "--image-size", 16, "--device", "cpu"]


@pytest.mark.parametrize(
    ("arch", "side", "sides", "sees"),
    [
        # Of the papers: a point behind the stages of ResNet-18 sees 43, 99, 211 and 435 px.
        ("resnet18", 448, [224, 112, 56, 28, 14], [7, 43, 99, 211, 435]),
        ("resnet18-small", 32, [32, 16, 8, 4], [11, 25, 32, 32]),
        ("vgg16", 224, [224, 112, 56, 28, 14, 7], [5, 14, 40, 92, 196, 212]),
        ("cnn-small", 32, [16, 8, 4], [3, 7, 15]),
    ],
)
def test_a_point_sees_what_its_windows_add_up_to(
    arch: str, side: int, sides: list[int], sees: list[int]
) -> None:
    found = geometry(arch, classes=10, image_size=side)
    assert [stage.side_px for stage in found.stages] == sides
    assert [stage.sees_px for stage in found.stages] == sees


def test_what_shapes_do_not_go_through_is_not_known() -> None:
    assert geometry("mlp-small", classes=10, image_size=32).stages == []
    assert not geometry("vit_b_16", classes=10, image_size=224).by_windows


@pytest.mark.parametrize(
    ("words", "found"),
    [
        (["resnet18", 32], "7 of its 18 layers look at more than their maps have"),
        (["resnet18-small", 32], None),
        (["resnet18", 224], None),
        (["cnn-small", 224], "it never sees more than 15 px"),
        (["vit_b_16", 224], None),
    ],
)
def test_a_network_that_does_not_fit_the_images_is_found(
    words: list[object], found: str | None, tmp_path: Path, here: Run
) -> None:
    arch, side = words
    done = here(
        "doctor", "--arch", arch, "--image-size", side, "--root", tmp_path, "--device", "cpu"
    )
    assert (done.returncode, "finding: " in done.stdout) == (5 * bool(found), bool(found))
    assert (found or "0 findings") in done.stdout
    assert not any(tmp_path.iterdir())


def test_images_and_the_network_are_looked_at_together(root: Root, here: Run) -> None:
    done = here("doctor", "--root", root.path, *SMALL)
    assert done.returncode == 0, done.stdout + done.stderr
    told = "train: 60 images; 60 of them: 60 JPEG, the shorter side of 36 to 44 px"
    assert told in done.stdout
    done = here("doctor", "--root", root.path, "--arch", "resnet18", "--device", "cpu")
    assert done.returncode == 5
    assert "times the work, and show nothing more" in done.stdout
    folder = root.path / "val"
    place = folder.resolve()
    folder.unlink()
    shutil.copytree(place, folder)
    path = min(folder.rglob("*.*"))
    path.write_bytes(path.read_bytes()[:100])
    done = here("doctor", "--root", root.path, *SMALL)
    assert (done.returncode, f"1 of 21 cannot be read: {path}" in done.stdout) == (5, True)


def test_labels_in_another_order_are_found(root: Root, tmp_path: Path, here: Run) -> None:
    """By a network that knows the classes: each has the images of the next."""
    words = ["--root", root.path, *SMALL, "--epochs", 12, "--lr", 0.1, "--crop-scale", 0.5]
    assert here("train", *words, "--batch-size", 10, "--workers", 0).returncode == 0
    checkpoint = root.path / "runs" / "cnn-small" / "best.pt"
    done = here("doctor", checkpoint, "--root", root.path, "--image-size", 16, "--device", "cpu")
    assert (done.returncode, "finding: " in done.stdout) == (0, False), done.stdout
    wnids = sorted(path.name for path in (root.path / "train").iterdir())
    for split in ("train", "val"):
        for wnid, next_wnid in pairwise([*wnids, wnids[0]]):
            shutil.copytree(root.path / split / wnid, tmp_path / "other" / split / next_wnid)
    assert here("adopt", tmp_path / "other").returncode == 0
    words = ["--root", tmp_path / "other", "--image-size", 16, "--device", "cpu"]
    done = here("doctor", checkpoint, *words)
    assert (done.returncode, "the labels are in another order" in done.stdout) == (5, True)


def test_few_open_files_are_found(tmp_path: Path, here: Run) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (512, hard))
    try:
        done = here("doctor", "--root", tmp_path, *SMALL)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert (done.returncode, "finding: files: 512 may be open" in done.stdout) == (5, True)


def test_what_is_no_network_is_told(tmp_path: Path, here: Run) -> None:
    done = here("doctor", "--root", tmp_path, "--arch", "resnet81")
    assert (done.returncode, "no architecture 'resnet81'" in done.stderr) == (2, True)
    Image.new("L", (3, 3)).save(tmp_path / "no.pt", "PNG")
    done = here("doctor", tmp_path / "no.pt", "--root", tmp_path)
    assert done.returncode in (1, 4) and "Hint: " in done.stderr
