"""`imnetprep predict`."""

from dataclasses import asdict
from pathlib import Path

import click

from imnetprep.commands import verb
from imnetprep.commands.terminal import json_option, print_result


@verb.command(short_help="Name the five likeliest classes of images.")
@click.argument("checkpoint", type=click.Path(path_type=Path))
@click.argument(
    "images", metavar="IMAGE...", nargs=-1, required=True, type=click.Path(path_type=Path)
)
@verb.arch_option
@verb.device_option
@json_option
def predict(
    checkpoint: Path, images: tuple[Path, ...], arch: str | None, device: str | None
) -> None:
    """Name the five likeliest classes of each IMAGE, with their probabilities.

    \b
    imnetprep predict imagenet/runs/resnet18/best.pt cat.jpg dog.png
    """
    from imnetprep.training.runs import require_files

    require_files(checkpoint, images)  # before torch is loaded, which takes seconds
    from imnetprep.training.predict import predictions

    for prediction in predictions(checkpoint, images, arch=arch, device=device):
        lines = [
            f"  {guess.probability:8.2%}  {guess.label}".replace("%", " %")
            for guess in prediction.best
        ]
        print_result(str(prediction.image), *lines, **asdict(prediction))
