"""What a folder of images holds: its splits and classes, and all that cannot be taken of it."""

import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from imnetprep.catalog.datasets import TRAIN_FOLDERS, Root, Split
from imnetprep.digests import running_xxh128
from imnetprep.images import decoding_problem, jpeg_header_problem
from imnetprep.jobs import FILES
from imnetprep.machine import is_of_file, named
from imnetprep.messages import ImnetprepError, Progress, WrongUsage, adopt_by_links, count

# How people call the splits, the usual name first. A test split is val where there is no other.
SPLIT_NAMES = {
    Split.TRAIN: TRAIN_FOLDERS,
    Split.VAL: ("val", "valid", "validation", "dev"),
    Split.TEST: ("test", "testing"),
}
NO_CLASSES = {name for names in SPLIT_NAMES.values() for name in names} | {"test1", "unlabeled"}
_JPEG_ENDS = b"\xff\xd8", b"\xff\xd9"


@dataclass
class ImageFolder:
    """What `folder` holds.

    `splits` has the path of each image by its class and name, `places` the name of the folder that
    each split lies in. `flat_splits` are those that do not lie as CLASS/IMAGE there; `problems` has
    the path of what cannot be taken, and why. `renames`: images may get other names than they have
    there.
    """

    folder: Path
    renames: bool = True
    splits: dict[Split, dict[str, dict[str, str]]] = field(default_factory=dict)
    places: dict[Split, str] = field(default_factory=dict)
    flat_splits: set[Split] = field(default_factory=set)
    litter: Counter[str] = field(default_factory=Counter)
    problems: dict[str, str] = field(default_factory=dict)
    remarks: list[str] = field(default_factory=list)
    _folders: set[tuple[int, int]] = field(default_factory=set)

    @property
    def name(self) -> str:
        """What the dataset is called: as the folder; as the one above, if it is called `train`."""
        folder = self.folder.resolve()
        return folder.parent.name if folder.name.lower() in NO_CLASSES else folder.name

    def select(self, splits: Sequence[Split]) -> None:
        """Keep only `splits`. Raises ImnetprepError where one of them is not there."""
        for split in splits:
            if split not in self.splits:
                raise ImnetprepError(
                    f"{self.folder} has no {split} split of class folders",
                    hint=f"--split {' or --split '.join(self.splits)}",
                )
        self.splits = {split: self.splits[split] for split in splits}

    def enter(self, path: str) -> bool:
        """Note the folder at `path`; False where it was met before, by another link or name."""
        status = os.stat(path)  # noqa: PTH116 - a Path costs as much as the look
        key = status.st_dev, status.st_ino
        is_new = key not in self._folders
        self._folders.add(key)
        return is_new

    def state(self, split: Split) -> str:
        """What changes when any image of `split` is written anew."""
        digest = running_xxh128()
        for wnid, files in sorted(self.splits[split].items()):
            for name, path in sorted(files.items()):
                status = os.stat(path)  # noqa: PTH116
                digest.update(f"{wnid}/{name} {status.st_size} {status.st_mtime_ns}\n".encode())
        return digest.hexdigest()

    def notes(self) -> Iterator[str]:
        """What was passed over and left out."""
        yield from self.remarks
        if self.litter:
            names = ", ".join(sorted(self.litter)[:3])
            yield f"passed over, since no images: {count(self.litter.total(), 'file')} ({names})"

    def problems_below(self, folder: Path) -> dict[str, str]:
        """What cannot be taken, by its path in `folder`."""
        return {
            os.path.relpath(path, folder): reason
            for path, reason in self.problems.items()
            if Path(path).absolute().is_relative_to(folder)
        }

    def examine(self, *, decode: bool, jobs: int | None, progress: Progress) -> None:
        """Look at every image; what is no whole one is a problem.

        Of a JPEG the header and the end are looked at; with `decode` each is decoded to its last
        pixel.
        """
        paths = [
            path
            for classes in self.splits.values()
            for files in classes.values()
            for path in files.values()
        ]
        with progress.task("look at the images", total=len(paths), unit="images") as task:
            results = FILES.in_threads(partial(file_problem, decode=decode), paths, jobs=jobs)
            for path, problem in zip(paths, results, strict=True):
                task.advance(1)
                if problem:
                    self.problems[path] = problem

    def require(self, *, one_class: bool, skip_bad: bool) -> None:
        """Leave out what cannot be taken. Raises ImnetprepError unless it is to be skipped, and
        where all images are of one class.
        """
        if self.problems and not skip_bad:
            raise ImnetprepError(
                f"{self.folder} has {count(len(self.problems), 'file')} that cannot be taken:"
                f" {' '.join(next(iter(self.problems.items())))}",
                hint="--skip-bad leaves all of them out; or mend them, and run the same command"
                " again",
            )
        for split, classes in self.splits.items():
            whole = {
                wnid: {name: path for name, path in files.items() if path not in self.problems}
                for wnid, files in classes.items()
            }
            self.splits[split] = {wnid: files for wnid, files in whole.items() if files}
        self._leave_out_strange_classes(skip_bad=skip_bad)
        for split, classes in self.splits.items():
            if len(classes) < 2 and not (one_class and classes):
                wnids = f"of one class, {min(classes)!r}" if classes else "left out"
                raise ImnetprepError(
                    f"all {split} images of {self.folder} are {wnids}",
                    hint="--one-class takes images that are all of one class",
                )

    def _leave_out_strange_classes(self, *, skip_bad: bool) -> None:
        """A class of val that train has not cannot be learnt: it is bad, as images are."""
        train, val = self.splits.get(Split.TRAIN), self.splits.get(Split.VAL)
        for wnid in sorted(val.keys() - train.keys()) if train is not None and val else ():
            path = str(self.folder / self.places[Split.VAL] / wnid)
            images = count(len(self.splits[Split.VAL].pop(wnid)), "image")
            self.problems[path] = f"is a class of {images} that train has not"
            if not skip_bad:
                raise ImnetprepError(
                    f"{path} {self.problems[path]}", hint="--skip-bad leaves such classes out"
                )


