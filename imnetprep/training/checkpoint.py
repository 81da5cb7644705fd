"""A training's state as one file: tensors and plain values, read without running anything in it.

Randomness needs no state: order, crops and dropout are functions of the seed and the position.
"""

import sys
import warnings
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from io import BytesIO
from pathlib import Path
from typing import Any, BinaryIO

import torch
from torch import Tensor, nn

from imnetprep import __version__
from imnetprep.devices.device import memory_format
from imnetprep.fs import written_whole
from imnetprep.loading.order import mixed_seed
from imnetprep.messages import ImnetprepError, WrongUsage, shell_word
from imnetprep.networks.model import build_model, load_weights
from imnetprep.outside_text import shown
from imnetprep.pixels.transforms import Preprocessing
from imnetprep.plain_values import flag, plain_text, whole_number
from imnetprep.recipes.recipe import SEGMENT, Recipe, is_own_function, parse_recipe
from imnetprep.training.checkpoint_values import (
    parse_loss_scale,
    parse_preprocessing,
    parse_score,
    parse_sum,
    parse_tensors,
    parse_text,
)
from imnetprep.training.mask_meters import MASK_COUNTS
from imnetprep.training.meters import COUNTS
from imnetprep.training.optimizer import OptimizerState
from imnetprep.training.origin import Origin, parse_origin

FORM = 5
_KIND = "imnetprep checkpoint"
_PROGRAM = f"imnetprep {__version__}"


@dataclass(frozen=True)
class Classes:
    """What the outputs of the network stand for, in the order of their labels."""

    dataset: str
    wnids: tuple[str, ...]
    names: tuple[str, ...]


@dataclass(frozen=True)
class Position:
    """How far a training is: epochs that are over, and steps done of the one under way.

    With all its steps done an epoch is trained and not yet validated.
    """

    epoch: int = 0
    step: int = 0


@dataclass(frozen=True)
class Best:
    """The epoch (from 1) with the best share of the validation right: `hits` of `total`.

    These are images of which the top-1 is right; of masks pixels, so that the share is the
    F-measure. `is_average`: by the average of the weights.
    """

    epoch: int
    hits: int
    total: int
    is_average: bool = False

    def __str__(self) -> str:
        """`epoch 3`, or `epoch 3 (average)`."""
        return f"epoch {self.epoch}{' (average)' * self.is_average}"


@dataclass(frozen=True)
class Checkpoint:
    """A training as it stands; `sums` (those of its meter, or none) are of the epoch under way.

    `optimizer` has what the optimizer keeps of each parameter, `average` that of the weights,
    `loss_scale` the scale of a float16 training and the steps that it has lasted; `best.pt` has
    none of them. `scores` are the watched ones, an epoch that is over each. `origin` is of
    the beginning of the run, `written_by` the program that saved it last. `processes`: how many
    trained it together when it was saved. `typed_arch` is in no file: it lets a function of the
    user's own be imported.
    """

    recipe: Recipe
    classes: Classes
    preprocessing: Preprocessing
    weights: dict[str, Tensor]
    optimizer: OptimizerState
    position: Position
    sums: dict[str, float]
    best: Best | None
    train_samples: int
    scores: tuple[float, ...] = ()
    average: dict[str, Tensor] = field(default_factory=dict)
    loss_scale: dict[str, float] = field(default_factory=dict)
    processes: int = 1
    origin: Origin = field(default_factory=Origin)
    written_by: str = _PROGRAM
    typed_arch: str | None = None

    @property
    def is_begun(self) -> bool:
        """Is a step of the training done?"""
        return self.position != Position()

    @property
    def numbers(self) -> int:
        """How many numbers the weights are, running means of BatchNorm among them."""
        return sum(tensor.numel() for tensor in self.weights.values())

    def as_best(self) -> "Checkpoint":
        """What `best.pt` has of it: the weights that scored best, and nothing to resume from.

        Where nothing was validated, it is the average, if there is one.
        """
        is_average = self.best.is_average if self.best else bool(self.average)
        weights = self.average if is_average else self.weights
        return replace(self, weights=weights).without_memory()

    def without_memory(self) -> "Checkpoint":
        """The weights of the last step alone: to evaluate, not to resume from."""
        return replace(self, optimizer={}, average={}, loss_scale={})

    def network(self, device: torch.device) -> nn.Module:
        """The network on `device`, with its weights; in a new training, with those of its seed.

        Raises WrongUsage where a stranger's checkpoint would import what nobody typed.
        """
        if is_own_function(self.recipe.arch) and self.typed_arch != self.recipe.arch:
            word = shell_word(f"{shown(self.recipe.arch):.80}")
            raise WrongUsage(
                f"the network of the checkpoint is made by a function, {word}",
                hint=f"--arch {word} imports it and runs it, if you trust it",
            )
        model = build_model(
            self.recipe.arch,
            classes=outputs_for(self.recipe, self.classes),
            image_size=self.recipe.image_size,
            train_sizes=(self.recipe.first_size, self.recipe.train_size),
            seed=mixed_seed(self.recipe.seed, "weights"),
            of_pixels=self.recipe.task == SEGMENT,
        )
        if self.weights:
            load_weights(model, self.weights)
        model.to(device, memory_format=memory_format(device))  # type: ignore[call-overload]
        return model


