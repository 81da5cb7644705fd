"""Survey a root and a bucket: a listing of each, and what is known of the bytes on either side."""

import hashlib
import os
import threading
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial

import botocore.exceptions as failures

from imnetprep.archives.file import file_state
from imnetprep.catalog.datasets import Dataset, Layout, Root, Split
from imnetprep.digests import Checksum, Pieces
from imnetprep.layouts.webdataset import INDEX, read_index
from imnetprep.messages import ImnetprepError, Progress, WrongBytes
from imnetprep.proving.receipt import read_receipt
from imnetprep.s3.address import S3Address
from imnetprep.s3.bucket import Bucket, ListedObject, UnfinishedUpload, listed_objects
from imnetprep.s3.failures import explained, status_of
from imnetprep.sources.torrent import published_pieces
from imnetprep.sync.journal import SyncJournal
from imnetprep.sync.keys import (
    MANIFEST,
    RECEIPT,
    Content,
    LocalFile,
    content_of,
    is_busy,
    local_files,
)
from imnetprep.sync.open_files import OpenFiles, ReadFile
from imnetprep.sync.remote_receipt import LARGEST_BYTES, RemoteReceipt, parse_receipt
from imnetprep.transfers.checksums import Checksums
from imnetprep.transfers.flow import Flow, side_by_side

# S3 takes 5 MiB to 5 GiB a part and 10,000 of them; so many leave room to be counted wrong.
_LEAST_PART_BYTES, _MOST_PARTS = 16 << 20, 5000
_TRIES = 3
_HEADS_AT_ONCE = 16


