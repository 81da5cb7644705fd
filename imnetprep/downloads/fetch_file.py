"""One file fetched into ROOT/archives: by pieces, by ranges, or in one stream; whole or absent.

What proves its bytes: the pieces of its torrent; a digest of its dataset or of the user; what its
server says of the whole; else nothing, which the receipt then says.
"""

import os
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import NamedTuple

from imnetprep.archives.file import ArchiveFile, LocalFile
from imnetprep.catalog.datasets import Archive, Dataset, Root
from imnetprep.digests import ARCHIVE_DIGESTS, Pieces
from imnetprep.downloads.addresses import FileRequest, is_safe_name
from imnetprep.fs import allocated_bytes, clone_file, read_range, require_free, sync_folder
from imnetprep.jobs import TRANSFERS
from imnetprep.messages import (
    ChangedFile,
    ImnetprepError,
    Progress,
    SourceFailed,
    WrongBytes,
    WrongUsage,
    move_away,
)
from imnetprep.outside_files import open_file
from imnetprep.outside_text import shown
from imnetprep.proving.receipt import (
    ArchiveProof,
    DigestProof,
    NoProof,
    Proof,
    ServerChecksum,
    TorrentProof,
    archive_proof,
    keep_arrival,
    record_archive,
    record_arrivals,
)
from imnetprep.sources.part_files import PartFiles
from imnetprep.sources.piece_download import Mirrors, fetch_pieces
from imnetprep.sources.torrent import published_pieces, read_torrent
from imnetprep.sources.web import WebFile
from imnetprep.sources.web_stream import BrokenStream, WebStream
from imnetprep.transfers.checksums import Checksums
from imnetprep.transfers.flow import Flow, side_by_side
from imnetprep.transfers.journal import PartJournal
from imnetprep.transfers.range_download import (
    RangeDownload,
    Remote,
    download_part_path,
    open_part,
    write_all,
)
from imnetprep.transfers.whole_digest import WholeDigest, digest_of

_RANGE_BYTES = 8 << 20
_CHUNK_BYTES = 1 << 20
_TIMES = 4  # a file is begun anew, where it changes on its server or breaks without ranges
_SECONDS_BETWEEN_SYNCS = 10
_OF_SERVERS = ("sha256", "md5")
_NO_END = "its server says neither its length nor a digest: it may be cut short"


class FetchResult(NamedTuple):
    """A file under its name, and what proves it; `is_new`: it was fetched just now."""

    path: Path
    proof: Proof
    is_new: bool = True


class _Proofs(NamedTuple):
    """What is known of a file before it comes: a digest (kind and value), and pieces."""

    archive: Archive | None
    digest: tuple[str, str] | None
    pieces: Pieces | None

    @property
    def size_bytes(self) -> int | None:
        """How long it must be."""
        size_bytes = self.archive.size_bytes if self.archive else None
        return size_bytes or (self.pieces.size_bytes if self.pieces else None)


class Expectation(NamedTuple):
    """What proves a file once it is whole: a digest of all of it, by its dataset or its server."""

    kind: str
    value: str
    proof: ArchiveProof

    @property
    def verb(self) -> str:
        """The verb that goes with its kind."""
        return "are" if self.kind == "pieces" else "is"


