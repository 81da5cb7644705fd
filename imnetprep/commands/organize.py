"""`imnetprep organize`."""

from typing import TYPE_CHECKING, assert_never

import click

from imnetprep.catalog.datasets import Layout, Root, Split
from imnetprep.commands import verb
from imnetprep.commands.session_options import session_options
from imnetprep.commands.terminal import carry_out, json_option, print_result

if TYPE_CHECKING:  # --help loads none of it
    from imnetprep.split_plan import SplitPlan


@verb.command(
    short_help="Make class folders or shards from the archives, in one pass.",
    headings={
        "What to read": ("dataset", "splits", "archives", *verb.BUCKET, "consume"),
        "What to make": ("layout", "shard_size", "seed", "resize", "quality", "meta_bin"),
    },
)
@verb.root_option
@verb.dataset_option
@verb.split_option()
@verb.archives_option
@verb.bucket_options
@click.option(
    "--consume",
    is_flag=True,
    help="Delete the archive while it is read: the disk then holds one copy, not two.",
)
@click.option(
    "--meta-bin", is_flag=True, help="Write ROOT/meta.bin too, for torchvision's ImageNet class."
)
@verb.layout_option(
    help="Class folders, with a file for each image, or shards.  [default: imagefolder]"
)
@click.option("--shard-size", type=click.IntRange(1), help="Images in each shard.  [default: 1000]")
@click.option("--seed", type=int, help="Seed of the order of images in shards.  [default: 0]")
@click.option(
    "--resize",
    metavar="SIDE",
    type=click.IntRange(1),
    help="Re-encode images as RGB JPEG whose shorter side is at most SIDE px.",
)
@click.option(
    "--quality", type=click.IntRange(1, 100), help="JPEG quality for --resize.  [default: 90]"
)
@verb.jobs_option
@verb.dry_run_option()
@json_option
@verb.quiet_option
@session_options
def organize(
    root: Root,
    dataset: str | None,
    splits: tuple[Split, ...],
    archives: str | None,
    request_payer: bool,
    no_sign_request: bool,
    consume: bool,
    meta_bin: bool,
    layout: Layout | None,
    shard_size: int | None,
    seed: int | None,
    resize: int | None,
    quality: int | None,
    jobs: int | None,
    dry_run: bool,
    quiet: bool,
) -> None:
    """Make class folders from the archives, in one pass: train/<wnid>/, val/<wnid>/.

    A split appears under its name when its archive is verified and its counts fit, not before.
    Interrupted at any instant, the same command resumes from the last class that was safe on
    the disk.

    With --consume the disk holds one copy, not two: class by class, what is extracted is deleted
    from the archive, which must be verified first and is called NAME.consumed from then on.

    With --layout webdataset, make shuffled shards: shards/train/, shards/val/. Class folders are
    read where they exist, else the archives. The same images, --seed and --shard-size give the
    same bytes.

    \b
    imnetprep organize
    imnetprep organize --dataset imagenette --archives imagenette2.tgz --root imagenette
    imnetprep organize --root /data/imagenet --archives s3://my-bucket/imagenet
    curl https://example.org/ILSVRC2012_img_val.tar | imnetprep organize --archives - --split val
    imnetprep organize --layout webdataset --resize 256
    """
    verb.read_bucket(archives, request_payer=request_payer, no_sign_request=no_sign_request)
    if resize is None:
        verb.refuse("only --resize SIDE makes JPEGs", "quality")
    layout = layout or Layout.IMAGEFOLDER
    if layout is not Layout.IMAGEFOLDER:
        verb.refuse(
            "torchvision's ImageNet class, which reads meta.bin, reads no shards", "meta_bin"
        )
    if layout is not Layout.WEBDATASET:
        verb.refuse(
            "class folders have no shards; --layout webdataset makes some", "shard_size", "seed"
        )
    from imnetprep.images import Resize

    image_size = Resize(resize, quality or 90) if resize else None
    plan: SplitPlan
    if layout is Layout.IMAGEFOLDER:
        from imnetprep.organize import plan_organize

        plan = plan_organize(
            root,
            dataset=dataset,
            splits=splits,
            archives=archives,
            consume=consume,
            resize=image_size,
            jobs=jobs,
        )
    elif layout is Layout.WEBDATASET:
        from imnetprep.organize_shards import plan_organize_shards
        from imnetprep.sharding.make import Sharding

        plan = plan_organize_shards(
            root,
            Sharding(shard_size or 1000, seed or 0, image_size),
            dataset=dataset,
            splits=splits,
            archives=archives,
            consume=consume,
            jobs=jobs,
        )
    else:
        assert_never(layout)
    carry_out(plan, dry_run=dry_run, quiet=quiet)
    if meta_bin and dry_run:
        path = root.path / "meta.bin"
        print_result(f"{path}: the classes, for torchvision", meta_bin=path)
    elif meta_bin:
        from imnetprep.layouts.meta_bin import write_meta_bin
        from imnetprep.manifest import dataset_for

        write_meta_bin(root, dataset_for(root.manifest, None))