@dataclass(frozen=True, kw_only=True)
class Survey:
    """The `local` files and the `remote` objects, by path; the local files' `digests`.

    All that syncs has what it works with from here; `kind` is that of the checksums it computes.
    `run`: the only one of the runs that counts. `open_files`: where those of a run go that is being
    trained; None leaves that run out. What asks the bucket raises SourceFailed where that cannot be
    read.
    """

    root: Root
    bucket: Bucket
    address: S3Address
    journal: SyncJournal
    kind: str
    contents: frozenset[Content]
    progress: Progress
    run: str | None = None
    open_files: OpenFiles | None = None
    local: Mapping[str, LocalFile] = field(default_factory=dict)
    remote: Mapping[str, ListedObject] = field(default_factory=dict)
    uploads: tuple[UnfinishedUpload, ...] = ()
    manifest: ListedObject | None = None
    digests: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    receipt: RemoteReceipt = field(default_factory=RemoteReceipt)
    receipt_etag: str | None = None

    def listed(self, *, uploads: bool = True) -> "Survey":
        """The survey with both sides listed, and the unfinished `uploads`: not all may see those.

        Raises SourceFailed where the bucket cannot be read.
        """
        tops, folders = dict[str, ListedObject](), set[str]()
        prefix = f"{self.address.key}/" if self.address.key else ""
        for page in self.bucket.pages("list_objects_v2", Prefix=prefix, Delimiter="/"):
            folders |= {item["Prefix"] for item in page.get("CommonPrefixes", ())}
            for item in listed_objects(page):
                name, slash, _ = item.key.removeprefix(prefix).partition("/")
                if slash:  # of a server that knows no delimiter
                    folders.add(f"{prefix}{name}/")
                else:
                    tops[name] = item
        remote = dict[str, ListedObject]()
        for content in sorted(self.contents - {Content.MANIFEST}):
            folder = f"{prefix}{content}/"
            only_run = f"{self.run}/" if content is Content.RUNS and self.run else ""
            for item in self.bucket.objects(folder + only_run) if folder in folders else ():
                path = item.key.removeprefix(prefix)
                if content_of(path) in self.contents:
                    if self.open_files is not None or not is_busy(self.root, path):
                        remote[path] = item
                elif not path.endswith("/"):
                    place = S3Address(self.address.bucket, item.key)
                    self.progress.note(f"{place}: left alone")
        files = local_files(
            self.root, self.contents, self.progress, run=self.run, open_files=self.open_files
        )
        local = {each.path: each for each in files}
        return replace(
            self,
            local=local,
            remote=remote,
            uploads=tuple(self.bucket.uploads(prefix)) if uploads else (),
            manifest=tops.get(MANIFEST) if Content.MANIFEST in self.contents else None,
            digests=dict(local_digests(self.root, local.values())),
        ).with_receipt(tops.get(RECEIPT))

    def file(self, path: str) -> ReadFile:
        """The file of this path, to be read."""
        return (self.open_files or OpenFiles()).file(path, self.root.place(path))

    def object_at(self, path: str) -> ListedObject:
        """The object of this path, which is in the bucket."""
        if path == MANIFEST and self.manifest is not None:
            return self.manifest
        return self.remote[path]

    def recorded(self, path: str) -> Checksums | None:
        """The checksums that the receipt in the bucket has of an object, or the journal."""
        item, record = self.object_at(path), self.receipt.objects.get(path)
        if record is not None and record.etag == item.etag:
            has_its_size = record.checksums.whole.size_bytes == item.size_bytes
            return record.checksums if has_its_size else None
        return self.journal.of_object(self.address / path, item.etag)

    def checksums(self, path: str) -> Checksums | None:
        """The checksums of an object: as recorded, or else by asking the bucket."""
        checksums = self.recorded(path)
        if checksums is None:
            self._ask(path)
            checksums = self.recorded(path)
        return checksums

    def ask(self, paths: Iterable[str]) -> None:
        """Learn what the server keeps of these objects now."""
        units = (partial(self._ask, path) for path in paths)
        list(side_by_side(units, jobs=_HEADS_AT_ONCE, stop=threading.Event()))

    def ask_for_unknown(self, paths: Iterable[str]) -> None:
        """Learn what the server keeps of those objects of which nothing is recorded."""
        self.ask([path for path in paths if self.recorded(path) is None])

    def _ask(self, path: str) -> None:
        place, item = self.address / path, self.object_at(path)
        try:
            with explained(place):
                head = self.bucket.head(place.key)
        except ImnetprepError as error:
            cause = error.__cause__
            if isinstance(cause, failures.ClientError) and status_of(cause) == 404:
                return
            raise
        if head.checksum is None or head.etag != item.etag:
            return
        checksums = self.journal.of_object(place, item.etag)
        if checksums is None or checksums.whole != head.checksum:  # it may know the parts too
            self.journal.keep_object(place, head.etag, Checksums(head.checksum))

    def file_checksums(
        self, path: str, like: Checksums, flow: Flow, *, reread: bool = False
    ) -> Checksums:
        """The checksums of a file over the parts of `like`: as recorded, or by reading it."""
        file, kind = self.file(path), like.whole.kind
        checksums = None if reread else self.journal.of_file(path, file.state, kind)
        if checksums is not None:
            flow.skipped(file.state["size_bytes"])
            return checksums
        part_bytes = like.part_bytes or part_bytes_of(like.whole.size_bytes)
        parts, rest_bytes, offset = list[Checksum](), 0, 0
        with file.opened() as handle:
            while chunk := os.pread(handle, min(1 << 20, rest_bytes or part_bytes), offset):
                if not rest_bytes:
                    parts.append(Checksum.empty(kind))
                    rest_bytes = part_bytes
                parts[-1] = parts[-1].over(chunk)
                rest_bytes -= len(chunk)
                offset += len(chunk)
                flow.go_on()
                flow.skipped(len(chunk))
        checksums = Checksums.of_parts(parts, kind, part_bytes)
        if file.is_unchanged():
            self.journal.keep_file(path, file.state, checksums)
        return checksums

    def checksums_by_md5(self, path: str, flow: Flow) -> Checksums | None:
        """The checksums of an object whose ETag is the MD5 of the file here; None: it is not.

        That it is another proves nothing: an ETag need not be a MD5.
        """
        item = self.object_at(path)
        if not item.has_md5():
            return None
        md5, offset = hashlib.md5(usedforsecurity=False), 0
        with self.file(path).opened() as handle:
            while chunk := os.pread(handle, 1 << 20, offset):
                flow.go_on()
                md5.update(chunk)
                offset += len(chunk)
        if md5.hexdigest() != item.etag:
            return None
        like = Checksums(Checksum(self.kind, 0, item.size_bytes))
        checksums = self.file_checksums(path, like, flow)
        self.journal.keep_object(self.address / path, item.etag, checksums)
        return checksums

    def with_receipt(self, item: ListedObject | None) -> "Survey":
        """What the survey is with `item` as the receipt in the bucket."""
        if item is None:
            return replace(self, receipt=RemoteReceipt(), receipt_etag=None)
        place, receipt = self.address / RECEIPT, RemoteReceipt()
        body = self.journal.body(place, item.etag)
        try:
            if body is None:
                if item.size_bytes > LARGEST_BYTES:
                    raise ValueError(f"has {item.size_bytes:,} bytes")
                with explained(place):
                    body = _proved_body(self.bucket, place, item)
                self.journal.keep_body(place, item.etag, body)
            receipt = parse_receipt(body)
        except ValueError as error:
            self.progress.note(f"{place} is no receipt and is not believed: {error}")
        return replace(self, receipt=receipt, receipt_etag=item.etag)


