"""A prefix that `sync-s3` filled: `archives/` below it, and the manifest that says of what."""

import tempfile
from collections.abc import Iterable, Iterator, Set
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path

from imnetprep.archives.file import ArchiveFile
from imnetprep.catalog.datasets import Dataset, Root, Split
from imnetprep.digests import Checksum
from imnetprep.manifest import Manifest, dataset_for, open_foreign_manifest
from imnetprep.messages import ImnetprepError, SourceFailed, WrongBytes
from imnetprep.proving.archive_at import consumed_path
from imnetprep.s3.address import SCHEME
from imnetprep.sources.places import STDIN, address_of, is_local, open_archive

_ARCHIVES, _MANIFEST = "archives", "manifest.db"
_CHUNK_BYTES = 1 << 20


def is_at(place: str | Path, name: str) -> bool:
    """Can the archive called `name` be opened at `place`, far away?"""
    try:
        open_archive(place, name).close()
    except SourceFailed:
        return False
    return True


def archives_at(place: str | Path, names: Iterable[str]) -> str | Path:
    """`place`; or `archives/` below it, if that has one of the archives called `names`."""
    folder = f"{str(place).rstrip('/')}/{_ARCHIVES}"
    for name in names if str(place).startswith(SCHEME) else ():
        if is_at(place, name):
            return place
        if is_at(folder, name):
            return folder
    return place


def packaging_at(dataset: Dataset, place: str | Path, splits: Set[Split]) -> str | None:
    """The first packaging of which an archive of `splits` lies at `place`, else the published."""
    packagings = dataset.packagings
    for packaging in packagings if place != STDIN and len(packagings) > 1 else ():
        for archive in dataset.packed(packaging):
            if not splits.isdisjoint(archive.splits) and _is_there(place, archive.name):
                return packaging
    return packagings[0]


def _is_there(place: str | Path, name: str) -> bool:
    if is_local(place):
        path = Path(place) / name
        return path.exists() or consumed_path(path).exists()
    return is_at(place, name)


def dataset_at(root: Root, name: str | None, place: str | None) -> Dataset:
    """The dataset called `name`, or that of `root`; else what a manifest at `place` says, or ours.

    Raises as `dataset_for` and `foreign_dataset`.
    """
    is_open = name is None and place is not None and not root.manifest.exists()
    dataset = foreign_dataset(str(place)) if is_open else None
    return dataset or dataset_for(root.manifest, name)


def foreign_dataset(place: str) -> Dataset | None:
    """What a manifest beside the archives at `place`, in a bucket, says that they are of.

    Raises WrongBytes where it is no manifest.
    """
    for prefix in _prefixes(place):
        if is_at(prefix, _MANIFEST):
            with manifest_at(
                prefix, hint="--dataset NAME|FILE.toml says what the archives are of"
            ) as manifest:
                return manifest.dataset()
    return None


@contextmanager
def manifest_at(
    place: str, *, hint: str = "push it anew, with --replace, from a root that is right"
) -> Iterator[Manifest]:
    """The manifest at `place`, which a stranger may have written; fetched into a folder of ours.

    Raises WrongBytes with the `hint` where it is none, ImnetprepError where nothing is there.
    """
    with tempfile.TemporaryDirectory(prefix="imnetprep-") as folder, ExitStack() as stack:
        path = Path(folder, _MANIFEST)
        with closing(open_archive(place, _MANIFEST)) as file:
            is_right = _fetch(file, path)
        try:
            if not is_right:
                raise ImnetprepError("its bytes are not those that its server has", hint="")
            manifest = stack.enter_context(open_foreign_manifest(path))
        except ImnetprepError as error:
            raise WrongBytes(
                f"{address_of(place, _MANIFEST)} cannot be used:"
                f" {str(error).replace(str(path), 'it')}",
                hint=hint,
            ) from error
        yield manifest


def _prefixes(place: str) -> Iterator[str]:
    """The prefixes whose manifest may speak of the archives at `place`, or of the one it names."""
    words = place.rstrip("/").split("/")
    if place.startswith(SCHEME):
        yield "/".join(words)
        for length in (1, 2):
            if words[-length] == _ARCHIVES:
                yield "/".join(words[:-length])


def _fetch(file: ArchiveFile, path: Path) -> bool:
    """Copy a file from afar. Are its bytes those that its server has, as far as that says?"""
    checksum = file.checksum
    found = checksum and Checksum.empty(checksum.kind)
    with path.open("wb") as copy:
        for chunk in file.chunks(0, file.size_bytes or 0, _CHUNK_BYTES):
            copy.write(chunk)
            found = found and found.over(chunk)
    return found == checksum
