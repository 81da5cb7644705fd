"""`imnetprep doctor`."""

from pathlib import Path

import click

from imnetprep.catalog.datasets import Layout, Root
from imnetprep.commands import verb
from imnetprep.commands.terminal import json_option, print_result, stderr_progress
from imnetprep.messages import FINDINGS_EXIT_CODE, count


@verb.command(short_help="Say what is wrong before it is trained: network, images, machine.")
@click.argument("checkpoint", required=False, type=click.Path(path_type=Path))
@verb.root_option
@verb.layout_option()
@click.option(
    "--arch",
    help="The network to look at, as imnetprep archs lists them.  [default: the checkpoint's, or"
    " resnet18]",
)
@click.option(
    "--image-size",
    type=click.IntRange(1, 4096),
    help="Side of the network's input, px.  [default: the checkpoint's, or 224]",
)
@verb.device_option
@json_option
@verb.quiet_option
def doctor(
    checkpoint: Path | None,
    root: Root,
    layout: Layout | None,
    arch: str | None,
    image_size: int | None,
    device: str | None,
    quiet: bool,
) -> int:
    """Look for the mistakes that fail silently, before anything is trained.

    Of the network: how large its maps are, how much of an image a point of them sees, and whether
    images of that size are too small for it. Of the images under ROOT: what sizes and kinds they
    have, and whether some of up to 200 cannot be read. Of the labels: whether CHECKPOINT, a network
    that knows these classes, is right more often than by chance. Of the machine: device, cores,
    memory, disk, open files. Nothing is written. The exit code is 5 where something is found.

    \b
    imnetprep doctor --arch resnet18 --image-size 32
    imnetprep doctor --root digits --arch cnn-small --image-size 32
    imnetprep doctor resnet50.pth --arch resnet50
    """
    from imnetprep.networks.architectures import refuse_unknown

    if arch is not None:
        refuse_unknown(arch)
    from imnetprep.doctor import examined

    findings = 0
    for each in examined(
        root,
        arch=arch,
        image_size=image_size,
        checkpoint=checkpoint,
        layout=layout,
        device=device,
        progress=stderr_progress(quiet=quiet),
    ):
        findings += bool(each.remedy)
        mark = "finding: " if each.remedy else ""
        lines = [f"{mark}{each.subject}: {each.text}"]
        lines += [f"  mend it: {each.remedy}"] if each.remedy else []
        print_result(*lines, **each._asdict())
    print_result(count(findings, "finding"), findings=findings)
    return FINDINGS_EXIT_CODE if findings else 0
