"""A run: the folder of one training, with its checkpoints, log and plot."""

import json
import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from imnetprep.catalog.datasets import Root
from imnetprep.fs import allocated_bytes, free_bytes, written_whole
from imnetprep.messages import ImnetprepError, WrongUsage, format_bytes

if TYPE_CHECKING:  # of torch
    from imnetprep.training.meters import Score

_SAFE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")


@dataclass(frozen=True)
class EpochReport:
    """One epoch (from 1), trained and validated.

    `lr` is that of its first step; `seconds` those of training, of which `waited_s` for data.
    """

    epoch: int
    epochs: int
    lr: float
    train: "Score"
    val: "Score"
    is_best: bool
    seconds: float
    waited_s: float

    @property
    def images_per_second(self) -> float:
        """Training images by training seconds."""
        return self.train.images / self.seconds if self.seconds else 0.0

    def as_json(self) -> dict[str, Any]:
        """The line that the log has of it."""
        return {
            "epoch": self.epoch,
            "epochs": self.epochs,
            "lr": self.lr,
            "train": self.train.as_json(),
            "val": self.val.as_json(),
            "is_best": self.is_best,
            "seconds": round(self.seconds, 3),
            "waited_s": round(self.waited_s, 3),
            "images_per_second": round(self.images_per_second, 1),
        }


@dataclass(frozen=True)
class Run:
    """One training under `ROOT/runs`."""

    folder: Path

    @property
    def last(self) -> Path:
        """The checkpoint to resume from."""
        return self.folder / "last.pt"

    @property
    def is_begun(self) -> bool:
        """Is there a step of it to resume from? Its name is free until there is."""
        return self.last.exists()

    @property
    def best(self) -> Path:
        """The weights of the best epoch so far."""
        return self.folder / "best.pt"

    @property
    def log(self) -> Path:
        """A JSON line an epoch."""
        return self.folder / "log.jsonl"

    @property
    def recipe(self) -> Path:
        """The recipe, the dataset and the machine that the training began with."""
        return self.folder / "recipe.json"

    @property
    def plot(self) -> Path:
        """Loss and accuracy by epoch."""
        return self.folder / "plot.png"

    def remove_unbegun(self) -> None:
        """Remove the folder unless there is a checkpoint in it, or anything that is not ours."""
        if not self.is_begun:
            for path in (self.recipe, self.folder / ".lock"):
                path.unlink(missing_ok=True)
            with suppress(OSError):  # it holds more
                self.folder.rmdir()
                self.folder.parent.rmdir()

    def require_room(self, weights_bytes: int) -> None:
        """Raise ImnetprepError unless the disk has room for the checkpoints.

        The last one has the optimizer's memory too, and lies there twice while it is written.
        """
        lack_bytes = 5 * weights_bytes - sum(map(allocated_bytes, (self.last, self.best)))
        if (free := free_bytes(self.folder)) < lack_bytes:
            raise ImnetprepError(
                f"the checkpoints of {self.folder} take {format_bytes(lack_bytes)} more"
                f" and its disk has {format_bytes(free)} free",
                hint=f"free {format_bytes(lack_bytes - free)}, or name another disk by --runs",
            )

    def log_lines(self, epochs: int) -> list[dict[str, Any]]:
        """The log's lines of the first `epochs` epochs: later ones are in no checkpoint."""
        if not self.log.exists():
            return []
        try:
            lines = [json.loads(line) for line in self.log.read_text().splitlines()]
            return [line for line in lines if line["epoch"] <= epochs]
        except (ValueError, KeyError, TypeError) as error:
            raise ImnetprepError(
                f"{self.log} is damaged: {error}", hint="move it away; the checkpoint has the rest"
            ) from error

    def write_log(self, lines: Sequence[Mapping[str, Any]]) -> None:
        """Write the whole log."""
        with written_whole(self.log) as file:
            file.writelines(json.dumps(line).encode() + b"\n" for line in lines)

    def write_recipe(self, table: Mapping[str, Any]) -> None:
        """Write `recipe.json`."""
        with written_whole(self.recipe) as file:
            file.write(json.dumps(table, indent=2).encode() + b"\n")


def named_run(root: Root, name: str) -> Run:
    """The run called `name`, which need not exist. Raises WrongUsage on what is no plain name."""
    if not _SAFE_NAME.fullmatch(name):
        raise WrongUsage(
            f"--run {name!r} is not a plain name", hint="letters, digits, and - _ . inside"
        )
    return Run(root.run(name))


def newest_run(root: Root) -> Run | None:
    """The run whose checkpoint was saved last, if there is any."""
    checkpoints = root.runs.glob("*/last.pt")
    newest = max(checkpoints, key=lambda path: path.stat().st_mtime, default=None)
    return Run(newest.parent) if newest else None


def pick_checkpoint(root: Root, *, path: Path | None, run: str | None) -> Path:
    """The checkpoint to evaluate: `path`, or the best of `run` or of the newest run."""
    if path is not None:
        if run is not None:
            raise WrongUsage(f"both {path} and --run {run}", hint="name one of them")
        return path
    target = named_run(root, run) if run else newest_run(root)
    if target is None or not (target.best.exists() or run):
        raise ImnetprepError(f"{root.path} has no trained run yet", hint="imnetprep train")
    return target.best
