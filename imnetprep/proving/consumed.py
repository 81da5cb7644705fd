"""What lies there of an archive that is being consumed: its name, its index, whose it is."""

from contextlib import suppress
from pathlib import Path

from imnetprep.archives.range_index import SUFFIX, parse_root, renamed_root
from imnetprep.fs import written_whole


def consumed_path(archive: Path) -> Path:
    """What `archive` is called while it is consumed."""
    return archive.with_name(f"{archive.name}.consumed")


def index_path(archive: Path) -> Path:
    """The index beside `archive`."""
    return archive.with_name(f"{archive.name}{SUFFIX}")


def consuming_root(path: Path) -> Path | None:
    """The root that the archive is consumed for, to be told: nothing may depend on it."""
    with suppress(OSError):
        return parse_root(index_path(path).read_bytes())
    return None


def other_consumer(path: Path, root: Path) -> Path | None:
    """The same, where that is another than `root`."""
    told = consuming_root(path)
    return told if told != root.resolve() else None


def name_consumer(path: Path, root: Path) -> None:
    """Of an archive that is still untouched, its index names `root` from here on."""
    if consuming_root(path) != root.resolve():
        body = renamed_root(index_path(path).read_bytes(), root.resolve())
        with written_whole(index_path(path)) as index:
            index.write(body)
