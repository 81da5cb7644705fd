"""The published archives, here or far away, against what the dataset promises of them."""

import errno
import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import NamedTuple, NoReturn

from imnetprep.archive_parts import archive_in_parts
from imnetprep.archives.chunk_stream import ChunkStream
from imnetprep.archives.damaged_tar import members_between
from imnetprep.archives.file import ArchiveFile, missing_archive
from imnetprep.archives.tar import PLAIN_FORMS, FileStream, Stream, members
from imnetprep.catalog.datasets import Archive, Dataset, Root, Split
from imnetprep.digests import Pieces
from imnetprep.jobs import FAR_RANGES, FILES
from imnetprep.messages import ImnetprepError, Progress, Task, WrongBytes, WrongUsage, count
from imnetprep.proving.archive_at import home_of
from imnetprep.proving.readers import ChecksumReader, Reader
from imnetprep.proving.receipt import (
    DigestProof,
    NoProof,
    Proof,
    choose_proof,
    if_possible,
    record_archive,
    record_verify,
    withdraw_archive,
)
from imnetprep.sources.places import STDIN, address_of, is_local, open_archive
from imnetprep.sources.torrent import published_pieces
from imnetprep.synced_prefix import archives_at, dataset_at, is_at

_EXAMPLES = 3


class ArchiveFinding(NamedTuple):
    """One thing that is wrong with an archive; of damage, the bytes and what lies in them."""

    kind: str
    message: str
    start: int | None = None
    end: int | None = None
    classes: tuple[str, ...] = ()
    images: tuple[str, ...] = ()


class ArchiveReport(NamedTuple):
    """One archive, its address: what was found in it, and what proves it if nothing was."""

    address: str
    size_bytes: int
    proof: Proof
    findings: tuple[ArchiveFinding, ...]


def archive_reports(
    root: Root,
    place: str | None,
    *,
    dataset: str | None = None,
    splits: Sequence[Split],
    jobs: int | None,
    record: bool = True,
    progress: Progress,
) -> Iterator[ArchiveReport]:
    """Read every archive at `place` (those of `splits`, where some are named) and judge it.

    `place` is a folder, a bucket's prefix or a web server's address; None: ROOT/archives. With
    `record`, the receipt learns which archives of ROOT/archives are proved, and forgets the proof
    of a wrong one.
    Raises ImnetprepError where an archive of a named split, or any, is not there, and where one
    changes meanwhile; WrongUsage on a pipe.
    """
    if place == STDIN:
        raise WrongUsage(
            "--archives - is a pipe, which has no end to look at first",
            hint="name the place itself: a folder, s3://BUCKET/PREFIX or https://…",
        )
    origin = dataset_at(root, dataset, place).published
    origin.require_archives()
    at = archives_at(place or root.archives, (each.name for each in origin.archives))
    of_splits = origin.archives_for(splits)
    present = [each for each in of_splits or origin.archives if _is_there(at, each.name)]
    for archive in of_splits or ([] if present else origin.archives[:1]):
        if archive not in present:
            _refuse_missing(archive, origin, at)
    at_home = record and home_of(at, root) is root
    for archive in present:
        report = _judge(at, archive, origin, jobs=jobs, progress=progress)
        if at_home:
            path = Path(at) / archive.name
            with if_possible():
                if report.findings:
                    withdraw_archive(root, path)
                elif not isinstance(report.proof, NoProof):
                    record_archive(root, path, report.proof)
            checks = ["form" if isinstance(report.proof, NoProof) else "every byte"]
            record_verify(root, {archive.name: len(report.findings)}, checks=checks)
        yield report


def _is_there(place: str | Path, name: str) -> bool:
    path = Path(place) / name  # a pipe is there: whoever opens it says what it is
    return path.exists() and not path.is_dir() if is_local(place) else is_at(place, name)


def _refuse_missing(archive: Archive, dataset: Dataset, place: str | Path) -> NoReturn:
    """Raise the ImnetprepError of an archive that is not at `place`."""
    if not is_local(place):
        open_archive(place, archive.name).close()  # says what the server says
    for parts in [archive_in_parts(dataset, split, place) for split in archive.splits]:
        if parts:
            raise ImnetprepError(
                f"{archive.name} lies in parts that nothing vouches for: {parts[0].address}",
                hint="imnetprep organize looks at the names and counts in them",
            )
    raise ImnetprepError(
        missing_archive(Path(place) / archive.name),
        hint="imnetprep download, or name the place where the archives are",
    )


