"""What may be wrong before anything is trained: the network, the images, the machine."""

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from imnetprep.catalog.datasets import Layout, Root, Split
from imnetprep.evaluation.evaluate import evaluate
from imnetprep.image_kinds import kind_of
from imnetprep.images import decode_rgb
from imnetprep.machine_findings import Diagnosis, of_machine, of_pace
from imnetprep.manifest import NoSplit
from imnetprep.masks.pairs import PairList, has_pairs, read_pairs
from imnetprep.masks.pixels import BACKGROUND, FOREGROUND, VOID, read_pair
from imnetprep.messages import Progress, WrongBytes, count, shell_command
from imnetprep.networks.architectures import architectures
from imnetprep.networks.geometry import Stage, geometry
from imnetprep.samples.bad_images import BadImages
from imnetprep.samples.listing import open_listing
from imnetprep.samples.sample_list import SampleList
from imnetprep.training.meters import luck_limit

DEFAULT_ARCH = "resnet18"
_IMAGES = 200
_SMALL_PX = 64  # the side of crops up to which nobody minds the work
_LARGEST_SCALE = 2  # times the side of the images: then most pixels are made up
_DEFAULT_PX = 224
_TINY_PX, _LARGEST_SHARE = 2, 1 / 4  # of maps, px; of layers whose windows are wider than those
_LEAST_SIGHT = 1 / 4  # of the side of an image, for the last point of a network


