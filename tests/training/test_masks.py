"""`train --task segment`: from folders of images and of masks to a network, and its masks."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from imnetprep.catalog.datasets import Root, Split
from imnetprep.devices.device import Place
from imnetprep.evaluation.masks import evaluate_masks
from imnetprep.masks.pairs import read_pairs
from imnetprep.masks.pixels import PixelPair, read_mask, read_pair, shrunk, stacked
from imnetprep.messages import ImnetprepError, Silent, WrongBytes, WrongUsage
from imnetprep.pixels.transforms import Preprocessing
from imnetprep.training.checkpoint import load_checkpoint
from imnetprep.training.loop import train
from imnetprep.training.mask_meters import MaskMeter
from imnetprep.training.mask_objective import mask_losses
from imnetprep.training.mask_validator import MaskValidator
from imnetprep.training.plan import plan_training
from imnetprep.training.runs import EpochReport, Run
from tests.conftest import Run as Command

ARCH = "unet/test_efficientnet"
OPTIONS = {
    "task": "segment",
    "arch": ARCH,
    "batch_size": 4,
    "epochs": 6,
    "lr": 0.01,
    "watch": "loss",
}
SIZE = 48, 40  # no multiple of what networks take
pytest.importorskip("segmentation_models_pytorch", reason="needs imnetprep[segment]")


def draw_scene(folder: Path, *, pairs: int, names: tuple[str, str] = ("x", "y")) -> Path:
    """Bright squares on a dark ground, as images, and as masks with a border that is void."""
    generator = np.random.default_rng(0)
    for each in names:
        (folder / each).mkdir(parents=True)
    for number in range(pairs):
        width, height = SIZE
        pixels = generator.integers(0, 90, (height, width, 3), dtype=np.uint8)
        mask = np.zeros((height, width), np.uint8)
        x, y, side = (int(generator.integers(*each)) for each in ((2, 26), (2, 20), (10, 18)))
        pixels[y : y + side, x : x + side] += 150
        mask[y - 1 : y + side + 1, x - 1 : x + side + 1] = 170
        mask[y : y + side, x : x + side] = 255
        Image.fromarray(pixels).save(folder / names[0] / f"in{number:06}.png")
        Image.fromarray(mask).save(folder / names[1] / f"gt{number:06}.png")
    return folder


@pytest.fixture(scope="session")
def scene(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twenty pairs. Nobody writes into it."""
    return draw_scene(tmp_path_factory.mktemp("scene"), pairs=20)


def trained(
    root: Path, *, run: str = "a", resume: bool = False, **options: Any
) -> list[EpochReport]:
    plan = plan_training(
        Root(root), options={**OPTIONS, **options}, run="a", resume=resume, device="cpu",
        workers=0, progress=Silent(),
    )  # fmt: skip
    return list(train(plan, progress=Silent()))


@pytest.fixture(scope="session")
def learnt(scene: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Root, list[EpochReport]]:
    """A training on the scene, which nobody writes into."""
    root = tmp_path_factory.mktemp("learnt")
    for name in ("x", "y"):
        (root / name).symlink_to(scene / name)
    return Root(root), trained(root)


def test_it_learns_what_is_foreground(learnt: tuple[Root, list[EpochReport]]) -> None:
    root, reports = learnt
    best = max(reports, key=lambda report: report.val.hits / report.val.total)
    assert best.val.as_json()["f_percent"] > 90
    assert (best.train.images, best.val.images) == (16, 4)
    run = Run(root.run("a"))
    lines = [json.loads(line) for line in run.log.read_text().splitlines()]
    assert lines[-1]["val"]["f_percent"] == reports[-1].val.as_json()["f_percent"]
    page = (run.folder / "report.html").read_text()
    assert "F-measure" in page and "top-1" not in page and run.plot.exists()


def test_a_training_that_is_resumed_gives_the_numbers_of_one_that_was_not(
    learnt: tuple[Root, list[EpochReport]], scene: Path, tmp_path: Path
) -> None:
    root, reports = learnt
    for name in ("x", "y"):
        (tmp_path / name).symlink_to(scene / name)
    halves = trained(tmp_path, epochs=2)
    halves += trained(tmp_path, epochs=6, resume=True)
    assert [each.val for each in halves] == [each.val for each in reports]
    whole, again = (load_checkpoint(Run(each.run("a")).last) for each in (root, Root(tmp_path)))
    assert all(torch.equal(whole.weights[name], again.weights[name]) for name in whole.weights)


