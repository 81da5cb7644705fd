"""Survey a root and a bucket: a listing of each, and what is known of the bytes on either side."""

import threading
from collections.abc import Collection, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import partial

import botocore.exceptions as failures

from imnetprep.archives.file import file_state
from imnetprep.catalog.datasets import Dataset, Layout, Root, Split
from imnetprep.digests import Checksum, Pieces
from imnetprep.layouts.webdataset import INDEX, read_index
from imnetprep.messages import ImnetprepError, Progress, WrongBytes
from imnetprep.proving.receipt import read_receipt
from imnetprep.s3.address import S3Address
from imnetprep.s3.bucket import (
    Bucket,
    ListedObject,
    UnfinishedUpload,
    head_object,
    listed_objects,
    unfinished_uploads,
)
from imnetprep.s3.failures import explained, status_of
from imnetprep.sources.torrent import published_pieces
from imnetprep.sync.jobs import side_by_side
from imnetprep.sync.journal import Checksums, SyncJournal
from imnetprep.sync.keys import (
    MANIFEST,
    RECEIPT,
    Content,
    LocalFile,
    content_of,
    is_busy,
    local_files,
)
from imnetprep.sync.remote_receipt import LARGEST_BYTES, RemoteReceipt, parse_receipt

_TRIES = 3
_HEADS_AT_ONCE = 16


@dataclass(frozen=True)
class Survey:
    """The `local` files and the `remote` objects, by path; the local files' `digests`."""

    address: S3Address
    local: Mapping[str, LocalFile]
    remote: Mapping[str, ListedObject]
    uploads: tuple[UnfinishedUpload, ...]
    receipt: RemoteReceipt
    receipt_etag: str | None
    manifest: ListedObject | None
    digests: Mapping[str, Mapping[str, str]]

    def object_at(self, path: str) -> ListedObject:
        """The object of this path, which is in the bucket."""
        if path == MANIFEST and self.manifest is not None:
            return self.manifest
        return self.remote[path]

    def uploads_of(self, path: str) -> list[UnfinishedUpload]:
        """The unfinished uploads of a file."""
        key = (self.address / path).key
        return [each for each in self.uploads if each.key == key]


def survey(
    root: Root,
    bucket: Bucket,
    address: S3Address,
    journal: SyncJournal,
    *,
    contents: Collection[Content],
    uploads: bool = True,
    progress: Progress,
) -> Survey:
    """List both sides, and the unfinished `uploads` in the bucket: not all may see those.

    Raises SourceFailed where the bucket cannot be read.
    """
    tops = {}
    folders = set()
    prefix = f"{address.key}/" if address.key else ""
    for page in bucket.pages("list_objects_v2", Prefix=prefix, Delimiter="/"):
        for each in page.get("Contents", ()):
            etag = each["ETag"].strip('"')
            name = each["Key"].removeprefix(prefix)
            tops[name] = ListedObject(each["Key"], each["Size"], etag, each["LastModified"])
        folders |= {each["Prefix"].removeprefix(prefix) for each in page.get("CommonPrefixes", ())}
    remote: dict[str, ListedObject] = {}
    for folder in sorted(folders & {f"{each}/" for each in {*contents} - {Content.MANIFEST}}):
        for item in listed_objects(bucket, prefix + folder):
            path = item.key.removeprefix(prefix)
            if content_of(path) in contents:
                if not is_busy(root, path):
                    remote[path] = item
            elif not path.endswith("/"):
                progress.note(f"{S3Address(address.bucket, item.key)}: left alone")
    receipt = tops.get(RECEIPT)
    local = {each.path: each for each in local_files(root, contents, progress)}
    return Survey(
        address,
        local,
        remote,
        tuple(unfinished_uploads(bucket, prefix)) if uploads else (),
        _fetch_receipt(bucket, address, receipt, journal, progress),
        receipt.etag if receipt else None,
        tops.get(MANIFEST) if Content.MANIFEST in contents else None,
        dict(local_digests(root, local.values())),
    )


