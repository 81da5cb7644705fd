"""The main job on a dataset that is drawn here: every command as a user would type it.

FOLDER/published   the archives and their definition, seeded on loopback
FOLDER/imagenet    the root that the commands fill
"""

import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from imnetprep.catalog.datasets import Dataset, Root, Split, load_dataset
from imnetprep.messages import ImnetprepError, Progress, format_bytes, format_duration
from imnetprep.reports.log import epoch_lines, tables
from imnetprep.sources.seeder import seeded
from imnetprep.synthetic import draw_dataset

RUN_NAME = "demo"

_PICTURES = 3
_TO_LEAVE_S = 20.0


@dataclass(frozen=True)
class DemoSize:
    """How much is drawn and for how long it is learned."""

    train_per_class: int = 120
    val_per_class: int = 30
    epochs: int = 5


@dataclass(frozen=True)
class DemoFolder:
    """Where the demo keeps its files."""

    path: Path

    @property
    def published(self) -> Path:
        """What somebody else would have published."""
        return self.path / "published"

    @property
    def definition(self) -> Path:
        """The drawn dataset; written last, so that it stands for all of `published`."""
        return self.published / "drawn.toml"

    @property
    def root(self) -> Root:
        """What the commands make of it."""
        return Root(self.path / "imagenet")

    @property
    def mark(self) -> Path:
        """An empty file that says whose folder it is: --fresh removes nobody else's."""
        return self.path / ".imnetprep-demo"

    @property
    def run(self) -> Path:
        """The folder of the training."""
        return self.root.run(RUN_NAME)


class StepFailed(ImnetprepError):
    """A command of the demo did not end with 0; the demo ends as that did."""

    def __init__(self, verb: str, exit_code: int) -> None:
        super().__init__(
            f"imnetprep {verb} ended with exit code {exit_code}, and the demo with it",
            hint="what it said stands above; run the demo again to resume",
        )
        self.exit_code = exit_code


