"""An archive against what the dataset promises of it: piece by piece, or whole, or by its form."""

import errno
import hashlib
import os
import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path
from typing import NamedTuple

from imnetprep.archives.damaged_tar import Stretch, members_between
from imnetprep.archives.file import LocalFile, file_state
from imnetprep.archives.tar import PLAIN_FORMS, FileStream, members
from imnetprep.catalog.datasets import Archive, Dataset
from imnetprep.digests import Pieces
from imnetprep.jobs import FILES
from imnetprep.messages import ImnetprepError, Progress, Task, WrongBytes, count
from imnetprep.proving.receipt import ArchiveProof, DigestProof, NoProof, choose_proof
from imnetprep.sources.torrent import published_pieces

_CHUNK_BYTES = 2 << 20
_EXAMPLES = 3


class ArchiveFinding(NamedTuple):
    """One thing that is wrong with an archive; of damage, the bytes and what lies in them."""

    kind: str
    message: str
    start: int | None = None
    end: int | None = None
    classes: tuple[str, ...] = ()
    images: tuple[str, ...] = ()


class ArchiveCheck(NamedTuple):
    """What was found in an archive. `proof`: what proves it, if nothing was found."""

    proof: ArchiveProof
    findings: tuple[ArchiveFinding, ...]


def check_archive(
    path: Path, archive: Archive, dataset: Dataset, *, jobs: int | None, progress: Progress
) -> ArchiveCheck:
    """Read all of the archive at `path` and judge it by the best that the dataset has.

    Its torrent's pieces tell where it is wrong; a digest, whether; without either only the form,
    the names and the counts are looked at. Raises ImnetprepError where the file changes meanwhile.
    """
    pieces = published_pieces(dataset, archive)
    proof = choose_proof(archive, pieces)
    state = file_state(path)
    if pieces is not None:
        found = list(_size_findings(state["size_bytes"], pieces.size_bytes))
        wrong = wrong_pieces(path, pieces, jobs=jobs, progress=progress)
        found += _piece_findings(path, archive, dataset, pieces, wrong)
    elif isinstance(proof, DigestProof):
        found = list(_size_findings(state["size_bytes"], archive.size_bytes))
        found += _digest_findings(path, proof, progress)
    else:
        problems = _form_problems(path, archive, dataset, progress)
        found = [ArchiveFinding(kind, message) for kind, message in problems]
    if file_state(path) != state:
        raise ImnetprepError(
            f"{path} changed while it was read",
            hint="run the same command once nothing writes to it",
        )
    if isinstance(proof, NoProof):
        proof = NoProof(f"{proof.reason}; what can be seen of its form is right")
    return ArchiveCheck(proof, tuple(found))


def wrong_pieces(path: Path, pieces: Pieces, *, jobs: int | None, progress: Progress) -> list[int]:
    """The pieces whose SHA-1 is not the torrent's or that cannot be read, in order.

    Each of `jobs` threads holds one piece; hashlib lets them run side by side.
    """
    wrong: list[int] = []
    numbers = iter(range(pieces.count))  # taking the next is one step under the interpreter's lock
    lock, cancel = threading.Lock(), threading.Event()

    def work(handle: int, task: Task) -> None:
        for piece in numbers:
            if cancel.is_set():
                return
            offset = piece * pieces.length_bytes
            length = min(pieces.length_bytes, pieces.size_bytes - offset)
            right = pieces.is_right(piece, _read(handle, offset, length))
            with lock:
                task.advance(length)
                if not right:
                    wrong.append(piece)

    jobs = FILES.count(jobs)
    with (
        _opened(path) as handle,
        progress.task(f"verify {path.name}", total=pieces.size_bytes, unit="B") as task,
        ThreadPoolExecutor(jobs) as workers,
    ):
        try:
            for each in [workers.submit(work, handle, task) for _ in range(jobs)]:
                each.result()
        finally:
            cancel.set()  # ^C does not wait for the rest
    return sorted(wrong)


def merged(pieces: Sequence[int]) -> Iterator[tuple[int, int]]:
    """The runs of ascending piece numbers, each as its first and the one behind its last."""
    start = at = None
    for piece in pieces:
        if start is None or piece != at:
            if start is not None and at is not None:
                yield start, at
            start = piece
        at = piece + 1
    if start is not None and at is not None:
        yield start, at


@contextmanager
def _opened(path: Path) -> Iterator[int]:
    handle = os.open(path, os.O_RDONLY)
    try:
        yield handle
    finally:
        os.close(handle)


def _read(handle: int, offset: int, length: int) -> bytes:
    """The bytes there; fewer where the file ends, none where the disk cannot read them."""
    try:
        return os.pread(handle, length, offset)
    except OSError as error:
        if error.errno != errno.EIO:
            raise
        return b""


def _size_findings(size_bytes: int, promised_bytes: int | None) -> Iterator[ArchiveFinding]:
    if promised_bytes not in (None, size_bytes):
        yield ArchiveFinding("size", f"has {size_bytes:,} bytes, not {promised_bytes:,}")