def fetch_receipt(
    bucket: Bucket, address: S3Address, journal: SyncJournal, progress: Progress
) -> tuple[RemoteReceipt, str | None]:
    """The receipt as it is now, and its ETag."""
    key = (address / RECEIPT).key
    item = next((each for each in listed_objects(bucket, key) if each.key == key), None)
    receipt = _fetch_receipt(bucket, address, item, journal, progress)
    return receipt, item.etag if item else None


def _fetch_receipt(
    bucket: Bucket,
    address: S3Address,
    item: ListedObject | None,
    journal: SyncJournal,
    progress: Progress,
) -> RemoteReceipt:
    if item is None:
        return RemoteReceipt()
    place = address / RECEIPT
    body = journal.body(place, item.etag)
    try:
        if body is None:
            if item.size_bytes > LARGEST_BYTES:
                raise ValueError(f"has {item.size_bytes:,} bytes")
            with explained(place):
                body = _proved_body(bucket, place, item)
            journal.keep_body(place, item.etag, body)
        return parse_receipt(body)
    except ValueError as error:
        progress.note(f"{place} is no receipt and is not believed: {error}")
        return RemoteReceipt()


def _proved_body(bucket: Bucket, place: S3Address, item: ListedObject) -> bytes:
    """All of a small object, as its server's checksum has it."""
    for _ in range(_TRIES):
        chunks = bucket.chunks(place.key, 0, item.size_bytes, etag=item.etag, length=1 << 20)
        body = b"".join(chunks)
        checksum = head_object(bucket, place.key).checksum
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
        if path in sizes and record.items() >= file_state(root.path / path).items():
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
                    status = (root.path / path).stat()
                    # The index is written last: what was touched since is not what it lists.
                    if (
                        path in sizes
                        and status.st_size == shard.size_bytes
                        and status.st_mtime_ns < indexed_at
                    ):
                        yield path, {"xxh128": shard.xxh128}


def object_checksums(
    survey: Survey, path: str, bucket: Bucket | None, journal: SyncJournal
) -> Checksums | None:
    """The checksums of an object: as recorded, or else by asking `bucket`."""
    checksums = recorded_checksums(survey, path, journal)
    if checksums is None and bucket is not None:
        _ask(survey, path, bucket, journal)
        checksums = recorded_checksums(survey, path, journal)
    return checksums


def recorded_checksums(survey: Survey, path: str, journal: SyncJournal) -> Checksums | None:
    """The checksums that the receipt in the bucket has of an object, or the journal."""
    item, record = survey.object_at(path), survey.receipt.objects.get(path)
    if record is not None and record.etag == item.etag:
        return record.checksums if record.checksums.whole.size_bytes == item.size_bytes else None
    return journal.of_object(survey.address / path, item.etag)


def ask_for_unknown(
    survey: Survey, paths: Iterable[str], bucket: Bucket, journal: SyncJournal
) -> None:
    """Learn what the server keeps of those objects of which nothing is recorded."""
    missing_paths = [path for path in paths if recorded_checksums(survey, path, journal) is None]
    ask(survey, missing_paths, bucket, journal)


def ask(survey: Survey, paths: Iterable[str], bucket: Bucket, journal: SyncJournal) -> None:
    """Learn what the server keeps of these objects now."""
    units = (partial(_ask, survey, path, bucket, journal) for path in paths)
    for _ in side_by_side(units, jobs=_HEADS_AT_ONCE, stop=threading.Event()):
        pass


def _ask(survey: Survey, path: str, bucket: Bucket, journal: SyncJournal) -> None:
    place, item = survey.address / path, survey.object_at(path)
    try:
        with explained(place):
            head = head_object(bucket, place.key)
    except ImnetprepError as error:
        cause = error.__cause__
        if isinstance(cause, failures.ClientError) and status_of(cause) == 404:
            return
        raise
    if head.checksum is None or head.etag != item.etag:
        return
    checksums = journal.of_object(place, item.etag)
    if checksums is None or checksums.whole != head.checksum:  # it may know the parts too
        journal.keep_object(place, head.etag, Checksums(head.checksum))


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
