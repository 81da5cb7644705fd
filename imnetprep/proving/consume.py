"""An archive whose blocks go back to the disk as its classes are done: one copy on disk, not two.

The archive is `NAME.consumed` from before its first hole to its end, so that nothing takes it for
whole. Holes are cut where the journal is already committed, and in whole torrent pieces, so that
the pieces which two ranges share can still be proved.
"""

import os
from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from itertools import groupby
from pathlib import Path

from imnetprep.archives.file import LocalFile
from imnetprep.archives.range_index import format_index, parse_index, proof_record
from imnetprep.archives.ranges import Range, plan_ranges
from imnetprep.archives.tar import BLOCK_BYTES
from imnetprep.catalog.datasets import Archive, Dataset, Root
from imnetprep.digests import Pieces
from imnetprep.fs import can_punch_holes, claim, data_ranges, punch_hole, sync_folder, written_whole
from imnetprep.messages import ImnetprepError, shell_command
from imnetprep.outside_files import read_file
from imnetprep.proving.archive_at import ArchiveAt, consumed_path, consuming_root, index_path
from imnetprep.proving.receipt import NoProof, Proof, TorrentProof, choose_proof, parse_proof
from imnetprep.sources.torrent import published_pieces

_PAGE_BYTES = 4096


class ConsumedFile(LocalFile):
    """An archive with holes: known by its inode, since every hole changes its dates."""

    def __init__(self, archive: Path, *, ranges: Sequence[Range], unit_bytes: int) -> None:
        super().__init__(consumed_path(archive))
        self._ranges, self._starts = ranges, [each.start for each in ranges]
        self._safe_starts: set[int] = set()
        self.name = archive.name
        status = self.path.stat()
        self.identity = f"{archive.name} consumed {status.st_size} {status.st_ino}"
        self._writable = os.open(self.path, os.O_RDWR)
        root = consuming_root(archive)  # another one may consume it too
        claim(self._writable, self.path, suffix=f", for {root}" if root else "")
        self._unit_bytes = max(unit_bytes, _PAGE_BYTES)
        self._holes = list(self._find_released())

    @property
    def untouched(self) -> bool:
        """Is all of the archive still on the disk?"""
        return not self._holes

    def read_at(self, offset: int, length: int) -> bytes:
        self._refuse_released(offset, offset + length)
        return super().read_at(offset, length)

    def chunks(self, start: int, end: int, length: int) -> Iterator[memoryview]:
        self._refuse_released(start, end)
        return super().chunks(start, end, length)

    def release(self, span: Range) -> None:
        """Delete what lies in a range whose samples are safe; its first header stays.

        A piece that it shares goes when all ranges in it are done.
        """
        self._safe_starts.add(span.start)
        at = bisect_left(self._starts, span.start)
        for neighbour in self._ranges[max(0, at - 1) : at + 2]:
            if neighbour.start in self._safe_starts:
                self._punch(neighbour)

    def _punch(self, span: Range) -> None:
        start, end = span.start + BLOCK_BYTES, span.end
        unit = _PAGE_BYTES if self._all_done_around(start) else self._unit_bytes
        start = -(-start // unit) * unit
        unit = _PAGE_BYTES if self._all_done_around(end - 1) else self._unit_bytes
        end = end // unit * unit
        if start < end:
            punch_hole(self._writable, start, end)

    def _all_done_around(self, offset: int) -> bool:
        """Are all ranges done that have bytes of the piece at `offset`?"""
        start = offset // self._unit_bytes * self._unit_bytes
        first = max(0, bisect_right(self._starts, start) - 1)
        last = bisect_left(self._starts, start + self._unit_bytes)
        return all(start in self._safe_starts for start in self._starts[first:last])

    def _find_released(self) -> Iterator[Range]:
        """What earlier runs released, neighbours together, without pieces that others share."""
        assert self.size_bytes is not None
        data = list(data_ranges(self._handle, self.size_bytes))
        ends = [end for _, end in data]

        def is_hole(start: int, end: int) -> bool:
            at = bisect_right(ends, start)
            return start < end and (at == len(data) or data[at][0] >= end)

        def is_released(span: Range) -> bool:
            start, end = _inside(span, self._unit_bytes)
            return is_hole(*_inside(span, _PAGE_BYTES)) if start >= end else is_hole(start, end)

        for is_gone, group in groupby(self._ranges, is_released):
            ranges = list(group)
            first, last = ranges[0], ranges[-1]
            if is_gone:
                start, end = _inside(first, self._unit_bytes)[0], _inside(last, self._unit_bytes)[1]
                start = start if first is not self._ranges[0] else 0
                yield Range(start, end if last is not self._ranges[-1] else last.end, first.wnid)

    def _refuse_released(self, start: int, end: int) -> None:
        """Raise ImnetprepError where those bytes are deleted: what was made of them is lost too."""
        at = bisect_right(self._holes, start, key=lambda hole: hole.end)
        if at < len(self._holes) and self._holes[at].start < end:
            first = self._holes[at].wnid or f"what begins at byte {self._holes[at].start:,}"
            raise _beyond_help(
                self.path.with_name(self.name),
                f"what was organized of {self.name} is gone, and {self.path.name} has no longer the"
                f" bytes: {first} is the first that is in neither",
            )

    def close(self) -> None:
        os.close(self._writable)
        super().close()


def _inside(span: Range, unit_bytes: int) -> tuple[int, int]:
    """The whole units of a range, its first header left out."""
    start = -(-(span.start + BLOCK_BYTES) // unit_bytes) * unit_bytes
    return start, span.end // unit_bytes * unit_bytes


def require_consumable(archive: ArchiveAt, root: Root, *, pieces: Pieces | None) -> None:
    """Raise ImnetprepError unless bytes are proved before they are deleted, and can be, once."""
    path, rest = archive.path, consumed_path(archive.path)
    if path.exists() and rest.exists():
        raise ImnetprepError(
            f"{path.name} is there, and {rest.name} too",
            hint=f"{shell_command('rm', rest)} if {path.name} is to be used",
        )
    if not path.exists():
        return
    if path.is_symlink() or path.stat().st_nlink > 1:
        raise ImnetprepError(
            f"{path.name} has another name, under which it would pass for whole with its holes",
            hint="leave out --consume; or leave the file one name, in its own folder",
        )
    if not can_punch_holes(path.parent):
        raise ImnetprepError(
            f"the file system of {path.parent} cannot punch holes into a file, as --consume does",
            hint="leave out --consume, with room for both; ext4, xfs, btrfs and tmpfs can",
        )
    if not _is_proved(archive.archive, pieces, archive.proof):
        verify = "imnetprep verify-archives"
        if archive.home is not root:
            verify = shell_command("imnetprep", "verify-archives", "--root", root.path)
            verify = f"{shell_command('mv', path, root.archives)}; {verify}; leave out --archives"
        raise ImnetprepError(
            f"--consume deletes the archive while it is read, so it must be verified first;"
            f" {path.name} is not",
            hint=verify,
        )


def _is_proved(archive: Archive, pieces: Pieces | None, earlier: Proof | None) -> bool:
    """Is each range right as it is read, since all was proved earlier or its pieces are now?"""
    proof = choose_proof(archive, pieces, earlier=earlier)
    return isinstance(proof, TorrentProof) or (proof == earlier and not isinstance(proof, NoProof))


def begin_consumption(
    path: Path, archive: Archive, dataset: Dataset, *, earlier: Proof | None, root: Path
) -> None:
    """Write the index, then take the archive's name from it; both are synced."""
    if consumed_path(path).exists():
        return
    root = root.resolve()
    with closing(LocalFile(path)) as file, written_whole(index_path(path)) as index:
        ranges, inode = _walked(file, archive, dataset), path.stat().st_ino
        proof = None if earlier is None else earlier.as_json()
        index.write(format_index(ranges, of=file, proof=proof, inode=inode, root=root))
    path.rename(consumed_path(path))
    sync_folder(path.parent)


def earlier_proof(path: Path) -> Proof | None:
    """What proved the archive before it was consumed, by its index; None: that says nothing.

    Raises ImnetprepError where the index cannot be used.
    """
    with _unusable_index(path):
        inode = consumed_path(path).stat().st_ino
        record = proof_record(read_file(index_path(path)), path.name, inode=inode)
        try:
            return None if record is None else parse_proof(record)
        except ValueError as error:
            raise _beyond_help(path, f"{index_path(path).name} is damaged: {error}") from error


def end_consumption(path: Path) -> None:
    """Remove what is left of an archive whose split has its name, and the index."""
    consumed_path(path).unlink(missing_ok=True)
    index_path(path).unlink(missing_ok=True)


def largest_range_bytes(path: Path, archive: Archive, dataset: Dataset) -> int:
    """The longest range: what each job has on the disk twice."""
    if not path.exists():
        return max(each.end - each.start for each in consumed_ranges(path, archive, dataset))
    with closing(LocalFile(path)) as file:
        return max(each.end - each.start for each in _walked(file, archive, dataset))


def consumed_ranges(path: Path, archive: Archive, dataset: Dataset) -> list[Range]:
    """The ranges of an archive that is being consumed.

    Raises ImnetprepError where its index cannot be used, or nothing proves what is left of it.
    """
    with closing(LocalFile(consumed_path(path))) as file, _unusable_index(path):
        file.name = archive.name
        ranges = parse_index(read_file(index_path(path)), archive, dataset, of=file)
        earlier = earlier_proof(path)
    if not _is_proved(archive, published_pieces(dataset, archive), earlier):
        raise _beyond_help(path, f"{index_path(path).name} does not say how this file was verified")
    return ranges


@contextmanager
def _unusable_index(path: Path) -> Iterator[None]:
    """Whatever is wrong with the index of a consumed archive, one hint serves."""
    try:
        yield
    except FileNotFoundError as error:
        raise _beyond_help(path, f"{error.filename} is not there") from error
    except ImnetprepError as error:
        raise _beyond_help(path, str(error)) from error


def _beyond_help(path: Path, problem: str) -> ImnetprepError:
    other = "if another root is being made of it"
    if root := consuming_root(path):
        other = f"it is consumed for {root}: if that is another root"
    return ImnetprepError(
        problem,
        hint=f"{other}, resume there; if nothing is being made of it,"
        f" {shell_command('rm', '-f', consumed_path(path), index_path(path))};"
        f" then fetch {path.name} again: imnetprep download, or from where it came",
    )


def _walked(file: LocalFile, archive: Archive, dataset: Dataset) -> Sequence[Range]:
    return plan_ranges(archive, dataset, size_bytes=file.size_bytes or 0, read_at=file.read_at)
