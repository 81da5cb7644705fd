"""`--shards`, `--cache-dir` and `--cache-size`: shards that lie elsewhere, read while they come."""

from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any

import click

from imnetprep.catalog.datasets import Layout, Root
from imnetprep.commands import verb
from imnetprep.messages import parse_bytes

_CACHE = ("cache_dir", "cache_size")
SHARDS = ("shards", *_CACHE, *verb.BUCKET)
_SIZE = verb.ParsedType("size", parse_bytes)


def shard_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """The options that make one `shards`, a `ShardPlace` or None."""

    @click.option(
        "--shards",
        metavar="PLACE",
        help="Read shards from s3://BUCKET/PREFIX, https://… or another folder, as sync-s3 --push"
        " leaves them there, in place of ROOT's.",
    )
    @click.option(
        "--cache-dir",
        metavar="DIR",
        type=click.Path(path_type=Path, file_okay=False),
        help="With --shards: where shards lie that were fetched.  [default: ROOT/.shards]",
    )
    @click.option(
        "--cache-size",
        type=_SIZE,
        default="20GB",
        show_default=True,
        help="With --shards: what shards in the cache take at most.",
    )
    @verb.bucket_options
    @wraps(command)
    def with_shards(
        *,
        root: Root,
        layout: Layout | None,
        shards: str | None,
        cache_dir: Path | None,
        cache_size: int,
        request_payer: bool,
        no_sign_request: bool,
        **options: Any,
    ) -> Any:
        verb.read_bucket(shards, request_payer=request_payer, no_sign_request=no_sign_request)
        place = None
        if shards is None:
            verb.refuse("only shards that lie elsewhere are cached, by --shards", *_CACHE)
        else:
            from imnetprep.remote_shards.cache import Cache
            from imnetprep.remote_shards.place import ShardPlace
            from imnetprep.sources.places import is_local

            verb.refuse("--shards has shards", "layout")
            is_local(shards)
            folder = cache_dir or root.shard_cache
            place = ShardPlace(shards, Cache(folder.absolute(), cache_size))
        return command(root=root, layout=layout, shards=place, **options)

    return with_shards
