"""Trackers of others that follow a run: TensorBoard, MLflow, Weights & Biases, trackio.

Each keeps what it is told beside the run, and asks no network unless its own variables of the
environment say so (MLFLOW_TRACKING_URI, WANDB_MODE, TRACKIO_SPACE_ID).
"""

import importlib
import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

from imnetprep.messages import ImnetprepError, Progress
from imnetprep.reports.log import Line, measures_of

_PROJECT = "imnetprep"


class Tracker(Protocol):
    """What follows a run: numbers by name, at a step counted over all epochs."""

    def log(self, numbers: Mapping[str, float], step: int) -> None:
        """Note the numbers of `step`."""

    def close(self) -> None:
        """Note that the training is over, or stops here."""


class TensorBoard:
    """Event files in RUN/tensorboard."""

    def __init__(self, folder: Path, _recipe: Mapping[str, str]) -> None:
        summary = importlib.import_module("tensorboard.summary")
        (folder / "tensorboard").mkdir(parents=True, exist_ok=True)
        self._writer = summary.Writer(summary.DirectoryOutput(str(folder / "tensorboard")))

    def log(self, numbers: Mapping[str, float], step: int) -> None:
        for name, value in numbers.items():
            self._writer.add_scalar(name, value, step=step)
        self._writer.flush()

    def close(self) -> None:
        self._writer.close()


class MLflow:
    """An SQLite store, RUN/mlflow.db, or the server of MLFLOW_TRACKING_URI."""

    def __init__(self, folder: Path, recipe: Mapping[str, str]) -> None:
        mlflow = importlib.import_module("mlflow")
        store = os.environ.get("MLFLOW_TRACKING_URI", f"sqlite:///{folder.resolve()}/mlflow.db")
        self._client = mlflow.MlflowClient(store)
        found = self._client.get_experiment_by_name(_PROJECT)
        experiment = found.experiment_id if found else self._client.create_experiment(_PROJECT)
        self._run = self._client.create_run(experiment, run_name=folder.name).info.run_id
        for name, value in recipe.items():
            self._client.log_param(self._run, name, value)

    def log(self, numbers: Mapping[str, float], step: int) -> None:
        for name, value in numbers.items():
            self._client.log_metric(self._run, name, value, step=step)

    def close(self) -> None:
        self._client.set_terminated(self._run)


class WeightsAndBiases:
    """A run in RUN/wandb for `wandb sync`, or online as WANDB_MODE says."""

    def __init__(self, folder: Path, recipe: Mapping[str, str]) -> None:
        wandb = importlib.import_module("wandb")
        mode = os.environ.get("WANDB_MODE", "offline")
        settings = wandb.Settings(silent=True)
        self._run = wandb.init(
            project=_PROJECT, name=folder.name, dir=str(folder), mode=mode,
            config=dict(recipe), settings=settings,
        )  # fmt: skip

    def log(self, numbers: Mapping[str, float], step: int) -> None:
        self._run.log(dict(numbers), step=step)

    def close(self) -> None:
        self._run.finish()


class Trackio:
    """A database where trackio keeps them (TRACKIO_DIR), which `trackio show` serves."""

    def __init__(self, folder: Path, recipe: Mapping[str, str]) -> None:
        trackio = importlib.import_module("trackio")
        self._run = trackio.init(
            project=_PROJECT, name=folder.name, config=dict(recipe), embed=False
        )

    def log(self, numbers: Mapping[str, float], step: int) -> None:
        self._run.log(dict(numbers), step=step)

    def close(self) -> None:
        self._run.finish()


TRACKERS: Mapping[str, Callable[[Path, Mapping[str, str]], Tracker]] = {
    "tensorboard": TensorBoard,
    "mlflow": MLflow,
    "wandb": WeightsAndBiases,
    "trackio": Trackio,
}


def require_tracker(name: str) -> None:
    """Raise ImnetprepError where the package of the tracker is not installed."""
    try:
        importlib.import_module(name)
    except ImportError as error:
        raise ImnetprepError(
            f"--track {name}: {name} is not installed", hint=f"pip install 'imnetprep[{name}]'"
        ) from error


def numbers_of(line: Line) -> dict[str, float]:
    """The numbers of a line of the log, under the names that trackers group by."""
    if "step" in line:
        names = {"loss": "train/loss", "lr": "lr", "images_per_second": "images_per_second"}
        return {name: float(line[key]) for key, name in names.items()}
    shares = [each.key for each in measures_of(line["train"])]
    return {"epoch": float(line["epoch"])} | {
        f"{part}/{key.removesuffix('_percent')}": float(line[part][key])
        for part, keys in (("train", shares), ("val", ["loss", *shares]))
        if part in line
        for key in keys
    }


class Followers:
    """The trackers of one training, opened at its first line; one that fails is told and dropped:
    of hours of training none is lost for it.
    """

    def __init__(
        self, names: Sequence[str], folder: Path, recipe: Mapping[str, str], progress: Progress
    ) -> None:
        self._folder, self._recipe, self._progress = folder, recipe, progress
        self._trackers: dict[str, Tracker | None] = dict.fromkeys(names)
        self._step = 0

    def add(self, line: Line) -> None:
        """Let all trackers know a line of the log."""
        if "step" in line:
            self._step = (line["epoch"] - 1) * line["steps"] + line["step"]
        numbers = {name: each for name, each in numbers_of(line).items() if math.isfinite(each)}
        for name in tuple(self._trackers):
            with self._dropped_on_failure(name):
                tracker = self._trackers[name] or TRACKERS[name](self._folder, self._recipe)
                self._trackers[name] = tracker
                tracker.log(numbers, self._step)

    def close(self) -> None:
        """Let all trackers know that no line follows."""
        for name, tracker in tuple(self._trackers.items()):
            with self._dropped_on_failure(name):
                if tracker is not None:
                    tracker.close()

    @contextmanager
    def _dropped_on_failure(self, name: str) -> Iterator[None]:
        try:
            yield
        except Exception as error:
            del self._trackers[name]
            reason = f"{type(error).__name__}: {error}".partition("\n")[0]
            self._progress.note(f"{name} follows the run no more: {reason}")
