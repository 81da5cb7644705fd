"""`imnetprep sources`."""

import click

from imnetprep.commands.terminal import json_option, print_result
from imnetprep.commands.verb import Verb


@click.command(cls=Verb, short_help="Show where archives can be read from, an example of each.")
@json_option
def sources() -> None:
    """Show the addresses that prepare, download, --archives and --from take, an example of each.

    A folder on this machine is one too. docs/sources.md says what to set up once.

    \b
    imnetprep sources
    imnetprep organize --archives kaggle:competitions/imagenet-object-localization-challenge
    """
    from imnetprep.sources.places import SCHEMES

    for name, scheme in SCHEMES.items():
        if name != "http":
            print_result(
                scheme.title,
                f"    {scheme.example}",
                scheme=name,
                title=scheme.title,
                example=scheme.example,
            )
