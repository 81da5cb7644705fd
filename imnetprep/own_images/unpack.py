"""A zip of images of one's own, unpacked into a folder that is whole or absent."""

import errno
import shutil
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

from imnetprep.archives.file import LocalFile, open_local
from imnetprep.archives.ranges import Section
from imnetprep.archives.tar import FileStream
from imnetprep.archives.zip import Directory
from imnetprep.fs import locked, require_free, sync_file_system
from imnetprep.messages import Progress, WrongBytes, WrongUsage, format_bytes, move_away
from imnetprep.outside_text import shown

_MOST_BYTES = 1_000_000_000  # of a member, which is unpacked in memory
_MAGICS = b"PK\3\4", b"PK\5\6"  # of a zip, and of one without members


def unpack_zip(archive: Path, folder: Path, *, progress: Progress) -> None:
    """Unpack all files of `archive` into `folder`, each with its CRC verified.

    A folder that is there is left as it is. An interrupted one begins anew. Raises WrongBytes on a
    zip that is damaged, or has a member that would leave the folder; ImnetprepError where the disk
    has no room.
    """
    if folder.exists() or folder.is_symlink():
        if not folder.is_dir():
            raise WrongUsage(f"{folder} is no folder", hint=move_away(folder))
        progress.note(f"{folder} is there, and not unpacked again")
        return
    part = folder.with_name(f".{folder.name}.unpacking")
    folder.parent.mkdir(parents=True, exist_ok=True)
    with locked(folder.parent, name=f"{part.name}.lock"), closing(open_local(archive)) as file:
        shutil.rmtree(part, ignore_errors=True)
        part.mkdir()
        try:
            _unpack(file, part, progress)
            sync_file_system(part)  # a power cut leaves no folder of empty files
            part.rename(folder)
        finally:
            shutil.rmtree(part, ignore_errors=True)


def _unpack(file: LocalFile, folder: Path, progress: Progress) -> None:
    if file.read_at(0, 4) not in _MAGICS:
        raise WrongBytes(f"{file.name} is no zip", hint="unpack it by the program that made it")
    size_bytes = 0

    def add(path: str, member_bytes: int) -> bool:
        nonlocal size_bytes
        if member_bytes > _MOST_BYTES:
            raise WrongBytes(
                f"{file.name} has {shown(path)} of {format_bytes(member_bytes)}, which is no image",
                hint="unpack it by the program that made it",
            )
        size_bytes += member_bytes
        return True

    directory = Directory(file.read_at, file.size_bytes or 0, name=file.name, is_sample=add)
    require_free(folder, size_bytes, purpose=f"{file.name}, {format_bytes(size_bytes)} unpacked,")
    with progress.task(f"unpack {file.name}", total=size_bytes, unit="B") as task:
        for section in directory.sections(FileStream(file.read_at)):
            for size in _write_files(section, folder, directory):
                task.advance(size)


def _write_files(section: Section, folder: Path, directory: Directory) -> Iterator[int]:
    """Write the members of a section below `folder`; yields the bytes of each."""
    for member in section.members:
        body = section.take(member.size_bytes)
        path = folder / member.name
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("xb") as file:
                file.write(body)
        except (FileExistsError, IsADirectoryError, NotADirectoryError) as error:
            raise directory.refused(f"{member.name!r} is there twice") from error
        except OSError as error:
            if error.errno != errno.ENAMETOOLONG:
                raise
            raise directory.refused(
                f"a name is too long for the disk: {member.name:.60}…"
            ) from error
        yield member.size_bytes
