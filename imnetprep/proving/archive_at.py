"""An archive where it lies: its names there, the root whose receipt speaks of it, what proved it.

While `organize --consume` deletes it bit by bit, an archive is `NAME.consumed`, and its index says
for which root.
"""

from contextlib import closing, suppress
from dataclasses import dataclass, replace
from pathlib import Path

from imnetprep.archives.file import ArchiveFile
from imnetprep.archives.idx import LabelledFile, read_labels
from imnetprep.archives.range_index import SUFFIX, parse_root, renamed_root
from imnetprep.archives.series import series_of_class_tars
from imnetprep.catalog.datasets import Archive, Root
from imnetprep.fs import written_whole
from imnetprep.messages import count
from imnetprep.outside_files import read_file
from imnetprep.proving.receipt import NoProof, Proof, TorrentProof, archive_proof
from imnetprep.sources.arrival import ArrivingFile
from imnetprep.sources.part_files import PartFiles
from imnetprep.sources.places import address_of, is_local, open_archive


@dataclass(frozen=True)
class ArchiveAt:
    """`archive` at `place`. `home` is the root among whose archives it lies, None: no root's.

    `parts` are the files that lie there in its place, such as the class tars that were in it.
    `arrival`: the download that still brings it.
    """

    archive: Archive
    place: str | Path
    home: Root | None
    parts: tuple[Path, ...] = ()
    arrival: PartFiles | None = None

    @property
    def address(self) -> str:
        """The archive as people would write it."""
        if self.parts:
            return f"{self.parts[0]} … ({count(len(self.parts), 'file')})"
        return address_of(self.place, self.archive.name)

    @property
    def path(self) -> Path:
        """Where the archive lies, if it is on this machine."""
        return Path(self.place) / self.archive.name

    @property
    def is_local(self) -> bool:
        """Is it on this machine?"""
        return is_local(self.place)

    @property
    def is_partly_deleted(self) -> bool:
        """Has an unfinished `organize --consume` begun to delete it?"""
        return self.is_local and consumed_path(self.path).exists()

    @property
    def proof(self) -> Proof | None:
        """What proved the bytes that lie there now, by the receipt of `home`; None: nothing did."""
        if self.parts:
            return NoProof("nobody vouches for the files that it is in; names and counts are right")
        if self.arrival is not None:  # nothing of it is read before its piece is proved
            torrent = self.arrival.torrent
            return TorrentProof(torrent.info_hash, torrent.info.num_pieces())
        return None if self.home is None else archive_proof(self.home, self.path)

    def open(self) -> ArchiveFile:
        """The archive, open. Raises ImnetprepError where it is not there."""
        if self.parts and self.archive.form == "parquet":
            from imnetprep.archives.parquet import ParquetFiles

            return ParquetFiles(self.archive.name, self.parts)
        if self.parts:
            return series_of_class_tars(self.archive.name, self.parts)
        if self.arrival is not None:
            return ArrivingFile(self.arrival, self.path)
        if self.archive.labels is None:
            return open_archive(self.place, self.archive.name)
        with closing(replace(self, archive=self.archive.labels).open()) as file:
            labels = read_labels(file, self.archive.labels)
        return LabelledFile(open_archive(self.place, self.archive.name), labels)


def archive_at(archive: Archive, place: str | Path, root: Root) -> ArchiveAt:
    """`archive` at `place`: among those of `root`, of another root, or of none."""
    return ArchiveAt(archive, place, home_of(place, root))


def home_of(place: str | Path, root: Root) -> Root | None:
    """The root whose archives lie at `place`: `root`, wherever links and `..` lead; or another."""
    if not is_local(place):
        return None
    folder = Path(place)
    if folder.resolve() == root.archives.resolve():
        return root
    homes = (Root(each.parent) for each in (folder.absolute(), folder.resolve()))
    return next((home for home in homes if home.archives.resolve() == folder.resolve()), None)


def consumed_path(archive: Path) -> Path:
    """What `archive` is called while it is consumed."""
    return archive.with_name(f"{archive.name}.consumed")


def index_path(archive: Path) -> Path:
    """The index beside `archive`."""
    return archive.with_name(f"{archive.name}{SUFFIX}")


def consuming_root(path: Path) -> Path | None:
    """The root that the archive is consumed for, to be shown: nothing may depend on it."""
    with suppress(OSError):
        return parse_root(read_file(index_path(path)))
    return None


def other_consumer(path: Path, root: Path) -> Path | None:
    """The root that the archive is consumed for, if it is another than `root`."""
    consumer = consuming_root(path)
    return consumer if consumer != root.resolve() else None


def name_consumer(path: Path, root: Path) -> None:
    """From here on the index of an archive that is still untouched names `root`."""
    if consuming_root(path) != root.resolve():
        body = renamed_root(read_file(index_path(path)), root.resolve())
        with written_whole(index_path(path)) as index:
            index.write(body)