@dataclass(frozen=True)
class _Look:
    """Some images of a split of `samples`: their shorter sides (px, ascending), kinds and flaws."""

    split: Split
    samples: int
    sides_px: list[int]
    kinds: Counter[str]
    flaws: list[str]

    @property
    def median_px(self) -> int | None:
        """The shorter side of the image in the middle; None: none could be read."""
        return self.sides_px[len(self.sides_px) // 2] if self.sides_px else None


def examined(
    root: Root,
    *,
    arch: str | None,
    image_size: int | None,
    checkpoint: Path | None,
    layout: Layout | None,
    device: str | None,
    progress: Progress,
) -> Iterator[Diagnosis]:
    """What is seen of the machine, of the images under `root`, and of `arch` on such images.

    `checkpoint`: a network that knows these classes tells whether the labels are theirs. Without
    `arch` and `image_size` those of the checkpoint are taken, else DEFAULT_ARCH and 224 px. Raises
    WrongUsage on an unknown `arch` or `device`, and ImnetprepError where `root` or `checkpoint` is
    something else; no dataset is no finding.
    """
    yield from of_machine(root, device)
    classes, median_px = 1000, None
    if has_pairs(root):
        if checkpoint is not None:
            yield Diagnosis("labels", f"not looked at: {root.path} has masks, and no classes")
            checkpoint = None
        for pairs in read_pairs(root.path).values():
            yield from _of_pairs(pairs, progress)
    elif root.manifest.exists() or root.is_tree:
        with open_listing(root, layout=layout) as listing:
            classes = len(listing.dataset.synsets)
            yield Diagnosis("images", f"{listing.dataset.title}, {count(classes, 'class')}")
            for split in reversed(listing.dataset.splits):
                with suppress(NoSplit):
                    look = _look(listing.samples(split), progress)
                    median_px = look.median_px
                    yield from _of_images(root, look)
    else:
        yield Diagnosis("images", f"{root.path} holds no dataset")
    if checkpoint is not None:
        try:
            evaluation = evaluate(
                root, checkpoint, arch=arch, device=device, layout=layout, most_images=_IMAGES,
                bad=BadImages(progress), progress=progress,
            )  # fmt: skip
        except NoSplit as error:
            yield Diagnosis("labels", f"not looked at: {error}")
        else:
            score, synsets = evaluation.score, len(evaluation.synsets)
            yield _of_labels(root, right=score.top1, images=score.images, classes=synsets)
            arch = evaluation.network
            image_size = image_size or evaluation.preprocessing.image_size
    arch, image_size = arch or DEFAULT_ARCH, image_size or _DEFAULT_PX
    yield from _of_network(arch, classes, image_size, median_px)
    yield of_pace(root, arch, image_size)


def _of_labels(root: Root, *, right: int, images: int, classes: int) -> Diagnosis:
    """Is a network that knows the classes right more often than one that guesses?"""
    text = f"the network is right on {right} of {images} images"
    by_chance = images / max(1, classes)
    limit = luck_limit(images, share=1 / max(1, classes))
    if limit is None:
        return Diagnosis("labels", f"{text}: too few images or classes to tell more")
    if right > limit:
        return Diagnosis("labels", text)
    return Diagnosis(
        "labels",
        f"{text}, no better than chance ({by_chance:.1f}): the classes are in another order, or"
        " others than those of the network",
        f"{shell_command('imnetprep', 'inspect', '--root', root.path)} shows images and classes",
    )


def _look(samples: SampleList, progress: Progress) -> _Look:
    """Read and decode some images of a split, evenly over all."""
    sides_px, kinds, flaws = list[int](), Counter[str](), list[str]()
    numbers = samples.spread(_IMAGES)
    with progress.task(f"look at {samples.split}", total=len(numbers), unit="images") as task:
        for index in numbers:
            task.advance(1)
            try:
                body = samples.read(index)
                sides_px.append(min(decode_rgb(body).size))
                kinds[kind_of(body) or "unknown"] += 1
            except (OSError, ValueError) as error:
                flaws.append(f"{samples.path(index)}: {getattr(error, 'strerror', None) or error}")
    return _Look(samples.split, len(samples), sorted(sides_px), kinds, flaws)


def _of_images(root: Root, look: _Look) -> Iterator[Diagnosis]:
    if look.sides_px:
        kinds = ", ".join(f"{number} {kind}" for kind, number in look.kinds.most_common())
        sides = f"{look.sides_px[0]} to {look.sides_px[-1]} px, {look.median_px} in the middle"
        if look.sides_px[0] == look.sides_px[-1]:
            sides = f"{look.median_px} px"
        yield Diagnosis(
            str(look.split),
            f"{count(look.samples, 'image')}; {len(look.sides_px)} of them: {kinds}, the shorter"
            f" side of {sides}",
        )
    if look.flaws:
        images = len(look.sides_px) + len(look.flaws)
        yield Diagnosis(
            str(look.split),
            f"{len(look.flaws)} of {images} cannot be read: {look.flaws[0]}",
            f"{shell_command('imnetprep', 'verify', '--root', root.path, '--decode')} names all",
        )


def _of_pairs(pairs: PairList, progress: Progress) -> Iterator[Diagnosis]:
    """Whether some images and masks can be read, and how much of them is foreground."""
    numbers = np.unique(np.linspace(0, len(pairs) - 1, _IMAGES).round().astype(int))
    pixels, flaws = np.zeros(3, np.int64), list[str]()
    with progress.task(f"look at {pairs.split}", total=len(numbers), unit="images") as task:
        for at in numbers:
            task.advance(1)
            try:
                mask = read_pair(pairs.images[at], pairs.masks[at]).mask
                pixels += [np.sum(mask == value) for value in (FOREGROUND, BACKGROUND, VOID)]
            except (WrongBytes, OSError) as error:
                flaws.append(str(error))
    foreground, background, void = 100 * pixels / max(pixels.sum(), 1)
    yield Diagnosis(
        str(pairs.split),
        f"{count(len(pairs), 'image')} with masks; of the pixels of {len(numbers) - len(flaws)}"
        f" {foreground:.1f} % are foreground, {background:.1f} % background, {void:.1f} % void",
    )
    if flaws:
        subject, remedy = str(pairs.split), "repair them, or move each away with its partner"
        yield Diagnosis(subject, f"{count(len(flaws), 'pair')} cannot be read: {flaws[0]}", remedy)


def _of_network(
    arch: str, classes: int, image_size: int, median_px: int | None
) -> Iterator[Diagnosis]:
    """How large the maps of the network are, what it sees, and whether the images fit it."""
    subject = f"{arch}, {image_size} px"
    found, by_windows, problem = geometry(arch, classes=classes, image_size=image_size)
    for stage in found:
        side = f"{stage.side_px} × {stage.side_px}"
        text = f"maps of {side}: {count(stage.layers, 'layer')}, a point sees {stage.sees_px} px"
        yield Diagnosis(subject, text)
    if problem:
        own = ":" in arch  # of which some want numbers, and not shapes alone
        remedy = "" if own else f"--image-size {_DEFAULT_PX}, or {_remedy(arch, image_size)}"
        yield Diagnosis(subject, f"it does not take such images: {problem}", remedy)
    elif not found:
        yield Diagnosis(subject, "it has no maps: each point sees all of an image")
    elif not by_windows:
        yield Diagnosis(subject, "other layers see the rest of the image")
    if _is_narrow(found):
        layers = sum(stage.layers for stage in found)
        wide_layers = sum(stage.wide_layers for stage in found)
        yield Diagnosis(
            subject,
            f"{wide_layers} of its {layers} layers look at more than their maps have, which is"
            " padding: it is made for larger images",
            _remedy(arch, image_size),
        )
    if by_windows and found and found[-1].sees_px < image_size * _LEAST_SIGHT:
        yield Diagnosis(
            subject,
            f"it never sees more than {found[-1].sees_px} px of an image at once",
            "a deeper network, such as --arch resnet18; or a smaller --image-size",
        )
    is_large = image_size > _SMALL_PX
    if is_large and median_px is not None and image_size >= _LARGEST_SCALE * median_px:
        times = (image_size / median_px) ** 2
        smaller = geometry(arch, classes=classes, image_size=median_px)
        too_small = _is_narrow(smaller.stages) or smaller.problem
        yield Diagnosis(
            subject,
            f"the images have {median_px} px: enlarged to {image_size} px they cost {times:.0f}"
            " times the work, and show nothing more",
            f"--image-size {median_px}" + (f", {_remedy(arch, median_px)}" if too_small else ""),
        )


def _is_narrow(stages: Sequence[Stage]) -> bool:
    """Are maps of a pixel or two, or those of many layers, smaller than the windows on them?"""
    layers = sum(stage.layers for stage in stages)
    wide_layers = sum(stage.wide_layers for stage in stages)
    tiny = any(stage.wide_layers and stage.side_px <= _TINY_PX for stage in stages)
    return tiny or (wide_layers > 0 and wide_layers >= layers * _LARGEST_SHARE)


def _remedy(arch: str, image_size: int) -> str:
    """The options that mend a network for larger images: another one, or larger images."""
    names = [name for name in (f"{arch}-small", "resnet18-small", "resnet9") if name != arch]
    names = [name for name in dict.fromkeys(names) if name in architectures()]
    for name in names:
        if not _is_narrow(geometry(name, classes=10, image_size=image_size).stages):
            return f"--arch {name}, or a larger --image-size"
    return "a larger --image-size"
