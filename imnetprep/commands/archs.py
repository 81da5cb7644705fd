"""`imnetprep archs`."""

import click

from imnetprep.commands import verb
from imnetprep.commands.terminal import json_option, print_result
from imnetprep.messages import WrongUsage


@verb.command(short_help="List the networks that train can take.")
@click.argument("pattern", required=False)
@json_option
def archs(pattern: str | None) -> None:
    """List the networks that `train --arch` takes: their parameters with 1,000 classes, and input.

    PATTERN is a part of a name, or a glob; with it, timm's networks are searched too. No weights
    are made or downloaded.

    \b
    imnetprep archs
    imnetprep archs resnet
    imnetprep archs 'timm:*lite*'
    imnetprep archs 'unet/resnet*'             for --task segment
    """
    from imnetprep.networks.architectures import described

    is_empty = True
    for each in described(pattern or ""):
        is_empty = False
        print_result(
            f"{each.name:<28} {each.parameters / 1e6:8.1f} M  {each.input_px} px",
            arch=each.name,
            parameters=each.parameters,
            input_px=each.input_px,
        )
    if is_empty:
        raise WrongUsage(
            f"no network has {pattern!r} in its name",
            hint="imnetprep archs lists all of torchvision",
        )
