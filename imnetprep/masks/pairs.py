"""Pairs of an image and its mask, as people keep them: two folders of files with like names."""

import re
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from imnetprep.catalog.datasets import Root, Split
from imnetprep.messages import ImnetprepError, count

# The names of both folders; the last are those of changedetection.net.
FOLDERS = (("images", "masks"), ("x", "y"), ("input", "groundtruth"))
_HINT = "images/ and masks/, or x/ and y/, under the root, or under its train/ and val/"
_OF_MASKS = re.compile(r"[_-]?(mask|gt|label|seg)$", re.IGNORECASE)
_LAST_NUMBER = re.compile(r"(.*?)(\d+)(\D*)")
_MOST_NAMES = 3

Key = Callable[[Path], str]


@dataclass(frozen=True)
class PairList:
    """The pairs of a split: `images` and `masks` (N,), each mask at the place of its image."""

    split: Split
    images: tuple[Path, ...] = ()
    masks: tuple[Path, ...] = ()

    def __len__(self) -> int:
        return len(self.images)

    def chosen(self, numbers: Sequence[int]) -> "PairList":
        """The pairs of these numbers, in their order."""
        images, masks = ([paths[at] for at in numbers] for paths in (self.images, self.masks))
        return PairList(self.split, tuple(images), tuple(masks))


def has_pairs(root: Root) -> bool:
    """Are images with masks, and no classes, what lies under `root`?

    Under `train` and `val` they are where there is nothing else: `x` and `y` may be classes, too.
    """
    if root.manifest.exists() or not root.path.is_dir():
        return False
    if _folders(root.path):
        return True
    return any(_holds_pairs_alone(root.path / split) for split in (Split.TRAIN, Split.VAL))


def read_pairs(root: Path) -> dict[Split, PairList]:
    """The pairs under `root`, of each split that there is; all of train where there are none.

    Raises ImnetprepError where there are none, or an image or a mask is alone.
    """
    places = {split: _folders(root / split) for split in (Split.TRAIN, Split.VAL)}
    if own := _folders(root):
        if places[Split.TRAIN]:
            raise ImnetprepError(
                f"{root} has pairs of its own, and in {Split.TRAIN}/ as well",
                hint="move one of them away",
            )
        places[Split.TRAIN] = own
    splits = {split: _pairs(split, *folders) for split, folders in places.items() if folders}
    if not splits:
        raise ImnetprepError(f"{root} has no folders of images and of masks", hint=_HINT)
    return splits


def _folders(place: Path) -> tuple[Path, Path] | None:
    for names in FOLDERS:
        images, masks = (place / name for name in names)
        if images.is_dir() and masks.is_dir():
            return images, masks
    return None


def _holds_pairs_alone(place: Path) -> bool:
    folders = _folders(place)
    rest = {each.name for each in place.iterdir() if each.is_dir()} if folders else set()
    return folders is not None and rest == {each.name for each in folders}


def _pairs(split: Split, images: Path, masks: Path) -> PairList:
    image_files, mask_files = _files(images), _files(masks)
    keys: list[Key] = [_plain, _without_mark]
    if len(set(map(_around_number, image_files))) == len(set(map(_around_number, mask_files))) == 1:
        keys.append(_number)  # in000853.jpg and gt000853.png: of a folder only it differs
    key = max(keys, key=lambda key: len(set(map(key, image_files)) & set(map(key, mask_files))))
    of_images, of_masks = _keyed(images, image_files, key), _keyed(masks, mask_files, key)
    for folder, own, rest, kind in (
        (images, of_images, of_masks, "mask"),
        (masks, of_masks, of_images, "image"),
    ):
        if alone := [path.name for name, path in own.items() if name not in rest]:
            names = ", ".join(alone[:_MOST_NAMES]) + (" …" if len(alone) > _MOST_NAMES else "")
            raise ImnetprepError(
                f"{count(len(alone), 'file')} of {folder} {'has' if len(alone) == 1 else 'have'} no"
                f" {kind} of a like name: {names}",
                hint=f"give each its {kind}, or move it away",
            )
    return PairList(split, tuple(of_images.values()), tuple(of_masks[name] for name in of_images))


def _files(folder: Path) -> list[Path]:
    """The files of a folder by name. Raises ImnetprepError where it is empty, or has folders."""
    entries = sorted(each for each in folder.iterdir() if not each.name.startswith("."))
    if folders := [each.name for each in entries if each.is_dir()]:
        raise ImnetprepError(
            f"{folder} has folders in it, such as {folders[0]}, where files are read",
            hint="put all files side by side; splits are folders above: train/images, val/images",
        )
    if not entries:
        raise ImnetprepError(f"{folder} holds no file", hint=_HINT)
    return entries


def _keyed(folder: Path, files: Sequence[Path], key: Key) -> dict[str, Path]:
    """The files by their keys. Raises ImnetprepError where two have one."""
    groups = defaultdict(list)
    for path in files:
        groups[key(path)].append(path)
    if pair := next((group for group in groups.values() if len(group) > 1), None):
        raise ImnetprepError(
            f"{pair[0].name} and {pair[1].name} in {folder} have one name, but for their endings",
            hint="move one of them away",
        )
    return {name: group[0] for name, group in groups.items()}


def _plain(path: Path) -> str:
    return path.stem


def _without_mark(path: Path) -> str:
    return _OF_MASKS.sub("", path.stem)


def _number(path: Path) -> str:
    match = _LAST_NUMBER.fullmatch(path.stem)
    return match[2].lstrip("0") if match else path.stem


def _around_number(path: Path) -> tuple[str, str]:
    match = _LAST_NUMBER.fullmatch(path.stem)
    return (match[1], match[3]) if match else (path.stem, "")
