"""Files that are whole or absent, locks, and system calls that only some systems have.

Every Linux-only call sits here beside its fallback, so that the rest runs on macOS as it is.
"""

import ctypes
import errno
import fcntl
import os
import shutil
import struct
import sys
import tempfile
import time
import unicodedata
import warnings
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, BinaryIO

from imnetprep.machine import named
from imnetprep.messages import ImnetprepError, Lack, format_bytes

if TYPE_CHECKING:
    import socket  # which costs the start of a command some time

_LOOKS_FOR_FORKS, _SECONDS_BETWEEN_LOOKS = 400, 0.025
_UNABLE = (errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL)  # how a file system says that it cannot
_NO_LOCKS = (errno.ENOLCK, *_UNABLE)
_LINK_REFUSALS = (errno.EXDEV, errno.EPERM, errno.EMLINK, *_UNABLE)
_LONGEST_NAME_BYTES = 200  # of 255: the rest is for what is put around it


@contextmanager
def written_whole(path: Path) -> Iterator[BinaryIO]:
    """A file to write that appears under `path` when the block ends, synced, or not at all."""
    if path.exists() and not (path.is_file() or path.is_dir()):  # /dev/null would be replaced
        raise ImnetprepError(f"{path} is a device or a pipe", hint="name a file to write")
    path.parent.mkdir(parents=True, exist_ok=True)
    name = os.fsdecode(os.fsencode(path.name)[:_LONGEST_NAME_BYTES])
    part = path.with_name(f".{name}.{os.getpid()}.tmp")
    try:
        with part.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
        sync_folder(path.parent)
    except OSError as error:
        if error.filename in (None, str(part)):
            error.filename = str(path)  # is told by name
        raise
    finally:
        part.unlink(missing_ok=True)


def sync_folder(folder: Path) -> None:
    """Make renames and new names in `folder` survive a power cut, where its file system can."""
    with named(folder), _opened(folder) as handle:
        try:
            os.fsync(handle)
        except OSError as error:
            if error.errno not in _UNABLE:
                raise


@contextmanager
def _opened(folder: Path) -> Iterator[int]:
    handle = os.open(folder, os.O_RDONLY)
    try:
        yield handle
    finally:
        os.close(handle)


def sync_file_system(path: Path) -> None:
    """Make all that was written so far to the file system of `path` survive a power cut.

    Linux has `syncfs(2)`; elsewhere `sync(2)`, which macOS starts but does not wait for.
    """
    if sys.platform != "linux":
        os.sync()
        return
    with named(path), _opened(path) as handle:
        if ctypes.CDLL(None, use_errno=True).syncfs(handle) != 0:
            number = ctypes.get_errno()
            if number not in _UNABLE:
                raise OSError(number, os.strerror(number))
            os.sync()


def read_range(handle: int, length: int, offset: int) -> bytes:
    """`length` bytes of an open file, fewer only where it ends: one call may give less (FUSE)."""
    body = os.pread(handle, length, offset)
    while len(body) < length and (rest := os.pread(handle, length - len(body), offset + len(body))):
        body += rest
    return body


def read_into(handle: int, buffer: memoryview, offset: int) -> int:
    """Fill `buffer` as `read_range` reads; returns how many bytes there were."""
    length = 0
    while length < len(buffer) and (count := os.preadv(handle, [buffer[length:]], offset + length)):
        length += count
    return length


def data_ranges(handle: int, size_bytes: int) -> Iterator[tuple[int, int]]:
    """The `(start, end)` byte ranges of an open file that are not holes.

    A file system that keeps no track of holes answers with the whole file, which is right too.
    """
    end = 0
    while end < size_bytes:
        try:
            start = os.lseek(handle, end, os.SEEK_DATA)
            end = os.lseek(handle, start, os.SEEK_HOLE)
        except (AttributeError, OSError) as error:
            if isinstance(error, OSError) and error.errno == errno.ENXIO:
                return  # nothing but a hole from here to the end
            yield end, size_bytes
            return
        yield start, min(end, size_bytes)


def punch_hole(handle: int, start: int, end: int) -> None:
    """Release the blocks from `start` to `end` of an open file to the disk; it keeps its size.

    Raises OSError (EOPNOTSUPP) where the system or the file system cannot; only Linux can here.
    """
    if sys.platform != "linux":
        raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP))
    keep_size_and_punch = 0x01 | 0x02
    span = ctypes.c_longlong(start), ctypes.c_longlong(end - start)
    if ctypes.CDLL(None, use_errno=True).fallocate(handle, keep_size_and_punch, *span) != 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))


def clone_file(path: Path, target: Path) -> bool:
    """Make the file `target` of the blocks of `path`, which both share until one is written.

    False where the system or the file system cannot, or they lie on two: nothing is made then.
    Only Linux can here.
    """
    ficlone = 0x40049409  # of linux/fs.h
    with path.open("rb") as source:
        try:
            clone = target.open("xb")
        except FileExistsError:
            return False
        try:
            with clone:
                fcntl.ioctl(clone.fileno(), ficlone, source.fileno())
        except OSError:
            target.unlink()
            return False
    return True


