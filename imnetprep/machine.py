"""What the machine answers, in words: file systems, limits of the process, memory."""

import errno
import os
import re
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

_RESUME = "then run the same command again; it resumes"
_RIGHTS = "give this user the permission, or name another place: --root, --archives"
_DISK = f"the disk reports an error: look at `dmesg`, and at `ulimit -f`; {_RESUME}"
_CORRUPTION = "the file system is damaged: look at `dmesg`, and let `fsck` mend it"
_SERVER = f"a file server does not answer: look whether it is mounted (`df`), {_RESUME}"
_UNABLE = "its file system cannot do that: name a place on another one by --root"
_IN_THE_WAY = "move it away, then run the same command again"
_MEMORY = f"memory is used up: look at `free -h` and `ulimit -v`, take fewer --jobs, {_RESUME}"
_NO_DEVICES = "devices are missing here: mount /dev, as `mount -t devtmpfs dev /dev` does"
_LIBRARY = "memory may be used up (`ulimit -v`), or that package is to be installed anew"
# By the names of errno(3): not every system has all of them.
_HINTS = {
    "ENOSPC": "free some space and run the same command again; it resumes where it stopped",
    "EDQUOT": f"your quota is used up (`quota -s` shows it): free some space, {_RESUME}",
    "EFBIG": "files may not be larger: look at `ulimit -f`, or name a place on another file system"
    " by --root",
    "EACCES": _RIGHTS,
    "EPERM": _RIGHTS,
    "EROFS": "the file system is read-only: name another place by --root",
    "EIO": _DISK,
    "EREMOTEIO": _DISK,
    "EUCLEAN": _CORRUPTION,
    "EBADMSG": _CORRUPTION,
    "ENOENT": "something removed it meanwhile; run the same command again",
    "ENOTDIR": "a file stands where a folder is wanted: name another place by --root",
    "EISDIR": f"a folder stands where a file is wanted: {_IN_THE_WAY}",
    "EEXIST": f"something is in its place: {_IN_THE_WAY}",
    "ENOTEMPTY": f"something is in its place: {_IN_THE_WAY}",
    "ELOOP": "a link stands where a file of ours is wanted: remove it",
    "ENAMETOOLONG": "give it a shorter name, or name a shorter path by --root",
    "EILSEQ": "its file system takes no such name: name a place on another one by --root",
    "EBUSY": "another program uses it, or it is a mount point: run the same command when it"
    " is free",
    "ETXTBSY": "another program uses it: run the same command when it is free",
    "EPIPE": "the other end of a pipe is gone: run the same command again; it resumes",
    "EXDEV": "these are two disks: remove the link between them, or name a place by --root",
    "EMFILE": f"this process may open no more files: raise `ulimit -n`, {_RESUME}",
    "ENFILE": f"all programs together have too many open files: end some, {_RESUME}",
    "ENOLCK": "its file system has no locks: name a place on another one by --root",
    "ENOMEM": _MEMORY,
    "EAGAIN": f"there are too many processes: look at `ulimit -u`, take fewer --jobs, {_RESUME}",
    **dict.fromkeys(("ENOSYS", "ENOTSUP", "EOPNOTSUPP", "EINVAL", "ENOTTY", "EMLINK"), _UNABLE),
    **dict.fromkeys(
        ("ESTALE", "ETIMEDOUT", "EHOSTDOWN", "EHOSTUNREACH", "ENETDOWN", "ENETUNREACH", "ENOTCONN",
         "ECONNREFUSED", "ECONNRESET", "ECONNABORTED", "ESHUTDOWN", "ENODEV", "ENXIO", "ENOLINK"),
        _SERVER,
    ),
}  # fmt: skip
_OF_ANY = f"the system answers so: look at `dmesg`, {_RESUME}"
# A program earns these by itself.
_OF_PROGRAMS = ("EBADF", "EFAULT", "ESPIPE", "ENOTSOCK", "ECHILD")
_OF_ALL_FILES = (
    *("EMFILE", "ENFILE", "ENOMEM", "ENOSPC", "EDQUOT"),
    *("ESTALE", "ETIMEDOUT", "EHOSTDOWN", "ENOTCONN"),
)
_OF_LIBTORRENT = re.compile(r" \[(?:generic|system):(\d+)\]$")  # the category and errno(3)
_FILES_OF_OURS = 8
NO_THREAD = "can't start new thread"  # as Python says it
_OF_LIBRARIES = ("EMFILE", "ENFILE", "ENOMEM", "EAGAIN", "ENOSPC", "EIO", "ESTALE", "ETIMEDOUT")


