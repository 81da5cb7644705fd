"""What is there already of splits on their way into shards, and what they will still take."""

from pathlib import Path

from imnetprep.catalog.datasets import Dataset, Layout, Root, Split
from imnetprep.layouts.webdataset import framed_bytes, read_index
from imnetprep.manifest import splits_in
from imnetprep.messages import ImnetprepError, move_away
from imnetprep.organizing.journal import Journal, Stage, open_journal
from imnetprep.organizing.plan import (
    SplitGroup,
    in_flight_bytes,
    refuse_consumed,
    refuse_consumed_elsewhere,
    size_in_archives,
)
from imnetprep.organizing.publish import in_the_way, refuse_other_disk, unpublished
from imnetprep.proving.receipt import Proof
from imnetprep.sharding.make import Sharding
from imnetprep.sharding.order import require_names
from imnetprep.sharding.walk import proof_before_walk
from imnetprep.split_plan import Needs


class ShardsNeeds:
    """What is there already of splits that share their archives, and what is to be done."""

    def __init__(
        self, root: Root, dataset: Dataset, sharding: Sharding, group: SplitGroup, *, consume: bool
    ) -> None:
        self._root, self._dataset, self._sharding = root, dataset, sharding
        self._group, self._consume = group, consume
        self._spool_bytes: dict[Split, int] = {}
        self._whole: set[Split] = set()
        for split in group.splits:
            require_names(dataset, split)
        if root.has_journal:
            with open_journal(root.journal, Stage.SPOOL) as journal:
                for split in group.splits:
                    self._look_at_spool(journal, split)
        self.proof: Proof | None = None
        if not consume and not self._spool_bytes:
            self.proof = proof_before_walk(group.at, dataset)

    def _look_at_spool(self, journal: Journal, split: Split) -> None:
        origin = journal.origin(split)
        if origin is None:
            return
        if origin.options == self._sharding.options:
            self._spool_bytes[split] = journal.size_bytes(split)
            if journal.whole(split, dataset=self._dataset.fingerprint):
                self._whole.add(split)
        else:
            refuse_consumed(self._group, "in other shards: --shard-size, --seed, --resize")

    def needs(self, jobs: int | None) -> Needs:
        """Raises as `plan_organize` where an archive, or what it would be made to, is wrong."""
        root, dataset, group, sharding = self._root, self._dataset, self._group, self._sharding
        to_make = [
            split
            for split in group.splits
            if not has_shards(root, dataset, split, sharding, change=sharding.change)
        ]
        to_read = [split for split in to_make if split not in self._whole]
        needs = Needs()
        for split in to_make:
            if split in self._whole:
                needs += self._of_shards(split, self._spool_bytes[split], jobs)
        if not to_read:
            return needs
        refuse_consumed_elsewhere(group, root, Stage.FOLDERS)
        size_bytes = size_in_archives(root, dataset, group, to_read, consume=self._consume)
        samples = sum(map(dataset.samples, to_read))
        files = sum(map(self._files, to_read))
        if self.proof is not None:
            present_bytes = sum(shard_bytes(root, split) for split in to_read)
            to_write = max(0, framed_bytes(samples, size_bytes) - present_bytes)
            return needs + Needs(to_write, files, to_write)
        spooled_bytes = sum(self._spool_bytes.get(split, 0) for split in to_read)
        disk_bytes = to_spool = max(0, size_bytes - spooled_bytes)
        if self._consume:
            disk_bytes = min(to_spool, in_flight_bytes(dataset, group, jobs))
        needs += Needs(to_spool, files, disk_bytes)
        for split in to_read:
            needs += self._of_shards(split, size_bytes * dataset.samples(split) // samples, jobs)
        return needs

    def _files(self, split: Split) -> int:
        return -(-self._dataset.samples(split) // self._sharding.shard_size)

    def _of_shards(self, split: Split, size_bytes: int, jobs: int | None) -> Needs:
        """Shards of spools take what frames the samples, and the shards in flight: each spool is
        removed when its shard is there.
        """
        files = self._files(split)
        whole = framed_bytes(self._dataset.samples(split), size_bytes)
        in_flight = min(files, self._sharding.jobs(jobs)) * (whole // max(1, files))
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
    if split not in splits_in(root, Layout.WEBDATASET) and not _is_unpublished(
        root, dataset, split, folder
    ):
        raise in_the_way(folder, root)
    index = read_index(folder)
    if (index.shard_size, index.seed, index.change) != (*sharding[:2], change):
        raise ImnetprepError(
            f"{folder} holds other shards: of {index.shard_size:,} samples, seed {index.seed},"
            f" {index.change or 'images as published'}",
            hint=f"{move_away(folder)}; then run the same command again",
        )
    return True


def _is_unpublished(root: Root, dataset: Dataset, split: Split, folder: Path) -> bool:
    if not root.has_journal:
        return False
    with open_journal(root.journal, Stage.SHARDS) as journal:
        return unpublished(journal, split, dataset, folder) is not None


def shard_bytes(root: Root, split: Split) -> int:
    """What the shards of `split` take that are made and have no name yet."""
    if not root.has_journal:
        return 0
    with open_journal(root.journal, Stage.SHARDS) as journal:
        return sum(shard.size_bytes for shard in journal.shards(split))