def can_punch_holes(folder: Path) -> bool:
    """Can files in `folder` release blocks to the disk (hole punching)?"""
    with tempfile.TemporaryFile(dir=folder) as file:
        file.write(bytes(1 << 16))
        file.flush()
        try:
            punch_hole(file.fileno(), 0, 1 << 16)
        except OSError:
            return False
    return True


def allocated_bytes(path: Path) -> int:
    """The bytes that `path` takes on the disk, holes left out; 0 if there is no such file."""
    try:
        return path.stat().st_blocks * 512
    except FileNotFoundError:
        return 0


def existing_folder(folder: Path) -> Path:
    """`folder`, or the nearest above it that is there already."""
    return next(place for place in (folder, *folder.absolute().parents) if place.exists())


def bytes_below(folder: Path) -> int:
    """The bytes in all files below `folder`."""
    return sum(
        entry.stat(follow_symlinks=False).st_size
        for place, _, _ in os.walk(folder)
        for entry in os.scandir(place)
        if entry.is_file(follow_symlinks=False)
    )


def free_bytes(folder: Path) -> int:
    """The free bytes of the disk of `folder`; no end of them where it does not say."""
    usage = shutil.disk_usage(existing_folder(folder))
    return usage.free if usage.total else sys.maxsize


def require_free(folder: Path, needed_bytes: int, *, purpose: str) -> None:
    """Raise ImnetprepError unless the disk of `folder` has `needed_bytes` free."""
    free = free_bytes(folder)
    if free < needed_bytes:
        raise ImnetprepError(
            f"{purpose} needs {format_bytes(needed_bytes)}"
            f" and the disk of {folder} has {format_bytes(free)} free",
            hint=f"free {format_bytes(needed_bytes - free)}, or name another disk by --root",
        )


def require_distinct(folder: Path, names: Iterable[str]) -> None:
    """Raise ImnetprepError where the file system of `folder` takes two of `names` for one."""
    key = _name_key(existing_folder(folder))
    if key is None:
        return
    first_of: dict[str, str] = {}
    couples = ((first_of.setdefault(key(name), name), name) for name in names)
    pairs = [(first, name) for first, name in couples if first != name]
    if pairs:
        rest = f" and {len(pairs) - 1:,} more pairs" if len(pairs) > 1 else ""
        raise ImnetprepError(
            f"the file system of {folder} takes {' and '.join(pairs[0])}{rest} for one name",
            hint="name a place on another file system by --root, or rename one of each pair",
        )


def _name_key(folder: Path) -> Callable[[str], str] | None:
    """What two names share that are one to the file system of `folder`; None: no two are."""
    name = f".imnetprep-\u00e9.{os.getpid()}.tmp"
    probe = folder / name
    try:
        probe.touch()
        is_caseless = probe.with_name(name.upper()).exists()
        is_normal = probe.with_name(unicodedata.normalize("NFD", name)).exists()
        os.unlink(probe)  # noqa: PTH108 - tests kill at Path.unlink, and this is no step
    except OSError:  # nobody writes there, or no such name
        return None
    if not is_caseless and not is_normal:
        return None

    def key(name: str) -> str:
        name = unicodedata.normalize("NFD", name) if is_normal else name
        return name.casefold() if is_caseless else name

    return key


def hard_link(path: Path, place: Path) -> None:
    """Make `place` the same file as `path`, whatever was there.

    Raises ImnetprepError where the file system cannot.
    """
    if os.path.lexists(place):
        if place.samefile(path):
            return
        place.unlink()
    try:
        os.link(path, place, follow_symlinks=False)
    except OSError as error:
        if error.errno not in _LINK_REFUSALS:
            raise
        raise ImnetprepError(
            f"{place} cannot be a hard link to {path}: {error.strerror}",
            hint="--copy makes copies; or name a place on the same disk",
        ) from error


