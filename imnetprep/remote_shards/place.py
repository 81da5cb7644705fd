"""A place that `sync-s3` filled, or a root on another disk, listed by its manifest."""

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from functools import partial

from imnetprep.catalog.datasets import Layout, Root, Split
from imnetprep.layouts.webdataset import framed_bytes
from imnetprep.manifest import Manifest, NoSplit
from imnetprep.outside_text import public_address
from imnetprep.remote_shards.cache import Cache
from imnetprep.remote_shards.shards import read_shards
from imnetprep.samples.listing import Listing, open_listing
from imnetprep.samples.sample_list import SampleList, read_samples
from imnetprep.synced_prefix import manifest_at

_READ = (Split.TRAIN, Split.VAL)  # in turn, by one training


def listing_of(
    root: Root, *, layout: Layout | None, shards: "ShardPlace | None", in_turn: bool = True
) -> AbstractContextManager[Listing]:
    """What `root` lists, as `open_listing` does, or the place of `shards`, as its `listing`."""
    return shards.listing(in_turn=in_turn) if shards else open_listing(root, layout=layout)


@dataclass(frozen=True)
class ShardPlace:
    """A place that holds shards and their manifest, and the cache by which they are read."""

    address: str
    cache: Cache

    @contextmanager
    def listing(self, *, in_turn: bool = True) -> Iterator[Listing]:
        """What the manifest at the place lists, which is fetched now.

        Both splits are read `in_turn` and share the cache, or one alone. Raises ImnetprepError
        where there is no manifest, or it is damaged.
        """
        with manifest_at(self.address) as manifest:
            sizes_bytes = {
                split: framed_bytes(record.samples, record.size_bytes)
                for (split, layout), record in manifest.splits().items()
                if layout is Layout.WEBDATASET and split in _READ
            }
            samples = partial(self._samples, manifest, sizes_bytes, in_turn)
            yield Listing(manifest.dataset(), samples)

    def _samples(
        self, manifest: Manifest, sizes_bytes: Mapping[Split, int], in_turn: bool, split: Split
    ) -> SampleList:
        if split not in sizes_bytes:
            raise NoSplit(
                f"{public_address(self.address)} has no {split} shards",
                hint="make shards of the root that was pushed, and push them",
            )
        other_bytes = sum(sizes_bytes.values()) - sizes_bytes[split] if in_turn else 0
        self.cache.require_place(sizes_bytes[split] + other_bytes)
        root = Root(self.cache.folder)
        samples = read_samples(manifest, split, root, layout=Layout.WEBDATASET)
        assert samples.places is not None
        record = manifest.splits()[split, Layout.WEBDATASET]
        digests = b"".join(columns.xxh128 for _, columns in manifest.columns(record))
        supply = read_shards(
            self.address,
            split,
            self.cache,
            places=samples.places,
            digests=digests,
            other_bytes=other_bytes,
        )
        _ = supply.window  # no image is read through a cache that is too small
        return replace(samples, supply=supply)
