"""A run: the folder of one training, with its checkpoints, log and plot."""

import json
import os
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from imnetprep.catalog.datasets import Layout, Root, Split
from imnetprep.fs import allocated_bytes, existing_folder, free_bytes, locked, written_whole
from imnetprep.manifest import open_manifest, require_split
from imnetprep.masks.pairs import has_pairs
from imnetprep.messages import (
    ImnetprepError,
    WrongUsage,
    format_bytes,
    format_duration,
    format_rate,
)
from imnetprep.reports.log import Line, parse_log

if TYPE_CHECKING:  # of torch
    from imnetprep.training.mask_meters import AnyScore
from imnetprep.recipes.recipe import CLASSIFY, SEGMENT, default_run

_SAFE_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")


@dataclass(frozen=True)
class EpochReport:
    """One epoch (from 1), trained and validated.

    `lr` is that of its first step; `seconds` those of training, of which `waited_s` for data.
    `val` has no image with --no-val; `average` is the score of the average of the weights (--ema).
    """

    epoch: int
    epochs: int
    lr: float
    train: "AnyScore"
    val: "AnyScore"
    is_best: bool
    seconds: float
    waited_s: float
    average: "AnyScore | None" = None

    @property
    def images_per_second(self) -> float:
        """Training images by training seconds."""
        return self.train.images / self.seconds if self.seconds else 0.0

    def __str__(self) -> str:
        return "\n".join(self.lines())

    def lines(self) -> list[str]:
        """The epoch for people: its number, its scores, its pace."""
        has_val = bool(self.val.images)
        return [
            f"epoch {self.epoch}/{self.epochs}{'  best' if self.is_best and has_val else ''}",
            f"  train  {self.train}",
            *([f"  val    {self.val}"] if has_val else []),
            *([f"  average  {self.average}"] if self.average and has_val else []),
            f"  {format_rate(self.images_per_second)} images/s in {format_duration(self.seconds)},"
            f" {self.waited_s:.1f} s waited for data",
        ]

    def as_json(self) -> dict[str, Any]:
        """The line that the log has of it."""
        return {
            "epoch": self.epoch,
            "epochs": self.epochs,
            "lr": self.lr,
            "train": self.train.as_json(),
            **({"val": self.val.as_json()} if self.val.images else {}),
            **({"average": self.average.as_json()} if self.average and self.val.images else {}),
            "is_best": self.is_best and bool(self.val.images),
            "seconds": round(self.seconds, 3),
            "waited_s": round(self.waited_s, 3),
            "images_per_second": round(self.images_per_second, 1),
        }


@dataclass(frozen=True)
class Run:
    """One training, under `ROOT/runs` or --runs."""

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
        """The weights of the best epoch so far; with --no-val of the last one."""
        return self.folder / "best.pt"

    def of_epoch(self, epoch: int) -> Path:
        """The weights of an epoch, from 1 on, where some are kept."""
        return self.folder / f"epoch-{epoch:04}.pt"

    def remove_epochs(self, *, limit: int) -> None:
        """Remove the weights that are kept of epochs below `limit`."""
        for path in self.folder.glob("epoch-*.pt"):
            if path < self.of_epoch(limit):
                path.unlink()

    @property
    def log(self) -> Path:
        """A JSON line an epoch, and one every few steps."""
        return self.folder / "log.jsonl"

    @property
    def recipe(self) -> Path:
        """The recipe, the dataset and the machine that the training began with."""
        return self.folder / "recipe.json"

    @property
    def plot(self) -> Path:
        """Loss and accuracy by epoch."""
        return self.folder / "plot.png"

    @contextmanager
    def owned(self) -> Iterator[None]:
        """Lock the run while the block runs; a folder that got no checkpoint is gone after it."""
        with locked(self.folder):
            try:
                yield
            finally:
                self._remove_unbegun()

    def _remove_unbegun(self) -> None:
        """Remove the folder if nothing is in it but what a run has before its first checkpoint.

        The folder is listed: to ask for `last.pt` says "no" too where the disk does not answer.
        """
        names = {self.recipe.name, "bad-images.txt", ".lock"}
        with suppress(OSError):  # the folder holds more, or the disk does not answer
            if names.issuperset(path.name for path in self.folder.iterdir()):
                for name in names:
                    (self.folder / name).unlink(missing_ok=True)
                self.folder.rmdir()
                self.folder.parent.rmdir()

    def require_room(self, weights_bytes: int, *, copies: int, epochs: int = 0) -> None:
        """Raise ImnetprepError unless the disk has room for the checkpoints.

        The last one has `copies` of the weights, the optimizer's memory among them, and lies there
        twice while it is written; of so many `epochs` the weights are kept.
        """
        lack_bytes = (2 * copies + 1 + epochs) * weights_bytes - sum(
            map(allocated_bytes, (self.last, self.best))
        )
        if (free := free_bytes(self.folder)) < lack_bytes:
            raise ImnetprepError(
                f"the checkpoints of {self.folder} take {format_bytes(lack_bytes)} more"
                f" and its disk has {format_bytes(free)} free",
                hint=f"free {format_bytes(lack_bytes - free)}, or name another disk by --runs",
            )

    def log_lines(self, epochs: int = sys.maxsize, step: int = 0) -> list[Line]:
        """The lines of the log up to `step` of the epoch behind `epochs`; else all.

        Raises ImnetprepError where they are not of a log.
        """
        if not self.log.exists():
            return []
        try:
            return parse_log(self.log.read_text(), epochs=epochs, step=step)
        except (ValueError, KeyError, RecursionError) as error:
            raise ImnetprepError(
                f"{self.log} is damaged: {error}", hint="move it away; the checkpoint has the rest"
            ) from error

    def records(self, recipe: Mapping[str, Any]) -> bool:
        """Does `recipe.json` say that this is the recipe?"""
        try:
            return bool(json.loads(self.recipe.read_text())["recipe"] == recipe)
        except (OSError, LookupError, TypeError, ValueError, RecursionError):
            return False

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


