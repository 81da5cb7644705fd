"""Weights of other programs: a file as tensors by name, read without running anything in it."""

import argparse
import importlib
import pickle
import re
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from imnetprep.messages import ImnetprepError
from imnetprep.outside_files import refuse_special

# What programs call the weights, beside the optimizer and the rest of a checkpoint.
_KEYS = ("state_dict", "model", "model_state_dict", "weights")
# What wrappers put before the names: DDP, torch.compile, Lightning.
_PREFIXES = ("module.", "_orig_mod.", "model.")
_GLOBAL = re.compile(r"GLOBAL (\S+)")


def read_tensors(path: Path) -> dict[str, Tensor]:
    """The tensors of a `.safetensors` file, or of one that `torch.save` wrote.

    Raises ImnetprepError where there are none, or where reading would run code.
    """
    if not path.is_file():
        raise ImnetprepError(
            f"there is no file of weights {path}",
            hint="--weights torchvision, timm, or the path of a .pth or .safetensors file",
        )
    refuse_special(path)
    state = _read_safetensors(path) if path.suffix == ".safetensors" else _read_pickle(path)
    while key := next((key for key in _KEYS if isinstance(state.get(key), Mapping)), None):
        state = state[key]
    tensors = {str(name): value for name, value in state.items() if isinstance(value, Tensor)}
    if not tensors:
        raise ImnetprepError(f"{path} holds no tensors", hint="name a file of weights")
    return tensors


def plain_name(name: str, own: Mapping[str, Tensor]) -> str:
    """`name` without what wrappers put before it, unless the network itself has it so."""
    while name not in own and (prefix := next(filter(name.startswith, _PREFIXES), None)):
        name = name.removeprefix(prefix)
    return name


def _read_safetensors(path: Path) -> Mapping[str, Any]:
    try:
        load_file = importlib.import_module("safetensors.torch").load_file
    except ImportError as error:
        raise ImnetprepError(
            "safetensors is not installed", hint="pip install 'imnetprep[timm]'"
        ) from error
    try:
        return dict(load_file(path))
    except PermissionError:
        raise
    except Exception as error:  # it meets foreign bytes with errors of its own kinds
        raise _no_weights(path, error) from error


def _read_pickle(path: Path) -> Mapping[str, Any]:
    try:
        # Checkpoints of torchvision's and timm's scripts hold their options: a table of plain
        # values, whose class runs nothing.
        with torch.serialization.safe_globals([argparse.Namespace]), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about forms that are refused below
            state = torch.load(path, map_location="cpu", weights_only=True)
    except PermissionError:
        raise
    except pickle.UnpicklingError as error:
        if name := _GLOBAL.search(str(error)):
            raise ImnetprepError(
                f"{path} would run {name[1]} when it is read; only tensors and plain values are",
                hint="ask for a file of its state_dict() alone, or one of .safetensors",
            ) from error
        raise _no_weights(path, error) from error
    except Exception as error:  # torch.load meets foreign bytes with almost any exception
        raise _no_weights(path, error) from error
    return state if isinstance(state, Mapping) else {}


def _no_weights(path: Path, error: Exception) -> ImnetprepError:
    return ImnetprepError(
        f"{path} is no file of weights: {type(error).__name__} while reading it",
        hint="a .pth of tensors, or a .safetensors; a file that was cut off is to be fetched again",
    )