def _judge(
    place: str | Path, archive: Archive, dataset: Dataset, *, jobs: int | None, progress: Progress
) -> ArchiveReport:
    """Read all of the archive at `place` and judge it by the best that the dataset has.

    Its torrent's pieces tell where it is wrong; a digest, whether. Without either the form, the
    names and the counts are looked at, and the checksum that its server keeps, if it does.
    """
    with closing(open_archive(place, archive.name)) as file:
        pieces, size_bytes = published_pieces(dataset, archive), file.size_bytes or 0
        proof: Proof = choose_proof(archive, pieces, checksum=file.checksum)
        findings: list[ArchiveFinding] = []
        promised_bytes = archive.size_bytes if pieces is None else pieces.size_bytes
        if not isinstance(proof, NoProof) and promised_bytes not in (None, size_bytes):
            message = f"has {size_bytes:,} bytes, not {promised_bytes:,}"
            findings.append(ArchiveFinding("size", message))
        if pieces is not None:
            wrong = wrong_pieces(file, pieces, jobs=jobs, progress=progress)
            findings += _piece_findings(file, archive, dataset, pieces, wrong)
        elif isinstance(proof, DigestProof):
            findings += _digest_findings(file, proof, progress)
        else:
            with progress.task(f"verify {file.name}", total=size_bytes, unit="B") as task:
                judge = _far_findings if file.is_far else _near_findings
                findings += judge(file, archive, dataset, task)
    with closing(open_archive(place, archive.name)) as file_now:
        if file_now.identity != file.identity:
            raise ImnetprepError(
                f"{address_of(place, archive.name)} changed while it was read",
                hint="run the same command once nothing writes to it",
            )
    if isinstance(proof, NoProof):
        is_plain = archive.form in PLAIN_FORMS and not archive.members
        form = "what can be seen of its form is right" if is_plain else "its form is not looked at"
        proof = replace(proof, reason=f"{proof.reason}; {form}")
    return ArchiveReport(address_of(place, archive.name), size_bytes, proof, tuple(findings))


def wrong_pieces(
    file: ArchiveFile, pieces: Pieces, *, jobs: int | None, progress: Progress
) -> list[int]:
    """The pieces whose SHA-1 is not the torrent's or that cannot be read, in order.

    Each of `jobs` threads holds one piece; hashlib lets them run side by side.
    """
    wrong = []
    length = pieces.length_bytes
    with progress.task(f"verify {file.name}", total=pieces.size_bytes, unit="B") as task:

        def is_right(piece: int) -> bool:
            rest_bytes = pieces.size_bytes - piece * length
            return pieces.is_right(piece, _read(file, piece * length, min(length, rest_bytes)))

        threads = FAR_RANGES if file.is_far else FILES
        verdicts = threads.in_threads(is_right, range(pieces.count), jobs=jobs)
        for piece, right in enumerate(verdicts):
            task.advance(min(length, pieces.size_bytes - piece * length))
            if not right:
                wrong.append(piece)
    return wrong


def neighbours(pieces: Iterable[int]) -> list[range]:
    """Ascending piece numbers as ranges of those that follow each other."""
    runs: list[range] = []
    for piece in pieces:
        if runs and runs[-1].stop == piece:
            runs[-1] = range(runs[-1].start, piece + 1)
        else:
            runs.append(range(piece, piece + 1))
    return runs


def _read(file: ArchiveFile, offset: int, length: int) -> bytes:
    """The bytes there; fewer where the file ends, none where the disk cannot read them."""
    try:
        return file.read_at(offset, length)
    except OSError as error:
        if error.errno != errno.EIO:
            raise
        return b""


