"""Tuples put in order, more than fit in memory: sorted runs in files, merged when read."""

import heapq
import marshal
import tempfile
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import IO, Any

from imnetprep.machine import named

_HELD_AT_ONCE = 50_000
_READ_AT_ONCE = 1000

# Of numbers, texts, bytes and None; no two the same.
Item = tuple[Any, ...]


def in_order(items: Iterable[Item]) -> Iterator[Item]:
    """All of `items`, the least first. All are read before the first is yielded."""
    stream, runs = iter(items), list[Iterator[Item]]()
    while run := sorted(islice(stream, _HELD_AT_ONCE)):
        runs.append(_from_file(run))
    return heapq.merge(*runs)


def _from_file(run: list[Any]) -> Iterator[Item]:
    """`run`, written to a file now and read when it is iterated."""
    with named(tempfile.gettempdir()):
        file = tempfile.TemporaryFile()  # noqa: SIM115 - its reader closes it
        starts = range(0, len(run), _READ_AT_ONCE)
        lengths = [file.write(marshal.dumps(run[at : at + _READ_AT_ONCE])) for at in starts]
        file.seek(0)
    return _read(file, lengths)


def _read(file: IO[bytes], lengths: Iterable[int]) -> Iterator[Item]:
    with file:
        for length in lengths:
            yield from marshal.loads(file.read(length))  # noqa: S302 - what we wrote just now
