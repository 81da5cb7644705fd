"""The published archives on this machine against what the dataset promises of them."""

import errno
import hashlib
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import NamedTuple

from imnetprep.archive_parts import archive_in_parts
from imnetprep.archives.damaged_tar import members_between
from imnetprep.archives.file import LocalFile, file_state, missing_archive
from imnetprep.archives.tar import PLAIN_FORMS, FileStream, members
from imnetprep.catalog.datasets import Archive, Dataset, Root, Split
from imnetprep.digests import Pieces
from imnetprep.jobs import FILES
from imnetprep.manifest import dataset_for
from imnetprep.messages import ImnetprepError, Progress, Task, WrongBytes, count
from imnetprep.outside_files import open_file
from imnetprep.proving.archive_at import home_of
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


class ArchiveReport(NamedTuple):
    """One archive: what was found in it, and what proves it if nothing was."""

    path: Path
    proof: Proof
    findings: tuple[ArchiveFinding, ...]


def archive_reports(
    root: Root,
    folder: Path | None,
    *,
    dataset: str | None = None,
    splits: Sequence[Split],
    jobs: int | None,
    record: bool = True,
    progress: Progress,
) -> Iterator[ArchiveReport]:
    """Read every archive in `folder` (those of `splits`, where some are named) and judge it.

    With `record`, the receipt learns which archives of ROOT/archives are proved, and forgets the
    proof of a wrong one.
    Raises ImnetprepError where an archive of a named split, or any, is not there, and where one
    changes meanwhile.
    """
    origin = dataset_for(root.manifest, dataset).published
    origin.require_archives()
    folder = root.archives if folder is None else folder
    of_splits = origin.archives_for(splits)
    paths = {each: folder / each.name for each in of_splits or origin.archives}
    present = [each for each, path in paths.items() if path.exists() and not path.is_dir()]
    for archive in of_splits or ([] if present else origin.archives[:1]):
        if archive not in present:
            for parts in [archive_in_parts(origin, split, folder) for split in archive.splits]:
                if parts:
                    raise ImnetprepError(
                        f"{archive.name} lies in parts that nothing vouches for:"
                        f" {parts[0].address}",
                        hint="imnetprep organize looks at the names and counts in them",
                    )
            raise ImnetprepError(
                missing_archive(folder / archive.name),
                hint="imnetprep download, or name the folder where the archives are",
            )
    at_home = record and home_of(folder, root) is root
    for archive in present:
        report = _judge(folder / archive.name, archive, origin, jobs=jobs, progress=progress)
        if at_home:
            with if_possible():
                if report.findings:
                    withdraw_archive(root, report.path)
                elif not isinstance(report.proof, NoProof):
                    record_archive(root, report.path, report.proof)
            checks = ["form" if isinstance(report.proof, NoProof) else "every byte"]
            record_verify(root, {archive.name: len(report.findings)}, checks=checks)
        yield report


def _judge(
    path: Path, archive: Archive, dataset: Dataset, *, jobs: int | None, progress: Progress
) -> ArchiveReport:
    """Read all of the archive at `path` and judge it by the best that the dataset has.

    Its torrent's pieces tell where it is wrong; a digest, whether; without either only the form,
    the names and the counts are looked at.
    """
    pieces = published_pieces(dataset, archive)
    proof: Proof = choose_proof(archive, pieces)
    state = file_state(path)
    findings: list[ArchiveFinding] = []
    promised_bytes = archive.size_bytes if pieces is None else pieces.size_bytes
    if not isinstance(proof, NoProof) and promised_bytes not in (None, state["size_bytes"]):
        message = f"has {state['size_bytes']:,} bytes, not {promised_bytes:,}"
        findings.append(ArchiveFinding("size", message))
    if pieces is not None:
        wrong = wrong_pieces(path, pieces, jobs=jobs, progress=progress)
        findings += _piece_findings(path, archive, dataset, pieces, wrong)
    elif isinstance(proof, DigestProof):
        findings += _digest_findings(path, proof, progress)
    else:
        findings += _form_findings(path, archive, dataset, progress)
    if file_state(path) != state:
        raise ImnetprepError(
            f"{path} changed while it was read",
            hint="run the same command once nothing writes to it",
        )
    if isinstance(proof, NoProof):
        proof = NoProof(f"{proof.reason}; what can be seen of its form is right")
    return ArchiveReport(path, proof, tuple(findings))


def wrong_pieces(path: Path, pieces: Pieces, *, jobs: int | None, progress: Progress) -> list[int]:
    """The pieces whose SHA-1 is not the torrent's or that cannot be read, in order.

    Each of `jobs` threads holds one piece; hashlib lets them run side by side.
    """
    wrong = []
    length = pieces.length_bytes
    with (
        closing(LocalFile(path)) as file,
        progress.task(f"verify {path.name}", total=pieces.size_bytes, unit="B") as task,
    ):

        def is_right(piece: int) -> bool:
            rest_bytes = pieces.size_bytes - piece * length
            return pieces.is_right(piece, _read(file, piece * length, min(length, rest_bytes)))

        verdicts = FILES.in_threads(is_right, range(pieces.count), jobs=jobs)
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


def _read(file: LocalFile, offset: int, length: int) -> bytes:
    """The bytes there; fewer where the file ends, none where the disk cannot read them."""
    try:
        return file.read_at(offset, length)
    except OSError as error:
        if error.errno != errno.EIO:
            raise
        return b""


def _piece_findings(
    path: Path, archive: Archive, dataset: Dataset, pieces: Pieces, wrong: Sequence[int]
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

    with closing(LocalFile(path)) as file:
        for run in neighbours(wrong):
            start = run.start * pieces.length_bytes
            end = min(run.stop * pieces.length_bytes, pieces.size_bytes)
            labels, names, unknown_bytes = set(), [], 0
            if split is not None:
                for member in members_between(
                    partial(_read, file), start, end, is_member=is_member
                ):
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
    path: Path, proof: DigestProof, progress: Progress
) -> Iterator[ArchiveFinding]:
    digest = hashlib.new(proof.kind, usedforsecurity=False)
    with (
        open_file(path) as file,
        progress.task(f"verify {path.name}", total=path.stat().st_size, unit="B") as task,
    ):
        while chunk := file.read(_CHUNK_BYTES):
            digest.update(chunk)
            task.advance(len(chunk))
    if digest.hexdigest() != proof.digest:
        message = f"its {proof.kind} is {digest.hexdigest()}, not {proof.digest}"
        yield ArchiveFinding("digest", f"{message}; a digest does not tell which bytes are wrong")


def _form_findings(
    path: Path, archive: Archive, dataset: Dataset, progress: Progress
) -> Iterator[ArchiveFinding]:
    """What is wrong with the form of `archive`; bodies are not read.

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
