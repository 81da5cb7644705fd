"""`imnetprep bench`."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import click

from imnetprep.catalog.datasets import Layout, Root, Split
from imnetprep.commands import verb
from imnetprep.commands.recipe_options import HEADINGS, recipe_options, refuse_masks
from imnetprep.commands.session_options import session_options
from imnetprep.commands.shard_options import SHARDS, shard_options
from imnetprep.commands.terminal import json_option, print_result, stderr_progress
from imnetprep.jobs import Jobs
from imnetprep.messages import Progress, count
from imnetprep.recipes.choices import MACHINE

if TYPE_CHECKING:  # --help loads none of it
    from imnetprep.measuring.bench import Bench
    from imnetprep.remote_shards.place import ShardPlace


@verb.command(
    short_help="Measure how fast a recipe trains here, and what holds it back.",
    headings={
        "Where the images are": ("root", "layout", *SHARDS),
        **HEADINGS,
        MACHINE: (*HEADINGS[MACHINE], "device", "workers", "decode", "seconds"),
    },
)
@verb.root_option
@verb.layout_option()
@shard_options
@recipe_options
@verb.device_option
@verb.workers_option
@verb.decoder_option
@click.option(
    "--seconds",
    type=click.FloatRange(0.1, 3600),
    default=10.0,
    show_default=True,
    help="Time of all measured intervals on a device; starting and warming up take more.",
)
@json_option
@verb.quiet_option
@session_options
def bench(
    root: Root,
    layout: Layout | None,
    shards: "ShardPlace | None",
    device: str | None,
    workers: int | None,
    decode: str,
    seconds: float,
    quiet: bool,
    **options: Any,
) -> None:
    """Measure how fast a recipe trains on the root, and say what holds it back.

    The loader alone on the root's images, the steps of the training alone on random pixels, both
    together, the validation, and what smaller images would give: medians of five intervals. The
    network has random weights, nothing is trained, and nothing is downloaded. Without a dataset the
    device alone is measured. ROOT/.bench.json keeps the rates, from which `train --dry-run` tells
    the time of an epoch.

    With --shards a few shards are fetched first, which tells how fast they come. All else is
    measured on their images once these lie in the cache; nothing is said of the page cache.

    \b
    imnetprep bench --arch resnet18
    imnetprep bench --recipe fast16 --batch-size 512
    imnetprep bench --device cpu,cuda          side by side
    imnetprep bench --seconds 60 --json
    imnetprep bench --shards s3://my-bucket/imagenet --cache-size 100GB
    """
    from imnetprep.recipes.plan_recipe import plan_recipe
    from imnetprep.training.runs import require_samples

    # Before torch is loaded, which takes seconds.
    refuse_masks(options)
    plan_recipe(options, amp_pays=False)
    if not shards and root.manifest.exists():
        require_samples(root, (Split.TRAIN,), layout=layout)
    from imnetprep.measuring.bench import carry_out_bench, plan_bench

    progress = stderr_progress(quiet=quiet)
    devices: list[str | None] = [*dict.fromkeys(device.split(","))] if device else [None]
    plan = plan_bench(
        root,
        options=options,
        devices=devices,
        workers=workers,
        decode=decode,
        layout=layout,
        shards=shards,
        progress=progress,
    )
    if busy := plan.busy_cores:
        text = f"other programs keep {busy:.1f} of {count(Jobs().count(), 'core')} busy"
        progress.note(f"{text}: the rates are of what they leave")
    if options["weights"]:
        progress.note("no weights are read: name the sizes that they bring, as by --image-size")
    if plan.data is None:
        progress.note(f"{root.path} holds no dataset: the device alone is measured")
    benches = []
    for each in carry_out_bench(plan, seconds=seconds, progress=progress):
        benches.append(each)
        _keep(root, each, progress)
    _print(benches)


def _keep(root: Root, bench: "Bench", progress: Progress) -> None:
    from imnetprep.measuring.machine_rates import write_rates

    try:
        write_rates(root, bench.subject, bench.rates)
    except OSError as error:  # a disk that is not to be written to keeps nobody from measuring
        progress.note(f"the rates are not kept: {error.filename}: {error.strerror}")


def _print(benches: "Sequence[Bench]") -> None:
    """The benches side by side for people, each as an object with --json."""
    from imnetprep.measuring.printout import lines

    text = lines(benches)
    for bench in benches:
        print_result(*text, **bench.as_json())
        text = []
