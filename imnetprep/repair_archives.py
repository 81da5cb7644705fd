"""Archives with wrong or missing pieces made right: just those are fetched, each proved."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from imnetprep.archives.file import ArchiveFile, file_state
from imnetprep.catalog.datasets import Archive, Dataset, Split
from imnetprep.checking.check_archive import wrong_pieces
from imnetprep.fs import locked, require_free
from imnetprep.manifest import dataset_for
from imnetprep.messages import ImnetprepError, Progress
from imnetprep.proving.receipt import record_archive
from imnetprep.roots import Root
from imnetprep.sources.part_files import PartFiles
from imnetprep.sources.pieces import fetch_pieces
from imnetprep.sources.places import open_archive
from imnetprep.sources.session import Network, open_session
from imnetprep.sources.swarm import fetch_files
from imnetprep.sources.torrent import Torrent, published_pieces, read_torrent


@dataclass(frozen=True)
class PlannedArchive:
    """One archive and what is wrong with it. `state`: the file as it was judged.

    Where an earlier repair or download left a part, `right` is None: its record knows.
    """

    archive: Archive
    path: Path
    torrent: Torrent
    right: frozenset[int] | None
    state: Mapping[str, int] | None

    @property
    def wrong_bytes(self) -> int | None:
        """What is to be fetched; None where only carrying it out finds that out."""
        if self.right is None:
            return None
        info = self.torrent.info
        return int(info.total_size() - sum(map(info.piece_size, self.right)))

    @property
    def is_right(self) -> bool:
        """Is there nothing to fetch?"""
        return self.wrong_bytes == 0

    @property
    def proof(self) -> dict[str, Any]:
        """What the receipt says of it once all is right."""
        pieces = int(self.torrent.info.num_pieces())
        return {"kind": "torrent", "info_hash": self.torrent.info_hash, "pieces": pieces}


@dataclass(frozen=True)
class ArchiveRepairPlan:
    """What `repair-archives` will do in `folder`."""

    folder: Path
    archives: tuple[PlannedArchive, ...]


@dataclass(frozen=True)
class Swarm:
    """Other peers as the source of pieces; one that is silent for `wait_s` is given up."""

    network: Network
    wait_s: float


def plan_archive_repair(
    root: Root,
    folder: Path | None,
    *,
    dataset: str | None = None,
    splits: Sequence[Split],
    jobs: int | None,
    progress: Progress,
) -> ArchiveRepairPlan:
    """Read the archives in `folder` and find the pieces that are wrong; touches nothing.

    Raises ImnetprepError where an archive of a named split, or any, is not there or has no
    torrent, and where one is too long or mostly wrong: that is another file.
    """
    known = dataset_for(root.manifest, dataset).published
    folder = root.archives if folder is None else folder
    wanted = known.archives_for(splits)
    wanted = wanted or [each for each in known.archives if _is_there(folder / each.name)]
    if not wanted:
        raise ImnetprepError(
            f"{folder} has no archive of {known.name}",
            hint="imnetprep download, or name the folder where the archives are",
        )
    with_torrent = [each for each in wanted if each.torrent]
    if not splits and with_torrent:
        for each in wanted:
            if each not in with_torrent:
                progress.note(f"{each.name} has no torrent, so it is left as it is")
        wanted = with_torrent
    return ArchiveRepairPlan(
        folder,
        tuple(
            _plan_archive(known, each, folder / each.name, jobs=jobs, progress=progress)
            for each in wanted
        ),
    )


def carry_out_archive_repair(
    plan: ArchiveRepairPlan, root: Root, *, source: Swarm | str, progress: Progress
) -> Iterator[PlannedArchive]:
    """Fetch what is wrong from `source`, a swarm or a place; yields each right archive.

    Until all of it is right an archive is called NAME.part, so nobody takes it for whole. Killed
    at any instant, the same goes on. Raises SourceFailed, WrongBytes and ImnetprepError.
    """
    with locked(plan.folder):
        for planned in plan.archives:
            if not planned.is_right:
                with ExitStack() as stack:
                    place: Swarm | ArchiveFile
                    if isinstance(source, str):  # a bad one is refused before a byte is touched
                        file = open_archive(source, planned.archive.name)
                        place = stack.enter_context(closing(file))
                    else:
                        place = source
                    growing = _begun(planned, progress)
                    needed = growing.missing_disk_bytes
                    require_free(plan.folder, needed, purpose=f"to repair {planned.path}")
                    _fetch(growing, place, _recorder(planned, root), progress)
            elif file_state(planned.path) == planned.state:
                _recorder(planned, root)(None)
            yield planned


def _plan_archive(
    dataset: Dataset, archive: Archive, path: Path, *, jobs: int | None, progress: Progress
) -> PlannedArchive:
    pieces = published_pieces(dataset, archive)
    if archive.torrent is None or pieces is None:
        raise ImnetprepError(
            f"{dataset.name} has no torrent of {archive.name}, so nothing tells which bytes are"
            " wrong",
            hint="fetch the archive again from its source",
        )
    torrent = read_torrent(dataset.read(archive.torrent))
    part = _part(path)
    if part.exists() and path.exists():
        raise ImnetprepError(
            f"both {path} and {part.name} are there", hint=f"rm {part}, or move {path} away"
        )
    if part.exists():
        return PlannedArchive(archive, path, torrent, None, None)
    if not path.exists():
        raise ImnetprepError(
            f"{path} is not there", hint=f"imnetprep download --split {archive.split}"
        )
    state = file_state(path)
    if state["size_bytes"] > pieces.size_bytes:
        raise ImnetprepError(
            f"{path} has {state['size_bytes']:,} bytes; the torrent's has {pieces.size_bytes:,}",
            hint=f"if it is that archive with something behind it:"
            f" truncate -s {pieces.size_bytes} {path}",
        )
    wrong = wrong_pieces(path, pieces, jobs=jobs, progress=progress)
    if len(wrong) * 2 > pieces.count:
        raise ImnetprepError(
            f"{len(wrong):,} of the {pieces.count:,} pieces of {path} are not those of torrent"
            f" {pieces.info_hash}: this is another file",
            hint=f"mv {path} {path}.old; imnetprep download --split {archive.split}",
        )
    right = frozenset(range(pieces.count)) - frozenset(wrong)
    return PlannedArchive(archive, path, torrent, right, state)


def _begun(planned: PlannedArchive, progress: Progress) -> PartFiles:
    growing = PartFiles(planned.torrent, {planned.torrent.files[0].index: planned.path})
    if planned.right is None:
        growing.recover(progress)
    elif file_state(planned.path) == planned.state:
        growing.begin_with(planned.right)
    else:
        raise ImnetprepError(
            f"{planned.path} changed since it was read", hint="run the same command again"
        )
    return growing


def _fetch(
    growing: PartFiles,
    source: Swarm | ArchiveFile,
    arrived: Callable[[PartFiles], None],
    progress: Progress,
) -> None:
    if not isinstance(source, Swarm):
        fetch_pieces(growing, source, progress=progress, on_whole=arrived)
        return
    with open_session(source.network) as session:
        fetch_files(
            session,
            [growing],
            network=source.network,
            wait_s=source.wait_s,
            progress=progress,
            on_whole=arrived,
        )


def _recorder(planned: PlannedArchive, root: Root) -> Callable[[PartFiles | None], None]:
    def record(_: PartFiles | None) -> None:
        if planned.path.parent.absolute() == root.archives.absolute():
            record_archive(root, planned.path, planned.proof)

    return record


def _is_there(path: Path) -> bool:
    return path.exists() or _part(path).exists()


def _part(path: Path) -> Path:
    return path.with_name(f"{path.name}.part")