def test_evaluate_counts_as_the_training_did_each_pixel_once(
    learnt: tuple[Root, list[EpochReport]],
) -> None:
    root, reports = learnt
    best = Run(root.run("a")).best
    evaluation = evaluate_masks(root, best, device="cpu", progress=Silent())
    state = load_checkpoint(best)
    assert state.best is not None
    assert evaluation.score == reports[state.best.epoch - 1].val
    truth = np.stack([each.pair.mask for each in evaluation.guesses])
    guess = np.stack([each.guess for each in evaluation.guesses])
    right = int(((guess == 1) & (truth == 1)).sum())
    assert evaluation.score.true_foreground == right
    assert evaluation.score.pixels == int((truth != 255).sum()) < 4 * SIZE[0] * SIZE[1]


def test_commands_draw_it_and_write_masks(
    learnt: tuple[Root, list[EpochReport]], here: Command, tmp_path: Path
) -> None:
    root, _ = learnt
    best, masks, sheet = Run(root.run("a")).best, tmp_path / "masks", tmp_path / "sheet.png"
    frame = root.path / "x" / "in000003.png"
    wrong = tmp_path / "wrong.png"
    wrong.write_text("<html>")
    done = here("predict", best, frame, wrong, "--masks", masks, "--draw", sheet, "--device", "cpu")
    assert done.returncode == 4 and "left out" in done.stdout and "foreground" in done.stdout
    truth, guess = read_mask(root.path / "y" / "gt000003.png"), read_mask(masks / "in000003.png")
    assert np.mean((truth == guess)[truth != 255]) > 0.97
    assert Image.open(sheet).size[0] > 2 * 240
    again = here("predict", best, frame, "--masks", masks, "--device", "cpu")
    assert again.returncode == 2 and "is there already" in again.stderr
    refused = here("predict", best, frame, "--top", 3, "--device", "cpu")
    assert refused.returncode == 2 and "--top" in refused.stderr

    report = tmp_path / "report"
    scored = here("evaluate", "--root", root.path, "--report", report, "--device", "cpu", "--json")
    told = json.loads(scored.stdout)
    assert told["f_percent"] > 90 and told["images"] == 4
    assert len(list((report / "masks").iterdir())) == 4
    assert len((report / "images.csv").read_text().splitlines()) == 5
    assert (report / "report.html").read_text().count("<img") == 4

    drawn = here("inspect", "--root", root.path, "--images", 5, "--out", tmp_path / "inspect.png")
    assert drawn.returncode == 0 and "5 images with masks" in drawn.stdout
    assert "F-measure" in here("show", best).stdout


def test_void_pixels_change_neither_loss_nor_score() -> None:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(3, 1, 8, 8, generator=generator)
    masks = torch.randint(0, 2, (3, 8, 8), generator=generator).to(torch.uint8)
    masks[:, :3] = 255
    other = logits.clone()
    other[:, :, :3] = 100 * torch.randn(3, 1, 3, 8, generator=generator)
    sums = []
    for each in (logits, other):
        meter = MaskMeter(torch.device("cpu"))
        meter.add(mask_losses(each, masks).mean(), each, masks)
        sums.append(meter.sums())
    assert sums[0] == sums[1]
    counts = [
        ((logits[:, 0] > 0) == guess) & (masks == real) for guess in (1, 0) for real in (1, 0)
    ]
    names = ("true_foreground", "false_foreground", "false_background", "true_background")
    assert [sums[0][name] for name in names] == [int(each.sum()) for each in counts]
    assert mask_losses(logits, torch.full_like(masks, 255)).tolist() == [0, 0, 0]


def test_images_that_are_made_smaller_are_scored_in_their_own_size(scene: Path) -> None:
    pairs = read_pairs(scene)[Split.TRAIN]
    validator = MaskValidator(
        pairs, Preprocessing(32, 32), place=Place(torch.device("cpu"), 0), amp=False
    )
    shapes = set()
    score = validator.score(
        torch.nn.Conv2d(3, 1, 1), Silent(), on_mask=lambda _, pair, logits: shapes.add(logits.shape)
    )
    assert shapes == {(SIZE[1], SIZE[0])}
    masks = [read_mask(path) for path in pairs.masks]
    assert score.pixels == sum(int((mask != 255).sum()) for mask in masks)
    small = shrunk(read_pair(pairs.images[0], pairs.masks[0]), 32, "bilinear")
    assert small.mask.shape == (27, 32) and set(np.unique(small.mask)) <= {0, 1, 255}


