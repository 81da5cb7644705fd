"""Archives that lie in parts: the class tars that were in a tar of tars."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from imnetprep.catalog.datasets import Archive, Dataset, Split
from imnetprep.messages import ImnetprepError
from imnetprep.proving.archive_at import ArchiveAt, consumed_path
from imnetprep.sources.places import STDIN, is_local

_EXAMPLES = 3


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
    return []


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
