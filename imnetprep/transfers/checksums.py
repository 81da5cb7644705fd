"""The checksum of a file that moves in parts, and of each part."""

from collections.abc import Iterable, Iterator
from typing import NamedTuple

from imnetprep.digests import Checksum
from imnetprep.plain_values import plain_text, whole_number

_MOST_PARTS = 10_000  # as S3 takes


class Checksums(NamedTuple):
    """The checksum of some bytes, and those of their parts of `part_bytes` (the last is shorter).

    What came in one part has none.
    """

    whole: Checksum
    part_bytes: int = 0
    parts: tuple[int, ...] = ()

    @classmethod
    def of_parts(cls, parts: Iterable[Checksum], kind: str, part_bytes: int) -> "Checksums":
        """The checksums of parts that lie end to end, and of the whole."""
        whole, values = Checksum.empty(kind), []
        for part in parts:
            whole = whole.followed_by(part)
            values.append(part.value)
        if len(values) < 2:
            return cls(whole)
        return cls(whole, part_bytes, tuple(values))

    @classmethod
    def parse(
        cls, kind: str, size_bytes: int, value: str, part_bytes: int, parts: str
    ) -> "Checksums":
        """The checksums whose `columns` these are. Raises ValueError where they are none."""
        values = tuple(int(part, 16) for part in plain_text(parts).split())
        whole = parse_checksum(kind, value, size_bytes)
        count = -(-whole.size_bytes // part_bytes) if whole_number(part_bytes) else 0
        if len(values) != count or count > _MOST_PARTS:
            raise ValueError(f"{len(values)} parts of {part_bytes} bytes are not the whole")
        return cls(whole, part_bytes, values)

    def columns(self) -> tuple[str, int, str, int, str]:
        """Kind, size, value, length of the parts, and their values: numbers as hex."""
        whole, part_bytes, parts = self
        values = " ".join(f"{value:x}" for value in parts)
        return whole.kind, whole.size_bytes, f"{whole.value:x}", part_bytes, values

    def part_checksums(self) -> Iterator[Checksum]:
        """The checksum of each part, in order."""
        for number, value in enumerate(self.parts):
            rest_bytes = self.whole.size_bytes - number * self.part_bytes
            yield Checksum(self.whole.kind, value, min(self.part_bytes, rest_bytes))

    def __str__(self) -> str:
        return f"{self.whole.kind}:{self.whole.value:x}"


def parse_checksum(kind: object, value: object, size_bytes: object) -> Checksum:
    """The checksum of these columns. Raises ValueError or TypeError where they are none."""
    return Checksum(plain_text(kind), int(plain_text(value), 16), whole_number(size_bytes))
