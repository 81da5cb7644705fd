"""Shards that lie elsewhere, in a bucket, on a web server or a network disk, read while they come.

The place holds what `sync-s3 --push` leaves there: the manifest, and shards below `shards/`. The
manifest is fetched first, and says all: each sample's label, shard, offset, size and digest.

A shard is fetched from its start to its end into a cache folder (`cache`), once for all processes
of the machine, by whichever needs it first. It is there under its name once it is whole and each
image in it has the digest of the manifest (`shards`). Names tell of these digests, so that shards
of several places share a folder. All together never take more than the limit: room is made before
a byte is fetched, by removing what was needed longest ago.

What makes a small cache enough is the order (`loading/order.py`): shards come in an order of the
seed and the epoch, and each sample at a random place no further than so many shards behind the
start of its own. So no more than that many are in use at once. The order is cut into global
batches, as any other: N processes see the batches of one, any step can be resumed from, and each
machine reads all shards. Shards are shuffled when they are made, so a batch is drawn from images of
all classes; that two images of one shard come in the same part of each epoch is what a window of
fewer shards than all costs. Where the cache holds all, the order is that of a local root.

Threads fetch ahead of the training (`read_ahead`), in the order in which shards are first needed,
as far as the limit allows beside those that are in use.
"""
