"""Archives that are whole given on to the swarm, and torrents made of any file."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from imnetprep.catalog.datasets import Root, Split
from imnetprep.fs import written_whole
from imnetprep.manifest import dataset_for
from imnetprep.messages import ImnetprepError, move_away
from imnetprep.outside_files import read_file, refuse_special
from imnetprep.proving.receipt import TorrentProof, archive_proof
from imnetprep.sources.seeder import Seed, magnet_of, make_torrent
from imnetprep.sources.torrent import published_pieces, read_torrent


@dataclass(frozen=True)
class SeedOfFile:
    """A file to be seeded, and its magnet link."""

    path: Path
    magnet: str
    seed: Seed


def seeds_of_root(root: Root, *, dataset: str | None, splits: Sequence[Split]) -> list[SeedOfFile]:
    """The archives of `root` that the receipt says were verified by their published torrents.

    Raises ImnetprepError where there is none.
    """
    definition = dataset_for(root.manifest, dataset).published
    archives = definition.archives_for(splits) if splits else definition.archives
    seeds = []
    for archive in archives:
        path, pieces = root.archives / archive.name, published_pieces(definition, archive)
        if pieces is None or archive.torrent is None:
            continue
        if archive_proof(root, path) == TorrentProof(pieces.info_hash, pieces.count):
            torrent = definition.read(archive.torrent)
            index = read_torrent(torrent).files[0].index
            magnet = archive.magnet or magnet_of(torrent, path)
            seeds.append(SeedOfFile(path, magnet, Seed(torrent, {index: path})))
    if not seeds:
        raise ImnetprepError(
            f"{root.archives} has no archive that its torrent has verified",
            hint="imnetprep verify-archives reads one that is there; imnetprep download fetches it",
        )
    return seeds


def seed_of_file(path: Path) -> SeedOfFile:
    """Any file, with a torrent made of it: all of it is read. Raises OSError where it cannot be."""
    refuse_special(path)
    torrent = make_torrent(path.absolute())
    return SeedOfFile(path, magnet_of(torrent, path), Seed(torrent, {0: path.absolute()}))


def write_torrent(seed: SeedOfFile) -> Path:
    """Write the .torrent beside the file; where it is. Raises ImnetprepError where one is there."""
    path = seed.path.with_name(f"{seed.path.name}.torrent")
    if path.exists():
        if read_torrent(read_file(path)).info_hash != read_torrent(seed.seed.torrent).info_hash:
            raise ImnetprepError(f"{path} is there, of another file", hint=move_away(path))
        return path
    with written_whole(path) as file:
        file.write(seed.seed.torrent)
    return path
