"""What a place in a bucket has for a machine: the dataset, archives or shards, and the run."""

import json
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import botocore.exceptions as failures

from imnetprep.catalog.datasets import (
    BUILT_IN,
    DEFAULT,
    DEFINITION,
    Dataset,
    Split,
    load_dataset,
    with_labels,
)
from imnetprep.launching.folder import LAUNCHES
from imnetprep.launching.pace import count_epochs
from imnetprep.messages import SourceFailed, WrongUsage, shell_command
from imnetprep.plain_values import real_number, table
from imnetprep.recipes.recipe import Recipe
from imnetprep.s3.address import S3Address, read_buckets_with
from imnetprep.s3.bucket import Bucket
from imnetprep.s3.failures import explained, status_of
from imnetprep.synced_prefix import foreign_dataset

ARCHIVES, SHARDS = "archives", "shards"
# A file of an image ends inside a block of the file system, and has an inode of 256 bytes.
_BYTES_BESIDE_AN_IMAGE = 2304
# Manifest, checkpoints, the log.
_BYTES_BESIDE_THE_DATA = 5 * 10**9


@dataclass(frozen=True)
class Contents:
    """`dataset_name` and `files` (by name) tell the machine of the dataset, as `Orders` has them;
    `source`: archives or shards, of `size_bytes`. `epochs`: those that the run has there, None: it
    has not begun; `run_bytes`: what it takes.
    """

    dataset: Dataset
    dataset_name: str | None
    files: Mapping[str, bytes]
    source: str
    size_bytes: int
    epochs: int | None
    run_bytes: int

    def images(self, split: Split) -> int:
        """How many images a split has; 0: the dataset has no such split."""
        return self.dataset.samples(split) if split in self.dataset.splits else 0

    @property
    def data_bytes(self) -> int:
        """What the images take on the disk of the machine."""
        if self.source == SHARDS:
            return self.size_bytes
        images = sum(map(self.images, self.dataset.splits))
        return self.size_bytes + images * _BYTES_BESIDE_AN_IMAGE

    @property
    def needed_bytes(self) -> int:
        """The room that the machine needs for all that it keeps."""
        return self.data_bytes + _BYTES_BESIDE_THE_DATA


def read_contents(
    bucket: Bucket, address: S3Address, *, dataset_name: str | None, layout: str | None, run: str
) -> Contents:
    """What lies at `address`. Raises ImnetprepError where a machine could train on none of it."""
    sizes = dict(_sizes(bucket, address, run))
    dataset, name, files = _dataset_of(bucket, address, dataset_name)
    source, names = _source_in(sizes, dataset, layout, address)
    epochs = None
    if f"runs/{run}/last.pt" in sizes:
        epochs = count_epochs(bucket, address, run)
    return Contents(
        dataset=dataset,
        dataset_name=name,
        files=files,
        source=source,
        size_bytes=sum(sizes[name] for name in names),
        epochs=epochs,
        run_bytes=sum(size for name, size in sizes.items() if name.startswith("runs/")),
    )


def require_near(bucket: Bucket, address: S3Address, region: str) -> None:
    """Raise WrongUsage where the bucket is in another region: each byte from there costs."""
    with explained(address):
        try:
            answer = bucket.call("list_objects_v2", Prefix=(address / "").key, MaxKeys=1)
        except failures.ClientError as error:
            answer = error.response
            if "x-amz-bucket-region" not in _headers(answer):
                raise
            if _headers(answer)["x-amz-bucket-region"] == region:
                raise
    its_region = _headers(answer).get("x-amz-bucket-region", region)
    if its_region != region:
        raise WrongUsage(
            f"{address} is in {its_region} and the machine would be in {region}: each byte"
            " between the two is charged",
            hint=f"--region {its_region} lets the machine run beside its data",
        )


def _headers(answer: Mapping[str, Any]) -> Mapping[str, str]:
    headers: Mapping[str, str] = answer["ResponseMetadata"].get("HTTPHeaders", {})
    return headers


def rate_name(type_name: str, recipe: Recipe) -> str:
    """The object below the address that has the images/s of such runs on such a machine."""
    return f"{LAUNCHES}/rates/{type_name}-{recipe.arch}-{recipe.image_size}.json"


def read_rates(
    bucket: Bucket, address: S3Address, recipe: Recipe, types: Iterable[str]
) -> dict[str, float]:
    """The images/s that earlier runs of such a recipe showed, by type; what is odd counts not."""
    rates = {}
    for name in types:
        place = address / rate_name(name, recipe)
        with explained(place), suppress(ValueError, KeyError):
            try:
                body = bucket.call("get_object", Key=place.key)["Body"].read()
            except failures.ClientError as error:
                if status_of(error) in (403, 404):  # without s3:ListBucket what is absent is 403
                    continue
                raise
            rates[name] = real_number(table(json.loads(body))["images_per_s"], least=1e-3)
    return rates


def _sizes(bucket: Bucket, address: S3Address, run: str) -> Iterator[tuple[str, int]]:
    """The sizes of what counts, by the name below `address`."""
    whole = (address / "").key
    for folder in (ARCHIVES, SHARDS, f"runs/{run}"):
        for each in bucket.objects((address / folder).key + "/"):
            yield each.key.removeprefix(whole), each.size_bytes


def _dataset_of(
    bucket: Bucket, address: S3Address, name: str | None
) -> tuple[Dataset, str | None, Mapping[str, bytes]]:
    """The dataset, how the machine is told of it, and the files that it needs for it."""
    if name is None:
        read_buckets_with(bucket.settings)
        dataset = foreign_dataset(str(address))
        if dataset is not None:
            return dataset, None, {}
        name = DEFAULT
    dataset = load_dataset(name)
    if name in BUILT_IN:
        return dataset, name, {}
    return dataset, DEFINITION, dataset.definition()


def _source_in(
    names: Mapping[str, int], dataset: Dataset, layout: str | None, address: S3Address
) -> tuple[str, list[str]]:
    """Archives or shards, and the names of what a machine takes of them."""
    splits = dataset.splits
    has_shards = bool(splits) and all(f"{SHARDS}/{each}/index.json" in names for each in splits)
    shards = [each for each in names if each.startswith(f"{SHARDS}/")]
    if layout == "webdataset":
        if not has_shards:
            raise WrongUsage(
                f"{address} has no whole shards, which --layout webdataset trains on",
                hint="leave out --layout: the machine makes class folders of the archives",
            )
        return SHARDS, shards
    gaps: list[str] = []
    for packaging in dataset.packagings:
        archives = [
            f"{ARCHIVES}/{own.name}"
            for each in dataset.packed(packaging)
            if set(each.splits) & set(splits)  # not those of a split without labels
            for own in with_labels(each)
        ]
        absent = [each for each in archives if each not in names]
        if archives and not absent:
            return ARCHIVES, archives
        gaps = gaps or absent
    if has_shards and layout is None:
        return SHARDS, shards
    lack = f"no {gaps[0]}" if gaps else "neither archives nor shards"
    raise SourceFailed(
        f"{address} has {lack} of {dataset.name}",
        hint=shell_command(
            "imnetprep", "sync-s3", str(address), "--push", "--what", "archives,shards,manifest"
        )
        + "; or --dataset says what lies there",
    )
