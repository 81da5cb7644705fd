"""`imnetprep evaluate`."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from imnetprep.catalog.datasets import Layout, Root
from imnetprep.commands import verb
from imnetprep.commands.session_options import session_options
from imnetprep.commands.shard_options import SHARDS, shard_options
from imnetprep.commands.terminal import json_option, print_result, stderr_progress
from imnetprep.messages import ImnetprepError, Progress

if TYPE_CHECKING:  # --help loads none of it
    from imnetprep.remote_shards.place import ShardPlace


@verb.command(
    short_help="Score a checkpoint on the validation split.",
    headings={"Where the images are": ("root", "layout", *SHARDS)},
)
@click.argument("checkpoint", required=False, type=click.Path(path_type=Path))
@verb.root_option
@verb.runs_option
@verb.layout_option()
@shard_options
@click.option(
    "--run", metavar="NAME", help="Score the best checkpoint of this run.  [default: newest]"
)
@click.option(
    "--only-classes",
    "choice",
    metavar="LIST",
    help="Score only images of these classes, and let the network guess no other: wnids with"
    " commas, or a list as `imnetprep subset` takes it.",
)
@click.option(
    "--report",
    metavar="DIR",
    type=click.Path(path_type=Path, file_okay=False),
    help="Write there what the network gets wrong: report.html, classes.csv, confusion.csv,"
    " mistakes.csv.",
)
@click.option(
    "--batch-size", type=click.IntRange(1), help="Images in a batch.  [default: as in training]"
)
@verb.arch_option
@verb.device_option
@verb.workers_option
@verb.decoder_option
@verb.on_bad_image_option
@json_option
@verb.quiet_option
@session_options
def evaluate(
    checkpoint: Path | None,
    root: Root,
    layout: Layout | None,
    shards: "ShardPlace | None",
    run: str | None,
    choice: str | None,
    report: Path | None,
    batch_size: int | None,
    arch: str | None,
    device: str | None,
    workers: int | None,
    decode: str,
    skip_bad: bool,
    quiet: bool,
) -> None:
    """Score CHECKPOINT on the validation split: every image exactly once.

    Where the network has more classes than the root, such as one of ilsvrc2012 on imagenette, its
    outputs for the root's classes are compared, found by wnid. Of ilsvrc2012, with all its classes,
    the accuracy by the ReaL labels is told as well. Where the root has no val split, the images are
    scored that --val-fraction held out in the training.

    \b
    imnetprep evaluate                         best.pt of the newest run that has one
    imnetprep evaluate --run resnet18
    imnetprep evaluate elsewhere/best.pt
    imnetprep evaluate --only-classes imagewoof
    imnetprep evaluate --report wrong          classes, confusions, mistakes, calibration
    imnetprep evaluate best.pt --shards s3://my-bucket/imagenet
    imnetprep evaluate --root scene --report wrong     images with masks: F-measure, IoU, pixels
    """
    from imnetprep.masks.pairs import has_pairs
    from imnetprep.training.runs import pick_checkpoint, require_samples

    # Before torch is loaded, which takes seconds.
    path = pick_checkpoint(root, path=checkpoint, run=run)
    progress = stderr_progress(quiet=quiet)
    if not checkpoint:
        progress.note(f"the checkpoint is {path}")
    if not shards and has_pairs(root) and (not root.is_tree or _tells_pixels_apart(path)):
        _score_masks(root, path, arch=arch, device=device, report=report, progress=progress)
        return
    if not shards:
        require_samples(root, (), layout=layout)
    from imnetprep.evaluation.evaluate import evaluate as evaluation_of
    from imnetprep.evaluation.report import require_writable, write_report
    from imnetprep.samples.bad_images import BadImages

    if report:
        require_writable(report)

    bad = BadImages(progress) if skip_bad else None
    evaluation = evaluation_of(
        root,
        path,
        arch=arch,
        device=device,
        batch_size=batch_size,
        workers=workers,
        decode=decode,
        layout=layout,
        shards=shards,
        choice=choice,
        bad=bad,
        progress=progress,
    )
    lines, fields = evaluation.lines(), evaluation.as_json()
    if bad:
        bad.tell()
        fields["bad_images"] = bad.lines
    if report:
        try:
            files = write_report(evaluation, report)
        except (ImnetprepError, OSError):  # the score took longest
            print_result(*lines, checkpoint=str(path), **fields)
            raise
        lines += [evaluation.calibration(), f"{report}: {', '.join(each.name for each in files)}"]
        fields["files"] = [*map(str, files)]
    print_result(*lines, checkpoint=str(path), **fields)


def _tells_pixels_apart(path: Path) -> bool:
    from imnetprep.recipes.recipe import SEGMENT
    from imnetprep.training.checkpoint import is_checkpoint, load_checkpoint

    return is_checkpoint(path) and load_checkpoint(path).recipe.task == SEGMENT


def _score_masks(
    root: Root,
    path: Path,
    *,
    arch: str | None,
    device: str | None,
    report: Path | None,
    progress: Progress,
) -> None:
    from imnetprep.evaluation.masks import MaskReport, evaluate_masks
    from imnetprep.evaluation.report import require_writable

    verb.refuse(
        f"{root.path} has images with masks",
        *("layout", "choice", "batch_size", "workers", "decode", "skip_bad"),
    )
    if report:
        require_writable(report)
    pages = MaskReport(report) if report else None
    score = evaluate_masks(root, path, arch=arch, device=device, report=pages, progress=progress)
    lines, fields = [str(score)], score.as_json()
    if pages:
        files = pages.files
        lines.append(f"{report}: {', '.join(each.name for each in files)}")
        fields["files"] = [*map(str, files)]
    print_result(*lines, checkpoint=str(path), **fields)
