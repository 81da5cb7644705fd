"""`ROOT/.sync.db`: what is known of the bytes here and in buckets. Local, never sent.

All of it can be learned again, by reading; without it a sync is slower and no less right. What it
says of a file holds while that is untouched, and of an object while it has the same ETag.
"""

# ruff: noqa: S608 - what is put together here is ours, to the last letter

import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from imnetprep.catalog.datasets import Root
from imnetprep.database import MEMORY
from imnetprep.digests import Checksum
from imnetprep.plain_values import plain_text, real_number, whole_number
from imnetprep.s3.address import S3Address
from imnetprep.transfers.checksums import Checksums, parse_checksum
from imnetprep.transfers.journal import PART_TABLES, PartJournal, open_journal, values_of_a_journal

_CHECKSUMS = "kind, size, value, part_bytes, parts"
_SCHEMA = f"""
CREATE TABLE file (
    path TEXT, kind TEXT, state TEXT NOT NULL, size INTEGER NOT NULL, value TEXT NOT NULL,
    part_bytes INTEGER NOT NULL, parts TEXT NOT NULL, PRIMARY KEY (path, kind)
);
CREATE TABLE object (
    address TEXT PRIMARY KEY, etag TEXT NOT NULL, size INTEGER NOT NULL, kind TEXT NOT NULL,
    value TEXT NOT NULL, part_bytes INTEGER NOT NULL, parts TEXT NOT NULL
);
CREATE TABLE synced (
    address TEXT, how TEXT, etag TEXT NOT NULL, value TEXT NOT NULL, PRIMARY KEY (address, how)
);
CREATE TABLE sent (
    upload TEXT, number INTEGER, etag TEXT NOT NULL, kind TEXT NOT NULL, value TEXT NOT NULL,
    PRIMARY KEY (upload, number)
);
{PART_TABLES}CREATE TABLE body (address TEXT PRIMARY KEY, etag TEXT NOT NULL, body BLOB NOT NULL);
CREATE TABLE rate (direction TEXT PRIMARY KEY, bytes_per_s REAL NOT NULL);
"""


class SyncJournal(PartJournal):
    """Open. Use `open_sync_journal`. Safe from several threads."""

    def __init__(self, database: sqlite3.Connection, endpoint: str) -> None:
        super().__init__(database)
        self._endpoint = endpoint

    def of_file(self, path: str, state: Mapping[str, int], kind: str) -> Checksums | None:
        """What is known of the file at `path`, if it is still in this state."""
        query = f"SELECT {_CHECKSUMS} FROM file WHERE path = ? AND kind = ? AND state = ?"
        row = self._row(query, path, kind, _format_state(state))
        with values_of_a_journal():
            return Checksums.parse(*row) if row else None

    def keep_file(self, path: str, state: Mapping[str, int], checksums: Checksums) -> None:
        """The bytes of the file in this state are these."""
        kind, *rest = checksums.columns()
        self._keep("file", path, kind, _format_state(state), *rest)

    def of_object(self, address: S3Address, etag: str) -> Checksums | None:
        """What is known of an object, if it still has this ETag."""
        query = f"SELECT {_CHECKSUMS} FROM object WHERE address = ? AND etag = ?"
        row = self._row(query, self._at(address), etag)
        if row is None or not Checksum.is_known(row[0]):  # awscrt was there when it was kept
            return None
        with values_of_a_journal():
            return Checksums.parse(*row)

    def keep_object(self, address: S3Address, etag: str, checksums: Checksums) -> None:
        """The bytes of the object that has this ETag are these."""
        kind, size_bytes, *rest = checksums.columns()
        self._keep("object", self._at(address), etag, size_bytes, kind, *rest)

    def synced(self, address: S3Address, direction: str = "") -> tuple[str, str] | None:
        """The ETag of the object and the value of the file when they were last made equal.

        A manifest has another value for each `direction`: the two sides list different splits.
        """
        query = "SELECT etag, value FROM synced WHERE address = ? AND how = ?"
        row = self._row(query, self._at(address), direction)
        return (row[0], row[1]) if row else None

    def keep_synced(self, address: S3Address, etag: str, value: str, direction: str = "") -> None:
        """The object that has this ETag and the file here are equal now."""
        self._keep("synced", self._at(address), direction, etag, value)

    def sent(self, upload_id: str) -> dict[int, tuple[str, Checksum]]:
        """The parts of an unfinished upload that were sent from here: ETag and checksum."""
        query = "SELECT number, etag, kind, value FROM sent WHERE upload = ?"
        rows = self._execute(query, upload_id)
        with values_of_a_journal():
            return {
                whole_number(row[0]): (plain_text(row[1]), parse_checksum(row[2], row[3], 0))
                for row in rows
            }

    def keep_sent(self, upload_id: str, number: int, etag: str, checksum: Checksum) -> None:
        """The server has that part."""
        self._keep("sent", upload_id, number, etag, checksum.kind, f"{checksum.value:x}")

    def forget_sent(self, upload_id: str) -> None:
        """The upload is finished."""
        self._execute("DELETE FROM sent WHERE upload = ?", upload_id)

    def body(self, address: S3Address, etag: str) -> bytes | None:
        """A small object as it was under this ETag, if it was kept."""
        query = "SELECT body FROM body WHERE address = ? AND etag = ?"
        row = self._row(query, self._at(address), etag)
        return row[0] if row and isinstance(row[0], bytes) else None

    def keep_body(self, address: S3Address, etag: str, body: bytes) -> None:
        """The object is this under this ETag."""
        self._keep("body", self._at(address), etag, body)

    def rate(self, direction: str) -> float | None:
        """The bytes a second of the last sync of some length."""
        row = self._row("SELECT bytes_per_s FROM rate WHERE direction = ?", direction)
        with values_of_a_journal():
            return real_number(row[0], least=0) if row else None

    def keep_rate(self, direction: str, bytes_per_s: float) -> None:
        """The bytes a second of this sync."""
        self._keep("rate", direction, bytes_per_s)

    def _at(self, address: S3Address) -> str:
        """Two servers may have buckets of one name."""
        return f"{self._endpoint} {address}"


@contextmanager
def open_sync_journal(root: Root, *, endpoint: str, keep: bool = True) -> Iterator[SyncJournal]:
    """The journal of `root` and the server there; one that cannot be read is made anew.

    Unless it is to `keep` what it learns, none is made. Raises ImnetprepError where it turns out
    to be damaged: it is gone then, and the next run makes another.
    """
    path = root.path / ".sync.db"
    if keep:
        root.path.mkdir(parents=True, exist_ok=True)
    elif not path.exists():
        path = MEMORY
    with open_journal(path, _SCHEMA) as database:
        yield SyncJournal(database, endpoint)


def _format_state(state: Mapping[str, int]) -> str:
    return " ".join(str(state[key]) for key in sorted(state))