def _piece_findings(
    path: Path, archive: Archive, dataset: Dataset, pieces: Pieces, wrong: Sequence[int]
) -> Iterator[ArchiveFinding]:
    if len(wrong) == pieces.count:
        message = f"not one of its {pieces.count:,} pieces is of torrent {pieces.info_hash}"
        yield ArchiveFinding("another-file", message, 0, pieces.size_bytes)
        return
    for first, stop in merged(wrong):
        start = first * pieces.length_bytes
        end = min(stop * pieces.length_bytes, pieces.size_bytes)
        members = _members_between(path, start, end, archive, dataset)
        names = tuple(member.name for member in members if member.name)
        wnids = _wnids(names, archive, dataset)
        stretch = f"bytes {start:,} to {end:,} ({count(stop - first, 'piece')})"
        unknown_bytes = sum(member.end - member.start for member in members if not member.name)
        message = f"{stretch}: {_format_images(names, wnids, unknown_bytes)}"
        yield ArchiveFinding("damaged", message, start, end, wnids, names)


def _members_between(
    path: Path, start: int, end: int, archive: Archive, dataset: Dataset
) -> list[Stretch]:
    """The images in these bytes, as far as headers can be read."""
    split = archive.split
    if split is None or split not in dataset.splits:
        return []

    def known(name: str) -> bool:
        is_class = name.endswith(".tar") and name[:-4] in dataset.label_of_wnid
        return is_class or dataset.label_of(split, name) is not None

    with _opened(path) as handle:
        return list(members_between(partial(_read, handle), start, end, is_member=known))


def _wnids(names: Sequence[str], archive: Archive, dataset: Dataset) -> tuple[str, ...]:
    if archive.split is None or not names:
        return ()
    labels = {dataset.label_of(archive.split, name) for name in names}
    return tuple(synset.wnid for synset in dataset.synsets if synset.label in labels)


def _format_images(names: Sequence[str], wnids: Sequence[str], unknown_bytes: int) -> str:
    gaps = f"{unknown_bytes:,} bytes in which no header can be read" if unknown_bytes else ""
    if not names:
        return gaps or "no image"
    images = f"{count(len(names), 'image')} ({_some(names)}) of {_some(wnids)}"
    return f"{images}, and {gaps}" if gaps else images


def _some(names: Sequence[str]) -> str:
    rest = f" and {len(names) - _EXAMPLES:,} more" if len(names) > _EXAMPLES else ""
    return ", ".join(names[:_EXAMPLES]) + rest


def _digest_findings(
    path: Path, proof: DigestProof, progress: Progress
) -> Iterator[ArchiveFinding]:
    digest = hashlib.new(proof.kind, usedforsecurity=False)
    with (
        path.open("rb", buffering=0) as file,
        progress.task(f"verify {path.name}", total=path.stat().st_size, unit="B") as task,
    ):
        while chunk := file.read(_CHUNK_BYTES):
            digest.update(chunk)
            task.advance(len(chunk))
    if digest.hexdigest() != proof.digest:
        message = f"its {proof.kind} is {digest.hexdigest()}, not {proof.digest}"
        yield ArchiveFinding("digest", f"{message}; a digest does not tell which bytes are wrong")


def _form_problems(
    path: Path, archive: Archive, dataset: Dataset, progress: Progress
) -> Iterator[tuple[str, str]]:
    """What is wrong with the form of `archive`, as a kind and a sentence; bodies are not read.

    Of a split without labels only the structure is known; of what is no tar, or has paths, nothing.
    """
    if archive.form not in PLAIN_FORMS or archive.members:
        return
    split = archive.split if archive.split in dataset.splits else None
    counts: Counter[int] = Counter()
    names: set[str] = set()
    last_wnid = None
    with progress.task(f"verify {path.name}", total=path.stat().st_size, unit="B") as task:
        try:
            for name, wnid in _images(path, archive, task):
                if wnid != last_wnid:
                    names.clear()  # a name is of one class, so no other class tar may have it
                    last_wnid = wnid
                label = None if split is None else dataset.label_of(split, name, wnid)
                if name in names:
                    yield "twice", f"member {name!r} is there a second time"
                elif split is not None and (
                    label is None or wnid not in (None, dataset.synsets[label].wnid)
                ):
                    yield "extra", f"member {name!r} is not of {dataset.name} there"
                elif label is not None:
                    counts[label] += 1
                names.add(name)
        except WrongBytes as error:
            yield "structure", str(error)
            return
    for label, images in enumerate(dataset.counts(split) if split is not None else ()):
        if counts[label] != images:
            wnid = dataset.synsets[label].wnid
            yield "count", f"{wnid} has {count(counts[label], 'image')}, not {images:,}"


def _images(path: Path, archive: Archive, task: Task) -> Iterator[tuple[str, str | None]]:
    """The name of every image, with the wnid of the class tar that it is in, if it is in one."""
    read_bytes = 0
    with closing(LocalFile(path)) as file:
        stream = FileStream(file.read_at)
        for member in members(stream, name=archive.name, end=file.size_bytes or 0):
            if archive.form == "tar-of-tars":
                name, end = f"{archive.name}: {member.name}", stream.position + member.size_bytes
                for inner in members(stream, name=name, end=end):
                    yield inner.name, member.name.removesuffix(".tar")
            else:
                yield member.name, None
            task.advance(stream.position - read_bytes)
            read_bytes = stream.position
