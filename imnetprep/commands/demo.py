"""`imnetprep demo`."""

from pathlib import Path

import click

from imnetprep.commands.session_options import session_options
from imnetprep.commands.terminal import print_result, stderr_progress
from imnetprep.commands.verb import Verb, dry_run_option, quiet_option


@click.command(cls=Verb, short_help="Run all of it once, on a small drawn dataset.")
@click.option(
    "--root",
    "folder",
    type=click.Path(path_type=Path, file_okay=False),
    default="demo",
    show_default=True,
    help="Where the demo keeps all its files.",
)
@click.option(
    "--fresh", is_flag=True, help="Remove what an earlier demo left in --root, and start over."
)
@dry_run_option("Show the commands, and run none.")
@quiet_option
@session_options
def demo(folder: Path, fresh: bool, dry_run: bool, quiet: bool) -> None:
    """Run all of it once, on images that are drawn here: under 4 minutes on 2 cores.

    Draws ten synsets, packs them as ImageNet's archives are packed and seeds them on this machine.
    Then it runs the real commands, each shown as you would type it: download by magnet link,
    organize, verify, inspect, train a ResNet-18, evaluate and predict. Nothing leaves the machine.

    \b
    imnetprep demo
    imnetprep demo --root /tmp/demo            resumes where it stopped
    imnetprep demo --fresh                     starts over
    """
    from imnetprep.demo import run_demo

    progress = stderr_progress(quiet=quiet)

    def tell(text: str) -> None:
        print_result(*text.split("\n"))

    run_demo(folder, fresh=fresh, dry_run=dry_run, tell=tell, progress=progress)
