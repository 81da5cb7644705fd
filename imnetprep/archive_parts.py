"""Archives that lie in parts: class tars that were in a tar of tars, or the hub's parquet files."""

import importlib.util
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from imnetprep.catalog.datasets import Archive, Dataset, Split
from imnetprep.messages import ImnetprepError, count, shell_command
from imnetprep.proving.archive_at import ArchiveAt, consumed_path
from imnetprep.sources.places import STDIN, is_local

_EXAMPLES = 3
_PARQUET = re.compile(
    r"([a-z]+)-(?P<number>[0-9]{5})-of-(?P<count>[0-9]{5})(?:-[0-9a-f]{16})?\.parquet"
)
_HUB_SPLITS = {Split.TRAIN: ("train",), Split.VAL: ("validation", "valid", "val")}


def archive_in_parts(dataset: Dataset, split: Split, place: str | Path) -> list[ArchiveAt]:
    """The archive of `split` in the files at `place` that it was taken apart to; [] if it was not.

    Raises ImnetprepError where some of those files are missing.
    """
    if place == STDIN or not is_local(place) or _is_whole(dataset, split, Path(place)):
        return []
    folder = Path(place)
    for archive in _tars_of_tars(dataset):
        if split in archive.splits and (class_tars := _class_tars(dataset, archive, folder)):
            name = f"the class tars of {archive.name}"
            own = replace(archive, name=name, size_bytes=None, digests={}, torrent=None)
            return [ArchiveAt(own, place, None, class_tars)]
    if files := _parquet_files(folder, split):
        return [ArchiveAt(_parquet_archive(split), place, None, files)]
    return []


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
    return Archive(
        name=f"the parquet files of {split}",
        splits=(split,),
        form="parquet",
        members={split: "{wnid}/{name}"},
        other_members=(),
        content=None,
        packaging="parquet",
        size_bytes=None,
        digests={},
        url=None,
        torrent=None,
        magnet=None,
    )
