"""`imnetprep evaluate`."""

from pathlib import Path

import click

from imnetprep.catalog.datasets import Layout, Root
from imnetprep.commands.terminal import print_result, stderr_progress
from imnetprep.commands.verb import Verb, json_option, layout_option, quiet_option, root_option


@click.command(cls=Verb, short_help="Score a checkpoint on the validation split.")
@click.argument("checkpoint", required=False, type=click.Path(path_type=Path))
@root_option
@layout_option()
@click.option(
    "--run", metavar="NAME", help="Score the best checkpoint of this run.  [default: newest]"
)
@click.option(
    "--batch-size", type=click.IntRange(1), help="Images in a batch.  [default: as in training]"
)
@click.option(
    "--device", help="Where to compute: cpu, cuda, cuda:1, mps.  [default: the best there is]"
)
@click.option(
    "--workers",
    type=click.IntRange(0),
    help="Processes that read images.  [default: 2 on a CPU, up to 16 on a GPU]",
)
@json_option
@quiet_option
def evaluate(
    checkpoint: Path | None,
    root: Root,
    layout: Layout | None,
    run: str | None,
    batch_size: int | None,
    device: str | None,
    workers: int | None,
    as_json: bool,
    quiet: bool,
) -> None:
    """Score CHECKPOINT on the validation split: every image exactly once.

    \b
    imnetprep evaluate                         best.pt of the newest run
    imnetprep evaluate --run resnet18
    imnetprep evaluate elsewhere/best.pt
    """
    from imnetprep.training.evaluate import evaluate as score_of
    from imnetprep.training.runs import pick_checkpoint

    path = pick_checkpoint(root, path=checkpoint, run=run)
    score = score_of(
        root,
        path,
        device=device,
        batch_size=batch_size,
        workers=workers,
        layout=layout,
        progress=stderr_progress(quiet=quiet),
    )
    print_result(str(score), as_json=as_json, checkpoint=str(path), **score.as_json())