def _piece_findings(
    file: ArchiveFile, archive: Archive, dataset: Dataset, pieces: Pieces, wrong: Sequence[int]
) -> Iterator[ArchiveFinding]:
    """Each stretch of wrong pieces, with the images in it as far as headers can be read."""
    if len(wrong) == pieces.count:
        message = f"not one of its {pieces.count:,} pieces is of torrent {pieces.info_hash}"
        yield ArchiveFinding("another-file", message, 0, pieces.size_bytes)
        return
    split = archive.split if archive.split in dataset.splits else None

    def is_member(name: str) -> bool:
        is_class = name.endswith(".tar") and name[:-4] in dataset.label_of_wnid
        return is_class or (split is not None and dataset.label_of(split, name) is not None)

    for run in neighbours(wrong):
        start = run.start * pieces.length_bytes
        end = min(run.stop * pieces.length_bytes, pieces.size_bytes)
        labels, names, unknown_bytes = set(), [], 0
        if split is not None:
            for member in members_between(partial(_read, file), start, end, is_member=is_member):
                if member.name:
                    names.append(member.name)
                    labels.add(dataset.label_of(split, member.name))
                else:
                    unknown_bytes += member.end - member.start
        wnids = tuple(synset.wnid for synset in dataset.synsets if synset.label in labels)
        stretch = f"bytes {start:,} to {end:,} ({count(len(run), 'piece')})"
        message = f"{stretch}: {_format_images(names, wnids, unknown_bytes)}"
        yield ArchiveFinding("damaged", message, start, end, wnids, tuple(names))


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
    file: ArchiveFile, proof: DigestProof, progress: Progress
) -> Iterator[ArchiveFinding]:
    digest = hashlib.new(proof.kind, usedforsecurity=False)
    with (
        closing(Reader(file, in_order=True)) as reader,
        progress.task(f"verify {file.name}", total=file.size_bytes or 0, unit="B") as task,
    ):
        for chunk in reader.chunks(0, None):
            digest.update(chunk)
            task.advance(len(chunk))
    if digest.hexdigest() != proof.digest:
        message = f"its {proof.kind} is {digest.hexdigest()}, not {proof.digest}"
        yield ArchiveFinding("digest", f"{message}; a digest does not tell which bytes are wrong")


def _near_findings(
    file: ArchiveFile, archive: Archive, dataset: Dataset, task: Task
) -> Iterator[ArchiveFinding]:
    """What is wrong with the form of an archive here; bodies are not read."""
    return _form_findings(FileStream(file.read_at), archive, dataset, task, end=file.size_bytes)


def _far_findings(
    file: ArchiveFile, archive: Archive, dataset: Dataset, task: Task
) -> Iterator[ArchiveFinding]:
    """What is wrong with the form, in one read of every byte, and the checksum of the server."""
    reader = Reader(file, in_order=True)
    if file.checksum is not None:
        reader = ChecksumReader(file, file.checksum, {}, in_order=True)
    with closing(reader):
        stream = ChunkStream(reader.chunks(0, None), 0, name=file.name)
        yield from _form_findings(stream, archive, dataset, task, end=file.size_bytes)
        position = stream.position
        stream.drain()
        task.advance(stream.position - position)
        try:
            reader.finish()
        except WrongBytes as error:
            yield ArchiveFinding("checksum", str(error))


def _form_findings(
    stream: Stream, archive: Archive, dataset: Dataset, task: Task, *, end: int | None
) -> Iterator[ArchiveFinding]:
    """What is wrong with the form of the `archive` whose `stream` ends at byte `end`.

    Of a split without labels only the structure is known; of what is no tar, or has paths, nothing.
    """
    if archive.form not in PLAIN_FORMS or archive.members:
        return
    split = archive.split if archive.split in dataset.splits else None
    counts: Counter[int] = Counter()
    names: set[str] = set()
    last_wnid = None
    try:
        for name, wnid in _images(stream, archive, task, end=end or 0):
            if wnid != last_wnid:
                names.clear()  # a name is of one class, so no other class tar may have it
                last_wnid = wnid
            label = None if split is None else dataset.label_of(split, name, wnid)
            if name in names:
                yield ArchiveFinding("twice", f"member {name!r} is there a second time")
            elif split is not None and (
                label is None or wnid not in (None, dataset.synsets[label].wnid)
            ):
                message = f"member {name!r} is not of {dataset.name} there"
                yield ArchiveFinding("extra", message)
            elif label is not None:
                counts[label] += 1
            names.add(name)
    except WrongBytes as error:
        yield ArchiveFinding("structure", str(error))
        return
    for label, images in enumerate(dataset.counts(split) if split is not None else ()):
        if counts[label] != images:
            wnid = dataset.synsets[label].wnid
            message = f"{wnid} has {count(counts[label], 'image')}, not {images:,}"
            yield ArchiveFinding("count", message)


def _images(
    stream: Stream, archive: Archive, task: Task, *, end: int
) -> Iterator[tuple[str, str | None]]:
    """The name of every image, with the wnid of the class tar that it is in, if it is in one."""
    read_bytes = 0
    for member in members(stream, name=archive.name, end=end):
        if archive.form == "tar-of-tars":
            name, inner_end = f"{archive.name}: {member.name}", stream.position + member.size_bytes
            for inner in members(stream, name=name, end=inner_end):
                yield inner.name, member.name.removesuffix(".tar")
        else:
            yield member.name, None
        task.advance(stream.position - read_bytes)
        read_bytes = stream.position