def test_what_is_added_to_a_batch_is_void() -> None:
    pairs = [
        PixelPair(np.ones((*size, 3), np.uint8), np.ones(size, np.uint8))
        for size in ((5, 9), (7, 3))
    ]
    pixels, masks = stacked(pairs, multiple_px=8)
    assert pixels.shape == (2, 8, 16, 3) and (pixels == 1).all()
    assert [(each == 1).sum() for each in masks] == [45, 21] and set(np.unique(masks)) == {1, 255}


@pytest.mark.parametrize(
    ("images", "masks"),
    [
        (("a.jpg", "b.jpg"), ("a.png", "b.png")),
        (("a.jpg", "b.jpg"), ("a_mask.png", "b_mask.png")),
        (("in000007.jpg", "in000012.jpg"), ("gt000007.png", "gt000012.png")),
    ],
)
@pytest.mark.parametrize(
    "folders", [("images", "masks"), ("train/x", "train/y"), ("input", "groundtruth")]
)
def test_pairs_are_of_like_names(
    tmp_path: Path, images: tuple[str, ...], masks: tuple[str, ...], folders: tuple[str, str]
) -> None:
    for folder, names in zip(folders, (images, masks), strict=True):
        (tmp_path / folder).mkdir(parents=True)
        for name in names:
            (tmp_path / folder / name).touch()
    pairs = read_pairs(tmp_path)[Split.TRAIN]
    assert tuple(path.name for path in pairs.images) == images
    assert tuple(path.name for path in pairs.masks) == masks
    (tmp_path / folders[1] / masks[1]).unlink()
    with pytest.raises(
        ImnetprepError, match=f"have? no mask of a like name: {images[1]}|has no mask"
    ):
        read_pairs(tmp_path)


def _coloured(mask: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return np.stack([mask, 0 * mask, mask], axis=2)


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda mask: mask[:-1], "is not of the size of"),
        (_coloured, "it has colours"),
        (lambda mask: mask // 2 + 60, "of its pixels are grey"),
    ],
)
def test_a_mask_that_is_none_is_named(
    scene: Path, tmp_path: Path, change: Callable[[NDArray[np.uint8]], NDArray[np.uint8]], why: str
) -> None:
    mask = tmp_path / "mask.png"
    whole = np.asarray(Image.open(scene / "y" / "gt000000.png"))
    Image.fromarray(change(whole)).save(mask)
    with pytest.raises(WrongBytes, match=why) as refused:
        read_pair(scene / "x" / "in000000.png", mask)
    assert str(mask) in str(refused.value) and refused.value.hint


def test_a_mask_of_ones_and_zeros_is_one(tmp_path: Path) -> None:
    values = np.eye(4, dtype=np.uint8)
    Image.fromarray(values).save(tmp_path / "mask.png")
    assert (read_mask(tmp_path / "mask.png") == values).all()


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"arch": "resnet18"}, "names classes of images"),
        ({"arch": "unet/resnot18"}, "there is no architecture"),
        ({"arch": "onet/resnet18"}, "there is no architecture"),
        ({"mixup": 0.2}, "has no meaning"),
        ({"task": None, "arch": "resnet18"}, "has images with masks, and no classes"),
    ],
)
def test_options_that_contradict_masks_are_refused(
    scene: Path, options: dict[str, Any], why: str
) -> None:
    with pytest.raises((WrongUsage, ImnetprepError), match=why):
        trained(scene, **options)


def test_a_network_of_the_other_kind_is_refused(
    learnt: tuple[Root, list[EpochReport]], root: Root, here: Command
) -> None:
    masks, _ = learnt
    best = Run(masks.run("a")).best
    refused = here("evaluate", best, "--root", root.path)
    assert refused.returncode == 2 and "names no classes" in refused.stderr
    for words in (("export", best, root.path / "out", "--to", "onnx"), ("serve", best)):
        refused = here(*words)
        assert refused.returncode == 2 and "--masks DIR" in refused.stderr
