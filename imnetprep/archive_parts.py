"""Archives packed another way: class tars or class folders of a tar of tars, or parquet files."""

import importlib.util
import lzma
import re
import sys
import tarfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Literal

from imnetprep.catalog.datasets import Archive, Dataset, Split
from imnetprep.catalog.file_names import is_litter
from imnetprep.messages import ImnetprepError, count, shell_command
from imnetprep.outside_files import open_file
from imnetprep.proving.archive_at import ArchiveAt, consumed_path
from imnetprep.sources.places import STDIN, is_local

_EXAMPLES = 3
_PARQUET = re.compile(
    r"([a-z]+)-(?P<number>[0-9]{5})-of-(?P<count>[0-9]{5})(?:-[0-9a-f]{16})?\.parquet"
)
_TARS = (".tar", ".tar.gz", ".tar.xz")
_MODES: Mapping[str, Literal["r:", "r:gz", "r:xz"]] = {
    "tar": "r:",
    "tar.gz": "r:gz",
    "tar.xz": "r:xz",
}
_MARKS = {b"\x1f\x8b": "tar.gz", b"\xfd7zXZ\0": "tar.xz"}
_HUB_SPLITS = {Split.TRAIN: ("train",), Split.VAL: ("validation", "valid", "val")}


def archive_in_parts(dataset: Dataset, split: Split, place: str | Path) -> list[ArchiveAt]:
    """The archive of `split` in the files at `place` that it was packed again to; [] if it was not.

    Raises ImnetprepError where some of those files are missing.
    """
    if place == STDIN or not is_local(place):
        return []
    folder = Path(place)
    is_whole = _is_whole(dataset, split, folder)
    for path in _tars_at(dataset, split, folder, is_whole=is_whole):
        if holds_class_folders(dataset, split, path):
            return [ArchiveAt(_archive_of_class_folders(split, path), path.parent, None)]
    if is_whole or not folder.is_dir():
        return []
    for archive in _tars_of_tars(dataset):
        if split in archive.splits and (class_tars := _class_tars(dataset, archive, folder)):
            name = f"the class tars of {archive.name}"
            own = replace(archive, name=name, size_bytes=None, digests={}, torrent=None)
            return [ArchiveAt(own, place, None, class_tars)]
    if files := _parquet_files(folder, split):
        return [ArchiveAt(_parquet_archive(split), place, None, files)]
    return []


def _tars_at(dataset: Dataset, split: Split, place: Path, *, is_whole: bool) -> Iterator[Path]:
    """The files in the folder `place` that may be tars of class folders, or that file itself."""
    if not place.is_dir():
        yield place
    elif is_whole:
        archives = dataset.published.archives
        yield from (place / each.name for each in archives if each.splits == (split,))
    else:
        yield from (place / f"{split}{suffix}" for suffix in _TARS)


def holds_class_folders(dataset: Dataset, split: Split, path: Path) -> bool:
    """Is `path` a tar, compressed or not, whose first file is an image of `split` in its class?

    An archive that was published so, or may have been, is none that somebody packed again.
    """
    if not path.is_file():
        return False
    for archive in dataset.published.archives:
        if archive.name == path.name and archive.form != "tar-of-tars":
            is_flat = archive.form == "tar" and not archive.members
            if not is_flat or archive.size_bytes in (None, path.stat().st_size):
                return False
    whole = dataset.published
    with suppress(OSError, tarfile.TarError, EOFError, zlib.error, lzma.LZMAError):
        mode = _MODES[_form(path)]
        with open_file(path) as file, tarfile.open(mode=mode, fileobj=file) as tar:
            paths = (PurePosixPath(member.name).parts for member in tar if member.isfile())
            first = next((path for path in paths if not any(map(is_litter, path))), ())
        wnid, name = ("", "", *first)[-2:]
        label = whole.label_of_wnid.get(wnid)
        return label is not None and label == whole.label_of(split, name, wnid)
    return False


def _form(tar: Path) -> str:
    """The form of a tar, by its first bytes."""
    with open_file(tar) as file:
        start = file.read(6)
    return next((form for mark, form in _MARKS.items() if start.startswith(mark)), "tar")


def _archive_of_class_folders(split: Split, path: Path) -> Archive:
    """The tar at `path`: no digest of the published one is of it."""
    return _unproved(path.name, split, _form(path), f"{split}/{{wnid}}/{{name}}")


def folder_of_parts(place: str | Path) -> str | Path:
    """The folder of a parquet file that `place` names; any other place as it is."""
    is_part = is_local(place) and Path(place).suffix == ".parquet" and Path(place).is_file()
    return Path(place).parent if is_part else place


