"""The Python API: what the verbs do, as functions of plain values.

Options are called as on the command line and mean what they mean there. Errors are ImnetprepError;
what goes on is told on stderr. Heavy packages are loaded by the functions that need them.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from imnetprep.catalog.datasets import Root, Split
from imnetprep.commands.terminal import stderr_progress
from imnetprep.messages import ImnetprepError, WrongUsage
from imnetprep.s3.address import SCHEME

if TYPE_CHECKING:
    from imnetprep.evaluation.evaluate import Evaluation
    from imnetprep.manifest import SplitRecord
    from imnetprep.predict import Prediction, Unread
    from imnetprep.training.runs import EpochReport

__all__ = (
    "ImnetprepError", "best_checkpoint", "divide", "download", "evaluate", "inspect", "plot",
    "predict", "train", "unpack",
)  # fmt: skip


def download(address: str | Path, root: str | Path, *, quiet: bool = False) -> list[Path]:
    """Fetch a file, or the archives of a folder, into ROOT/archives, as `imnetprep download` does.

    The paths are of all files, those that were there already too. An interrupted download resumes.
    """
    from imnetprep.download import carry_out_download, plan_download
    from imnetprep.sources.seeder import SeedLimits
    from imnetprep.sources.session import Network

    place = Root(Path(root))
    plan = plan_download(place, [str(address)], dataset=None, splits=())
    results = carry_out_download(
        plan,
        place,
        network=Network(),
        wait_s=1800,
        seed_limits=SeedLimits(),
        progress=stderr_progress(quiet=quiet),
    )
    names = [each.name for each in plan.present] + [each.name for each in results]
    return [place.archives / name for name in names]


def unpack(archive: str | Path, folder: str | Path, *, quiet: bool = False) -> Path:
    """Unpack a zip of images into `folder`, verified, whole or absent; one that is there stays."""
    from imnetprep.own_images.unpack import unpack_zip

    if not Path(folder).exists():
        _require_file(Path(archive))
    unpack_zip(Path(archive), Path(folder), progress=stderr_progress(quiet=quiet))
    return Path(folder)


def divide(
    images: str | Path,
    root: str | Path,
    *,
    val_fraction: float = 0.25,
    seed: int = 0,
    label_from: str | None = None,
    labels: str | Path | None = None,
    skip_bad: bool = False,
    quiet: bool = False,
) -> "list[SplitRecord]":
    """Divide a folder of images into train and val, class by class, as `imnetprep divide` does.

    The records are of both splits. What cannot be taken is told by name: with `skip_bad` it is
    left out, else it is an error.
    """
    from imnetprep.divide import plan_divide
    from imnetprep.manifest import organized_splits
    from imnetprep.own_images.content import describe_classes, refuse_root_in
    from imnetprep.own_images.labels import read_labelled

    if label_from is not None and labels is not None:
        raise WrongUsage("label_from and labels both say the class", hint="leave out one")
    if isinstance(val_fraction, str) or not 0 < val_fraction < 1:
        raise WrongUsage(f"val_fraction {val_fraction} is no share", hint="0.25 is a quarter")
    if not Path(images).is_dir():
        raise ImnetprepError(f"{images} is no folder", hint="unpack() makes one of a zip")
    place, progress = Root(Path(root)), stderr_progress(quiet=quiet)
    refuse_root_in(Path(images), place)
    table = Path(labels) if labels is not None else None
    if table:
        _require_file(table)
    content = read_labelled(Path(images), rule=label_from, table=table, columns=None)
    content.examine(decode=skip_bad, jobs=None, progress=progress)
    for path, reason in content.problems.items():
        progress.note(f"{'left out' if skip_bad else 'bad'}: {path} {reason}")
    content.require(one_class=False, skip_bad=skip_bad)
    for line in content.notes():
        progress.note(line)
    progress.note(describe_classes(content.splits[Split.TRAIN]))
    plan = plan_divide(place, content, val_fraction=val_fraction, seed=seed, copy=False, jobs=None)
    for _ in plan.carry_out(progress):
        pass
    return list(organized_splits(place).values())


def inspect(
    root: str | Path,
    out: str | Path,
    *,
    split: str = "train",
    classes: int = 8,
    images: int = 4,
    image_size: int | None = None,
    seed: int = 0,
) -> Path:
    """Draw a contact sheet to `out`, a PNG or a JPEG, as `imnetprep inspect` does."""
    from imnetprep.contact_sheet import plan_contact_sheet
    from imnetprep.image_kinds import refuse_other_sheet

    _require_one_of("split", split, tuple(Split))
    _require_least(1, classes=classes, images=images, image_size=image_size)
    refuse_other_sheet("out", Path(out))
    sheet = plan_contact_sheet(
        Root(Path(root)),
        split=Split(split),
        classes=classes,
        images=images,
        image_size=image_size,
        seed=seed,
    )
    sheet.write(Path(out))
    return Path(out)


def train(
    root: str | Path,
    *,
    runs: str | Path | None = None,
    run: str | None = None,
    resume: bool = False,
    restart_schedule: bool = False,
    on_bad_image: str = "error",
    device: str | None = None,
    workers: int | None = None,
    quiet: bool = False,
    **recipe: Any,
) -> "Iterator[EpochReport]":
    """Train a network as `imnetprep train` does; yields each epoch once it is validated and saved.

    `runs`: the folder of trainings, ROOT/runs by default; or s3://BUCKET/PREFIX, to which they are
    pushed after each epoch, and from which those that are lost here come back first. `recipe`: the
    options of a recipe by name: recipe="finetune", arch="resnet18", weights="torchvision",
    epochs=5 ….

    Raises Interruption, which is no Exception, once ^C was honoured and the state is saved.
    """
    from imnetprep.recipes.plan_recipe import refuse_strange
    from imnetprep.training.loop import train as trained_epochs
    from imnetprep.training.plan import plan_training

    refuse_strange(recipe)
    _require_one_of("on_bad_image", on_bad_image, ("error", "skip"))
    _require_least(0, workers=workers)
    place, progress = _root(root, runs), stderr_progress(quiet=quiet)
    bucket = str(runs) if _is_bucket(runs) else None
    if bucket:
        from imnetprep.sync.runs import pull_runs, pushed_after_each

        pull_runs(place, bucket, progress=progress)
    plan = plan_training(
        place,
        options=recipe,
        run=run,
        resume=resume,
        restart_schedule=restart_schedule,
        skip_bad=on_bad_image == "skip",
        device=device,
        workers=workers,
        progress=progress,
    )
    epochs = trained_epochs(plan, progress=progress)
    return pushed_after_each(epochs, place, bucket, progress=progress) if bucket else epochs


def plot(root: str | Path, out: str | Path, *, runs: str | Path | None = None, run: str) -> Path:
    """Draw the curves of a run to the PNG `out`, as `imnetprep plot` does."""
    from imnetprep.reports.plot import draw_plot
    from imnetprep.training.runs import find_run

    draw_plot({run: find_run(_root(root, runs), run).log_lines()}, Path(out))
    return Path(out)


def best_checkpoint(
    root: str | Path, *, runs: str | Path | None = None, run: str | None = None
) -> Path:
    """The best weights of `run`, or of the newest run that has an epoch."""
    from imnetprep.training.runs import pick_checkpoint

    return pick_checkpoint(_root(root, runs), path=None, run=run)


def evaluate(
    root: str | Path,
    checkpoint: str | Path,
    *,
    report: str | Path | None = None,
    device: str | None = None,
    workers: int | None = None,
    quiet: bool = False,
) -> "Evaluation":
    """Score a checkpoint on all validation images, as `imnetprep evaluate` does.

    `report`: a folder for the page and the tables of `imnetprep evaluate --report`.
    """
    from imnetprep.evaluation.evaluate import evaluate as evaluation_of
    from imnetprep.evaluation.report import require_writable, write_report
    from imnetprep.training.runs import require_checkpoint

    require_checkpoint(Path(checkpoint))
    if report:
        require_writable(Path(report))
    place, progress = Root(Path(root)), stderr_progress(quiet=quiet)
    evaluation = evaluation_of(
        place, Path(checkpoint), device=device, workers=workers, progress=progress
    )
    if report:
        write_report(evaluation, Path(report))
    return evaluation


def predict(
    checkpoint: str | Path,
    images: str | Path | Sequence[str | Path],
    *,
    top: int = 5,
    draw: str | Path | None = None,
    device: str | None = None,
) -> "list[Prediction | Unread]":
    """Name the likeliest classes of images, files or folders of them, as `imnetprep predict` does.

    `draw`: a PNG or a JPEG of each image, what the network sees of it, and its classes.
    """
    from imnetprep.image_kinds import refuse_other_sheet
    from imnetprep.image_paths import find_paths
    from imnetprep.predict import predictions
    from imnetprep.reports.prediction_sheet import PredictionSheet
    from imnetprep.training.checkpoint import load_checkpoint
    from imnetprep.training.classes import refuse_masks
    from imnetprep.training.runs import require_checkpoint

    require_checkpoint(Path(checkpoint))
    _require_least(1, top=top)
    if draw:
        refuse_other_sheet("draw", Path(draw))
    sheet = PredictionSheet() if draw else None
    words = [images] if isinstance(images, str | Path) else images
    paths = find_paths([str(each) for each in words], ())
    state = load_checkpoint(Path(checkpoint))
    refuse_masks(state, Path(checkpoint))
    results = list(predictions(state, paths, device=device, best=top, sheet=sheet))
    if sheet and draw and sheet.rows:
        sheet.write(Path(draw))
    return results


def _require_least(least: int, **numbers: int | None) -> None:
    """Raise WrongUsage where one of the options is no whole number of `least` or more."""
    for name, number in numbers.items():
        if number is not None and (type(number) is not int or number < least):
            raise WrongUsage(
                f"{name}={number!r:.40} is not {least} or more", hint=f"{name}={least}"
            )


def _require_one_of(name: str, value: str, names: Sequence[str]) -> None:
    if value not in names:
        raise WrongUsage(f"{name}={value!r:.40} is unknown", hint=f"one of {', '.join(names)}")


def _require_file(path: Path) -> None:
    if not path.is_file():
        raise ImnetprepError(f"there is no file {path}", hint="name one that is there")


def _root(root: str | Path, runs: str | Path | None) -> Root:
    """The root, whose trainings lie in `runs`; of a bucket they lie in ROOT/runs here."""
    return Root(Path(root), Path(runs) if runs and not _is_bucket(runs) else None)


def _is_bucket(runs: str | Path | None) -> bool:
    return str(runs).startswith(SCHEME)
