"""`imnetprep train`."""

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from imnetprep.catalog.datasets import Layout, Root, Split
from imnetprep.commands import verb
from imnetprep.commands.session_options import session_options
from imnetprep.commands.terminal import json_option, print_result, stderr_progress
from imnetprep.messages import Progress, count, format_duration

if TYPE_CHECKING:  # --help loads none of it
    from imnetprep.training.plan import TrainPlan


@verb.command(
    short_help="Train a network, validated after each epoch.",
    headings={
        "The run": ("runs", "run", "resume"),
        "The network and its images": ("arch", "image_size", "crop_scale", "val_resize"),
        "The recipe": (
            "epochs", "batch_size", "lr", "warmup_epochs", "weight_decay", "label_smoothing", "seed"
        ),
        "The machine": ("amp", "device", "workers"),
    },
)  # fmt: skip
@verb.root_option
@verb.runs_option
@verb.layout_option()
@click.option("--arch", help="A torchvision classification architecture.  [default: resnet18]")
@click.option("--epochs", type=int, help="Passes over the train split.  [default: 90]")
@click.option("--batch-size", type=int, help="Images in a batch.  [default: 256]")
@click.option(
    "--lr", type=float, help="The highest learning rate.  [default: 0.1 × batch size / 256]"
)
@click.option("--image-size", type=int, help="Side of the network's input, px.  [default: 224]")
@click.option("--crop-scale", type=float, help="Smallest area of a training crop.  [default: 0.08]")
@click.option(
    "--val-resize",
    type=int,
    help="Shorter side, px, of a validation image before its centre crop."
    "  [default: image size × 256/224]",
)
@click.option(
    "--warmup-epochs",
    type=float,
    help="Epochs of rising learning rate.  [default: a tenth, at most 5]",
)
@click.option(
    "--weight-decay", type=float, help="Weight decay, as an L2 penalty.  [default: 0.0001]"
)
@click.option(
    "--label-smoothing", type=float, help="Share of a label given to all classes.  [default: 0]"
)
@click.option("--seed", type=int, help="Seed of weights, order, crops, dropout.  [default: 0]")
@click.option(
    "--amp/--no-amp", default=None, help="Compute in bfloat16.  [default: if the GPU can]"
)
@verb.device_option
@verb.workers_option
@click.option(
    "--run", metavar="NAME", help="Name of the run, and of its folder.  [default: --arch]"
)
@click.option("--resume", is_flag=True, help="Resume the run, from inside its epoch.")
@verb.dry_run_option("Read the manifest, show the recipe, and train nothing.")
@json_option
@verb.quiet_option
@session_options
def train(
    root: Root,
    layout: Layout | None,
    run: str | None,
    resume: bool,
    device: str | None,
    workers: int | None,
    dry_run: bool,
    quiet: bool,
    **options: Any,
) -> None:
    """Train a network on the organized root, and validate it after each epoch.

    \b
    imnetprep train --arch resnet18
    imnetprep train --resume                   the newest run resumes
    imnetprep train --arch resnet50 --epochs 16 --run short

    ROOT/runs/NAME gets log.jsonl, plot.png, best.pt and last.pt. SIGTERM, SIGHUP and ^C save
    before leaving; kill -9 costs ten minutes at most. With --resume the run continues with the
    numbers that it would have had; options that contradict it are refused.
    """
    from imnetprep.training.recipe import plan_recipe
    from imnetprep.training.runs import pick_run, require_samples

    # Before torch is loaded, which takes seconds.
    if not pick_run(root, run, arch=options["arch"], resume=resume).is_begun:
        plan_recipe(options, amp_pays=False)
    require_samples(root, (Split.TRAIN, Split.VAL), layout=layout)
    from imnetprep.training.loop import train as trained_epochs
    from imnetprep.training.plan import plan_training

    progress = stderr_progress(quiet=quiet)
    plan = plan_training(
        root,
        options=options,
        run=run,
        resume=resume,
        device=device,
        workers=workers,
        layout=layout,
        progress=progress,
    )
    if dry_run:
        _print_plan(plan, progress)
        return
    for report in trained_epochs(plan, progress=progress):
        print_result(
            f"epoch {report.epoch}/{report.epochs}{'  best' if report.is_best else ''}",
            f"  train  {report.train}",
            f"  val    {report.val}",
            f"  {report.images_per_second:,.0f} images/s in {format_duration(report.seconds)},"
            f" {report.waited_s:.1f} s waited for data",
            **report.as_json(),
        )


def _print_plan(plan: "TrainPlan", progress: Progress) -> None:
    start = plan.checkpoint(progress)
    recipe, data = start.recipe, plan.data
    to_do = recipe.epochs - start.position.epoch
    epochs = count(to_do, "epoch")
    images = f"{count(len(data.train), 'image')} in batches of {recipe.batch_size}"
    print_result(
        f"{plan.run.folder}: {recipe.arch} on {plan.place.device}, {epochs} of {images},"
        f" validated on {len(data.val):,}",
        run=plan.run.folder,
        device=plan.place.device,
        workers=plan.place.workers,
        epoch=start.position.epoch + 1,
        train_images=len(data.train),
        val_images=len(data.val),
        recipe=asdict(recipe),
    )
    if to_do:
        plan.require_room(start.network(plan.place.device))