@contextmanager
def locked(
    folder: Path, *, name: str = ".lock", wait: bool = False, forks: bool = False
) -> Iterator[None]:
    """Be the only process at work in `folder`; ImnetprepError where another one is, or `wait`.

    The lock ends with the process, however that ends; the file that it is taken on stays. If this
    one `forks`, its workers count too: those of a killed run are waited for, a little. On a file
    system without locks only the processes of this machine are kept apart, and a warning says so.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with ExitStack() as stack:
        file = stack.enter_context((folder / name).open("a"))
        try:
            # lockf and not flock: a forked worker that outlives its parent does not hold it.
            fcntl.lockf(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except (BlockingIOError, PermissionError) as error:
            raise _busy(f"in {folder}") from error
        except OSError as error:
            if error.errno not in _NO_LOCKS:
                raise OSError(error.errno, error.strerror, file.name) from error
            stack.enter_context(_locked_on_this_machine(file, folder, wait=wait))
        if forks:
            workers = stack.enter_context((folder / f"{name}.workers").open("a"))
            _wait_for_forks(workers, folder)
        yield


@contextmanager
def _locked_on_this_machine(file: IO[str], folder: Path, *, wait: bool) -> Iterator[None]:
    """Lock as `locked` does, by the name of a socket, which ends with the process as well."""
    home = folder.resolve()
    place = next(each for each in (home, *home.parents) if each.is_mount())
    loss = "nothing keeps other machines from working in the same root at the same time"
    warnings.warn(f"{place} is a file system without locks: {loss}", Lack, stacklevel=4)
    with _socket() as lock:
        while lock is not None:
            try:
                lock.bind(_address(file))
                break
            except OSError as error:
                if error.errno != errno.EADDRINUSE:
                    raise
                if not wait:
                    raise _busy(f"in {folder}") from error
            time.sleep(_SECONDS_BETWEEN_LOOKS)
        yield


@contextmanager
def _socket() -> Iterator["socket.socket | None"]:
    """A socket that can have a name without a file, which only Linux knows."""
    if sys.platform != "linux":
        yield None
        return
    import socket

    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as open_socket:
        yield open_socket


def _address(file: IO[Any]) -> bytes:
    """The name for a lock on an open file, whatever path it was opened by (unix(7): abstract)."""
    status = os.fstat(file.fileno())
    return f"\0imnetprep {status.st_dev} {status.st_ino}".encode()


def lock_refusal(folder: Path) -> int | None:
    """The number of the error with which the file system refuses locks in `folder`; None: none."""
    try:
        with tempfile.TemporaryFile(dir=folder) as file:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        return error.errno
    return None


def has_locks(folder: Path) -> bool:
    """Can files in `folder` be locked?"""
    return lock_refusal(folder) not in _NO_LOCKS


def _wait_for_forks(lock: IO[str], folder: Path) -> None:
    """Wait for workers of an interrupted run: they hold the lock until the disk lets them end."""
    for _ in range(_LOOKS_FOR_FORKS):
        if _flock(lock.fileno(), folder / lock.name):
            return
        time.sleep(_SECONDS_BETWEEN_LOOKS)
    raise ImnetprepError(
        f"worker processes of an interrupted run are still at work in {folder}",
        hint="the disk may not answer; wait, or kill them: pkill -9 imnetprep",
    )


def claim(handle: int, path: Path, *, suffix: str = "") -> None:
    """Be the only one that works on the open file `path` until it is closed.

    Raises ImnetprepError, whose message ends in `suffix`, where another one is.
    """
    if not _flock(handle, path):
        raise _busy(f"on {path}{suffix}")


def _flock(handle: int, path: Path) -> bool:
    """Lock an open file; False: another process has. Where there are no locks, nobody has."""
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if not isinstance(error, BlockingIOError) and error.errno not in _NO_LOCKS:
            raise OSError(error.errno, error.strerror, str(path)) from error
        return error.errno in _NO_LOCKS
    return True


@contextmanager
def exclusive(handle: int, *, wait: bool = True) -> Iterator[bool]:
    """Be the only thread of all processes that works on an open file; False: another one is, and
    is not to be waited for.

    It is unlocked by name: a process that was forked meanwhile has the lock as well.
    """
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError:
        yield False
        return
    try:
        yield True
    finally:
        fcntl.flock(handle, fcntl.LOCK_UN)


@contextmanager
def shared(handle: int) -> Iterator[None]:
    """Keep every `exclusive` off an open file, as other threads and processes may at once.

    It waits for one that is at work, and is unlocked by name, as by `exclusive`.
    """
    fcntl.flock(handle, fcntl.LOCK_SH)
    try:
        yield
    finally:
        fcntl.flock(handle, fcntl.LOCK_UN)


def _busy(place: str) -> ImnetprepError:
    hint = "wait until it is done, or stop it first"
    return ImnetprepError(f"another imnetprep is at work {place}", hint=hint)


def is_locked(folder: Path, *, name: str = ".lock") -> bool:
    """Is another process at work in `folder`? Changes nothing there.

    Never for a folder that this process itself has locked: closing the file would end its lock.
    """
    try:
        with (folder / name).open("rb") as file:
            if sys.platform == "linux":  # asks and takes nothing, as fcntl(2) has it
                query = struct.pack("@hhqqi0q", fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)
                with suppress(OSError):
                    answer = fcntl.fcntl(file, fcntl.F_GETLK, query)
                    if struct.unpack_from("@h", answer)[0] != fcntl.F_UNLCK:
                        return True
                with _socket() as lock:  # where there are no locks
                    assert lock is not None
                    lock.connect(_address(file))
                return True
            fcntl.lockf(file, fcntl.LOCK_SH | fcntl.LOCK_NB)  # for a moment
            return False
    except (BlockingIOError, PermissionError):
        return True
    except OSError:
        return False  # nobody ever worked there
