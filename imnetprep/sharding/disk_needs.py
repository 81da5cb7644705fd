"""What is there already of splits on their way into shards, and what they will still take."""

from imnetprep.archives.tar import PLAIN_FORMS
from imnetprep.catalog.datasets import Dataset, Layout, Root, Split
from imnetprep.layouts.webdataset import framed_bytes
from imnetprep.organizing.journal import Journal, Stage, open_journal
from imnetprep.organizing.plan import (
    SplitGroup,
    in_flight_bytes,
    refuse_consumed,
    refuse_consumed_elsewhere,
    size_in_archives,
)
from imnetprep.organizing.publish import in_the_way
from imnetprep.proving.receipt import NoProof, Proof, choose_proof
from imnetprep.sharding.from_folders import refuse_other_shards, whole_shards_lie_in
from imnetprep.sharding.make import Sharding
from imnetprep.sharding.order import require_names
from imnetprep.sources.places import is_local
from imnetprep.sources.torrent import published_pieces
from imnetprep.split_plan import Needs


class ShardsNeeds:
    """What is there already of splits that share their archives, and what is to be done."""

    def __init__(
        self, root: Root, known: Dataset, sharding: Sharding, planned: SplitGroup, *, consume: bool
    ) -> None:
        self._root, self._known, self._sharding = root, known, sharding
        self._planned, self._consume = planned, consume
        self._spooled: dict[Split, int] = {}
        self._whole: set[Split] = set()
        for split in planned.splits:
            require_names(known, split)
        if root.journal.exists():
            with open_journal(root.journal, Stage.SPOOL) as journal:
                for split in planned.splits:
                    self._look_at_spool(journal, split)
        self.proof = None if self._spooled else self._proof()

    def _look_at_spool(self, journal: Journal, split: Split) -> None:
        origin = journal.origin(split)
        if origin is None:
            return
        if origin.options == self._sharding.options:
            self._spooled[split] = journal.size_bytes(split)
            if journal.whole(split, dataset=self._known.fingerprint):
                self._whole.add(split)
        else:
            refuse_consumed(self._planned, "in other shards: --shard-size, --seed, --resize")

    def needs(self, jobs: int | None) -> Needs:
        """Raises as `plan_organize` where an archive, or what it would be made to, is wrong."""
        to_make = [split for split in self._planned.splits if not self._is_there(split)]
        to_read = [split for split in to_make if split not in self._whole]
        needs = Needs()
        for split in to_make:
            if split in self._whole:
                needs += self._of_shards(split, self._spooled[split], jobs)
        if not to_read:
            return needs
        known, planned = self._known, self._planned
        refuse_consumed_elsewhere(planned, self._root, Stage.FOLDERS)
        size_bytes = size_in_archives(self._root, known, planned, to_read, consume=self._consume)
        samples = sum(map(known.samples, to_read))
        if self.proof is not None:
            made = sum(map(self._made_bytes, to_read))
            to_write = max(0, framed_bytes(samples, size_bytes) - made)
            return needs + Needs(to_write, sum(map(self._files, to_read)), to_write)
        to_spool = max(0, size_bytes - sum(self._spooled.get(split, 0) for split in to_read))
        spool_bytes = to_spool
        if self._consume:
            spool_bytes = min(to_spool, in_flight_bytes(known, planned, jobs))
        needs += Needs(to_spool, sum(map(self._files, to_read)), spool_bytes)
        for split in to_read:
            needs += self._of_shards(split, size_bytes * known.samples(split) // samples, jobs)
        return needs

    def _is_there(self, split: Split) -> bool:
        """Do the shards lack only their manifest and receipt, or have them? Raises on others."""
        folder = self._root.split(split, Layout.WEBDATASET)
        if not folder.exists():
            return False
        if not self._planned.is_organized(split) and not whole_shards_lie_in(
            folder, self._root, split
        ):
            raise in_the_way(folder, self._root)
        resize = self._sharding.resize
        refuse_other_shards(folder, self._sharding, str(resize) if resize else None)
        return True

    def _files(self, split: Split) -> int:
        return -(-self._known.samples(split) // self._sharding.shard_size)

    def _of_shards(self, split: Split, size_bytes: int, jobs: int | None) -> Needs:
        """Of spools, each given up when its shard is there: what frames the samples, and the
        shards in flight.
        """
        files = self._files(split)
        whole = framed_bytes(self._known.samples(split), size_bytes)
        in_flight = min(files, self._sharding.jobs(jobs)) * (whole // max(1, files))
        return Needs(whole, files, whole - size_bytes + in_flight)

    def _made_bytes(self, split: Split) -> int:
        if not self._root.journal.exists():
            return 0
        with open_journal(self._root.journal, Stage.SHARDS) as journal:
            return sum(shard.size_bytes for shard in journal.shards(split))

    def _proof(self) -> Proof | None:
        """How the archive is proved before it is read, if it can be read shard by shard."""
        planned, archive = self._planned, self._planned.archives[0]
        plain = len(planned.archives) == 1 and archive.form in PLAIN_FORMS and not archive.members
        if self._consume or not plain or not is_local(planned.place):
            return None
        earlier = planned.at[0].proof
        proof = choose_proof(archive, published_pieces(self._known, archive), earlier=earlier)
        return proof if proof == earlier or isinstance(proof, NoProof) else None
