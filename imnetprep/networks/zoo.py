"""Published weights of torchvision and timm: tensors, and the pixels that they were trained for."""

import errno
import logging
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor
from torchvision import models

from imnetprep.messages import ImnetprepError, WrongUsage
from imnetprep.networks.architectures import timm_module
from imnetprep.pixels.transforms import Preprocessing
from imnetprep.recipes.recipe import INTERPOLATIONS, TIMM

_WAITS_S = (0, 1, 2)  # before each try to reach the hub
_NO_WAY = (errno.ECONNREFUSED, errno.ENETUNREACH, errno.EHOSTUNREACH)
_HUB_FILES = ("model.safetensors", "pytorch_model.bin")  # as timm looks for them


@dataclass(frozen=True)
class Weights:
    """Tensors by name, where they are from, and the pixels that they want; None: nobody says."""

    source: str
    tensors: dict[str, Tensor]
    preprocessing: Preprocessing | None


def torchvision_weights(arch: str, name: str) -> Weights:
    """Weights that torchvision publishes of `arch`: `IMAGENET1K_V1`, or without a name the best."""
    entries = _entries(arch)
    entry = next((each for each in entries if each.name == name), None)
    if not name and entries:
        entry = models.get_model_weights(arch).DEFAULT
    if entry is None:
        names = " or ".join(f"torchvision:{each.name}" for each in entries)
        raise WrongUsage(
            f"torchvision has no weights {name} of {arch}".replace("  ", " "),
            hint=f"--weights {names or 'FILE'}",
        )
    try:
        with _results_alone():
            tensors = entry.get_state_dict(progress=False, check_hash=True, weights_only=True)
    except (OSError, RuntimeError) as error:
        raise _no_download(f"{entry}", error, place=entry.url) from error
    return Weights(str(entry), tensors, _of_torchvision(entry))


def timm_weights(name: str) -> Weights:
    """Weights that timm publishes of its network `name`, which may say which: `NAME.TAG`."""
    timm = timm_module()
    config = timm.get_pretrained_cfg(name)
    if config is None:
        raise WrongUsage(f"timm has no weights {name}", hint=f"imnetprep archs 'timm:{name[:6]}*'")
    place = f"https://huggingface.co/{config.hf_hub_id}" if config.hf_hub_id else config.url
    try:
        with _results_alone():
            if config.hf_hub_id:
                _require_way_to_hub(config.hf_hub_id)
            tensors = timm.create_model(name, pretrained=True).state_dict()
    except Exception as error:  # clients of hubs have errors of their own kinds
        raise _no_download(f"timm's {name}", error, place=place) from error
    return Weights(f"timm:{name}", tensors, _of_timm(config))


def published_preprocessing(arch: str, path: Path) -> Preprocessing | None:
    """The pixels that `arch` was published for, None: nobody says.

    torchvision has several weights of a network: those of the file's name, else the first.
    """
    if arch.startswith(TIMM):
        return _of_timm(timm_module().get_pretrained_cfg(arch.removeprefix(TIMM)))
    entries = _entries(arch)
    matches = [each for each in entries if Path(each.url).name == path.name]
    return _of_torchvision(next(iter(matches or entries))) if entries else None


def _entries(arch: str) -> list[Any]:
    return list(models.get_model_weights(arch)) if arch in models.list_models(module=models) else []


def _of_torchvision(entry: Any) -> Preprocessing:
    pixels = entry.transforms()
    return Preprocessing(
        pixels.crop_size[0],
        pixels.resize_size[0],
        tuple(pixels.mean),
        tuple(pixels.std),
        interpolation=_filter(pixels.interpolation.value),
    )


def _of_timm(config: Any) -> Preprocessing:
    side = config.input_size[-1]
    resize = int(side / (config.crop_pct or 1))
    name = _filter(config.interpolation)
    return Preprocessing(side, resize, tuple(config.mean), tuple(config.std), interpolation=name)


def _filter(name: str) -> str:
    return name if name in INTERPOLATIONS else INTERPOLATIONS[0]


@contextmanager
def _results_alone() -> Iterator[None]:
    """Keep stdout for results, and stderr free of each try of the hub's client."""
    logger = logging.getLogger("huggingface_hub")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with redirect_stdout(sys.stderr):
            yield
    finally:
        logger.setLevel(level)


def _require_way_to_hub(repository: str) -> None:
    """Raise OSError where there is no way to the hub, and its files are not in the cache.

    Its client tries each file for half a minute, whatever is in the way. A slow answer is left to
    it, and so is any answer.
    """
    from huggingface_hub import get_hf_file_metadata, hf_hub_url, try_to_load_from_cache

    if any(isinstance(try_to_load_from_cache(repository, name), str) for name in _HUB_FILES):
        return
    for wait_s in _WAITS_S:
        time.sleep(wait_s)
        try:
            get_hf_file_metadata(hf_hub_url(repository, _HUB_FILES[0]))
            return
        except Exception as error:  # of the client that it is made of
            cause = _first_cause(error)
            is_cut_off = isinstance(cause, OSError) and cause.errno in _NO_WAY
            if not is_cut_off and not isinstance(cause, socket.gaierror):
                return
    raise cause


def _first_cause(error: BaseException) -> BaseException:
    while cause := error.__cause__ or error.__context__:
        error = cause
    return error


def _no_download(name: str, error: BaseException, *, place: str | None) -> ImnetprepError:
    error = _first_cause(error)
    reason = " ".join(str(error).split()) or type(error).__name__
    return ImnetprepError(
        f"{name} cannot be downloaded: {reason:.200}",
        hint=f"get the file from {place} elsewhere, then --weights FILE",
    )