def run_demo(
    path: Path,
    *,
    fresh: bool = False,
    dry_run: bool = False,
    size: DemoSize | None = None,
    tell: Callable[[str], None],
    progress: Progress,
) -> None:
    """Draw, seed, download, organize, verify, inspect, train, evaluate, predict.

    Resumes with what `path` has from an earlier time, unless `fresh`. `tell` is called with each
    command before it runs, or without running it if `dry_run`; what a command says goes straight
    to the terminal. Raises StepFailed, or ImnetprepError where `path` holds something that is not a
    demo, and ModuleNotFoundError, before anything is drawn, where torch is not installed.
    """
    if find_spec("torch") is None:
        raise ModuleNotFoundError("the demo trains a network", name="torch")
    size = size or DemoSize()
    folder, story = DemoFolder(path), _Story(tell, dry_run=dry_run)
    resumes = not fresh and (folder.run / "last.pt").exists()
    _open(folder, fresh=fresh, dry_run=dry_run, tell=tell)
    if dry_run:
        tell(f"Draws a small ImageNet in {folder.published}, seeds it, and runs:")
        story.run("download", *_download_options(folder, ["MAGNET"], "127.0.0.1:PORT"))
        _run_steps(story, folder, size, resumes=resumes)
        story.run("predict", str(folder.run / "best.pt"), "IMAGE...")
        return
    with story.timed("draw"):
        dataset = _drawn(folder, size, tell, progress)
    archives = [folder.published / archive.name for archive in dataset.archives]
    with seeded(archives) as seeder:
        tell(f"\nA second session seeds it on {seeder.peer}. From here on: what a user types.")
        story.run("download", *_download_options(folder, seeder.magnets, seeder.peer))
    _run_steps(story, folder, size, resumes=resumes)
    synsets = dataset.synsets[:: len(dataset.synsets) // _PICTURES][:_PICTURES]
    images = [min((folder.root.split(Split.VAL) / each.wnid).iterdir()) for each in synsets]
    story.run("predict", str(folder.run / "best.pt"), *map(str, images))
    tell(f"In truth: {', '.join(synset.name for synset in synsets)}")
    tell(_summary(folder, story))


# Small images and small batches: on few cores they learn the most in a minute.
_VIEW = ("--image-size", "40", "--crop-scale", "0.6")
_RECIPE = ("--batch-size", "16", "--lr", "0.01", "--warmup-epochs", "1", "--weight-decay", "5e-4")


class _Story:
    """The steps as they run, and how long each took."""

    def __init__(self, tell: Callable[[str], None], *, dry_run: bool) -> None:
        self._tell, self._dry_run = tell, dry_run
        self.seconds: dict[str, float] = {}

    @contextmanager
    def timed(self, step: str) -> Iterator[None]:
        start_s = time.monotonic()
        yield
        self.seconds[step] = time.monotonic() - start_s

    def run(self, verb: str, *options: str) -> None:
        """Show one command, and run it unless all is a dry run. Raises StepFailed."""
        self._tell(f"\n$ {shlex.join(['imnetprep', verb, *options])}")
        if self._dry_run:
            return
        with self.timed(verb):
            exit_code = _exit_code_of([sys.executable, "-m", "imnetprep", verb, *options])
        if exit_code != 0:
            raise StepFailed(verb, exit_code)


def _exit_code_of(command: list[str]) -> int:
    """Run `command`; if this process is stopped meanwhile, let it save its state and leave."""
    child = subprocess.Popen(command)
    try:
        exit_code = child.wait()
    except KeyboardInterrupt:  # a terminal tells both
        try:
            child.wait(_TO_LEAVE_S)
        finally:
            child.terminate()
        raise
    except BaseException:
        child.terminate()
        child.wait(_TO_LEAVE_S)
        raise
    return exit_code if exit_code >= 0 else 128 - exit_code


def _run_steps(story: _Story, folder: DemoFolder, size: DemoSize, *, resumes: bool) -> None:
    root = ["--root", str(folder.root.path)]
    story.run("organize", *root)
    story.run("verify", *root, "--digests", "--decode")
    sheet = folder.root.path / "inspect-train.png"
    story.run("inspect", *root, "--out", str(sheet), "--classes", "10", "--images", "4", *_VIEW)
    options = ["--arch", "resnet18", "--run", RUN_NAME, "--epochs", str(size.epochs)]
    options += [*_VIEW, *_RECIPE, *(["--resume"] if resumes else [])]
    story.run("train", *root, *options)
    story.run("evaluate", *root)


def _open(folder: DemoFolder, *, fresh: bool, dry_run: bool, tell: Callable[[str], None]) -> None:
    """Put our mark in the folder, emptied of what a demo left there if `fresh`."""
    if folder.path.exists() and not folder.mark.exists() and any(folder.path.iterdir()):
        raise ImnetprepError(
            f"{folder.path} is there and is not a demo's", hint="name another place by --root"
        )
    leftovers = [folder.published, folder.root.path] if fresh and folder.mark.exists() else []
    if leftovers:
        tell(f"Removes {folder.published} and {folder.root.path}, and starts over.")
    elif folder.definition.exists():
        tell(f"Resumes with what is in {folder.path} (--fresh starts over).")
    if dry_run:
        return
    for place in leftovers:
        if place.exists():
            shutil.rmtree(place)
    folder.path.mkdir(parents=True, exist_ok=True)
    folder.mark.touch()


def _drawn(
    folder: DemoFolder, size: DemoSize, tell: Callable[[str], None], progress: Progress
) -> Dataset:
    if not folder.definition.exists():
        tell(f"Draws a small ImageNet and packs it as the real one is: {folder.published}")
        draw_dataset(
            folder.published,
            train_per_class=size.train_per_class,
            val_per_class=size.val_per_class,
            progress=progress,
        )
    dataset = load_dataset(str(folder.definition))
    for archive in dataset.archives:
        assert archive.split
        tell(
            f"  {archive.name}  {format_bytes(archive.size_bytes or 0)},"
            f" {dataset.samples(archive.split):,} images"
        )
    return dataset


def _download_options(folder: DemoFolder, magnets: Sequence[str], peer: str) -> list[str]:
    place = ["--root", str(folder.root.path), "--dataset", str(folder.definition)]
    sources = [option for magnet in magnets for option in ("--magnet", magnet)]
    return [*place, *sources, "--peer", peer, "--no-dht", "--listen", "127.0.0.1:0"]


def _summary(folder: DemoFolder, story: _Story) -> str:
    root, run = folder.root, folder.run
    epochs = [line["val"] for line in epoch_lines(tables((run / "log.jsonl").read_text()))]
    best = max(epochs, key=lambda val: int(val["top1"]))
    times = ", ".join(f"{step} {seconds:.0f} s" for step, seconds in story.seconds.items())
    return "\n".join([
        "",
        f"Top-1 {best['top1_percent']:.1f} % ({best['top1']} of {best['images']} validation images)"
        f" after {format_duration(sum(story.seconds.values()))}: {times}.",
        f"  {root.archives}  the archives as they came",
        f"  {root.split('train')}, {root.split('val')}  the verified trees",
        f"  {root.path / 'inspect-train.png'}  images, and what the network sees of them",
        f"  {run}  the trained network: best.pt, log.jsonl, report.html",
        "With the real archives it is the same commands.",
    ])  # fmt: skip