def file_problem(path: str, *, decode: bool) -> str | None:
    """Why the file at `path` is no whole image; None: nothing, in the header and at the end of a
    JPEG or, with `decode`, in all of it. A giant, which can be made smaller, is one.
    """
    try:
        with named(path), open(path, "rb") as file:  # noqa: PTH123 - a Path costs as much
            size_bytes = os.fstat(file.fileno()).st_size
            ends = os.pread(file.fileno(), 2, 0), os.pread(file.fileno(), 2, max(0, size_bytes - 2))
            if ends == _JPEG_ENDS and not decode:
                return jpeg_header_problem(file)
            return decoding_problem(file.read(), giants=True)
    except OSError as error:
        if not is_of_file(error):
            raise
        return f"cannot be read: {error.strerror}"


def refuse_root_in(folder: Path, root: Root) -> None:
    """Raise WrongUsage where a root that is made of `folder` would lie in it, among its classes."""
    place, source = root.path.resolve(), folder.resolve()
    if source in (place, *place.parents):
        raise WrongUsage(
            f"the root {root.path} would lie in {folder}, of which it is made",
            hint=f"--root {source.name}-root, or another folder outside",
        )


def require_writable(folder: Path) -> None:
    """Raise ImnetprepError where `folder` cannot become a root in its place."""
    if not os.access(folder, os.W_OK):
        raise ImnetprepError(
            f"{folder} is not to be written to by this user, or at all",
            hint=f"{adopt_by_links(folder)} makes a root of links to it",
        )


def describe_classes(classes: Mapping[str, Mapping[str, object]]) -> str:
    """`2 classes: cat 150, dog 150`; of many the least and the most images that one has."""
    sizes = {wnid: len(files) for wnid, files in sorted(classes.items())}
    if len(sizes) <= 10:
        listing = ", ".join(f"{wnid} {size:,}" for wnid, size in sizes.items())
    else:
        listing = f"{min(sizes.values()):,} to {max(sizes.values()):,} images each"
    return f"{count(len(sizes), 'class')}: {listing}"