def refuse_class_tar(dataset: Dataset, path: Path) -> None:
    """Raise ImnetprepError where `path` is one of the tars in an archive."""
    for archive in _tars_of_tars(dataset):
        if path.suffix == ".tar" and path.stem in dataset.label_of_wnid:
            raise ImnetprepError(
                f"{path} is a class tar, one of {len(dataset.synsets):,} in {archive.name}",
                hint="name the folder where all of them are: --archives DIR",
            )


def _is_whole(dataset: Dataset, split: Split, folder: Path) -> bool:
    """Is an archive of `split` there, or on its way?"""
    paths = [folder / archive.name for archive in dataset.archives if split in archive.splits]
    states = (s for path in paths for s in (path, consumed_path(path), _unfinished(path)))
    return any(state.exists() for state in states)


def _unfinished(path: Path) -> Path:
    return path.with_name(f"{path.name}.part")


def _tars_of_tars(dataset: Dataset) -> Iterator[Archive]:
    return (each for each in dataset.published.archives if each.form == "tar-of-tars")


def _class_tars(dataset: Dataset, archive: Archive, folder: Path) -> tuple[Path, ...]:
    """The class tars in `folder`; raises ImnetprepError where there are some, and not all."""
    paths = [folder / f"{synset.wnid}.tar" for synset in dataset.synsets]
    gaps = [path.name for path in paths if not path.is_file()]
    if 0 < len(gaps) < len(paths):
        raise ImnetprepError(
            f"{folder} has {len(paths) - len(gaps):,} of the {len(paths):,} class tars of"
            f" {archive.name}; missing: {_examples(gaps)}",
            hint="put them there too",
        )
    return () if gaps else tuple(paths)


def _examples(names: Sequence[str]) -> str:
    """The first few of `names`, and how many follow."""
    listing = ", ".join(names[:_EXAMPLES])
    return f"{listing} and {len(names) - _EXAMPLES:,} more" if len(names) > _EXAMPLES else listing


def split_of_parquet(name: str) -> Split | None:
    """The split that a parquet file of that name is a part of, as the hub names them, if it is."""
    match = _PARQUET.fullmatch(name)
    splits = (split for split, names in _HUB_SPLITS.items() if match and match[1] in names)
    return next(splits, None)


def _parquet_files(folder: Path, split: Split) -> tuple[Path, ...]:
    """All of `split` as the hub has them, in order: in `folder`, its data/, or that of the split.

    Raises ImnetprepError where some are missing, or where nothing here reads them.
    """
    names = _HUB_SPLITS[split]
    for place in (folder, folder / "data"):
        found: dict[tuple[int, int], Path] = {}
        for path in sorted(place.glob("*.parquet")):
            match = _PARQUET.fullmatch(path.name)
            if match and match[1] in names:
                found[int(match["count"]), int(match["number"])] = path
        if found:
            _require_pyarrow(min(found.values()))
            _require_all(found)
            return tuple(found[each] for each in sorted(found))
    files = sorted(path for name in names for path in (folder / name).glob("*.parquet"))
    if files:
        _require_pyarrow(files[0])
    return tuple(files)


def _require_pyarrow(path: Path) -> None:
    if importlib.util.find_spec("pyarrow") is None:
        raise ImnetprepError(
            f"{path} is parquet, as the Hugging Face hub packs images; pyarrow, which reads it, is"
            " not installed",
            hint=shell_command(sys.executable, "-m", "pip", "install", "imnetprep[parquet]"),
        )


def _require_all(files: Mapping[tuple[int, int], Path]) -> None:
    """Raise ImnetprepError unless there is one file of each number from 0 to their count."""
    number_of_files, number = max(files)
    last = files[number_of_files, number]
    gaps = [at for at in range(number_of_files) if (number_of_files, at) not in files]
    if gaps or len(files) != number_of_files:
        names = [last.name.replace(f"-{number:05}-", f"-{at:05}-", 1) for at in gaps]
        problem = f"missing: {_examples(names)}" if gaps else "others are of another number"
        raise ImnetprepError(
            f"{last.parent} has {count(len(files), 'parquet file')} like {last.name}, not"
            f" {number_of_files:,}; {problem}",
            hint="put all files of one revision there, and no others",
        )


def _parquet_archive(split: Split) -> Archive:
    """What the files of `split` are together; its members are called as their rows say."""
    return _unproved(f"the parquet files of {split}", split, "parquet", "{wnid}/{name}")


def _unproved(name: str, split: Split, form: str, members: str) -> Archive:
    """An archive that nobody vouches for, with `split` at the paths of the pattern `members`."""
    return Archive(
        name=name,
        splits=(split,),
        form=form,
        members={split: members},
        other_members=(),
        content=None,
        packaging=form,
        size_bytes=None,
        digests={},
        url=None,
        torrent=None,
        magnet=None,
    )