def outputs_for(recipe: Recipe, classes: Classes) -> int:
    """How many logits the network of `recipe` gives: one of each class, or one of each pixel."""
    return 1 if recipe.task == SEGMENT else len(classes.wnids)


def save_checkpoint(path: Path, checkpoint: Checkpoint) -> None:
    """Write `checkpoint` to `path`, whole or not at all."""
    state = {
        "kind": _KIND,
        "form": FORM,
        "written_by": _PROGRAM,
        "origin": checkpoint.origin.as_json(),
        "recipe": asdict(checkpoint.recipe),
        "dataset": checkpoint.classes.dataset,
        "wnids": list(checkpoint.classes.wnids),
        "names": list(checkpoint.classes.names),
        "preprocessing": asdict(checkpoint.preprocessing),
        "weights": dict(checkpoint.weights),
        "optimizer": checkpoint.optimizer,
        "position": asdict(checkpoint.position),
        "sums": checkpoint.sums,
        "best": asdict(checkpoint.best) if checkpoint.best else None,
        "train_samples": checkpoint.train_samples,
        "processes": checkpoint.processes,
        "scores": list(checkpoint.scores),
        "average": dict(checkpoint.average),
        "loss_scale": dict(checkpoint.loss_scale),
    }
    with written_whole(path) as file:
        body = _Body(file)
        try:
            torch.save(_alike(state), body)  # type: ignore[arg-type]
        except RuntimeError as error:
            raise body.refusal or error from error


def _alike(value: Any) -> Any:
    """`value` with one object for all texts that are equal: pickle writes an object once, so a run
    that is resumed, or is of a recipe that was read, would leave other bytes of the same values.
    """
    if type(value) is str:
        return sys.intern(value)
    if type(value) is dict:
        return {_alike(name): _alike(each) for name, each in value.items()}
    if type(value) in (list, tuple):
        return type(value)(map(_alike, value))
    return value