def task_of(run: Run, options: Mapping[str, Any]) -> str:
    """What is learnt: as the run that has begun says, else as typed."""
    with suppress(OSError, LookupError, TypeError, ValueError, RecursionError):
        if run.is_begun and (task := json.loads(run.recipe.read_text())["recipe"]["task"]) in (
            CLASSIFY,
            SEGMENT,
        ):
            return str(task)
    return SEGMENT if SEGMENT in (options.get("task"), options.get("recipe")) else CLASSIFY


def refuse_pairs(root: Root) -> None:
    """Raise WrongUsage where `root` has images with masks, and nothing names classes."""
    if has_pairs(root):
        raise WrongUsage(
            f"{root.path} has images with masks, and no classes",
            hint=f"--task {SEGMENT} trains on them; --task {CLASSIFY} if the folders are classes",
        )


def find_run(root: Root, word: str) -> Run:
    """The run of that name, or in that folder. Raises ImnetprepError where it has no log yet."""
    is_name = bool(_SAFE_NAME.fullmatch(word)) and root.run(word).is_dir()
    run = Run(Path(word)) if Path(word).is_dir() and not is_name else named_run(root, word)
    if not run.log.exists():
        raise ImnetprepError(f"{run.folder} has no log yet", hint="imnetprep train begins one")
    return run


def pick_run(
    root: Root, name: str | None, *, arch: str | None, resume: bool, default: str | None = None
) -> Run:
    """The run to train: of that name, or the newest to `resume`, or one called as `arch` is.

    `arch` was typed; `default` is the architecture where none was.

    Raises WrongUsage where it has begun and is not to be resumed, ImnetprepError where nothing can
    be written.
    """
    # torchrun starts all processes again, with the same words, when one has died.
    resume = resume or os.environ.get("TORCHELASTIC_RESTART_COUNT", "0") != "0"
    newest = _newest(root, "last.pt") if name is None and arch is None and resume else None
    run = newest or named_run(root, name or default_run(arch or default or "resnet18"))
    if run.is_begun and not resume:
        raise WrongUsage(
            f"there is a run {run.folder.name} in {root.runs} already",
            hint="--resume continues it; --run OTHER begins another",
        )
    place = existing_folder(run.folder)
    if not os.access(place, os.W_OK | os.X_OK):
        raise ImnetprepError(
            f"{run.folder} is not to be written to: {place} is read-only, or another user's",
            hint="--runs DIR names another folder for trainings; IMNETPREP_RUNS does it for all",
        )
    return run


def pick_checkpoint(root: Root, *, path: Path | None, run: str | None) -> Path:
    """The checkpoint to evaluate: `path`, or the best of `run` or of the newest run with one.

    Raises ImnetprepError where there is none.
    """
    if path is not None:
        if run is not None:
            raise WrongUsage(f"both {path} and --run {run}", hint="name one of them")
        require_checkpoint(path)
        return path
    target = named_run(root, run) if run else _newest(root, "best.pt")
    if target is None:
        raise ImnetprepError(
            f"{root.runs} holds no run with an epoch yet", hint="imnetprep train makes one"
        )
    if not target.best.exists():
        begin = f"imnetprep train --run {run}{' --resume' * target.is_begun}"
        raise ImnetprepError(
            f"no epoch of {target.folder} is over: there is no best.pt", hint=begin
        )
    return target.best


def require_checkpoint(path: Path) -> None:
    """Raise ImnetprepError unless `path` is a file."""
    if not path.is_file():
        raise ImnetprepError(f"there is no checkpoint {path}", hint="imnetprep train makes one")


def require_samples(root: Root, splits: Sequence[Split], *, layout: Layout | None) -> None:
    """Raise ImnetprepError unless `root` holds these splits; a plain tree is scanned later."""
    if root.is_tree:
        return
    with open_manifest(root.manifest) as manifest:
        for split in splits:
            require_split(manifest, root, split, layout=layout)


def _newest(root: Root, checkpoint: str) -> Run | None:
    """The run whose `checkpoint` was saved last, if any has one."""
    paths = root.runs.glob(f"*/{checkpoint}")
    newest = max(paths, key=lambda path: path.stat().st_mtime, default=None)
    return Run(newest.parent) if newest else None
