"""Pairs of an image and its mask, as people keep them: two folders of files with like names."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from imnetprep.catalog.datasets import Split
from imnetprep.messages import ImnetprepError, count

# The names of both folders; the last are those of changedetection.net.
FOLDERS = (("images", "masks"), ("x", "y"), ("input", "groundtruth"))
_HINT = "images/ and masks/, or x/ and y/, under the root, or under its train/ and val/"
_OF_MASKS = re.compile(r"[_-]?(mask|gt|label|seg)$", re.IGNORECASE)
_NUMBER = re.compile(r"\d+")
_MOST_NAMES = 3


@dataclass(frozen=True)
class PairList:
    """The pairs of a split: `images` and `masks` (N,), each mask at the place of its image."""

    split: Split
    images: tuple[Path, ...]
    masks: tuple[Path, ...]

    def __len__(self) -> int:
        return len(self.images)

    def chosen(self, numbers: Sequence[int]) -> "PairList":
        """The pairs of these numbers, in their order."""
        images, masks = ([paths[at] for at in numbers] for paths in (self.images, self.masks))
        return PairList(self.split, tuple(images), tuple(masks))


def read_pairs(root: Path) -> dict[Split, PairList]:
    """The pairs under `root`, all of train where there are no folders of splits.

    Raises ImnetprepError where there are none, or an image or a mask is alone.
    """
    if folders := _folders(root):
        return {Split.TRAIN: _pairs(Split.TRAIN, *folders)}
    splits = {}
    for split in (Split.TRAIN, Split.VAL):
        if folders := _folders(root / split):
            splits[split] = _pairs(split, *folders)
    if Split.TRAIN not in splits:
        raise ImnetprepError(
            f"{root} has no folders of images and of masks to train on", hint=_HINT
        )
    return splits


def has_pairs(root: Path) -> bool:
    """Does `root`, or its train, have folders of images and of masks?"""
    return bool(_folders(root) or _folders(root / Split.TRAIN))


def _folders(place: Path) -> tuple[Path, Path] | None:
    for names in FOLDERS:
        images, masks = (place / name for name in names)
        if images.is_dir() and masks.is_dir():
            return images, masks
    return None


def _pairs(split: Split, images: Path, masks: Path) -> PairList:
    lists = [_files(folder) for folder in (images, masks)]
    for folder, files in zip((images, masks), lists, strict=True):
        if not files:
            raise ImnetprepError(f"{folder} holds no file", hint=_HINT)
    keys = max(_KEYS, key=lambda key: len(_keyed(lists[0], key).keys() & _keyed(lists[1], key)))
    of_images, of_masks = (_keyed(files, keys) for files in lists)
    for folder, files, own, other in (
        (images, lists[0], of_images, of_masks),
        (masks, lists[1], of_masks, of_images),
    ):
        if alone := [path.name for path in files if keys(path) not in other or
                     own.get(keys(path)) != path]:  # fmt: skip
            kind = "mask" if folder is images else "image"
            names = ", ".join(alone[:_MOST_NAMES]) + (" …" if len(alone) > _MOST_NAMES else "")
            raise ImnetprepError(
                f"{count(len(alone), 'file')} of {folder} {'has' if len(alone) == 1 else 'have'} no"
                f" {kind} of a like name: {names}",
                hint=f"give each its {kind}, or move it away",
            )
    order = sorted(of_images, key=lambda key: of_images[key])
    return PairList(split, *(tuple(own[key] for key in order) for own in (of_images, of_masks)))


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.is_file() and path.name[0] != ".")


def _keyed(files: Sequence[Path], key: Callable[[Path], str]) -> dict[str, Path]:
    """The files by their keys; where several have one, the first."""
    return {key(path): path for path in reversed(files)}


def _plain(path: Path) -> str:
    return path.stem


def _without_mark(path: Path) -> str:
    return _OF_MASKS.sub("", path.stem)


def _number(path: Path) -> str:
    """The last number of the name, as `in000853.jpg` and `gt000853.png` have it."""
    numbers = _NUMBER.findall(path.stem)
    return numbers[-1].lstrip("0") or "0" if numbers else path.stem


_KEYS = (_plain, _without_mark, _number)  # the first that pairs most
