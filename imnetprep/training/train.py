"""A training from its first epoch to its last: a new one, or one that is resumed."""

from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass
from typing import Any

from imnetprep.catalog.datasets import Layout, Root, Split
from imnetprep.fs import locked
from imnetprep.manifest import open_manifest
from imnetprep.messages import ImnetprepError, Progress, WrongUsage, count
from imnetprep.training.checkpoint import Checkpoint, Position, load_checkpoint
from imnetprep.training.data import read_samples
from imnetprep.training.device import amp_pays, default_workers, pick_device
from imnetprep.training.evaluate import classes_of, refuse_other_classes
from imnetprep.training.model import refuse_unknown
from imnetprep.training.recipe import Recipe, plan_recipe, refuse_contradiction
from imnetprep.training.runs import EpochReport, Run, named_run, newest_run
from imnetprep.training.session import Data, Place, Session
from imnetprep.training.stop_request import stop_requests
from imnetprep.training.transforms import Preprocessing


@dataclass(frozen=True)
class TrainPlan:
    """A run, what it trains on and where, and the recipe's options as they were typed."""

    run: Run
    data: Data
    place: Place
    options: Mapping[str, Any]

    def checkpoint(self, progress: Progress) -> Checkpoint:
        """Where the run begins, or resumes. Raises WrongUsage where the options contradict it."""
        if self.run.last.exists():
            return _resumed(self.run, self.data, self.options, progress)
        recipe = plan_recipe(self.options, amp_pays=amp_pays(self.place.device))
        _tell_lr(recipe, self.options, progress)
        return _first_checkpoint(recipe, self.data)


def plan_training(
    root: Root,
    *,
    options: Mapping[str, Any],
    run: str | None = None,
    resume: bool = False,
    device: str | None = None,
    workers: int | None = None,
    layout: Layout | None = None,
    progress: Progress,
) -> TrainPlan:
    """Pick the run and read what it trains on; `options`: a recipe's names, None where left out.

    With `resume` a run that exists continues as if it had never stopped. Raises WrongUsage where
    there is one and it is not to be resumed.
    """
    torch_device = pick_device(device)
    place = Place(torch_device, default_workers(torch_device) if workers is None else workers)
    if options.get("arch"):
        refuse_unknown(options["arch"])
    target = _pick_run(root, run, arch=options.get("arch"), resume=resume)
    data = _read_data(root, layout)
    if resume and not target.last.exists():
        progress.note(f"there is no run {target.folder.name} yet: it begins")
    return TrainPlan(target, data, place, options)


def train(
    plan: TrainPlan, *, progress: Progress, save_every_s: float = 600
) -> Iterator[EpochReport]:
    """Train what `plan` says; yields each epoch.

    Raises Interruption once a SIGTERM or ^C was honoured, WrongUsage where the options contradict
    the run.
    """
    with stop_requests() as stop, locked(plan.run.folder):
        session = Session(
            plan.run,
            plan.data,
            plan.checkpoint(progress),
            place=plan.place,
            progress=progress,
            save_every_s=save_every_s,
        )
        with closing(session):
            yield from session.epochs(stop)


def _pick_run(root: Root, name: str | None, *, arch: str | None, resume: bool) -> Run:
    if name is None and arch is None and resume and (newest := newest_run(root)):
        return newest
    run = named_run(root, name or arch or "resnet18")
    if run.last.exists() and not resume:
        raise WrongUsage(
            f"there is a run {run.folder.name} in {run.folder.parent} already",
            hint="--resume continues it; --run OTHER begins another",
        )
    return run


def _read_data(root: Root, layout: Layout | None) -> Data:
    with open_manifest(root.manifest) as manifest:
        classes = classes_of(manifest)
        train, val = (
            read_samples(manifest, split, root, layout=layout) for split in (Split.TRAIN, Split.VAL)
        )
    return Data(classes, train, val)


def _first_checkpoint(recipe: Recipe, data: Data) -> Checkpoint:
    return Checkpoint(
        recipe=recipe,
        classes=data.classes,
        preprocessing=Preprocessing(
            recipe.image_size, recipe.val_resize, apply_orientation=data.train.apply_orientation
        ),
        weights={},
        optimizer={},
        position=Position(),
        sums={},
        best=None,
        train_samples=len(data.train),
    )


def _resumed(run: Run, data: Data, options: Mapping[str, Any], progress: Progress) -> Checkpoint:
    checkpoint = load_checkpoint(run.last)
    refuse_contradiction(checkpoint.recipe, options)
    refuse_other_classes(checkpoint.classes, data.classes, checkpoint=str(run.last))
    if checkpoint.train_samples != len(data.train):
        raise ImnetprepError(
            f"{run.last} was trained on {count(checkpoint.train_samples, 'image')}"
            f" and the root has {len(data.train):,}",
            hint="begin another run with --run NAME",
        )
    at = checkpoint.position
    progress.note(f"run {run.folder.name} resumes at epoch {at.epoch + 1}, step {at.step}")
    return checkpoint


def _tell_lr(recipe: Recipe, options: Mapping[str, Any], progress: Progress) -> None:
    if options.get("lr") is None:
        progress.note(
            f"lr {recipe.lr:g} = 0.1 × batch size {recipe.batch_size} / 256 (--lr sets another)"
        )
