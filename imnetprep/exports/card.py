"""The card of an exported network: what it is, how good, made of what; its numbers are measured."""

import json
import re
from dataclasses import asdict

from imnetprep.reports.log import Line
from imnetprep.training.checkpoint import Checkpoint

_MOST_CLASSES = 20
_MARKS = re.compile(r"[\\`*_{}\[\]()<>#+!|&~$]")


def model_card(checkpoint: Checkpoint, name: str, line: Line | None) -> str:
    """A README.md as the Hugging Face hub shows it; `line` of the log has the score."""
    classes, pixels, origin = checkpoint.classes, checkpoint.preprocessing, checkpoint.origin
    names = ", ".join(map(_plain, classes.names[:_MOST_CLASSES]))
    if len(classes.names) > _MOST_CLASSES:
        names += f" and {len(classes.names) - _MOST_CLASSES:,} more"
    recipe = "".join(
        f"| {_plain(key)} | {_plain(value)} |\n" for key, value in asdict(checkpoint.recipe).items()
    )
    splits = "".join(
        f"- {_plain(split)}: {each.samples:,} images"
        + (f"; {_plain(each.proof.describe())}" if each.proof else "")
        + "\n"
        for split, each in (origin.splits or {}).items()
    )
    commit = f", commit {origin.commit}" if origin.commit else ""
    return f"""---
{_front_matter(checkpoint, line)}---

# {_plain(name)} trained on {_plain(classes.dataset)}

{_score(checkpoint, line)}

    import timm
    network = timm.create_model("local-dir:FOLDER", pretrained=True).eval()

Images: the shorter side to {pixels.resize} px ({pixels.interpolation}), the centre of
{pixels.image_size} × {pixels.image_size} px, mean {list(pixels.mean)}, std {list(pixels.std)}.
{len(classes.names):,} classes: {names}.

## Training

Begun by imnetprep {origin.imnetprep}{commit}.

{splits}
| | |
| --- | --- |
{recipe}"""


def _score(checkpoint: Checkpoint, line: Line | None) -> str:
    if line is not None:
        val = line["val"]
        return (
            f"Top-1 {val['top1_percent']:.2f} %, top-5 {val['top5_percent']:.2f} % of"
            f" {val['images']:,} validation images, after epoch {line['epoch']}."
        )
    if checkpoint.best is not None:
        best = checkpoint.best
        return f"Top-1 {best.hits:,} of {best.total:,} validation images, after epoch {best.epoch}."
    return "Not validated yet."


def _front_matter(checkpoint: Checkpoint, line: Line | None) -> str:
    """What the hub reads, as YAML; each text is written as JSON, which YAML includes."""
    dataset = json.dumps(checkpoint.classes.dataset)
    text = "library_name: timm\npipeline_tag: image-classification\ntags:\n"
    text += "- image-classification\n- timm\n- transformers\n"
    if line is None:
        return text
    text += "model-index:\n- name: " + json.dumps(checkpoint.recipe.arch) + "\n  results:\n"
    text += "  - task:\n      type: image-classification\n"
    text += f"    dataset:\n      name: {dataset}\n      type: {dataset}\n    metrics:\n"
    for kind, title in (("top1", "Top 1"), ("top5", "Top 5")):
        value = round(line["val"][f"{kind}_percent"], 2)
        text += f"    - type: accuracy\n      name: {title} accuracy\n      value: {value}\n"
    return text


def _plain(value: object) -> str:
    """A value of a stranger in a text of Markdown: one line, nothing in it marks anything."""
    line = " ".join(str(value).split())
    return _MARKS.sub(lambda match: "\\" + match[0], line)
