"""`imnetprep export`."""

from pathlib import Path

import click

from imnetprep.commands import verb
from imnetprep.commands.terminal import json_option, print_result
from imnetprep.messages import format_bytes

_FILES = {
    "safetensors": ("model.safetensors",),
    "torch-export": ("model.pt2",),
    "onnx": ("model.onnx",),
    "hf": ("config.json", "model.safetensors", "README.md"),
}


@verb.command(short_help="Write a trained network in a form of others.")
@click.argument("checkpoint", type=click.Path(path_type=Path))
@click.argument("folder", metavar="DIR", type=click.Path(path_type=Path, file_okay=False))
@click.option("--to", "form", type=click.Choice([*_FILES]), required=True, help="Form to write.")
@verb.arch_option
@verb.dry_run_option("Read the checkpoint, name the files, and write none.")
@json_option
def export(checkpoint: Path, folder: Path, form: str, arch: str | None, dry_run: bool) -> None:
    """Write the network of CHECKPOINT into DIR, with its classes and its preprocessing.

    \b
    imnetprep export best.pt out --to onnx
    imnetprep export best.pt out --to hf       for timm and transformers, with a model card

    A graph (onnx, torch-export) takes normalised images and gives logits, for batches of any size.
    """
    from imnetprep.training.runs import require_checkpoint

    require_checkpoint(checkpoint)  # before torch is loaded, which takes seconds
    from imnetprep.exports import formats
    from imnetprep.exports.hugging_face import write_folder
    from imnetprep.training.checkpoint import load_checkpoint
    from imnetprep.training.classes import refuse_masks

    state = load_checkpoint(checkpoint, arch=arch)
    refuse_masks(state, checkpoint)
    paths = [folder / name for name in _FILES[form]]
    if not dry_run:
        folder.mkdir(parents=True, exist_ok=True)
        if form == "hf":
            write_folder(checkpoint, state, folder)
        else:
            getattr(formats, f"write_{form.replace('-', '_')}")(state, folder)
    files = ", ".join(
        path.name if dry_run else f"{path.name} ({format_bytes(path.stat().st_size)})"
        for path in paths
    )
    print_result(
        f"{folder}: {files}{', not written' if dry_run else ''}",
        files=[*map(str, paths)],
        written=not dry_run,
    )
