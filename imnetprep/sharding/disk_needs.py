"""What is there already of splits on their way into shards, and what they will still take."""

from imnetprep.catalog.datasets import Dataset, Layout, Root, Split
from imnetprep.layouts.webdataset import framed_bytes, read_index
from imnetprep.manifest import splits_in
from imnetprep.messages import ImnetprepError, move_away
from imnetprep.organizing.journal import Stage, journal_of
from imnetprep.organizing.plan import (
    SplitGroup,
    begun_splits,
    in_flight_bytes,
    refuse_consumed_elsewhere,
    size_in_archives,
)
from imnetprep.organizing.publish import in_the_way, refuse_other_disk, unpublished
from imnetprep.proving.receipt import Proof
from imnetprep.sharding.make import Sharding
from imnetprep.sharding.order import require_names
from imnetprep.sharding.walk import proof_before_walk
from imnetprep.split_plan import Needs


def proof_and_needs(group: SplitGroup, sharding: Sharding) -> tuple[Proof | None, Needs]:
    """What proves the archive if that is walked, None: it is read into spools; and what that takes.

    Raises as `plan_organize` where an archive, or what it would be made to, is wrong.
    """
    root, dataset = group.root, group.dataset
    for split in group.splits:
        require_names(dataset, split)
    states = begun_splits(
        group,
        group.splits,
        Stage.SPOOL,
        options=sharding.options,
        difference="in other shards: --shard-size, --seed, --resize",
    )
    proof = None if group.consume or states else proof_before_walk(group.archives, dataset)
    needs, to_read, spooled_bytes = Needs(), [], 0
    for split in group.splits:
        if not has_shards(root, dataset, split, sharding, change=sharding.change):
            size_bytes, whole = states.get(split, (0, None))
            if whole:
                needs += _spool_needs(group, split, size_bytes, sharding)
            else:
                to_read.append(split)
                spooled_bytes += size_bytes
    if not to_read:
        return proof, needs
    refuse_consumed_elsewhere(group, Stage.FOLDERS)
    size_bytes = size_in_archives(group, to_read)
    samples = sum(map(dataset.samples, to_read))
    files = sum(_shards(dataset, split, sharding) for split in to_read)
    if proof is not None:
        present_bytes = sum(shard_bytes(root, split) for split in to_read)
        to_write = max(0, framed_bytes(samples, size_bytes) - present_bytes)
        return proof, needs + Needs(to_write, files, to_write)
    disk_bytes = to_spool = max(0, size_bytes - spooled_bytes)
    if group.consume:
        disk_bytes = min(to_spool, in_flight_bytes(group))
    needs += Needs(to_spool, files, disk_bytes)
    for split in to_read:
        of_split = size_bytes * dataset.samples(split) // samples
        needs += _spool_needs(group, split, of_split, sharding)
    return proof, needs


def _shards(dataset: Dataset, split: Split, sharding: Sharding) -> int:
    return -(-dataset.samples(split) // sharding.shard_size)


def _spool_needs(group: SplitGroup, split: Split, size_bytes: int, sharding: Sharding) -> Needs:
    """Shards of spools take what frames the samples, and the shards in flight: each spool is
    removed when its shard is there.
    """
    files = _shards(group.dataset, split, sharding)
    whole = framed_bytes(group.dataset.samples(split), size_bytes)
    in_flight = min(files, sharding.jobs(group.jobs)) * (whole // max(1, files))
    return Needs(whole, files, whole - size_bytes + in_flight)


def has_shards(
    root: Root, dataset: Dataset, split: Split, sharding: Sharding, *, change: str | None
) -> bool:
    """Does `split` have just such shards, that lack no more than their manifest and receipt?

    Raises ImnetprepError where other shards, or something else, stand in their place; and as
    `refuse_other_disk`.
    """
    folder = root.split(split, Layout.WEBDATASET)
    if not folder.exists():
        refuse_other_disk(folder, root)
        return False
    if split not in splits_in(root, Layout.WEBDATASET):
        with journal_of(root, Stage.SHARDS) as journal:
            if not unpublished(journal, split, dataset, folder):
                raise in_the_way(folder, root)
    index = read_index(folder)
    if (index.shard_size, index.seed, index.change) != (*sharding[:2], change):
        raise ImnetprepError(
            f"{folder} holds other shards: of {index.shard_size:,} samples, seed {index.seed},"
            f" {index.change or 'images as published'}",
            hint=f"{move_away(folder)}; then run the same command again",
        )
    return True


def shard_bytes(root: Root, split: Split) -> int:
    """What the shards of `split` take that are made and have no name yet."""
    with journal_of(root, Stage.SHARDS) as journal:
        return sum(shard.size_bytes for shard in journal.shards(split))
