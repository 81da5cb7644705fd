"""Headers, padding and end of a tar to write, the same bytes every time (POSIX.1-1988, ustar)."""

import tarfile


def header(name: str, size_bytes: int, *, mtime_s: int = 0) -> bytes:
    """The header of a member: one block."""
    info = tarfile.TarInfo(name)  # mode 0644, uid and gid 0
    info.size, info.mtime = size_bytes, mtime_s
    return info.tobuf(tarfile.USTAR_FORMAT)


def padding(size_bytes: int) -> bytes:
    """The zeros behind a body, up to a whole block."""
    return bytes(-size_bytes % tarfile.BLOCKSIZE)


def ending(size_bytes: int) -> bytes:
    """The end of a tar of `size_bytes`: two empty blocks, then zeros up to a record of 20."""
    marked_bytes = size_bytes + 2 * tarfile.BLOCKSIZE
    return bytes(2 * tarfile.BLOCKSIZE + -marked_bytes % tarfile.RECORDSIZE)
