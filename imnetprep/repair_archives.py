"""Archives repaired piece by piece: only wrong pieces are fetched, and each is verified."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from imnetprep.archives.file import ArchiveFile, file_state
from imnetprep.catalog.datasets import Archive, Dataset, Root, Split
from imnetprep.fs import locked, require_free
from imnetprep.jobs import TRANSFERS
from imnetprep.manifest import dataset_for
from imnetprep.messages import ImnetprepError, Progress, SourceFailed, move_away, shell_command
from imnetprep.proving.archive_at import home_of
from imnetprep.proving.receipt import TorrentProof, record_archive
from imnetprep.sources.part_files import PartFiles
from imnetprep.sources.piece_download import Mirrors, fetch_pieces
from imnetprep.sources.places import address_of, open_archive
from imnetprep.sources.session import Network, open_session
from imnetprep.sources.swarm import fetch_files
from imnetprep.sources.torrent import Torrent, published_pieces, read_torrent
from imnetprep.synced_prefix import archives_at
from imnetprep.transfers.flow import Flow
from imnetprep.verify_archives import wrong_pieces


@dataclass(frozen=True)
class ArchiveRepair:
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
        """How much is to be fetched; None where only carrying it out finds that out."""
        if self.right is None:
            return None
        info = self.torrent.info
        return int(info.total_size() - sum(map(info.piece_size, self.right)))

    @property
    def is_right(self) -> bool:
        """Is there nothing to fetch?"""
        return self.wrong_bytes == 0

    @property
    def proof(self) -> TorrentProof:
        """What the receipt says of the archive once all is right."""
        return TorrentProof(self.torrent.info_hash, int(self.torrent.info.num_pieces()))


@dataclass(frozen=True)
class ArchiveRepairPlan:
    """What `repair-archives` will do in `folder`."""

    folder: Path
    archives: tuple[ArchiveRepair, ...]


@dataclass(frozen=True)
class Swarm:
    """A swarm as the source of pieces; a peer that is silent for `wait_s` is dropped."""

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
    origin = dataset_for(root.manifest, dataset).published
    folder = root.archives if folder is None else folder
    origin.require_archives()
    archives = origin.archives_for(splits)
    archives = archives or [each for each in origin.archives if _is_there(folder / each.name)]
    if not archives:
        raise ImnetprepError(
            f"{folder} has no archive of {origin.name}",
            hint="imnetprep download, or name the folder where the archives are",
        )
    with_torrent = [each for each in archives if each.torrent]
    if not with_torrent:
        raise ImnetprepError(
            f"{origin.name} has no torrent of {' or '.join(each.name for each in archives)}, so"
            " nothing tells which bytes are wrong",
            hint="imnetprep verify-archives tells which is wrong; move that away, and download it",
        )
    if not splits or any(each.labels for each in with_torrent):
        for each in archives:
            if each not in with_torrent:
                progress.note(f"{each.name} has no torrent, so it is left as it is")
        archives = with_torrent
    repairs = [
        _plan_archive(origin, each, folder / each.name, jobs=jobs, progress=progress)
        for each in archives
    ]
    return ArchiveRepairPlan(folder, tuple(repairs))


def carry_out_archive_repair(
    plan: ArchiveRepairPlan,
    root: Root,
    *,
    source: Swarm | str,
    jobs: int | None,
    progress: Progress,
) -> Iterator[ArchiveRepair]:
    """Fetch what is wrong from `source`, a swarm or a place; yields each right archive.

    Until all of it is right an archive is called NAME.part, so nobody takes it for whole. After
    an interruption at any instant, the same call resumes. Raises SourceFailed, WrongBytes and
    ImnetprepError.
    """
    with locked(plan.folder):
        for each in plan.archives:
            if not each.is_right:
                _fetch(each, source, root, jobs, progress)
            elif file_state(each.path) == each.state:
                _record(each, root)
            yield each


def _plan_archive(
    dataset: Dataset, archive: Archive, path: Path, *, jobs: int | None, progress: Progress
) -> ArchiveRepair:
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
            f"both {path} and {part.name} are there",
            hint=f"{shell_command('rm', part)}, or {move_away(path)}",
        )
    if part.exists():
        return ArchiveRepair(archive, path, torrent, None, None)
    if not path.exists():
        raise ImnetprepError(
            f"{path} is not there", hint=f"imnetprep download --split {archive.split}"
        )
    state = file_state(path)
    if state["size_bytes"] > pieces.size_bytes:
        raise ImnetprepError(
            f"{path} has {state['size_bytes']:,} bytes; the torrent's has {pieces.size_bytes:,}",
            hint="if it is that archive with something behind it: "
            + shell_command("truncate", "-s", pieces.size_bytes, path),
        )
    with closing(open_archive(path.parent, path.name)) as file:
        wrong = wrong_pieces(file, pieces, jobs=jobs, progress=progress)
    if len(wrong) * 2 > pieces.count:
        raise ImnetprepError(
            f"{len(wrong):,} of the {pieces.count:,} pieces of {path} are not those of torrent"
            f" {pieces.info_hash}: this is another file",
            hint=f"{move_away(path)}; imnetprep download --split {archive.split}",
        )
    right = frozenset(range(pieces.count)) - frozenset(wrong)
    return ArchiveRepair(archive, path, torrent, right, state)


def _fetch(
    repair: ArchiveRepair, source: Swarm | str, root: Root, jobs: int | None, progress: Progress
) -> None:
    """A source that cannot be opened is refused before a byte of the archive is touched."""
    if isinstance(source, str):
        name = repair.archive.name
        place = archives_at(source, [name])
        with closing(open_archive(place, name)) as file:
            _fetch_from(address_of(place, name), file, repair, jobs, progress)
        _record(repair, root)
        return
    with open_session(source.network) as session:
        fetch_files(
            session,
            [_begun(repair, progress)],
            addresses=source.network.peers,
            wait_s=source.wait_s,
            progress=progress,
            on_whole=lambda _: _record(repair, root),
        )


def _fetch_from(
    title: str, file: ArchiveFile, repair: ArchiveRepair, jobs: int | None, progress: Progress
) -> None:
    if not file.seekable:
        raise SourceFailed(f"{title}: the server gives no byte ranges", hint="imnetprep download")
    mirrors = Mirrors({title: file}, repair.torrent.info.total_size(), progress.note)
    parts = _begun(repair, progress)
    with progress.task(
        f"fetch {file.name}", total=parts.size_bytes, unit="B", initial=parts.proved_bytes
    ) as task:
        fetch_pieces(parts, mirrors, Flow(task), jobs=TRANSFERS.count(jobs))


def _begun(repair: ArchiveRepair, progress: Progress) -> PartFiles:
    part = PartFiles(repair.torrent, {repair.torrent.files[0].index: repair.path})
    if repair.right is None:
        part.recover(progress)
    elif file_state(repair.path) == repair.state:
        part.begin_with(repair.right)
    else:
        raise ImnetprepError(
            f"{repair.path} changed since it was read", hint="run the same command again"
        )
    needed_bytes = part.missing_disk_bytes
    require_free(repair.path.parent, needed_bytes, purpose=f"to repair {repair.path}")
    return part


def _record(repair: ArchiveRepair, root: Root) -> None:
    if home_of(repair.path.parent, root) is root:
        record_archive(root, repair.path, repair.proof)


def _is_there(path: Path) -> bool:
    return path.exists() or _part(path).exists()


def _part(path: Path) -> Path:
    return path.with_name(f"{path.name}.part")