class _Body:
    """A file that knows what it was refused: torch tells a full disk as an "unexpected pos"."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.refusal: OSError | None = None
        self.flush = file.flush

    def write(self, piece: bytes) -> int:
        try:
            return self._file.write(piece)
        except OSError as error:
            self.refusal = error
            raise


def copies_of_weights(recipe: Recipe) -> int:
    """How many tensors of each weight a checkpoint to resume from has."""
    return 2 + (recipe.optimizer == "adamw") + (recipe.ema > 0)


def weights_bytes(model: nn.Module) -> int:
    """What the weights of `model` take on a disk."""
    return sum(each.numel() * each.element_size() for each in model.state_dict().values())


def load_checkpoint(
    path: Path, body: bytes | None = None, *, arch: str | None = None
) -> Checkpoint:
    """The checkpoint at `path`, on the CPU, of which `body` may have been read already.

    `arch` was typed, and must be that of the checkpoint: WrongUsage where it is not. Raises
    ImnetprepError if the file is no checkpoint of ours.
    """
    if body is None and not path.is_file():
        raise ImnetprepError(f"there is no checkpoint {path}", hint="imnetprep train makes one")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about foreign files, which are refused below
            # weights_only: a pickle from a stranger is data here, never code.
            file = path if body is None else BytesIO(body)
            state = torch.load(file, map_location="cpu", weights_only=True)
    except PermissionError:
        raise
    except Exception as error:  # torch.load meets foreign bytes with almost any exception
        raise _not_ours(path, f"{type(error).__name__} while reading it") from error
    if not isinstance(state, dict) or state.get("kind") != _KIND:
        raise _not_ours(path, "it lacks our mark")
    if state.get("form") != FORM:
        raise ImnetprepError(
            f"{path} has form {state.get('form')}; this imnetprep reads form {FORM}",
            hint=f"use the version that wrote it: {state.get('written_by')}",
        )
    try:
        checkpoint = _parse(state)
    except (LookupError, TypeError, ValueError, AttributeError, RuntimeError) as error:
        raise _not_ours(path, f"{type(error).__name__}: {error}") from error
    return _with_typed_arch(checkpoint, arch)


def is_checkpoint(path: Path) -> bool:
    """Is the file at `path` a checkpoint of ours, of whatever form?"""
    if not path.is_file():  # a pipe would be waited for
        return False
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            state = torch.load(path, map_location="cpu", mmap=True, weights_only=True)
    except Exception:  # of foreign bytes torch.load raises almost anything
        return False
    return isinstance(state, dict) and state.get("kind") == _KIND


def _with_typed_arch(checkpoint: Checkpoint, arch: str | None) -> Checkpoint:
    if arch not in (None, checkpoint.recipe.arch):
        raise WrongUsage(
            f"the checkpoint is of --arch {shown(checkpoint.recipe.arch):.80}, not {arch}",
            hint="leave out --arch",
        )
    return replace(checkpoint, typed_arch=arch)


def _not_ours(path: Path, reason: str) -> ImnetprepError:
    return ImnetprepError(
        f"{path} is not a checkpoint of imnetprep: {reason}",
        hint="best.pt and last.pt under ROOT/runs/NAME are; a damaged one cannot be repaired;"
        " evaluate takes weights of other programs with --arch NAME",
    )


def _parse(state: Mapping[str, Any]) -> Checkpoint:
    best = state["best"]
    if not state["weights"]:
        raise ValueError("it has no weights")
    recipe, preprocessing = parse_recipe(state["recipe"]), parse_preprocessing(state)
    if recipe.image_size != preprocessing.image_size:
        raise ValueError(f"images of {recipe.image_size} and of {preprocessing.image_size} px")
    position = Position(*(whole_number(state["position"][name]) for name in ("epoch", "step")))
    if len(state["scores"]) != position.epoch:
        raise ValueError(f"{len(state['scores'])} scores of {position.epoch} epochs")
    return Checkpoint(
        recipe=recipe,
        classes=_parse_classes(state),
        preprocessing=preprocessing,
        weights=parse_tensors(state["weights"]),
        optimizer={str(name): parse_tensors(table) for name, table in state["optimizer"].items()},
        position=position,
        sums=_parse_sums(state["sums"], recipe),
        best=_parse_best(best) if best else None,
        train_samples=whole_number(state["train_samples"]),
        processes=whole_number(state["processes"], least=1),
        origin=parse_origin(state["origin"]),
        written_by=plain_text(state["written_by"]),
        scores=tuple(map(parse_score, state["scores"])),
        average=parse_tensors(state["average"]),
        loss_scale=parse_loss_scale(state["loss_scale"]),
    )


def _parse_best(table: Mapping[str, Any]) -> Best:
    epoch, hits, total = (whole_number(table[name]) for name in ("epoch", "hits", "total"))
    return Best(epoch, hits, total, is_average=flag(table["is_average"]))


def _parse_sums(table: Mapping[str, Any], recipe: Recipe) -> dict[str, float]:
    counts = MASK_COUNTS if recipe.task == SEGMENT else COUNTS
    names = ("loss", *counts, "images", "seconds", "waited_s")
    return {name: parse_sum(name, table[name]) for name in names if table}


def _parse_classes(state: Mapping[str, Any]) -> Classes:
    wnids, names = (tuple(map(parse_text, state[name])) for name in ("wnids", "names"))
    if not wnids or len(wnids) != len(names):
        raise ValueError(f"{len(wnids)} classes and {len(names)} names")
    return Classes(parse_text(state["dataset"]), wnids, names)
