"""What lies in a folder of images: splits, classes, litter, and all that is wrong with it at once.

Nothing is taken for a class that may be a split, and nothing is passed over without being counted.
"""

import os
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn

from imnetprep.archives.file import but_archives
from imnetprep.catalog.datasets import Split
from imnetprep.catalog.file_names import is_class_name, is_litter, is_plain, is_text
from imnetprep.messages import ImnetprepError, count, shell_command
from imnetprep.outside_files import read_text
from imnetprep.own_images.content import NO_CLASSES, SPLIT_NAMES, ImageFolder

# By their names; what each file is, its bytes tell when they are read.
_IMAGE_SUFFIXES = (
    *(".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".bmp", ".dib", ".gif", ".tif", ".tiff"),
    *(".avif", ".heic", ".heif", ".jp2", ".j2k", ".ppm", ".pgm", ".pbm", ".tga"),
)
# What is under a root beside its images, and hidden files of ours there.
_OF_ROOT = {"archives", "runs", "shards", "manifest.db", "receipt.json"}
_ROOT_FILES = (".organizing", ".receipt", ".sync", ".manifest")
_INNER_FOLDER = "images"
_LONGEST_NAME_BYTES = 255
_WALKED_FOLDERS = 2000


def read_split_folders(folder: Path) -> ImageFolder:
    """The images of `folder/SPLIT/CLASS/`, whatever the usual name of the split.

    Raises ImnetprepError where there are no such folders, or two for one split; what is wrong with
    files is listed.
    """
    content = ImageFolder(folder, renames=False)
    _find_splits(content)
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
    return content


def _find_splits(content: ImageFolder) -> None:
    """Which folder is which split; all else beside them is left out with a remark."""
    folder = content.folder
    entries = {entry.name: entry for entry in _visible(content, folder)}
    rest = entries.keys() - _OF_ROOT
    for split, usual in SPLIT_NAMES.items():
        names = [name for name in entries if name.lower() in usual]
        rest -= set(names)
        for name in names:
            if not entries[name].is_dir():
                raise ImnetprepError(
                    f"{folder / name} is called as a split is, and is no folder that can be read",
                    hint="take it away, or mount what it leads to; then run the same command again",
                )
        places = {os.path.realpath(folder / name): name for name in sorted(names, reverse=True)}
        if len(places) > 1:
            rivals = " and ".join(sorted(places.values()))
            raise ImnetprepError(
                f"{folder} holds {rivals}, which may both be {split}",
                hint="take one away, or give it another name; then run the same command again",
            )
        for name in places.values():
            content.places[split] = name
    test = content.places.pop(Split.TEST, None)
    val = content.places.get(Split.VAL)
    if test is not None and val is None:
        if any(_read_classes(ImageFolder(folder), folder / test).values()):
            content.places[Split.VAL] = test
        else:
            content.remarks.append(f"{test}: left out, since its images are in no class folder")
    elif test is not None and val is not None and not (folder / test).samefile(folder / val):
        content.remarks.append(f"{test}: left out, since a root has train and val")
    if content.places and (names := sorted(name for name in rest if entries[name].is_dir())):
        content.remarks.append(f"left out, since no splits: {', '.join(names[:5])}")
    for name in rest:
        if name.lower().endswith(_IMAGE_SUFFIXES):
            content.problems[str(folder / name)] = "is in no split"


def read_class_folders(folder: Path) -> ImageFolder:
    """The images of `folder/CLASS/`, all of them as train. Raises as `read_split_folders`."""
    content = ImageFolder(folder)
    with os.scandir(folder) as entries:
        names = (entry.name for entry in entries if entry.is_dir())
        splits = sorted(name for name in names if name.lower() in NO_CLASSES)
    if any(path.is_dir() for name in splits for path in (folder / name).iterdir()):
        raise ImnetprepError(
            f"{folder} is divided already: it holds {', '.join(splits)}",
            hint=shell_command("imnetprep", "adopt", folder),
        )
    if splits:
        raise ImnetprepError(
            f"{folder} holds {', '.join(splits)}, called as splits are, and not as classes",
            hint=shell_command("imnetprep", "divide", folder / splits[-1], "--label-from", "name")
            + "; or, if it is a class, give it another name",
        )
    classes = _read_classes(content, folder)
    if not any(classes.values()):
        _refuse_flat(folder)
    content.splits[Split.TRAIN] = classes
    return content


def read_flat_folder(folder: Path, *, deep: bool) -> ImageFolder:
    """The images that lie in `folder`, by their names, as of one class, "" ; or `deep`, below it
    too, by their paths.

    Raises ImnetprepError where there are none; a folder that is not to be read is listed.
    """
    content, files = ImageFolder(folder), dict[str, str]()
    _read_flat(content, folder, files, deep=deep)
    if not files:
        _refuse_flat(folder)
    content.splits[Split.TRAIN] = {"": files}
    return content


def _read_flat(content: ImageFolder, folder: Path, files: dict[str, str], *, deep: bool) -> None:
    for entry in _visible(content, folder):
        if entry.is_dir():
            if not deep:
                content.problems[entry.path] = "is a folder"
            elif content.enter(entry.path):
                _read_flat(content, Path(entry.path), files, deep=deep)
        elif entry.name.lower().endswith(_IMAGE_SUFFIXES):
            if (problem := _problem_of(entry)) is None:
                files[os.path.relpath(entry.path, content.folder)] = entry.path
            else:
                content.problems[entry.path] = problem
        else:
            content.litter[entry.name] += 1


def _nested(content: ImageFolder, folder: Path) -> dict[str, dict[str, str]]:
    """The classes of `folder/CLASS/images/`, as Tiny-ImageNet's train is; {} for any other."""
    entries = list(_visible(content, folder))
    classes = [entry for entry in entries if entry.is_dir()]
    if not classes or not all(Path(each.path, _INNER_FOLDER).is_dir() for each in classes):
        return {}
    for entry in entries:
        if entry.name.lower().endswith(_IMAGE_SUFFIXES):
            content.problems[entry.path] = "is in no class folder"
    found = {}
    for each in classes:
        _list_strangers(content, Path(each.path))
        found[each.name] = _read_class(content, Path(each.path, _INNER_FOLDER))
    return found


def _list_strangers(content: ImageFolder, folder: Path, *, table: str = "") -> None:
    """All beside `folder/images` that may be meant for images."""
    for entry in _visible(content, folder):
        if entry.is_dir() and entry.name != _INNER_FOLDER:
            content.problems[entry.path] = "is a folder beside the one of images"
        elif entry.name.lower().endswith(_IMAGE_SUFFIXES):
            content.problems[entry.path] = "lies beside the folder of images"
        elif not entry.is_dir() and entry.name != table:
            content.litter[entry.name] += 1


def _annotated(content: ImageFolder, folder: Path) -> dict[str, dict[str, str]]:
    """The classes of `folder/images/` by `folder/*_annotations.txt`, as Tiny-ImageNet's val is: a
    line an image, its name, its class, a box. {} for any other folder.
    """
    tables = sorted(folder.glob("*_annotations.txt"))
    if len(tables) != 1 or not (folder / _INNER_FOLDER).is_dir():
        return {}
    table, files = tables[0], _read_class(content, folder / _INNER_FOLDER)
    _list_strangers(content, folder, table=table.name)
    wnids, first_lines = dict[str, str](), dict[str, int]()
    text = read_text(table, errors="replace")
    for number, line in enumerate(text.removesuffix("\n").split("\n"), start=1):
        name, wnid, *_ = [*line.rstrip("\r").split("\t"), ""]
        if name not in files or not is_class_name(wnid):
            content.problems[f"{table}, line {number},"] = f"names {name}, which is not there"
        elif wnids.setdefault(name, wnid) != wnid:
            lines = f"lines {first_lines[name]} and {number} of {table.name}"
            content.problems[files[name]] = f"is of {wnids[name]} and of {wnid} in {lines}"
        else:
            first_lines.setdefault(name, number)
    content.problems |= {
        path: f"has no class in {table.name}" for name, path in files.items() if name not in wnids
    }
    classes = defaultdict[str, dict[str, str]](dict)
    for name, wnid in wnids.items():
        classes[wnid][name] = files[name]
    return dict(classes)


def _read_classes(content: ImageFolder, folder: Path) -> dict[str, dict[str, str]]:
    classes: dict[str, dict[str, str]] = {}
    for entry in _visible(content, folder):
        if not entry.is_dir():
            if entry.name.lower().endswith(_IMAGE_SUFFIXES):
                content.problems[entry.path] = "is in no class folder"
            else:
                content.litter[entry.name] += 1
        elif not is_class_name(entry.name):
            content.problems[entry.path] = "is no name of a class"
        elif not content.enter(entry.path):
            content.problems[entry.path] = "is the same folder as another class, by a link"
        else:
            classes[entry.name] = _read_class(content, Path(entry.path))
    return {wnid: files for wnid, files in classes.items() if files}


def _read_class(content: ImageFolder, folder: Path) -> dict[str, str]:
    files: dict[str, str] = {}
    for entry in _visible(content, folder):
        name = as_text(entry.name) if content.renames else entry.name
        if entry.is_dir():
            content.problems[entry.path] = "is a folder in a class folder"
        elif not entry.name.lower().endswith(_IMAGE_SUFFIXES):
            content.problems[entry.path] = "is no image by its name"
        elif (problem := _problem_of(entry)) is not None:
            content.problems[entry.path] = problem
        elif not is_file_name(name) or name in files:
            content.problems[entry.path] = "has a name that cannot be kept"
        else:
            files[name] = entry.path
    return files


def _problem_of(entry: os.DirEntry[str]) -> str | None:
    if entry.is_file():
        return None
    leads_nowhere = entry.is_symlink() and not Path(entry.path).exists()
    return "is a link that leads nowhere" if leads_nowhere else "is no regular file"


def is_file_name(name: str) -> bool:
    """Can a sample be called so on every file system?"""
    return is_plain(name) and is_text(name) and len(name.encode()) <= _LONGEST_NAME_BYTES


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
            elif not entry.name.startswith(_ROOT_FILES):
                content.litter[entry.name] += 1


def _refuse_without_splits(folder: Path) -> NoReturn:
    """Raise ImnetprepError that says what lies where no split does, and which command takes it."""
    content = ImageFolder(folder)
    if any(_read_classes(content, folder).values()):
        raise ImnetprepError(
            f"{folder} holds folders of classes, and no train or val",
            hint=shell_command("imnetprep", "divide", folder, "--root", _beside(folder)),
        )
    _refuse_flat(folder)


def _beside(folder: Path) -> str:
    """What a root that is made of `folder` may be called."""
    return f"{ImageFolder(folder).name}-root"


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
            + f" --root {_beside(folder)}; or --labels FILE.csv for a table of them",
        )
    hint = "name the folder that the splits or the classes lie in"
    tops = [path for path in sorted(folder.iterdir()) if path.is_dir() and not is_litter(path.name)]
    if len(tops) == 1 and any((tops[0] / name).is_dir() for name in NO_CLASSES):
        hint = shell_command("imnetprep", "adopt", tops[0])
    raise ImnetprepError(
        f"{folder} holds {count(images, 'image')} {count(depth, 'folder')} deep, as in"
        f" {example[depth]}, which is neither SPLIT/CLASS/IMAGE nor CLASS/IMAGE",
        hint=hint,
    )
