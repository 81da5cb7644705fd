"""`train --task segment`: from folders of images and of masks to a network, and its masks."""

import json
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from numpy.typing import NDArray
from PIL import Image

from imnetprep.catalog.datasets import Root, Split
from imnetprep.devices.device import Place
from imnetprep.evaluation.masks import MaskReport, evaluate_masks
from imnetprep.loading.order import in_turn
from imnetprep.masks.loader import PairLoader
from imnetprep.masks.pairs import has_pairs, read_pairs
from imnetprep.masks.pixels import PixelPair, read_mask, read_pair, shrunk, stacked
from imnetprep.messages import (
    ImnetprepError,
    Interruption,
    Progress,
    Silent,
    WrongBytes,
    WrongUsage,
)
from imnetprep.pixels.transforms import Preprocessing
from imnetprep.training.checkpoint import load_checkpoint
from imnetprep.training.loop import train
from imnetprep.training.mask_meters import MaskMeter
from imnetprep.training.mask_objective import mask_losses
from imnetprep.training.mask_validator import MaskValidator
from imnetprep.training.plan import plan_training
from imnetprep.training.runs import EpochReport, Run
from tests.conftest import Run as Command
from tests.training.stops import SignalAt

ARCH = "unet/test_efficientnet"
OPTIONS = {
    "task": "segment", "arch": ARCH, "batch_size": 4, "epochs": 6, "lr": 0.01, "mirror": True,
    "ema": 0.9, "accumulate": 2,
}  # fmt: skip
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
    root: Path,
    *,
    resume: bool = False,
    runs: Path | None = None,
    progress: Progress = Silent(),  # noqa: B008 - it keeps nothing
    **options: Any,
) -> list[EpochReport]:
    plan = plan_training(
        Root(root, runs), options={**OPTIONS, **options}, run="a", resume=resume, device="cpu",
        workers=0, progress=progress,
    )  # fmt: skip
    return list(train(plan, progress=progress))


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
    stop = SignalAt(signal.SIGTERM, batches=6)  # in the second epoch, of four steps
    with pytest.raises(Interruption):
        trained(tmp_path, progress=stop)
    again = trained(tmp_path, resume=True)
    assert [each.val for each in again] == [each.val for each in reports[1:]]
    assert [each.train for each in again] == [each.train for each in reports[1:]]
    whole, halves = (load_checkpoint(Run(each.run("a")).last) for each in (root, Root(tmp_path)))
    for name in ("weights", "average"):
        table = getattr(whole, name)
        assert table and all(torch.equal(table[key], getattr(halves, name)[key]) for key in table)


def test_a_mirrored_image_has_a_mirrored_mask(scene: Path) -> None:
    pairs = read_pairs(scene)[Split.TRAIN]
    sizes: dict[str, Any] = {"longest_px": 64, "interpolation": "bilinear", "multiple_px": 1}
    loaders = [
        PairLoader(pairs, order=in_turn(20), batch_size=20, mirror_seed=seed, **sizes)
        for seed in (None, 7)
    ]
    plain, mirrored = (next(loader.batches(3)) for loader in loaders)
    flips = [torch.equal(a, b.flip(1)) for a, b in zip(plain.pixels, mirrored.pixels, strict=True)]
    assert 4 < sum(flips) < 16
    for number, is_flipped in enumerate(flips):
        for one, other in zip(plain[:2], mirrored[:2], strict=True):
            assert torch.equal(one[number].flip(1) if is_flipped else one[number], other[number])


