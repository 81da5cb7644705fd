"""`imnetprep train`."""

from typing import Any

import click

from imnetprep.commands.options import json_option, layout_option, quiet_option, root_option
from imnetprep.commands.terminal import print_result, progress
from imnetprep.roots import Layout, Root
from imnetprep.units import format_duration


@click.command(short_help="Train a network, validated after each epoch.")
@root_option
@layout_option()
@click.option("--arch", help="A torchvision classification architecture. Default: resnet18.")
@click.option("--epochs", type=int, help="Default: 90.")
@click.option("--batch-size", type=int, help="Default: 256.")
@click.option("--lr", type=float, help="The highest rate. Default: 0.1 × batch size / 256.")
@click.option("--image-size", type=int, help="Side of what the network sees, px. Default: 224.")
@click.option("--crop-scale", type=float, help="Smallest area of a training crop. Default: 0.08.")
@click.option(
    "--val-resize",
    type=int,
    help="Short side of a validation image, px, of which the centre is cut. Default: "
    "image size × 256/224.",
)
@click.option("--warmup-epochs", type=float, help="Default: a tenth of the epochs, at most 5.")
@click.option("--weight-decay", type=float, help="Default: 0.0001.")
@click.option("--label-smoothing", type=float, help="Default: 0.")
@click.option("--seed", type=int, help="Of weights, order, crops and dropout. Default: 0.")
@click.option("--amp/--no-amp", default=None, help="bfloat16. Default: on a GPU that has it.")
@click.option("--device", help="cpu, cuda, cuda:1 or mps. Default: the best that is here.")
@click.option("--workers", type=click.IntRange(0), help="Processes that read images.")
@click.option("--run", metavar="NAME", help="The training's name under ROOT/runs. Default: --arch.")
@click.option("--resume", is_flag=True, help="Go on with the run, from inside its epoch.")
@json_option
@quiet_option
def train(
    root: Root,
    layout: Layout | None,
    run: str | None,
    resume: bool,
    device: str | None,
    workers: int | None,
    as_json: bool,
    quiet: bool,
    **given: Any,
) -> None:
    """Train a network on the organized root, and validate it after each epoch.

    \b
    imnetprep train --arch resnet18
    imnetprep train --resume                   the newest run goes on
    imnetprep train --arch resnet50 --epochs 16 --run short

    ROOT/runs/NAME gets log.jsonl, plot.png, best.pt and last.pt. SIGTERM and ^C save before
    leaving; kill -9 costs ten minutes at most. With --resume the run goes on with the numbers
    that it would have had; options that contradict it are refused.
    """
    from imnetprep.training.train import train as trained_epochs

    reports = trained_epochs(
        root,
        given=given,
        run=run,
        resume=resume,
        device=device,
        workers=workers,
        layout=layout,
        progress=progress(quiet=quiet),
    )
    for report in reports:
        print_result(
            f"epoch {report.epoch}/{report.epochs}"
            f"{'  best' if report.is_best else ''}"
            f"\n  train  {report.train}"
            f"\n  val    {report.val}"
            f"\n  {report.images_per_second:,.0f} images/s in {format_duration(report.seconds)},"
            f" {report.waited_s:.1f} s waited for data",
            as_json=as_json,
            **report.as_json(),
        )