@dataclass(frozen=True)
class FileFetcher:
    """What fetches files into `root`, whose archives are those of `dataset`.

    `digest`: what the user says of the one file, kind and value; `max_rate` in bytes a second;
    `stop` ends it.
    """

    root: Root
    dataset: Dataset
    journal: PartJournal
    progress: Progress
    jobs: int | None = None
    max_rate: float | None = None
    digest: tuple[str, str] | None = None
    stop: threading.Event | None = None

    def fetch(self, request: FileRequest) -> FetchResult:
        """The file, whole and proved as far as anything proves it.

        Raises SourceFailed where no server delivers, WrongBytes where what comes is wrong, and
        ImnetprepError where another file has its name or the disk is too small.
        """
        self._record_arrivals()
        for _ in range(_TIMES - 1):
            try:
                return self._fetched(request)
            except (ChangedFile, BrokenStream) as error:
                self.progress.note(f"{error}; begun anew")
        return self._fetched(request)

    def _fetched(self, request: FileRequest) -> FetchResult:
        if request.name and (result := self._present(request.name, request)):
            return result
        with ExitStack() as stack:
            files = self._opened(request, stack)
            name = request.name or _name_at(*next(iter(files.items())))
            archive = request.archive or self._archive(name)
            request = replace(request, archive=archive)
            if not request.name and (result := self._present(name, request)):
                return result
            path = self.root.archives / name
            path.parent.mkdir(parents=True, exist_ok=True)
            pieces = published_pieces(self.dataset.published, archive) if archive else None
            if archive is not None and pieces is not None:
                seekable = {title: file for title, file in files.items() if file.seekable}
                for title in (files.keys() - seekable.keys()) if seekable else ():
                    self.progress.note(f"{title}: its server gives no byte ranges; left out")
                if seekable:
                    return self._by_pieces(seekable, path, archive, pieces)
            digest = self._digest(archive)
            if path.exists():  # its pieces were to be looked at, and cannot be
                return self._judged(path, digest)
            if len(files) > 1 and digest is None and pieces is None:
                raise WrongUsage(
                    f"nothing proves that {len(files)} addresses have the same {name}",
                    hint="name one of them, or its --digest",
                )
            proofs = _Proofs(archive, digest, pieces)
            return self._by_one_of(files, path, proofs)

    def _opened(self, request: FileRequest, stack: ExitStack) -> dict[str, ArchiveFile]:
        """The file at each of its places, by address; some may not be had, as long as one is."""
        files: dict[str, ArchiveFile] = {}
        size_bytes = request.archive.size_bytes if request.archive else None
        for at, place in enumerate(request.places, 1):
            try:
                file = stack.enter_context(closing(place.open()))
                if size_bytes is not None and file.size_bytes not in (None, size_bytes):
                    raise WrongBytes(
                        f"{place.title} has {file.size_bytes:,} bytes; {self.dataset.name} has"
                        f" {size_bytes:,} there",
                        hint="this is another file; name the dataset it belongs to, or another"
                        " address",
                    )
                files[place.title] = file
            except ImnetprepError as error:
                if at == len(request.places) and not files:
                    raise
                self.progress.note(f"{error}; left out")
        return files

    def _archive(self, name: str) -> Archive | None:
        archives = self.dataset.published.archives
        return next((archive for archive in archives if archive.name == name), None)

    def _digest(self, archive: Archive | None) -> tuple[str, str] | None:
        """The digest by which the whole is judged, kind and value: the dataset's or the user's.

        Raises WrongUsage where they contradict each other.
        """
        digests = archive.digests if archive else {}
        kind = next((kind for kind in ARCHIVE_DIGESTS if kind in digests), None)
        if self.digest is None:
            return (kind, digests[kind]) if kind else None
        if digests.get(self.digest[0], self.digest[1]) != self.digest[1]:
            raise WrongUsage(
                f"{self.dataset.name} has {self.digest[0]} {digests[self.digest[0]]} there",
                hint="leave --digest out, or name the dataset that the file belongs to",
            )
        return (kind, digests[kind]) if kind else self.digest

    def _present(self, name: str, request: FileRequest) -> FetchResult | None:
        """The file, if it is there already and right; None: it is to be fetched.

        Raises ImnetprepError where another file has its name, or may have it.
        """
        path, archive = self.root.archives / name, request.archive
        if not path.exists():
            return None
        if not path.is_file():
            raise ImnetprepError(f"{path} is no file", hint=f"{move_away(path)}; then run it again")
        digest, proof = self._digest(archive), archive_proof(self.root, path)
        if proof is not None and not (digest and isinstance(proof, NoProof)):
            if self.digest is not None and digest_of(path, self.digest[0]) != self.digest[1]:
                raise self._other(path, self.digest)
            if self.digest is None and isinstance(proof, NoProof | ServerChecksum):
                self._require_origin(path, proof, request)
            return FetchResult(path, proof, is_new=False)
        if archive is not None and archive.torrent is not None:
            return None  # its pieces are looked at
        return self._judged(path, digest)

    def _require_origin(
        self, path: Path, proof: NoProof | ServerChecksum, request: FileRequest
    ) -> None:
        """Raise ImnetprepError where the file at `path`, which nobody vouches for, is of another
        address than those of `request`, or may be cut short.
        """
        problem = ""
        if proof.server not in [place.title for place in request.places]:
            problem = f"it is from {proof.server}" if proof.server else "nothing says what it is"
        elif isinstance(proof, NoProof) and proof.reason == _NO_END:
            problem = "it may be cut short: its server did not say how long it is"
        if problem:
            raise ImnetprepError(
                f"{path} is there, and {problem}",
                hint=f"{move_away(path)}; then run the same command again, or name its --digest",
            )

    def _judged(self, path: Path, digest: tuple[str, str] | None) -> FetchResult:
        """A file that lies there and that the receipt does not speak of, if its digest is right."""
        for each in filter(None, dict.fromkeys((digest, self.digest))):
            if digest_of(path, each[0]) != each[1]:
                raise self._other(path, each)
        if digest is None:
            raise self._other(path, None)
        record_archive(self.root, path, DigestProof(*digest))
        return FetchResult(path, DigestProof(*digest), is_new=False)

    def _other(self, path: Path, digest: tuple[str, str] | None) -> ImnetprepError:
        problem = f"its {digest[0]} is not {digest[1]}" if digest else "nothing says what it is"
        return ImnetprepError(
            f"{path} is there, and {problem}",
            hint=f"{move_away(path)}; then run the same command again",
        )

    def _by_pieces(
        self, files: Mapping[str, ArchiveFile], path: Path, archive: Archive, pieces: Pieces
    ) -> FetchResult:
        assert archive.torrent is not None
        mirrors = Mirrors(files, pieces.size_bytes, self.progress.note)
        torrent = read_torrent(self.dataset.published.read(archive.torrent))
        parts = PartFiles(torrent, {torrent.files[0].index: path})
        parts.recover(self.progress, stop=self.stop)
        self._require_free(path, parts.missing_disk_bytes)
        with self._flow(path, pieces.size_bytes, parts.proved_bytes) as flow:
            fetch_pieces(parts, mirrors, flow, jobs=TRANSFERS.count(self.jobs))
        proof = TorrentProof(pieces.info_hash, pieces.count)
        record_archive(self.root, path, proof)
        if self.digest is not None and digest_of(path, self.digest[0]) != self.digest[1]:
            raise WrongBytes(
                f"{path} is that of torrent {pieces.info_hash}, and its {self.digest[0]} is not"
                f" {self.digest[1]}",
                hint="leave --digest out, if it is of another file",
            )
        return FetchResult(path, proof)

    def _by_one_of(
        self, files: Mapping[str, ArchiveFile], path: Path, proofs: _Proofs
    ) -> FetchResult:
        """From the first of the `files` that delivers what is right, one after the other."""
        for at, (title, file) in enumerate(files.items(), 1):
            try:
                return self._by_one(title, file, path, proofs)
            except (SourceFailed, WrongBytes) as error:
                if at == len(files) or isinstance(error, ChangedFile):
                    raise
                self.progress.note(f"{error}; left out, the next address is asked")
        raise AssertionError("a request has an address")

    def _by_one(self, title: str, file: ArchiveFile, path: Path, proofs: _Proofs) -> FetchResult:
        expectation = _expectation(title, file, proofs.digest)
        if isinstance(file, LocalFile) and clone_file(file.path, download_part_path(path)):
            self.journal.forget_fetching(path.name)
            is_right = expectation is None or _is_right(download_part_path(path), expectation)
        elif file.seekable:
            is_right = self._by_ranges(title, file, path, expectation, proofs)
        else:
            self._by_stream(title, file, path, proofs)
            is_right = expectation is None or _is_right(download_part_path(path), expectation)
            if proofs.pieces is not None and is_right:
                expectation = _by_all_pieces(proofs.pieces)
                is_right = _has_pieces(download_part_path(path), proofs.pieces)
        if expectation is not None and not is_right:
            raise self._wrong(title, path, expectation)
        if self.digest not in (None, proofs.digest):
            own = Expectation(*self.digest, DigestProof(*self.digest))
            if not _is_right(download_part_path(path), own):
                raise self._wrong(title, path, own)
        proof = expectation.proof if expectation else _proof_of(title, file)
        self._give_name(path, proof)
        if proofs.archive is not None and proofs.archive.torrent and proofs.pieces:
            torrent = read_torrent(self.dataset.published.read(proofs.archive.torrent))
            PartFiles(torrent, {torrent.files[0].index: path}).discard()
        return FetchResult(path, proof)

    def _by_ranges(
        self,
        title: str,
        file: ArchiveFile,
        path: Path,
        expectation: Expectation | None,
        proofs: _Proofs,
    ) -> bool:
        """Fetch the part of `path`, whole. Is it what is expected?"""
        size_bytes = file.size_bytes or 0
        self._require_free(path, size_bytes - allocated_bytes(download_part_path(path)))
        version = file.identity
        if expectation is not None and proofs.digest is not None:
            # Of the same digest the bytes are the same, whatever server has them.
            version = f"{expectation.kind} {expectation.value}"
            if isinstance(file, WebFile):
                file.any_version = True
        elif isinstance(file, WebFile) and not file.has_version:
            version = os.urandom(16).hex()  # what is there may be of any other file
        hint = "run the same command again, or name another address"
        remote = Remote(title, size_bytes, version, file.chunks, hint)
        for _ in range(2):
            with self._flow(path, size_bytes) as flow, ExitStack() as stack:
                download = self._opened_download(path, remote, file, flow)
                stack.callback(download.close)
                spans = download.open()
                digest = expectation and stack.enter_context(
                    WholeDigest(download, expectation.kind)
                )
                self._fetch_spans(download, spans, flow)
                if digest is None or expectation is None or digest.is_right(expectation.value):
                    return True
            if not download.is_resumed:
                break
            self.journal.forget_fetching(path.name)
            self.progress.note(
                f"{path.name}: what an earlier run or another address left is wrong; begun anew"
                f" from {title}"
            )
        return False

    def _opened_download(
        self, path: Path, remote: Remote, file: ArchiveFile, flow: Flow
    ) -> RangeDownload:
        return RangeDownload(
            path.name,
            path,
            download_part_path(path),
            remote,
            self.journal,
            flow,
            range_bytes=_RANGE_BYTES,
            kind="crc32",
            target=Checksums(file.checksum) if file.checksum else None,
            pieces=None,
            note=self.progress.note,
        )

    def _fetch_spans(self, download: RangeDownload, spans: Sequence[range], flow: Flow) -> None:
        units = (partial(download.fetch, span) for span in spans)
        synced_s = time.monotonic()
        for _ in side_by_side(units, jobs=TRANSFERS.count(self.jobs), stop=flow.stop):
            if time.monotonic() - synced_s > _SECONDS_BETWEEN_SYNCS:
                download.sync()
                synced_s = time.monotonic()

    def _by_stream(self, title: str, file: ArchiveFile, path: Path, proofs: _Proofs) -> None:
        """Fetch the part of `path` from its start: its server gives no ranges.

        Raises WrongBytes where it is longer or shorter than the dataset says.
        """
        self.progress.note(f"{path.name} comes in one stream: what interrupts it begins it anew")
        self.journal.forget_fetching(path.name)
        known_bytes = proofs.size_bytes
        size_bytes = known_bytes or file.size_bytes or 0
        self._require_free(path, size_bytes)
        handle = open_part(download_part_path(path))
        try:
            os.ftruncate(handle, 0)
            with self._flow(path, size_bytes) as flow:
                at = 0
                while chunk := file.read_at(at, _CHUNK_BYTES):
                    if known_bytes is not None and at + len(chunk) > known_bytes:
                        raise _other_size(title, f"more than {known_bytes:,}", known_bytes)
                    flow.moved(len(chunk))
                    write_all(handle, memoryview(chunk), at, path)
                    at += len(chunk)
            if known_bytes not in (None, at):
                raise _other_size(title, f"{at:,}", known_bytes)
        except WrongBytes:
            download_part_path(path).unlink()
            raise
        finally:
            os.close(handle)

    def _wrong(self, title: str, path: Path, expectation: Expectation) -> WrongBytes:
        """Put what came aside; the error."""
        spoiled_path = path.with_name(f"{path.name}.wrong")
        self.journal.forget_fetching(path.name)
        download_part_path(path).replace(spoiled_path)
        return WrongBytes(
            f"{title}: its {expectation.kind} {expectation.verb} not {expectation.value}",
            hint=f"what came is {spoiled_path}, to be looked at or removed; another address may"
            " have it right",
        )

    def _give_name(self, path: Path, proof: ArchiveProof) -> None:
        """Give the whole part its name, and the receipt its proof."""
        with open_file(download_part_path(path)) as file:
            os.fsync(file.fileno())
        keep_arrival(self.journal, path.name, download_part_path(path), proof)
        download_part_path(path).rename(path)
        sync_folder(path.parent)
        self.journal.forget_fetching(path.name)
        self._record_arrivals()

    def _record_arrivals(self) -> None:
        record_arrivals(self.journal, self.root, self.root.archives.joinpath)

    def _require_free(self, path: Path, needed_bytes: int) -> None:
        require_free(path.parent, max(0, needed_bytes), purpose=f"to download {path.name}")

    @contextmanager
    def _flow(self, path: Path, size_bytes: int, initial: int = 0) -> Iterator[Flow]:
        with self.progress.task(
            f"fetch {path.name}", total=size_bytes, unit="B", initial=initial
        ) as task:
            yield Flow(task, self.max_rate, self.stop)


