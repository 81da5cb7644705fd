"""Download archives into ROOT/archives: by torrent or from servers, resumable, verified."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from imnetprep.catalog.datasets import BUILT_IN, Archive, Dataset, Root, Split
from imnetprep.downloads.addresses import (
    FileRequest,
    dataset_of_download,
    file_requests,
    local_path,
    published_request,
)
from imnetprep.downloads.fetch_file import FileFetcher
from imnetprep.downloads.torrents import (
    MAGNET,
    is_torrent,
    parts_of,
    published_torrent,
    torrent_at,
    with_metadata,
)
from imnetprep.fs import locked, require_free
from imnetprep.manifest import create_manifest, organized_splits
from imnetprep.messages import ImnetprepError, Progress, WrongUsage, move_away
from imnetprep.outside_files import read_file
from imnetprep.proving.archive_at import consumed_path, consuming_root
from imnetprep.proving.receipt import Proof, TorrentProof, is_proved, record_archive
from imnetprep.sources.part_files import PartFiles
from imnetprep.sources.seeder import Seed, SeedLimits, seed_until
from imnetprep.sources.session import Network, open_session
from imnetprep.sources.swarm import Reading, fetch_files, fetch_metadata
from imnetprep.sources.torrent import Magnet, Torrent, parse_magnet, read_torrent
from imnetprep.transfers.journal import open_part_journal


@dataclass(frozen=True)
class DownloadPlan:
    """What `download` will do: the files to fetch from servers, and the archives from torrents.

    A Magnet is a torrent whose metadata is still to be asked for. `present` are the archives that
    need no download: proved already, or organized.
    """

    dataset: Dataset
    files: tuple[FileRequest, ...]
    to_fetch: tuple[Archive, ...]
    present: tuple[Archive, ...]
    torrents: tuple[Torrent | Magnet, ...]

    @property
    def has_archives(self) -> bool:
        """Is an archive of the dataset to be fetched, as far as is known before?"""
        return bool(self.to_fetch) or any(request.archive for request in self.files)

    def require_one_file(self) -> None:
        """Raise WrongUsage unless it is one file of a server, which a digest is of."""
        if len(self.files) != 1 or self.to_fetch:
            raise WrongUsage("a digest is of one file", hint="name the address of one file")


class DownloadResult(NamedTuple):
    """A file in ROOT/archives, and what proves it; `is_new`: it was fetched just now."""

    name: str
    size_bytes: int
    proof: Proof
    is_new: bool = True


def plan_download(
    root: Root,
    addresses: Sequence[str] = (),
    *,
    dataset: str | None,
    splits: Sequence[Split],
    magnets: Sequence[str] = (),
    torrents: Sequence[Path] = (),
    to_organize: bool = False,
) -> DownloadPlan:
    """Decide what to fetch, from what lies under `root`; touches nothing.

    Of `addresses` each is one of a file or a folder, a magnet link, a .torrent file, or the name of
    a built-in dataset. `to_organize`: what is organized, or can be, need not come. Of what is far
    away only folders and .torrent files are read. Raises WrongUsage on a bad address,
    ImnetprepError on a .torrent that cannot be read, and where neither the user nor the dataset
    says where an archive is.
    """
    links = [*magnets, *(each for each in addresses if each.startswith(MAGNET))]
    torrent_places = [each for each in addresses if is_torrent(each)]
    rest = [each for each in addresses if each not in (*links, *torrent_places)]
    names = [each for each in rest if each in BUILT_IN and not Path(each).exists()]
    if len({dataset, *names} - {None}) > 1:
        raise WrongUsage(
            f"{' and '.join(sorted({*filter(None, [dataset]), *names}))} are two datasets",
            hint="a root holds one: run download once for each, with a --root of its own",
        )
    places = [each for each in rest if each not in names]
    for place in places:
        local_path(place)  # which refuses what is no address
    definition = dataset_of_download(root, dataset or next(iter(names), None), places)
    files = file_requests(places, definition, splits)
    archives: list[Archive] = []
    if not places or links or torrent_places or torrents or names:
        archives_of_files = {request.archive for request in files}
        archives = definition.archives_for(splits or definition.splits)
        archives = [archive for archive in archives if archive not in archives_of_files]
    looks = to_organize or not splits
    done_splits = {split for split, _ in organized_splits(root)} if looks else set()
    to_do = [each for each in splits or definition.splits if each not in done_splits]
    to_have = definition.archives_for(to_do) if archives else []
    present = [
        each
        for each in archives
        if each not in to_have
        or is_proved(root, root.archives / each.name)
        or (to_organize and each.torrent is None and (root.archives / each.name).is_file())
    ]
    to_fetch = [each for each in archives if each not in present]
    for name in [*(each.name for each in to_fetch), *(each.name for each in files if each.name)]:
        _refuse_two(root.archives / name)
    sources: list[Torrent | Magnet] = [parse_magnet(link) for link in links]
    sources += map(torrent_at, torrent_places)
    sources += [read_torrent(read_file(path)) for path in torrents]
    is_published = not sources
    for archive in list(to_fetch):
        request = published_request(archive)
        has_torrent = archive.torrent is not None or archive.magnet is not None
        if request and not has_torrent and (is_published or archive.labels_of):
            to_fetch.remove(archive)
            files.append(request)
    if is_published:
        sources = [published_torrent(definition, archive) for archive in to_fetch]
    by_hash = {each.info_hash: with_metadata(each, definition, root) for each in sources}
    full_torrents = [each for each in by_hash.values() if isinstance(each, Torrent)]
    if to_fetch and len(full_torrents) == len(by_hash):  # what a magnet has is not known yet
        parts_of(
            full_torrents,
            definition,
            root.archives,
            to_fetch=[archive.name for archive in to_fetch],
            present=[archive.name for archive in present],
        )
    return DownloadPlan(
        definition, tuple(files), tuple(to_fetch), tuple(present), tuple(by_hash.values())
    )


def carry_out_download(
    plan: DownloadPlan,
    root: Root,
    *,
    network: Network,
    wait_s: float,
    seed_limits: SeedLimits,
    progress: Progress,
    jobs: int | None = None,
    digest: tuple[str, str] | None = None,
    reading: Reading | None = None,
) -> Iterator[DownloadResult]:
    """Fetch the files from servers, then the archives from their swarms; then seeds, if asked to.

    `digest`: of the only file, kind and value. `reading`: who reads what comes from a swarm, while
    it comes. Raises SourceFailed where nobody delivers, WrongBytes where what comes is not of this
    dataset or not what it should be, and ImnetprepError on a disk that is too small, full or
    failing.
    """
    with locked(root.archives):
        if plan.has_archives:
            create_manifest(root.manifest, plan.dataset)
        with open_part_journal(root.download_journal) as journal:
            fetcher = FileFetcher(
                root,
                plan.dataset,
                journal,
                progress,
                jobs=jobs,
                max_rate=network.max_down or None,
                digest=digest,
                stop=reading.stop if reading else None,
            )
            for request in plan.files:
                result = fetcher.fetch(request)
                size_bytes = result.path.stat().st_size
                yield DownloadResult(result.path.name, size_bytes, result.proof, result.is_new)
        downloads: list[PartFiles] = []
        if plan.to_fetch:
            proofs = dict[str, TorrentProof]()
            downloads = _fetch_from_swarms(plan, root, network, wait_s, progress, proofs, reading)
            for archive in plan.to_fetch:
                size_bytes = (root.archives / archive.name).stat().st_size
                yield DownloadResult(archive.name, size_bytes, proofs[archive.name])
    if seed_limits != SeedLimits():
        _seed(downloads, network, seed_limits, progress)


def _fetch_from_swarms(
    plan: DownloadPlan,
    root: Root,
    network: Network,
    wait_s: float,
    progress: Progress,
    proofs: dict[str, TorrentProof],
    reading: Reading | None,
) -> list[PartFiles]:
    def record(parts: PartFiles) -> None:
        info_hash, pieces = parts.torrent.info_hash, parts.torrent.info.num_pieces()
        for path in parts.paths.values():
            proofs[path.name] = TorrentProof(info_hash, pieces)
            record_archive(root, path, proofs[path.name])

    with open_session(network) as session:
        bare_magnets = [each for each in plan.torrents if isinstance(each, Magnet)]
        torrents = [each for each in plan.torrents if isinstance(each, Torrent)]
        torrents += fetch_metadata(
            session,
            bare_magnets,
            addresses=network.peers,
            wait_s=wait_s,
            progress=progress,
            reading=reading,
        )
        downloads = parts_of(
            torrents,
            plan.dataset,
            root.archives,
            to_fetch=[archive.name for archive in plan.to_fetch],
            present=[archive.name for archive in plan.present],
        )
        for parts in downloads:
            parts.recover(progress, stop=reading.stop if reading else None)
        needed_bytes = sum(parts.missing_disk_bytes for parts in downloads)
        require_free(root.path, needed_bytes, purpose=f"to download {plan.dataset.name}")
        fetch_files(
            session,
            downloads,
            addresses=network.peers,
            wait_s=wait_s,
            progress=progress,
            on_whole=record,
            reading=reading,
        )
    return downloads


def _seed(
    downloads: Sequence[PartFiles], network: Network, limits: SeedLimits, progress: Progress
) -> None:
    seeds = [
        Seed(parts.torrent.body, parts.paths)
        for parts in downloads
        if len(parts.paths) == len(parts.torrent.files)
    ]
    if not downloads:
        progress.note("nothing was fetched by torrent, so nothing is seeded")
    elif not seeds:
        progress.note("of a torrent that was fetched in part nothing is seeded")
    else:
        seed_until(seeds, network, limits, progress=progress)


def _refuse_two(path: Path) -> None:
    """Refuse to fetch an archive beside another state of it: a part, or one being consumed; and
    where a folder has its name.
    """
    if path.is_dir():
        raise ImnetprepError(f"{path} is a folder", hint=f"{move_away(path)}; then run it again")
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