def part_bytes_of(size_bytes: int) -> int:
    """How long the parts of an object of this size are: the same for whoever sends it."""
    part_bytes = _LEAST_PART_BYTES
    while part_bytes * _MOST_PARTS < size_bytes:
        part_bytes *= 2
    return part_bytes


def _proved_body(bucket: Bucket, place: S3Address, item: ListedObject) -> bytes:
    """All of a small object, as its server's checksum has it."""
    for _ in range(_TRIES):
        chunks = bucket.chunks(place.key, 0, item.size_bytes, etag=item.etag, length=1 << 20)
        body = b"".join(chunks)
        checksum = bucket.head(place.key).checksum
        if checksum is None or Checksum.empty(checksum.kind).over(body) == checksum:
            return body
    raise WrongBytes(
        f"{place} came with wrong bytes, {_TRIES} times",
        hint="the network or the memory of this machine changes bytes; try another",
    )


def local_digests(root: Root, files: Collection[LocalFile]) -> Iterator[tuple[str, dict[str, str]]]:
    """The digests that are known without reading: of proved archives, and what indexes list."""
    records, sizes = read_receipt(root)["archives"], {each.path: each.size_bytes for each in files}
    for name, record in records.items():
        path, proof = f"{Content.ARCHIVES}/{name}", record["proof"]
        if path in sizes and record.items() >= file_state(root.place(path)).items():
            digest = proof.get("info_hash") or proof.get("digest")
            if digest and "of" not in proof:
                yield path, {proof["kind"]: str(digest)}
    for split in Split:
        if f"{Content.SHARDS}/{split}/{INDEX}" in sizes:
            folder = root.split(split, Layout.WEBDATASET)
            indexed_at = (folder / INDEX).stat().st_mtime_ns
            with suppress(WrongBytes, OSError):
                for shard in read_index(folder).shards:
                    path = f"{Content.SHARDS}/{split}/{shard.name}"
                    status = root.place(path).stat()
                    # The index is written last: what was touched since is not what it lists.
                    if (
                        path in sizes
                        and status.st_size == shard.size_bytes
                        and status.st_mtime_ns < indexed_at
                    ):
                        yield path, {"xxh128": shard.xxh128}


def pieces_of(
    dataset: Dataset | None, path: str, size_bytes: int, *, place: object, hint: str
) -> Pieces | None:
    """The published pieces that an archive must have. Raises WrongBytes where it has not the size.

    `place` and `hint` are for that error.
    """
    if dataset is None or content_of(path) is not Content.ARCHIVES:
        return None
    name = path.partition("/")[2]
    archive = next((each for each in dataset.archives if each.name == name), None)
    pieces = published_pieces(dataset, archive) if archive else None
    if pieces is not None and pieces.size_bytes != size_bytes:
        message = f"{place} has {size_bytes:,} bytes, not {pieces.size_bytes:,}"
        raise WrongBytes(message, hint=hint)
    return pieces