def _name_at(title: str, file: ArchiveFile) -> str:
    """What `file` is called by its server. Raises SourceFailed where no file of ours may be."""
    if not is_safe_name(file.name):
        raise SourceFailed(
            f"{title} is called {shown(file.name)!r}, which is no name for a file here",
            hint="name an address that ends in the name of the file",
        )
    return file.name


def _expectation(
    title: str, file: ArchiveFile, digest: tuple[str, str] | None
) -> Expectation | None:
    if digest is not None:
        return Expectation(*digest, DigestProof(*digest))
    if (file.checksum is not None and file.seekable) or not isinstance(file, WebFile):
        return None  # the ranges prove it
    digests = ((kind, file.digests[kind]) for kind in _OF_SERVERS if kind in file.digests)
    server = next(digests, None)
    return server and Expectation(*server, ServerChecksum(*server, title))


def _other_size(title: str, size: str, known_bytes: int | None) -> WrongBytes:
    return WrongBytes(
        f"{title} has {size} bytes; its dataset has {known_bytes:,} there",
        hint="this is another file; name the dataset it belongs to, or another address",
    )


def _by_all_pieces(pieces: Pieces) -> Expectation:
    proof = TorrentProof(pieces.info_hash, pieces.count)
    return Expectation("pieces", f"those of torrent {pieces.info_hash}", proof)


def _has_pieces(part: Path, pieces: Pieces) -> bool:
    """Is each piece of the file at `part` right?"""
    with open_file(part) as file:
        for piece in range(pieces.count):
            body = read_range(file.fileno(), pieces.length_bytes, piece * pieces.length_bytes)
            if not pieces.is_right(piece, body):
                return False
        return True


def _is_right(part: Path, expectation: Expectation) -> bool:
    return digest_of(part, expectation.kind) == expectation.value


def _proof_of(title: str, file: ArchiveFile) -> ArchiveProof:
    """What proves bytes that were judged by nothing but what their server says of them."""
    if file.seekable and (checksum := file.checksum) is not None:
        return ServerChecksum(checksum.kind, f"{checksum.value:x}", title)
    if isinstance(file, WebStream) and not file.has_end:
        return NoProof(_NO_END, title)
    return NoProof("its server says nothing of its bytes", title)
