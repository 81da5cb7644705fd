"""Archives by torrent into `ROOT/archives`: resumable, proved piece by piece, checked by name."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from imnetprep.catalog.datasets import Archive, Dataset, Split
from imnetprep.errors import ImnetprepError, WrongBytes
from imnetprep.fs import locked, require_free
from imnetprep.manifest import create_manifest, dataset_for, organized_splits
from imnetprep.progress import Progress
from imnetprep.proving.consumed import consumed_path, consuming_root
from imnetprep.proving.receipt import archive_proof, record_archive
from imnetprep.roots import Root
from imnetprep.sources.magnet import Magnet, parse_magnet
from imnetprep.sources.part_files import PartFiles, read_record, record_path
from imnetprep.sources.seeder import Seed, seed_until
from imnetprep.sources.session import Network, open_session
from imnetprep.sources.swarm import fetch_files, fetch_metadata
from imnetprep.sources.torrent import Torrent, read_torrent


@dataclass(frozen=True)
class DownloadPlan:
    """What `download` will do: the archives still wanted, and the torrents to take them from.

    A Magnet is a torrent whose metadata nobody here knows yet. `there` are the archives that
    need no download: proved before, or organized.
    """

    dataset: Dataset
    wanted: tuple[Archive, ...]
    there: tuple[Archive, ...]
    torrents: tuple[Torrent | Magnet, ...]


def plan_download(
    root: Root,
    *,
    dataset: str | None,
    splits: Sequence[Split],
    magnets: Sequence[str],
    torrents: Sequence[Path],
) -> DownloadPlan:
    """Look at what is there and what is wanted; touches nothing and asks no network.

    Raises WrongUsage on a bad magnet link, ImnetprepError on a .torrent that cannot be read, and
    where neither the user nor the dataset names a torrent for an archive.
    """
    known = dataset_for(root.manifest, dataset)
    archives = known.archives_for(splits or known.splits)
    organized = set() if splits else {split for split, _ in organized_splits(root)}
    there = [
        each for each in archives if organized.issuperset(each.splits) or _is_proved(root, each)
    ]
    wanted = [each for each in archives if each not in there]
    for each in wanted:
        _refuse_two(root.archives / each.name)
    given: list[Torrent | Magnet] = [parse_magnet(magnet) for magnet in magnets]
    given += [read_torrent(path.read_bytes()) for path in torrents]
    if not given:
        given = [_published_torrent(known, archive) for archive in wanted]
    published = {
        torrent.info_hash: torrent
        for archive in known.archives
        if archive.torrent and isinstance(torrent := _published_torrent(known, archive), Torrent)
    }
    resolved = {_info_hash(each): _with_metadata(each, published, root) for each in given}
    return DownloadPlan(known, tuple(wanted), tuple(there), tuple(resolved.values()))


@dataclass(frozen=True)
class Seeding:
    """How long to give back: until `ratio` times the bytes, or for `seconds`; None: not by that."""

    ratio: float | None = None
    seconds: float | None = None


def carry_out_download(
    plan: DownloadPlan,
    root: Root,
    *,
    network: Network,
    wait_s: float,
    seeding: Seeding,
    progress: Progress,
) -> Iterator[tuple[Archive, dict[str, Any]]]:
    """Fetch what is wanted; yields each archive with its proof. Then seeds, if that is asked for.

    Raises SourceFailed where no peer delivers within `wait_s`, WrongBytes where a torrent is not
    of this dataset, and ImnetprepError on a disk that is too small, full or failing.
    """
    if not plan.wanted:
        if seeding != Seeding():
            progress.note("nothing was fetched, so nothing is seeded")
        return
    proofs: dict[str, dict[str, Any]] = {}
    with locked(root.archives), open_session(network) as session:
        create_manifest(root.manifest, plan.dataset)
        unknown = [each for each in plan.torrents if isinstance(each, Magnet)]
        known = [each for each in plan.torrents if isinstance(each, Torrent)]
        known += fetch_metadata(session, unknown, network=network, wait_s=wait_s, progress=progress)
        growing = _match_all(known, plan, root.archives)
        for one in growing:
            one.recover(progress)
        needed = sum(one.missing_disk_bytes for one in growing)
        require_free(root.path, needed, purpose=f"to download {plan.dataset.name}")
        fetch_files(
            session,
            growing,
            network=network,
            wait_s=wait_s,
            progress=progress,
            on_whole=_recorder(root, proofs),
        )
    yield from ((archive, proofs[archive.name]) for archive in plan.wanted)
    if seeding != Seeding():
        seeds = [
            Seed(one.torrent.body, one.paths)
            for one in growing
            if len(one.paths) == len(one.torrent.files)
        ]
        if not seeds:
            progress.note("of a torrent that was fetched in part nothing is seeded")
            return
        seed_until(seeds, network, ratio=seeding.ratio, seconds=seeding.seconds, progress=progress)


def _recorder(root: Root, proofs: dict[str, dict[str, Any]]) -> Callable[[PartFiles], None]:
    def record(one: PartFiles) -> None:
        info_hash, pieces = one.torrent.info_hash, one.torrent.info.num_pieces()
        for path in one.paths.values():
            proofs[path.name] = {"kind": "torrent", "info_hash": info_hash, "pieces": pieces}
            record_archive(root, path, proofs[path.name])

    return record


def _info_hash(each: Torrent | Magnet) -> str:
    return each.info_hash if isinstance(each, Torrent) else each.v1 or each.v2 or ""


def _is_proved(root: Root, archive: Archive) -> bool:
    proof = archive_proof(root, root.archives / archive.name)
    return proof is not None and proof["kind"] != "none"


def _refuse_two(path: Path) -> None:
    """Nothing is fetched over, or beside, another state of the same archive."""
    if path.exists() and path.with_name(f"{path.name}.part").exists():
        raise ImnetprepError(
            f"both {path} and {path.name}.part are there",
            hint=f"imnetprep verify-archives tells what {path.name} is worth; remove one of them",
        )
    if consumed_path(path).exists():
        told = f" for {root}" if (root := consuming_root(path)) else ""
        raise ImnetprepError(
            f"{path}.consumed is there: organize gives it up as it goes{told}",
            hint="imnetprep organize --consume goes on; remove it to fetch the archive again",
        )


def _published_torrent(dataset: Dataset, archive: Archive) -> Torrent | Magnet:
    magnet = parse_magnet(archive.magnet) if archive.magnet else None
    if archive.torrent is not None:
        return read_torrent(dataset.published.read(archive.torrent), magnet=magnet)
    if magnet is not None:
        return magnet
    labels = "; it has no labels: organize and train leave it alone"
    raise ImnetprepError(
        f"{dataset.name} names no torrent for {archive.name}"
        f"{labels if archive.split is Split.TEST else ''}",
        hint=(f"it is published at {archive.url}; " if archive.url else "")
        + "with a torrent of your own: --magnet URI or --torrent FILE",
    )


def _with_metadata(
    each: Torrent | Magnet, published: dict[str, Torrent], root: Root
) -> Torrent | Magnet:
    """A magnet link whose torrent the dataset, or the record of an earlier run, has already."""
    if isinstance(each, Torrent):
        return each
    info_hash = _info_hash(each)
    if info_hash in published:
        return read_torrent(published[info_hash].body, magnet=each)
    record = read_record(record_path(root.archives, info_hash))
    if not record:
        return each
    torrent = read_torrent(record[b"torrent"], magnet=each)
    return torrent if torrent.info_hash == info_hash else each


def _match_all(torrents: Sequence[Torrent], plan: DownloadPlan, folder: Path) -> list[PartFiles]:
    """Each wanted archive in the first torrent that has it; ImnetprepError where none has."""
    growing = []
    missing = [archive.name for archive in plan.wanted]
    for torrent in torrents:
        files = {
            index: folder / name
            for index, name in _archives_in(torrent, plan.dataset).items()
            if name in missing
        }
        missing = [name for name in missing if folder / name not in files.values()]
        if files:
            growing.append(PartFiles(torrent, files))
    if missing:
        raise ImnetprepError(
            f"none of the torrents has {', '.join(missing)}",
            hint="name one that has it, or just the splits that you want: --split NAME",
        )
    return growing


def _archives_in(torrent: Torrent, dataset: Dataset) -> dict[int, str]:
    """The archives of `dataset` in `torrent`, by file index. The folders in its names are dropped.

    Raises WrongBytes where a file has an archive's name and not its size, and where none is an
    archive of the dataset.
    """
    archives = {archive.name: archive for archive in dataset.archives}
    found = {file.index: file.name for file in torrent.files if file.name in archives}
    hint = "name the dataset it belongs to: --dataset NAME|FILE.toml"
    for file in torrent.files:
        promised = archives[file.name].size_bytes if file.name in archives else None
        if promised not in (None, file.size_bytes):
            raise WrongBytes(
                f"the torrent's {file.name} has {file.size_bytes:,} bytes;"
                f" {dataset.name} has {promised:,} there",
                hint=hint,
            )
    if not found:
        names = ", ".join(file.name for file in torrent.files[:3])
        raise WrongBytes(
            f"torrent {torrent.info_hash} has {names}; {dataset.name} has {', '.join(archives)}",
            hint=hint,
        )
    return found
