"""`imnetprep train`."""

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from imnetprep.catalog.datasets import Layout, Root, Split
from imnetprep.commands import verb
from imnetprep.commands.log_options import log_options
from imnetprep.commands.recipe_options import HEADINGS, recipe_options
from imnetprep.commands.session_options import session_options, typed_words
from imnetprep.commands.shard_options import SHARDS, shard_options
from imnetprep.commands.terminal import json_option, print_result, stderr_progress
from imnetprep.messages import Interruption, Progress, count
from imnetprep.recipes.choices import IMAGES, MACHINE
from imnetprep.reports.record import LogOptions

if TYPE_CHECKING:  # --help loads none of it
    from imnetprep.remote_shards.place import ShardPlace
    from imnetprep.training.plan import TrainPlan


@verb.command(
    short_help="Train a network, validated after each epoch.",
    headings={
        "Where the images are": ("root", "layout", *SHARDS),
        "The run": ("runs", "run", "save_every", "keep", "resume", "restart_schedule"),
        **HEADINGS,
        IMAGES: (*HEADINGS[IMAGES], "skip_bad"),
        MACHINE: (*HEADINGS[MACHINE], "device", "devices", "workers", "decode", "cache"),
    },
)
@verb.root_option
@verb.runs_option
@verb.layout_option()
@shard_options
@recipe_options
@verb.device_option
@verb.workers_option
@verb.decoder_option
@verb.cache_option
@verb.on_bad_image_option
@click.option(
    "--devices",
    type=click.IntRange(min=1),
    help="Processes that train together here, one a GPU.  [default: 1]",
)
@click.option(
    "--run", metavar="NAME", help="Name of the run, and of its folder.  [default: --arch]"
)
@click.option(
    "--save-every",
    type=click.FloatRange(min=0),
    default=10.0,
    show_default=True,
    metavar="MINUTES",
    help="Time between checkpoints at most.",
)
@click.option(
    "--keep",
    type=click.IntRange(min=0),
    default=0,
    show_default=True,
    metavar="K",
    help="Keep the weights of the last K epochs too, as epoch-N.pt.",
)
@click.option("--resume", is_flag=True, help="Resume the run, from inside its epoch.")
@click.option(
    "--restart-schedule",
    is_flag=True,
    help="With --resume and more --epochs: begin the schedule anew.",
)
@log_options
@verb.dry_run_option("Read the manifest, show the recipe, and train nothing.")
@json_option
@verb.quiet_option
@session_options
def train(
    root: Root,
    layout: Layout | None,
    shards: "ShardPlace | None",
    skip_bad: bool,
    run: str | None,
    resume: bool,
    restart_schedule: bool,
    device: str | None,
    workers: int | None,
    decode: str,
    cache: str | None,
    devices: int | None,
    log_options: LogOptions,
    save_every: float,
    keep: int,
    dry_run: bool,
    quiet: bool,
    **options: Any,
) -> int:
    """Train a network on the organized root, and validate it after each epoch.

    \b
    imnetprep train --arch resnet18
    imnetprep train --resume                   the newest run resumes
    imnetprep train --arch resnet50 --epochs 16 --run short
    imnetprep train --arch resnet50 --devices 4    four GPUs of this machine
    imnetprep train --shards s3://my-bucket/imagenet --cache-dir /scratch --cache-size 100GB

    ROOT/runs/NAME gets report.html, log.jsonl, best.pt and last.pt. SIGTERM, SIGHUP and ^C save
    before leaving; kill -9 costs ten minutes at most (--save-every). With --resume the run
    continues with the numbers that it would have had; options that contradict it are refused.
    """
    from imnetprep.recipes.plan_recipe import arch_of, default_arch, plan_recipe
    from imnetprep.recipes.recipe import SEGMENT
    from imnetprep.training.runs import pick_run, refuse_pairs, require_samples, task_of

    # Before torch is loaded, which takes seconds.
    target = pick_run(
        root, run, arch=arch_of(options), resume=resume, default=default_arch(options)
    )
    is_of_masks = task_of(target, options) == SEGMENT
    if not target.is_begun and not options["weights"]:  # which bring sizes of their own
        plan_recipe(options, amp_pays=False)
    if not shards and not is_of_masks:
        if options["task"] is None:
            refuse_pairs(root)
        require_samples(root, (Split.TRAIN,), layout=layout)
    from imnetprep.process_group.ranks import FailedPeer, LostPeer, typed_ranks
    from imnetprep.training.loop import train as trained_epochs
    from imnetprep.training.plan import plan_training
    from imnetprep.training.saves import SavePlan

    ranks = typed_ranks()
    if devices and devices > 1 and ranks.is_alone and not dry_run:
        return _train_on_devices(device, devices)
    progress = stderr_progress(quiet=quiet or not ranks.is_first)
    plan = plan_training(
        root,
        options=options,
        run=run,
        resume=resume,
        restart_schedule=restart_schedule,
        device=device,
        workers=workers,
        decode=decode,
        cache=cache,
        layout=layout,
        shards=shards,
        ranks=ranks,
        log_options=log_options,
        skip_bad=skip_bad,
        progress=progress,
    )
    saves = SavePlan(60 * save_every, keep)
    if dry_run:
        return _print_plan(root, plan, progress)
    try:
        for report in trained_epochs(plan, progress=progress, saves=saves):
            if ranks.is_first:
                print_result(*report.lines(), **report.as_json())
    except (Interruption, LostPeer) as error:
        if ranks.is_first:
            raise
        return error.exit_code  # the first process tells it
    except FailedPeer as error:
        return error.exit_code  # which tells it
    return 0


def _train_on_devices(device: str | None, devices: int) -> int:
    from imnetprep.devices.device import pick_place
    from imnetprep.process_group.torchrun import run_on_devices

    pick_place(device, 0, local_rank=devices - 1, local_world=devices)  # there is one for each
    return run_on_devices(typed_words(), processes=devices)


def _print_plan(root: Root, plan: "TrainPlan", progress: Progress) -> int:
    from imnetprep.measuring.training_time import estimate

    plan, start = plan.begin(progress)
    recipe, data = start.recipe, plan.data
    to_do = recipe.epochs - start.position.epoch
    epochs = count(to_do, "epoch")
    images = f"{count(len(data.train), 'image')} in batches of {recipe.batch_size}"
    time = to_do and estimate(root, plan, recipe, first_epoch=start.position.epoch)
    print_result(
        f"{plan.run.folder}: {recipe.arch} on {plan.place.device}, {epochs} of {images},"
        + (f" validated on {count(len(data.val), 'image')}" if recipe.val else " not validated"),
        *([str(time)] if time else []),
        run=plan.run.folder,
        device=plan.place.device,
        workers=plan.place.workers,
        epoch=start.position.epoch + 1,
        train_images=len(data.train),
        val_images=len(data.val),
        recipe=asdict(recipe),
        **(time.duration._asdict() if time else {}),
    )
    if to_do:
        plan.require_room(start.network(plan.place.device), recipe)
    return 0