@contextmanager
def named(path: object) -> Iterator[None]:
    """Name the file in an error of the disk, which does so itself only when it is opened."""
    try:
        yield
    except OSError as error:
        if error.filename is None:
            error.filename = str(path)
        raise


def is_of_file(error: OSError) -> bool:
    """Is it the file that cannot be read, and not the process or a server that fails all files?"""
    return errno.errorcode.get(error.errno or 0) not in _OF_ALL_FILES


def explain(error: BaseException) -> tuple[str, str] | None:
    """A sentence and a hint where the machine failed and not the program; else None."""
    match error:
        case MemoryError():
            return "there is no more memory", _MEMORY
        case RuntimeError() if NO_THREAD in str(error):
            return "the system starts no more threads", _HINTS["EAGAIN"]
        case RuntimeError() if str(error).startswith("Unable to open /dev/"):  # as torch is loaded
            return str(error), _NO_DEVICES
        case RuntimeError() if str(error).startswith("Symlink loop"):  # of Path.resolve
            return str(error), _HINTS["ELOOP"]
        case ImportError() if ".so" in str(error):  # a library is loaded when it is needed
            return str(error), _HINTS.get(_name_in(error), _LIBRARY)
        case RuntimeError() if name := _name_in(error):  # as libtorrent says it
            return str(error), _HINTS[name]
        case RuntimeError() if match := _OF_LIBTORRENT.search(str(error)):
            return str(error), _HINTS.get(errno.errorcode.get(int(match[1]), ""), _OF_ANY)
        case OSError(errno=int(number), strerror=str()):
            return _explain_call(error, errno.errorcode.get(number, ""))
    return None


def _path(error: BaseException | None) -> str | bytes | None:
    """The path that an error names; else that of the method of a path which met it, such as
    `read_bytes`; else that of the error before it: where a disk fails, closing fails too.
    """
    if not isinstance(error, OSError):
        return None
    if isinstance(error.filename, str | bytes | os.PathLike):
        return os.fspath(error.filename)
    frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
    paths = (
        frame.f_locals.get("self")
        for frame in reversed(frames)
        if frame.f_globals.get("__name__", "").startswith("pathlib")
    )
    path = next((str(path) for path in paths if isinstance(path, Path)), None)
    return path or _path(error.__context__)


def _name_in(error: Exception) -> str:
    """The name of the system's error that a library has made a text of; "": none."""
    names = (each for each in _OF_LIBRARIES if os.strerror(getattr(errno, each)) in str(error))
    return next(names, "")


def _explain_call(error: OSError, name: str) -> tuple[str, str] | None:
    """What a system call met; `name` as errno(3) has it."""
    problem = str(error.strerror)
    if type(error).__module__ in ("ssl", "socket"):  # whose numbers are other ones
        return problem, f"look at the network, {_RESUME}"
    if name in _OF_PROGRAMS:
        return None
    if problem.startswith("No usable temporary directory"):
        return problem, "name a folder that may be written to by TMPDIR"
    path = _path(error)
    if path is None:
        return problem, _HINTS.get(name, _OF_ANY)
    place = Path(os.fsdecode(path))
    if name == "ENOSPC" and _lacks_inodes(place):
        sentence = f"{place}: the file system has room for bytes, but for no more files (inodes)"
        return sentence, f"remove files (`df -i` shows how many there may be), {_RESUME}"
    return f"{place}: {problem}", _HINTS.get(name, _OF_ANY)


def _lacks_inodes(path: Path) -> bool:
    with suppress(OSError):
        place = next(each for each in path.absolute().parents if each.exists())
        status = os.statvfs(place)
        # Our own files are removed by now.
        return 0 <= status.f_favail < _FILES_OF_OURS < status.f_files and status.f_bavail > 0
    return False