def test_weights_of_a_class_network_go_into_the_encoder(scene: Path, tmp_path: Path) -> None:
    """Some of their names timm changes where it cuts a network; what is frozen stays."""
    for split, numbers in (("train", range(4)), ("val", range(4, 6))):
        for folder, mark in (("x", "in"), ("y", "gt")):
            (tmp_path / split / folder).mkdir(parents=True)
            for number in numbers:
                name = f"{mark}{number:06}.png"
                (tmp_path / split / folder / name).symlink_to(scene / folder / name)
    weights = tmp_path / "weights.pth"
    encoder = timm.create_model("test_convnext", num_classes=3)
    torch.save({f"module.{name}": each for name, each in encoder.state_dict().items()}, weights)
    options: dict[str, Any] = {
        "arch": "unet/test_convnext", "weights": str(weights), "epochs": 1, "batch_size": 2,
        "freeze": "until:encoder.model.stages_3",
    }  # fmt: skip
    (report,) = trained(tmp_path, runs=tmp_path / "runs", **options)
    assert (report.train.images, report.val.images) == (4, 2)
    state = load_checkpoint(tmp_path / "runs" / "a" / "last.pt").weights
    known = encoder.state_dict()
    assert torch.equal(state["encoder.model.stem_0.weight"], known["stem.0.weight"])
    name = "stages_3.blocks.0.conv_dw.weight"
    assert not torch.equal(state[f"encoder.model.{name}"], known[name.replace("_3", ".3", 1)])


def test_doctor_and_archs_know_masks(scene: Path, tmp_path: Path, here: Command) -> None:
    for name in ("x", "y"):
        shutil.copytree(scene / name, tmp_path / name)
    done = here("doctor", "--root", tmp_path, "--arch", ARCH, "--image-size", 64)
    assert "train: 20 images with masks; of the pixels of 20 " in done.stdout
    (tmp_path / "y" / "gt000003.png").write_text("")
    done = here("doctor", "--root", tmp_path, "--arch", ARCH, "--image-size", 64)
    assert done.returncode == 5 and "1 pair cannot be read" in done.stdout
    refused = here("train", "--root", tmp_path, "--task", "segment", "--arch", ARCH)
    assert refused.returncode == 4 and "gt000003.png is no mask" in refused.stderr
    assert not (tmp_path / "runs").exists()
    listed = here("archs", "unet/test_*").stdout
    assert ARCH in listed and "test_vit " not in listed
    for verb in ("bench", "ladder"):
        assert here(verb, "--root", tmp_path, "--task", "segment").returncode == 2


def test_evaluate_counts_as_the_training_did_each_pixel_once(
    learnt: tuple[Root, list[EpochReport]], tmp_path: Path
) -> None:
    root, reports = learnt
    best = Run(root.run("a")).best
    report = MaskReport(tmp_path)
    score = evaluate_masks(root, best, device="cpu", report=report, progress=Silent())
    state = load_checkpoint(best)
    assert state.best is not None
    assert score == reports[state.best.epoch - 1].val
    guesses = {path: read_mask(path) for path in (tmp_path / "guesses").iterdir()}
    masks = [read_mask(root.path / "y" / f"gt{path.stem[2:]}.png") for path in guesses]
    truth, guess = np.stack(masks), np.stack([*guesses.values()])
    assert score.true_foreground == int(((guess == 1) & (truth == 1)).sum())
    assert score.pixels == int((truth != 255).sum()) < 4 * SIZE[0] * SIZE[1]


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
    assert len(list((report / "guesses").iterdir())) == 4
    assert len((report / "images.csv").read_text().splitlines()) == 5
    assert (report / "report.html").read_text().count("<img") == 4

    drawn = here("inspect", "--root", root.path, "--images", 5, "--out", tmp_path / "inspect.png")
    assert drawn.returncode == 0 and "5 images with masks" in drawn.stdout
    assert "F-measure" in here("show", best).stdout


def test_a_report_in_the_root_leaves_its_masks_alone(
    learnt: tuple[Root, list[EpochReport]], scene: Path, tmp_path: Path
) -> None:
    for name, folder in zip(("x", "y"), ("images", "masks"), strict=True):
        shutil.copytree(scene / name, tmp_path / folder)
    for path in (tmp_path / "masks").iterdir():
        path.rename(path.with_name(path.name.replace("gt", "in")))
    before = {path: path.read_bytes() for path in tmp_path.rglob("*.png")}
    best, report = Run(learnt[0].run("a")).best, MaskReport(tmp_path)
    evaluate_masks(Root(tmp_path), best, device="cpu", report=report, progress=Silent())
    assert {path: path.read_bytes() for path in before} == before
    assert len(list((tmp_path / "guesses").iterdir())) == 4


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


