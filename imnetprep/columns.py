"""The samples of one class as columns of bytes: as the manifest holds and training reads them.

A million samples are then a few thousand values, and not a million objects.
"""

import struct
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import repeat
from operator import itemgetter
from typing import NamedTuple

# Name, size, xxh128, what was done to it, and in a shard: its number, where the body starts.
Row = tuple[str, int, bytes, str | None, int | None, int | None]


class Columns(NamedTuple):
    """The samples of a class by name. A text ends in a NUL; a number is little-endian.

    Sizes and offsets have 8 bytes each, shards 4, digests 16. Files have no shards and no offsets;
    where nothing was done to any image, there are no changes.
    """

    names: bytes
    sizes: bytes
    shards: bytes
    offsets: bytes
    xxh128: bytes
    changes: bytes

    @property
    def samples(self) -> int:
        """How many samples there are."""
        return len(self.xxh128) // 16

    @property
    def size_bytes(self) -> int:
        """How much the images take."""
        return sum(struct.unpack(f"<{self.samples}q", self.sizes))

    def check(self, *, in_shards: bool) -> None:
        """Raise ValueError unless the columns are those of samples, no two of one name."""
        if not all(type(column) is bytes for column in self):
            raise ValueError("a column holds no bytes")
        names, changes = self.names.decode().split("\0"), self.changes.decode().split("\0")
        if names.pop() or changes.pop() or len(changes) not in (0, len(names)):
            raise ValueError("a text has no end")
        samples, places = len(names), len(names) * in_shards
        if tuple(map(len, self[1:5])) != (8 * samples, 4 * places, 8 * places, 16 * samples):
            raise ValueError("its columns differ in length")
        if max(self.offsets[7::8], default=0) > 127:
            raise ValueError("a number is below zero")
        high_bytes = (self.sizes[at::8].strip(b"\0") for at in (5, 6, 7))
        if max(self.sizes[4::8], default=0) > 1 or any(high_bytes):
            raise ValueError("a size is above 8 GiB, or below zero")
        if len({*names} - {"", ".", ".."}) != samples or b"/" in self.names:
            raise ValueError("its names are not those of so many samples")

    def rows(self) -> Iterator[Row]:
        """The samples, of columns that pass the check."""
        changes = self.changes.decode().split("\0")[:-1]
        return zip(
            self.names.decode().split("\0")[:-1],
            struct.unpack(f"<{self.samples}q", self.sizes),
            (digest for (digest,) in struct.iter_unpack("16s", self.xxh128)),
            (change or None for change in changes) if changes else repeat(None),
            struct.unpack(f"<{self.samples}I", self.shards) if self.shards else repeat(None),
            struct.unpack(f"<{self.samples}q", self.offsets) if self.offsets else repeat(None),
            strict=False,  # what is repeated has no end
        )


# The samples of a split by label.
ClassColumns = Mapping[int, Columns]


def pack(rows: Iterable[Row]) -> Columns:
    """The columns of the samples in `rows`: at least one, in any order."""
    by_name = sorted(rows, key=itemgetter(0))
    names, sizes, digests, changes, shards, offsets = zip(*by_name, strict=True)
    places = 0 if shards[0] is None else len(names)
    columns = Columns(
        names="".join(f"{name}\0" for name in names).encode(),
        sizes=struct.pack(f"<{len(names)}q", *sizes),
        shards=struct.pack(f"<{places}I", *shards[:places]),
        offsets=struct.pack(f"<{places}q", *offsets[:places]),
        xxh128=b"".join(digests),
        changes="".join(f"{change or ''}\0" for change in changes).encode()
        if any(changes)
        else b"",
    )
    columns.check(in_shards=places > 0)
    return columns


def joined(parts: Sequence[Columns]) -> Columns:
    """The columns of the samples of all `parts` of a class."""
    return parts[0] if len(parts) == 1 else pack(row for part in parts for row in part.rows())
