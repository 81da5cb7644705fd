"""What goes along with an exported network: classes, preprocessing, recipe, score, origin."""

import json
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

from imnetprep.messages import ImnetprepError
from imnetprep.reports.log import Line, epoch_lines
from imnetprep.training.checkpoint import Checkpoint
from imnetprep.training.runs import Run


def facts_of(checkpoint: Checkpoint) -> dict[str, Any]:
    """All that a checkpoint tells beside its weights, as JSON has it."""
    return {
        "weights": checkpoint.numbers,
        "recipe": asdict(checkpoint.recipe),
        "preprocessing": asdict(checkpoint.preprocessing),
        "classes": asdict(checkpoint.classes),
        "position": asdict(checkpoint.position),
        "best": checkpoint.best and asdict(checkpoint.best),
        "train_samples": checkpoint.train_samples,
        "has_optimizer": bool(checkpoint.optimizer),
        "origin": checkpoint.origin.as_json(),
        "written_by": checkpoint.written_by,
    }


def metadata_of(checkpoint: Checkpoint) -> dict[str, str]:
    """The facts as texts by name, for forms that keep no more than texts.

    `classes` is the list of names that the logits stand for, in their order.
    """
    classes, pixels = checkpoint.classes, asdict(checkpoint.preprocessing)
    tables = {"classes": classes.names, "wnids": classes.wnids, "preprocessing": pixels}
    return {
        **{name: json.dumps(value) for name, value in tables.items()},
        "imnetprep": json.dumps(facts_of(checkpoint)),
    }


def best_line(path: Path, checkpoint: Checkpoint) -> Line | None:
    """What the log beside the checkpoint at `path` says of its best epoch; None: nothing."""
    if checkpoint.best is not None:
        with suppress(ImnetprepError, OSError):
            for line in epoch_lines(Run(path.parent).log_lines()):
                is_best = line["epoch"] == checkpoint.best.epoch
                if is_best and line.get("val", {}).get("top1") == checkpoint.best.hits:
                    return line
    return None