def test_a_number_pairs_only_where_nothing_else_differs(tmp_path: Path) -> None:
    for folder, names in (("x", ("cat_1.jpg", "dog_2.jpg")), ("y", ("cat_2.png", "dog_1.png"))):
        (tmp_path / folder).mkdir()
        for name in names:
            (tmp_path / folder / name).touch()
    with pytest.raises(ImnetprepError, match="have no mask of a like name: cat_1"):
        read_pairs(tmp_path)


def test_folders_of_classes_are_no_pairs(tmp_path: Path) -> None:
    for name in ("train/x", "train/y", "train/z"):
        (tmp_path / name).mkdir(parents=True)
    assert not has_pairs(Root(tmp_path))
    (tmp_path / "train/z").rmdir()
    assert has_pairs(Root(tmp_path))
    (tmp_path / "manifest.db").touch()
    assert not has_pairs(Root(tmp_path))


def _coloured(mask: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return np.stack([mask, 0 * mask, mask], axis=2)


def _transparent(mask: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return np.stack([mask, mask, mask, mask], axis=2)


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda mask: mask[:-1], "is not of the size of"),
        (_coloured, "has colours"),
        (lambda mask: mask // 2, "its largest value is 127"),
        (lambda mask: np.where(mask == 170, 1, mask), "has both 1 and 255"),
        (lambda mask: np.arange(mask.size).reshape(mask.shape) % 256, "kinds of grey"),
        (_transparent, "has transparent pixels"),
    ],
)
def test_a_mask_that_is_none_is_named(
    scene: Path, tmp_path: Path, change: Callable[[NDArray[np.uint8]], NDArray[np.uint8]], why: str
) -> None:
    mask = tmp_path / "mask.png"
    whole = np.asarray(Image.open(scene / "y" / "gt000000.png"))
    Image.fromarray(change(whole).astype(np.uint8)).save(mask)
    with pytest.raises(WrongBytes, match=why) as refused:
        read_pair(scene / "x" / "in000000.png", mask)
    assert str(mask) in str(refused.value) and refused.value.hint


@pytest.mark.parametrize(
    ("values", "sides"),
    [
        ((0, 1), (0, 1)),
        ((0, 255, 170), (0, 1, 255)),
        ((0, 85), (0, 255)),  # a frame of changedetection.net without anything that moves
        ((0, 65535, 9), (0, 1, 255)),
        ((0, 300, 65535), (0, 255, 1)),
    ],
)
def test_forms_of_masks(values: tuple[int, ...], sides: tuple[int, ...], tmp_path: Path) -> None:
    kind = np.uint16 if max(values) > 255 else np.uint8
    mask = np.array([values] * 4, kind)
    Image.fromarray(mask).save(tmp_path / "mask.png")
    assert read_mask(tmp_path / "mask.png").tolist() == [list(sides)] * 4
    if kind is np.uint8 and values == (0, 1):
        Image.fromarray(mask.astype(bool)).save(tmp_path / "mask.png")  # one bit a pixel
        assert read_mask(tmp_path / "mask.png").tolist() == [[0, 1]] * 4


def test_an_image_that_exif_turns_is_refused_beside_a_mask(scene: Path, tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[274] = 3
    image = Image.open(scene / "x" / "in000000.png").convert("RGB")
    image.save(tmp_path / "turned.jpg", exif=exif)
    with pytest.raises(WrongBytes, match="by its EXIF"):
        read_pair(tmp_path / "turned.jpg", scene / "y" / "gt000000.png")


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"arch": "resnet18"}, "names classes of images"),
        ({"arch": "unet/resnot18"}, "there is no architecture"),
        ({"arch": "onet/resnet18"}, "there is no architecture"),
        ({"mixup": 0.2}, "has no meaning"),
        ({"crop_scale": 0.3}, "--crop-scale 0.3 has no meaning"),
        ({"recipe": "fast16"}, "is of classes"),
        ({"val_fraction": 0.0}, "holds nothing out"),
        ({"arch": "deeplabv3/test_resnet", "batch_size": 1}, "takes no batch of 1 image"),
        ({"arch": "unet/test_vit"}, "cannot be put on"),
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
