"""A folder of shards that were fetched, of bounded size, for all processes of a machine.

A shard is whole or absent under its name. While it is fetched it is `.NAME.fetching`, as long as
it will be, and locked: others wait for the lock, and whoever finds one without a lock removes it,
since a kill has left it.
"""

import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from imnetprep.fs import exclusive, free_bytes, has_locks
from imnetprep.messages import ImnetprepError, format_bytes
from imnetprep.outside_files import open_handle
from imnetprep.remote_shards.cache_folder import PART, SHARD, files_of, is_at, remove_unlocked

Fill = Callable[[int], None]


@dataclass(frozen=True)
class Cache:
    """The shards in `folder`, which together take at most `limit_bytes`.

    `fill` writes a shard into the open file whose handle it gets, or raises.
    """

    folder: Path
    limit_bytes: int

    def require_place(self, needed_bytes: int) -> None:
        """Raise ImnetprepError unless the folder has locks, and its disk room for the cache.

        No more than `needed_bytes` will lie there.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        if not has_locks(self.folder):
            raise ImnetprepError(
                f"the file system of {self.folder} has no locks, by which processes share a cache",
                hint="name a folder on a disk of this machine by --cache-dir",
            )
        present_bytes = sum(status.st_size for _, status in files_of(self.folder, SHARD))
        room_bytes = free_bytes(self.folder) + present_bytes
        if room_bytes < min(needed_bytes, self.limit_bytes):
            raise ImnetprepError(
                f"the cache may take {format_bytes(self.limit_bytes)}, and the disk of"
                f" {self.folder} has {format_bytes(room_bytes)} for it",
                hint=f"--cache-size {room_bytes * 9 // 10**10 * 10**8}, or another --cache-dir"
                if room_bytes > 10**10
                else "name a folder on another disk by --cache-dir",
            )

    def open(self, name: str, size_bytes: int, fill: Fill) -> int:
        """The handle of a shard, open for reading; fetched where it is absent."""
        handle = None
        while handle is None:  # another process fetches it, or removes it meanwhile
            try:
                return open_handle(self.folder / name)
            except FileNotFoundError:
                handle = self.fetch(name, size_bytes, fill)
        return handle

    def fetch(
        self,
        name: str,
        size_bytes: int,
        fill: Fill,
        *,
        wait: bool = True,
        in_use: Callable[[], Iterable[str]] = tuple,
    ) -> int | None:
        """Fetch a shard, and open it; None: another process has, or without `wait` is at it.

        Shards that are `in_use` when room is made for it are the last to be removed.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        path, part = self.folder / name, self.folder / f".{name}.fetching"
        handle = os.open(part, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o644)
        try:
            with exclusive(handle, wait=wait) as is_ours:
                if not is_ours or not is_at(handle, part):
                    return None
                try:
                    if path.exists():
                        return None
                    self._make_room(handle, size_bytes, in_use)
                    fill(handle)
                    os.fsync(handle)
                    part.replace(path)
                    return os.dup(handle)
                finally:
                    if is_at(handle, part):
                        part.unlink()
        finally:
            os.close(handle)

    def touch(self, name: str) -> bool:
        """Is a shard there? It counts as used now."""
        with self._locked():
            return self._touch(name)

    def _touch(self, name: str) -> bool:
        try:
            os.utime(self.folder / name)
        except FileNotFoundError:
            return False
        return True

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """Nobody makes room meanwhile."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with (self.folder / ".lock").open("ab") as lock, exclusive(lock.fileno()):
            yield

    def _make_room(self, handle: int, size_bytes: int, in_use: Callable[[], Iterable[str]]) -> None:
        """Let the open part have `size_bytes` of the limit."""
        assert size_bytes <= self.limit_bytes
        while True:
            with self._locked():
                for name in in_use():
                    self._touch(name)
                other = self._evict(size_bytes)
                if other is None:
                    os.ftruncate(handle, size_bytes)
                    return
            with suppress(FileNotFoundError), other.open("rb") as file, exclusive(file.fileno()):
                continue  # which is there now, and may be removed

    def _evict(self, size_bytes: int) -> Path | None:
        """Remove shards until there is room for `size_bytes`, those needed longest ago first.

        Where parts have all of it, one of them. Parts without a lock are removed.
        """
        parts = [
            (path, status.st_size) for path, status in files_of(self.folder, PART) if status.st_size
        ]
        parts = [(path, part_bytes) for path, part_bytes in parts if not remove_unlocked(path)]
        shards = sorted(
            files_of(self.folder, SHARD), key=lambda item: item[1].st_mtime_ns, reverse=True
        )
        total_bytes = sum(part_bytes for _, part_bytes in parts)
        total_bytes += sum(status.st_size for _, status in shards)
        while total_bytes + size_bytes > self.limit_bytes and shards:
            path, status = shards.pop()
            path.unlink(missing_ok=True)
            total_bytes -= status.st_size
        return parts[0][0] if total_bytes + size_bytes > self.limit_bytes and parts else None
