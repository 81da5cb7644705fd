"""Both sides as they lie there: one listing of each, and what the bucket says of its objects."""

from collections.abc import Collection, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass

from imnetprep.archives.file import file_state
from imnetprep.catalog.datasets import Split
from imnetprep.digests import Checksum
from imnetprep.layouts.webdataset import INDEX, read_index
from imnetprep.messages import Progress, WrongBytes
from imnetprep.proving.receipt import read_receipt
from imnetprep.roots import Layout, Root
from imnetprep.s3.address import S3Address
from imnetprep.s3.bucket import Bucket
from imnetprep.s3.failures import told
from imnetprep.s3.listing import Listed, Unfinished, head_object, listed_objects, unfinished_uploads
from imnetprep.sync.journal import SyncJournal
from imnetprep.sync.keys import MANIFEST, RECEIPT, FileHere, What, files_here, is_busy, what_of
from imnetprep.sync.there import LARGEST_BYTES, RemoteReceipt, parse_receipt

_TRIES = 3


@dataclass(frozen=True)
class Survey:
    """Both sides as they lie there, by path."""

    address: S3Address
    here: Mapping[str, FileHere]
    there: Mapping[str, Listed]
    unfinished: tuple[Unfinished, ...]
    receipt: RemoteReceipt
    receipt_etag: str | None
    manifest: Listed | None
    digests: Mapping[str, Mapping[str, str]]

    def listed(self, path: str) -> Listed:
        """An object that is there."""
        if path == MANIFEST and self.manifest is not None:
            return self.manifest
        return self.there[path]

    def uploads_of(self, path: str) -> list[Unfinished]:
        """The unfinished uploads of a file."""
        key = (self.address / path).key
        return [each for each in self.unfinished if each.key == key]


def survey(
    root: Root,
    bucket: Bucket,
    address: S3Address,
    journal: SyncJournal,
    *,
    what: Collection[What],
    uploads: bool = True,
    progress: Progress,
) -> Survey:
    """List both sides, and the `uploads` there that are not finished: not all may see those.

    Raises SourceFailed where the bucket cannot be read.
    """
    tops = {}
    folders = set()
    prefix = f"{address.key}/" if address.key else ""
    for page in bucket.pages("list_objects_v2", Prefix=prefix, Delimiter="/"):
        for each in page.get("Contents", ()):
            etag = each["ETag"].strip('"')
            name = each["Key"].removeprefix(prefix)
            tops[name] = Listed(each["Key"], each["Size"], etag, each["LastModified"])
        folders |= {each["Prefix"].removeprefix(prefix) for each in page.get("CommonPrefixes", ())}
    there: dict[str, Listed] = {}
    for folder in sorted(folders & {f"{each}/" for each in {*what} - {What.MANIFEST}}):
        for listed in listed_objects(bucket, prefix + folder):
            path = listed.key.removeprefix(prefix)
            if what_of(path) in what:
                if not is_busy(root, path):
                    there[path] = listed
            elif not path.endswith("/"):
                progress.note(f"{S3Address(address.bucket, listed.key)}: left alone")
    listed_receipt = tops.get(RECEIPT)
    here = list(files_here(root, what, progress))
    return Survey(
        address,
        {each.path: each for each in here},
        there,
        tuple(unfinished_uploads(bucket, prefix)) if uploads else (),
        _fetch_receipt(bucket, address, listed_receipt, journal, progress),
        listed_receipt.etag if listed_receipt else None,
        tops.get(MANIFEST) if What.MANIFEST in what else None,
        dict(digests_here(root, here)),
    )


def fetch_receipt(
    bucket: Bucket, address: S3Address, journal: SyncJournal, progress: Progress
) -> tuple[RemoteReceipt, str | None]:
    """The receipt as it is now, and its ETag."""
    key = (address / RECEIPT).key
    listed = next((each for each in listed_objects(bucket, key) if each.key == key), None)
    receipt = _fetch_receipt(bucket, address, listed, journal, progress)
    return receipt, listed.etag if listed else None


def _fetch_receipt(
    bucket: Bucket,
    address: S3Address,
    listed: Listed | None,
    journal: SyncJournal,
    progress: Progress,
) -> RemoteReceipt:
    if listed is None:
        return RemoteReceipt()
    where = address / RECEIPT
    body = journal.body(where, listed.etag)
    try:
        if body is None:
            if listed.size_bytes > LARGEST_BYTES:
                raise ValueError(f"has {listed.size_bytes:,} bytes")
            with told(where):
                body = _proved_body(bucket, where, listed)
            journal.keep_body(where, listed.etag, body)
        return parse_receipt(body)
    except ValueError as error:
        progress.note(f"{where} is no receipt and is not believed: {error}")
        return RemoteReceipt()


def _proved_body(bucket: Bucket, where: S3Address, listed: Listed) -> bytes:
    """All of a small object, as its server's checksum has it."""
    for _ in range(_TRIES):
        chunks = bucket.chunks(where.key, 0, listed.size_bytes, etag=listed.etag, length=1 << 20)
        body = b"".join(chunks)
        wanted = head_object(bucket, where.key).checksum
        if wanted is None or Checksum.empty(wanted.kind).over(body) == wanted:
            return body
    raise WrongBytes(
        f"{where} came with wrong bytes, {_TRIES} times",
        hint="the network or the memory of this machine changes bytes; try another",
    )


def digests_here(root: Root, here: Collection[FileHere]) -> Iterator[tuple[str, dict[str, str]]]:
    """The digests that are known without reading: of proved archives, and what indexes list."""
    proved, sizes = read_receipt(root)["archives"], {each.path: each.size_bytes for each in here}
    for name, record in proved.items():
        path, proof = f"{What.ARCHIVES}/{name}", record["proof"]
        if path in sizes and record.items() >= file_state(root.path / path).items():
            digest = proof.get("info_hash") or proof.get("digest")
            if digest and "of" not in proof:
                yield path, {proof["kind"]: str(digest)}
    for split in Split:
        if f"{What.SHARDS}/{split}/{INDEX}" in sizes:
            folder = root.split(split, Layout.WEBDATASET)
            indexed_at = (folder / INDEX).stat().st_mtime_ns
            with suppress(WrongBytes, OSError):
                for shard in read_index(folder).shards:
                    path = f"{What.SHARDS}/{split}/{shard.name}"
                    status = (root.path / path).stat()
                    # The index is written last: what was touched since is not what it lists.
                    if (
                        path in sizes
                        and status.st_size == shard.size_bytes
                        and status.st_mtime_ns < indexed_at
                    ):
                        yield path, {"xxh128": shard.xxh128}
