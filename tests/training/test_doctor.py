"""`imnetprep doctor`: what a network sees, whether images and labels fit it, and the machine."""

import resource
import shutil
from itertools import pairwise, product
from pathlib import Path

import pytest
from PIL import Image

from imnetprep import doctor, machine_findings
from imnetprep.catalog.datasets import Root
from imnetprep.networks.geometry import geometry
from tests.conftest import Run


@pytest.fixture(autouse=True)
def room(monkeypatch: pytest.MonkeyPatch) -> None:
    """No finding is of this machine."""
    monkeypatch.setattr(machine_findings, "_SMALLEST_DISK_BYTES", 0)
    monkeypatch.setattr(machine_findings, "_FEWEST_FILES", 0)


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
        (["convnext_tiny", 192], None),
        (["efficientnet_b0", 128], None),
        (["resnet18", 64], "3 of its 18 layers"),
        (["resnet18-small", 16], "a larger --image-size"),
        (["inception_v3", 32], "it does not take such images: "),
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
    assert "cnn-small, 16 px: its pace here is not known" in done.stdout
    assert "16 bits: this device has no units for bfloat16" in done.stdout
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


@pytest.mark.parametrize(
    ("right", "images", "classes", "word"),
    [
        (6, 6, 2, "too few"),
        (20, 20, 1, "too few"),
        (200, 200, 2, ""),
        (100, 200, 2, "no better than chance"),
        (0, 200, 1000, "no better than chance"),
        (1, 200, 1000, "no better than chance"),
        (2, 200, 1000, ""),
        (176, 200, 1000, ""),
        (32, 200, 10, "no better than chance"),
        (33, 200, 10, ""),
    ],
)
def test_labels_are_judged_by_chance(right: int, images: int, classes: int, word: str) -> None:
    found = doctor._of_labels(Root(Path("x")), right=right, images=images, classes=classes)
    assert found.text.startswith(f"the network is right on {right} of {images} images")
    assert word in found.text and (bool(word) or found.text.endswith("images"))
    assert bool(found.remedy) == (word == "no better than chance")


def test_labels_in_another_order_are_found(root: Root, tmp_path: Path, here: Run) -> None:
    """By a network that knows the classes: each has the images of the next."""
    words = ["--root", root.path, *SMALL, "--epochs", 12, "--lr", 0.1, "--crop-scale", 0.5]
    assert here("train", *words, "--batch-size", 10, "--workers", 0).returncode == 0
    checkpoint = root.path / "runs" / "cnn-small" / "best.pt"
    done = here("doctor", checkpoint, "--root", root.path, "--device", "cpu")
    assert "cnn-small, 16 px: maps of 8 × 8" in done.stdout, "the size is the checkpoint's"
    assert "finding: labels" not in done.stdout
    wnids = sorted(path.name for path in (root.path / "train").iterdir())
    for split in ("train", "val"):
        for wnid, next_wnid in pairwise([*wnids, wnids[0]]):
            shutil.copytree(root.path / split / wnid, tmp_path / "other" / split / next_wnid)
    assert here("adopt", tmp_path / "other").returncode == 0
    done = here("doctor", checkpoint, "--root", tmp_path / "other", "--device", "cpu")
    assert (done.returncode, "the classes are in another order" in done.stdout) == (5, True)


def test_a_network_of_ones_own_that_fails_is_told(
    tmp_path: Path, here: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = """from torch import nn
class Net(nn.Module):
    def forward(self, images):
        raise KeyError("mine")
def net(num_classes):
    return Net()
"""
    (tmp_path / "mine_here.py").write_text(text)
    monkeypatch.chdir(tmp_path)
    done = here("doctor", "--arch", "mine_here:net", "--root", tmp_path / "no", "--device", "cpu")
    assert (done.returncode, "it does not take such images: 'mine'" in done.stdout) == (0, True)


def test_few_open_files_are_found(tmp_path: Path, here: Run) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(machine_findings, "_FEWEST_FILES", 1024)
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
    root = tmp_path / "photos"
    for split, wnid in product(("train", "val"), "ab"):
        (root / split / wnid).mkdir(parents=True)
        Image.new("RGB", (9, 9)).save(root / split / wnid / "0.png")
    done = here("doctor", tmp_path / "no.pt", "--root", root)
    assert (done.returncode, "no.pt" in done.stderr) == (1, True), done.stderr
