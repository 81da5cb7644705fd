"""`imnetprep serve`."""

from pathlib import Path

import click

from imnetprep.catalog.datasets import Layout, Root
from imnetprep.commands import verb
from imnetprep.commands.terminal import json_option, print_result, stderr_progress


@verb.command(short_help="Show a page in the browser that names what a picture shows.")
@click.argument("checkpoint", required=False, type=click.Path(path_type=Path))
@verb.root_option
@verb.runs_option
@verb.layout_option()
@click.option(
    "--host",
    "interface",
    metavar="ADDRESS",
    default="127.0.0.1",
    show_default=True,
    help="Address of this machine to listen at; 0.0.0.0 lets everyone ask who reaches it.",
)
@click.option(
    "--port",
    type=click.IntRange(0, 65535),
    default=8765,
    show_default=True,
    help="Port to listen at; 0: any that is free.",
)
@verb.arch_option
@verb.device_option
@json_option
@verb.quiet_option
def serve(
    checkpoint: Path | None,
    root: Root,
    layout: Layout | None,
    interface: str,
    port: int,
    arch: str | None,
    device: str | None,
    quiet: bool,
) -> None:
    """Serve a page on this machine: drop, paste or photograph a picture, and see what CHECKPOINT
    takes it for, what it saw of the picture, and an example of each class from ROOT.

    \b
    imnetprep serve                            best.pt of the newest run that has one
    imnetprep serve best.pt --root imagenet --port 9000
    imnetprep serve resnet50.pth --arch resnet50
    curl --data-binary @cat.jpg http://127.0.0.1:8765/predict

    The first line is the address; ^C ends it. Pictures are answered and forgotten, and no file of
    this machine can be asked for. A picture has at most 50 MB and 64 million pixels.
    """
    from imnetprep.training.runs import pick_checkpoint

    path = pick_checkpoint(root, path=checkpoint, run=None)  # before torch is loaded
    from imnetprep.serving.serve import served

    progress = stderr_progress(quiet=quiet)
    if not checkpoint:
        progress.note(f"the checkpoint is {path}")
    with served(
        path,
        root,
        arch=arch,
        layout=layout,
        device=device,
        host=interface,
        port=port,
        progress=progress,
    ) as listener:
        print_result(listener.address, address=listener.address, checkpoint=path)
        if not listener.is_local:
            progress.note("whoever reaches this port may ask, and there is no password")
        listener.serve()
