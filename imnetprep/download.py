"""Download archives by torrent into ROOT/archives: resumable, proved piece by piece."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from imnetprep.catalog.datasets import Archive, Dataset, Root, Split
from imnetprep.fs import locked, require_free
from imnetprep.manifest import create_manifest, dataset_for, organized_splits
from imnetprep.messages import ImnetprepError, Progress, WrongBytes, WrongUsage
from imnetprep.outside_files import read_file
from imnetprep.proving.archive_at import consumed_path, consuming_root
from imnetprep.proving.receipt import TorrentProof, is_proved, record_archive
from imnetprep.sources.part_files import PartFiles, read_record, record_path
from imnetprep.sources.seeder import Seed, SeedLimits, seed_until
from imnetprep.sources.session import Network, open_session
from imnetprep.sources.swarm import fetch_files, fetch_metadata
from imnetprep.sources.torrent import Magnet, Torrent, parse_magnet, read_torrent


@dataclass(frozen=True)
class DownloadPlan:
    """What `download` will do: the archives to fetch, and the torrents that have them.

    A Magnet is a torrent whose metadata is still to be asked for. `present` are the archives that
    need no download: proved already, or organized.
    """

    dataset: Dataset
    to_fetch: tuple[Archive, ...]
    present: tuple[Archive, ...]
    torrents: tuple[Torrent | Magnet, ...]


def plan_download(
    root: Root,
    *,
    dataset: str | None,
    splits: Sequence[Split],
    magnets: Sequence[str],
    torrents: Sequence[Path],
) -> DownloadPlan:
    """Decide what to fetch, from what lies under `root`; touches nothing, asks no network.

    Raises WrongUsage on a bad magnet link, ImnetprepError on a .torrent that cannot be read, and
    where neither the user nor the dataset names a torrent for an archive.
    """
    definition = dataset_for(root.manifest, dataset)
    archives = definition.archives_for(splits or definition.splits)
    done_splits = set() if splits else {split for split, _ in organized_splits(root)}
    present = [
        each
        for each in archives
        if done_splits.issuperset(each.splits) or is_proved(root, root.archives / each.name)
    ]
    to_fetch = [each for each in archives if each not in present]
    for each in to_fetch:
        _refuse_two(root.archives / each.name)
    sources: list[Torrent | Magnet] = [parse_magnet(magnet) for magnet in magnets]
    sources += [read_torrent(read_file(path)) for path in torrents]
    if not sources:
        sources = [_published_torrent(definition, archive) for archive in to_fetch]
    by_hash = {each.info_hash: _with_metadata(each, definition, root) for each in sources}
    return DownloadPlan(definition, tuple(to_fetch), tuple(present), tuple(by_hash.values()))


def carry_out_download(
    plan: DownloadPlan,
    root: Root,
    *,
    network: Network,
    wait_s: float,
    seed_limits: SeedLimits,
    progress: Progress,
) -> Iterator[tuple[Archive, TorrentProof]]:
    """Fetch the archives; yields each with its proof. Then seeds, if asked to.

    Raises SourceFailed where no peer delivers within `wait_s`, WrongBytes where a torrent is not
    of this dataset, and ImnetprepError on a disk that is too small, full or failing.
    """
    if not plan.to_fetch:
        if seed_limits != SeedLimits():
            progress.note("nothing was fetched, so nothing is seeded")
        return
    proofs: dict[str, TorrentProof] = {}

    def record(parts: PartFiles) -> None:
        info_hash, pieces = parts.torrent.info_hash, parts.torrent.info.num_pieces()
        for path in parts.paths.values():
            proofs[path.name] = TorrentProof(info_hash, pieces)
            record_archive(root, path, proofs[path.name])

    with locked(root.archives), open_session(network) as session:
        create_manifest(root.manifest, plan.dataset)
        bare_magnets = [each for each in plan.torrents if isinstance(each, Magnet)]
        with_metadata = [each for each in plan.torrents if isinstance(each, Torrent)]
        with_metadata += fetch_metadata(
            session, bare_magnets, addresses=network.peers, wait_s=wait_s, progress=progress
        )
        downloads = _match_all(with_metadata, plan, root.archives)
        for parts in downloads:
            parts.recover(progress)
        needed_bytes = sum(parts.missing_disk_bytes for parts in downloads)
        require_free(root.path, needed_bytes, purpose=f"to download {plan.dataset.name}")
        fetch_files(
            session,
            downloads,
            addresses=network.peers,
            wait_s=wait_s,
            progress=progress,
            on_whole=record,
        )
    yield from ((archive, proofs[archive.name]) for archive in plan.to_fetch)
    if seed_limits != SeedLimits():
        seeds = [
            Seed(parts.torrent.body, parts.paths)
            for parts in downloads
            if len(parts.paths) == len(parts.torrent.files)
        ]
        if not seeds:
            progress.note("of a torrent that was fetched in part nothing is seeded")
            return
        seed_until(seeds, network, seed_limits, progress=progress)


def _refuse_two(path: Path) -> None:
    """Refuse to fetch an archive beside another state of it: a part, or one being consumed."""
    if path.exists() and path.with_name(f"{path.name}.part").exists():
        raise ImnetprepError(
            f"both {path} and {path.name}.part are there",
            hint=f"imnetprep verify-archives tells what {path.name} is worth; remove one of them",
        )
    if consumed_path(path).exists():
        owner = f" for {root}" if (root := consuming_root(path)) else ""
        raise ImnetprepError(
            f"{path}.consumed is there: organize --consume{owner} is unfinished, and deletes"
            " it part by part",
            hint="imnetprep organize --consume resumes it; remove it to fetch the archive again",
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


def _with_metadata(source: Torrent | Magnet, dataset: Dataset, root: Root) -> Torrent | Magnet:
    """The torrent of a magnet link, where the dataset or the record of an earlier run has it."""
    if isinstance(source, Torrent):
        return source
    bodies = [dataset.published.read(each.torrent) for each in dataset.archives if each.torrent]
    if record := read_record(record_path(root.archives, source.info_hash)):
        bodies.append(record.torrent.body)
    torrents = (read_torrent(body, magnet=source) for body in bodies)
    return next((each for each in torrents if each.info_hash == source.info_hash), source)


def _match_all(torrents: Sequence[Torrent], plan: DownloadPlan, folder: Path) -> list[PartFiles]:
    """The parts of each archive to fetch. Raises WrongUsage on a torrent that nothing is left for.

    A torrent of archives that are present is none such: the same command resumes.
    """
    downloads = []
    to_fetch = {archive.name for archive in plan.to_fetch}
    names = to_fetch | {archive.name for archive in plan.present}
    for torrent in torrents:
        archives = _archives_in(torrent, plan.dataset)
        if names.isdisjoint(archives.values()):
            raise WrongUsage(
                f"torrent {torrent.info_hash} is not used: it has {', '.join(archives.values())},"
                " which --split leaves out or another torrent has",
                hint="leave out its --magnet or --torrent",
            )
        names.difference_update(archives.values())
        files = {index: folder / name for index, name in archives.items() if name in to_fetch}
        to_fetch.difference_update(archives.values())
        if files:
            downloads.append(PartFiles(torrent, files))
    if to_fetch:
        raise ImnetprepError(
            f"none of the torrents has {', '.join(sorted(to_fetch))}",
            hint="name one that has it, or just the splits that you want: --split NAME",
        )
    return downloads


def _archives_in(torrent: Torrent, dataset: Dataset) -> dict[int, str]:
    """The archives of `dataset` in `torrent`, by file index. The folders in its names are dropped.

    Raises WrongBytes where a file has an archive's name and not its size, and where none is an
    archive of the dataset.
    """
    archives = {archive.name: archive for archive in dataset.archives}
    found = {file.index: file.name for file in torrent.files if file.name in archives}
    hint = "name the dataset it belongs to: --dataset NAME|FILE.toml"
    for file in torrent.files:
        size_bytes = archives[file.name].size_bytes if file.name in archives else None
        if size_bytes not in (None, file.size_bytes):
            raise WrongBytes(
                f"the torrent's {file.name} has {file.size_bytes:,} bytes;"
                f" {dataset.name} has {size_bytes:,} there",
                hint=hint,
            )
    if not found:
        contents = ", ".join(file.name for file in torrent.files[:3])
        raise WrongBytes(
            f"torrent {torrent.info_hash} has {contents}; {dataset.name} has {', '.join(archives)}",
            hint=hint,
        )
    return found
