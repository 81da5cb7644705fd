"""What lies in a folder of images: splits, classes, litter, and all that is wrong with it at once.

Nothing is taken for a class that may be a split, and nothing is passed over without being counted.
"""

import os
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import NoReturn

from imnetprep.archives.file import but_archives
from imnetprep.catalog.datasets import Root, Split
from imnetprep.catalog.file_names import is_class_name, is_litter, is_plain, is_text
from imnetprep.images import decoding_problem, jpeg_header_problem
from imnetprep.jobs import FILES
from imnetprep.machine import is_of_file, named
from imnetprep.messages import (
    ImnetprepError,
    Progress,
    WrongUsage,
    adopt_by_links,
    count,
    shell_command,
)

# By their names; what each file is, its bytes tell when they are read.
_IMAGE_SUFFIXES = (
    *(".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".bmp", ".dib", ".gif", ".tif", ".tiff"),
    *(".avif", ".heic", ".heif", ".jp2", ".j2k", ".ppm", ".pgm", ".pbm", ".tga"),
)
# How people call the splits, the usual name first. A test split is val where there is no other.
_SPLIT_NAMES = {
    Split.TRAIN: ("train", "training"),
    Split.VAL: ("val", "valid", "validation", "dev"),
    Split.TEST: ("test", "testing"),
}
_NO_CLASSES = {name for names in _SPLIT_NAMES.values() for name in names} | {"test1", "unlabeled"}
# What is under a root beside its images.
_OF_ROOT = {"archives", "runs", "shards", "manifest.db", "receipt.json"}
_INNER_FOLDER = "images"
_JPEG_ENDS = b"\xff\xd8", b"\xff\xd9"
_WALKED_FOLDERS = 2000

# The file of each image by its class and name: a path, as it is read.
Classes = Mapping[str, Mapping[str, str]]


@dataclass
class ImageFolder:
    """What `folder` holds. `places` has the name of the folder that each split lies in.

    `flat_splits` are the splits that do not lie as CLASS/IMAGE there; `problems` has the path of
    what cannot be taken, and why.
    """

    folder: Path
    splits: dict[Split, dict[str, dict[str, str]]] = field(default_factory=dict)
    places: dict[Split, str] = field(default_factory=dict)
    flat_splits: set[Split] = field(default_factory=set)
    litter: Counter[str] = field(default_factory=Counter)
    problems: dict[str, str] = field(default_factory=dict)
    remarks: list[str] = field(default_factory=list)

    @property
    def name(self) -> str:
        """What the dataset is called: as the folder; as the one above, if it is called `train`."""
        folder = self.folder.resolve()
        return folder.parent.name if folder.name.lower() in _NO_CLASSES else folder.name

    def select(self, splits: Sequence[Split]) -> None:
        """Keep only `splits`. Raises ImnetprepError where one of them is not there."""
        for split in splits:
            if split not in self.splits:
                raise ImnetprepError(
                    f"{self.folder} has no {split} split of class folders",
                    hint=f"--split {' or --split '.join(self.splits)}",
                )
        self.splits = {split: self.splits[split] for split in splits}

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

        Of a JPEG the ends are looked at; with `decode` it is decoded to its last pixel.
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
        wnids = set().union(*self.splits.values())
        if len(wnids) < 2 and not (one_class and wnids):
            raise ImnetprepError(
                f"all images of {self.folder} are of one class, {', '.join(wnids)!r}",
                hint="--one-class takes them so",
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


def describe_classes(classes: Mapping[str, Mapping[str, str]]) -> str:
    """`2 classes: cat 150, dog 150`; of many the least and the most images that one has."""
    sizes = {wnid: len(files) for wnid, files in sorted(classes.items())}
    if len(sizes) <= 10:
        listing = ", ".join(f"{wnid} {size:,}" for wnid, size in sizes.items())
    else:
        listing = f"{min(sizes.values()):,} to {max(sizes.values()):,} images each"
    return f"{count(len(sizes), 'class')}: {listing}"


def read_split_folders(folder: Path) -> ImageFolder:
    """The images of `folder/SPLIT/CLASS/`, whatever the usual name of the split.

    Raises ImnetprepError where there are no such folders; what is wrong with files is listed.
    """
    content = ImageFolder(folder)
    folders = (entry.name for entry in _visible(content, folder) if entry.is_dir())
    names = {name.lower(): name for name in folders}
    for split, usual in _SPLIT_NAMES.items():
        if name := next((names[each] for each in usual if each in names), None):
            content.places[split] = name
    if test := content.places.pop(Split.TEST, None):
        if Split.VAL in content.places:
            content.remarks.append(f"{test}: left out, since a root has train and val")
        elif not any(_read_classes(ImageFolder(folder), folder / test).values()):
            content.remarks.append(f"{test}: left out, since its images are in no class folder")
        else:
            content.places[Split.VAL] = test
    if not content.places:
        _refuse_without_splits(folder)
    for split, name in content.places.items():
        classes = _annotated(content, folder / name) or _nested(content, folder / name)
        if classes:
            content.flat_splits.add(split)
        else:
            classes = _read_classes(content, folder / name)
        if not any(classes.values()):
            _refuse_flat(folder / name)
        content.splits[split] = classes
    if Split.TRAIN in content.splits and Split.VAL in content.splits:
        for wnid in sorted(content.splits[Split.VAL].keys() - content.splits[Split.TRAIN].keys()):
            images = count(len(content.splits[Split.VAL].pop(wnid)), "image")
            path = str(folder / content.places[Split.VAL] / wnid)
            content.problems[path] = f"is a class of {images} that train has not"
    return content


def read_class_folders(folder: Path) -> ImageFolder:
    """The images of `folder/CLASS/`, all of them as train. Raises as `read_split_folders`."""
    content = ImageFolder(folder)
    with os.scandir(folder) as entries:
        names = (entry.name for entry in entries if entry.is_dir())
        splits = sorted(name for name in names if name.lower() in _NO_CLASSES)
    if any(path.is_dir() for name in splits for path in (folder / name).iterdir()):
        raise ImnetprepError(
            f"{folder} is divided already: it holds {', '.join(splits)}",
            hint=shell_command("imnetprep", "adopt", folder),
        )
    if splits:
        raise ImnetprepError(
            f"{folder} has no folders of classes, but {', '.join(splits)}, as splits are called",
            hint=shell_command("imnetprep", "divide", folder / splits[-1], "--label-from", "name"),
        )
    classes = _read_classes(content, folder)
    if not any(classes.values()):
        _refuse_flat(folder)
    content.splits[Split.TRAIN] = classes
    return content


def read_flat_folder(folder: Path, *, deep: bool) -> ImageFolder:
    """The images that lie in `folder`, by their names, as of one class, "" ; or `deep`, below it
    too, by their paths.

    Raises ImnetprepError where there are none, and where a folder beside them is not to be read.
    """
    content, files = ImageFolder(folder), dict[str, str]()
    for place, folders, names in os.walk(folder):
        content.litter.update(name for name in folders + names if is_litter(name))
        folders[:] = sorted(name for name in folders if not is_litter(name))
        if folders and not deep:
            content.problems |= {str(folder / name): "is a folder" for name in folders}
            folders.clear()
        for name in sorted(names):
            path = os.path.join(place, name)  # noqa: PTH118 - a Path costs as much as the look
            if name.lower().endswith(_IMAGE_SUFFIXES) and not is_litter(name):
                files[os.path.relpath(path, folder)] = path
            elif not is_litter(name):
                content.litter[name] += 1
    if not files:
        _refuse_flat(folder)
    content.splits[Split.TRAIN] = {"": files}
    return content


def _nested(content: ImageFolder, folder: Path) -> dict[str, dict[str, str]]:
    """The classes of `folder/CLASS/images/`, as Tiny-ImageNet's train is; {} for any other."""
    classes = [entry for entry in _visible(content, folder) if entry.is_dir()]
    if not classes or not all(Path(each.path, _INNER_FOLDER).is_dir() for each in classes):
        return {}
    return {each.name: _read_class(content, Path(each.path, _INNER_FOLDER)) for each in classes}


def _annotated(content: ImageFolder, folder: Path) -> dict[str, dict[str, str]]:
    """The classes of `folder/images/` by `folder/*_annotations.txt`, as Tiny-ImageNet's val is: a
    line an image, its name, its class, a box. {} for any other folder.
    """
    tables = sorted(folder.glob("*_annotations.txt"))
    if len(tables) != 1 or not (folder / _INNER_FOLDER).is_dir():
        return {}
    files, classes = (
        _read_class(content, folder / _INNER_FOLDER),
        defaultdict[str, dict[str, str]](dict),
    )
    for line in tables[0].read_text("utf-8", errors="replace").splitlines():
        name, wnid, *_ = [*line.split("\t"), ""]
        if name in files and is_class_name(wnid):
            classes[wnid][name] = files.pop(name)
    content.problems |= dict.fromkeys(files.values(), f"has no class in {tables[0].name}")
    return dict(classes)


def _read_classes(content: ImageFolder, folder: Path) -> dict[str, dict[str, str]]:
    classes: dict[str, dict[str, str]] = {}
    for entry in _visible(content, folder):
        if not entry.is_dir():
            if entry.name.lower().endswith(_IMAGE_SUFFIXES):
                content.problems[entry.path] = "is in no class folder"
            elif folder != content.folder or entry.name not in _OF_ROOT:
                content.litter[entry.name] += 1
        elif not is_class_name(entry.name):
            content.problems[entry.path] = "is no name of a class"
        elif folder != content.folder or entry.name not in _OF_ROOT:
            classes[entry.name] = _read_class(content, Path(entry.path))
    return {wnid: files for wnid, files in classes.items() if files}


def _read_class(content: ImageFolder, folder: Path) -> dict[str, str]:
    files: dict[str, str] = {}
    for entry in _visible(content, folder):
        if entry.is_dir():
            content.problems[entry.path] = "is a folder in a class folder"
        elif not entry.name.lower().endswith(_IMAGE_SUFFIXES):
            content.problems[entry.path] = "is no image by its name"
        elif not entry.is_file():
            link = "a link that leads nowhere" if entry.is_symlink() else "no regular file"
            content.problems[entry.path] = f"is {link}"
        elif not is_plain(name := as_text(entry.name)) or name in files:
            content.problems[entry.path] = "has a name that cannot be kept"
        else:
            files[name] = entry.path
    return files


def as_text(name: str) -> str:
    """`name`; one that is no UTF-8 with each odd byte as %e9."""
    if is_text(name):
        return name
    return os.fsencode(name).decode(errors="backslashreplace").replace("\\x", "%")


def _visible(content: ImageFolder, folder: Path) -> Iterator[os.DirEntry[str]]:
    """What lies in `folder`, litter counted and left out; the order is of the names."""
    with os.scandir(folder) as entries:
        for entry in sorted(entries, key=lambda entry: entry.name):
            if not is_litter(entry.name):
                yield entry
            elif folder != content.folder or not entry.name.startswith("."):  # .organizing is ours
                content.litter[entry.name] += 1


def _refuse_without_splits(folder: Path) -> NoReturn:
    """Raise ImnetprepError that says what lies where no split does, and which command takes it."""
    content = ImageFolder(folder)
    if any(_read_classes(content, folder).values()):
        raise ImnetprepError(
            f"{folder} holds folders of classes, and no train or val",
            hint=shell_command("imnetprep", "divide", folder, "--val-fraction", "0.25"),
        )
    _refuse_flat(folder)


def _refuse_flat(folder: Path) -> NoReturn:
    """Raise ImnetprepError that says at which depth the images lie, and what takes them so."""
    depths, example = Counter[int](), dict[int, str]()
    for at, (place, folders, names) in enumerate(os.walk(folder)):
        folders[:] = sorted(name for name in folders if not is_litter(name))
        depth = len(Path(place).relative_to(folder).parts)
        images = sum(each.lower().endswith(_IMAGE_SUFFIXES) for each in names)
        if images:
            depths[depth] += images
            example.setdefault(depth, place)
        if at == _WALKED_FOLDERS:
            break
    if not depths:
        raise ImnetprepError(
            f"{folder} holds no images{but_archives(folder)}",
            hint="name a folder with train/CLASS/ and val/CLASS/, or with a folder for each class;"
            " imnetprep organize --archives reads the archives of a dataset",
        )
    depth, images = depths.most_common(1)[0]
    if depth == 0:
        raise ImnetprepError(
            f"{folder} holds {count(images, 'image')} in no class folder",
            hint=shell_command("imnetprep", "divide", folder, "--label-from", "name")
            + ", or --labels FILE.csv for a table of them",
        )
    hint = "name the folder that the splits or the classes lie in"
    tops = [path for path in sorted(folder.iterdir()) if path.is_dir() and not is_litter(path.name)]
    if len(tops) == 1 and any((tops[0] / name).is_dir() for name in _NO_CLASSES):
        hint = shell_command("imnetprep", "adopt", tops[0])
    raise ImnetprepError(
        f"{folder} holds {count(images, 'image')} {count(depth, 'folder')} deep, as in"
        f" {example[depth]}, which is neither SPLIT/CLASS/IMAGE nor CLASS/IMAGE",
        hint=hint,
    )
