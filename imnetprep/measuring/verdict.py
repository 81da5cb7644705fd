"""The verdict of a measurement: what holds a training back, and what would help."""

import math
from collections.abc import Iterator

from imnetprep.measuring.rates import Rates, format_rate

PAYS = 1.1  # as many times as fast as now: less is noise


def verdict(rates: Rates, *, device: str, cores: int, workers: int, needed_bytes: int = 0) -> str:
    """What holds a training on `device` back, in words.

    `workers` processes on `cores` read images: 0 means that the training itself does.
    `needed_bytes`: what a cache takes that holds all shards, where they come in each epoch.
    """
    step = rates.step[-1].images_per_s
    if not rates.loader or rates.end_to_end is None:
        return f"{device} alone: it wants {format_rate(step)} images/s; no images were read"
    loader, end_to_end = rates.loader[-1].images_per_s, rates.end_to_end
    if needed_bytes and rates.fetch and rates.fetch < min(loader, step):
        return (
            f"fetch-bound: shards come at {format_rate(rates.fetch)} images/s, the loader gives"
            f" {format_rate(loader)}, {device} wants {format_rate(step)};"
            f" --cache-size {format_cache_size(needed_bytes)} has them come once"
        )
    if loader < step:
        readers = _readers(cores, workers)
        remedies = "".join(
            f"{', or' * (at > 0) or ';'} {remedy}"
            for at, remedy in enumerate(_remedies(rates, device, cores=cores, workers=workers))
        )
        return (
            f"loader-bound: {readers} give {format_rate(loader)} images/s,"
            f" {device} wants {format_rate(step)}{remedies}"
        )
    text = (
        f"device-bound: {device} takes {format_rate(step)} images/s,"
        f" the loader gives {format_rate(loader)} ({format_times(loader / step)} as many)"
    )
    if end_to_end * PAYS < step:
        is_shared = device == "cpu" or workers >= cores
        text += f"; together {format_rate(end_to_end)}{': they share the cores' * is_shared}"
    return text


def _readers(cores: int, workers: int) -> str:
    if workers == 0:
        return "images read without --workers"
    number, noun = min(cores, workers), "core" if workers >= cores else "worker"
    return f"{number} {noun}{'s' * (number > 1)}"


def _remedies(rates: Rates, device: str, *, cores: int, workers: int) -> Iterator[str]:
    """`organize --resize 256: 2.4 ×`, `9 cores`: what would make the loader fast enough."""
    step, loader = rates.step[-1].images_per_s, rates.loader[-1].images_per_s
    if (gain := rates.gain) and gain.ratio >= PAYS:
        yield f"organize --resize {gain.side_px}: {format_times(gain.ratio)}"
    if device != "cpu":  # which would take more images by more cores as well
        readers = math.ceil(step / loader * max(1, min(cores, workers)))
        yield f"--workers {readers}" if readers <= cores else f"{readers} cores"


def format_cache_size(needed_bytes: int) -> str:
    """A size as --cache-size takes it, of `needed_bytes` or a little more."""
    return f"{math.ceil(needed_bytes / 10**6)}MB"


def format_times(ratio: float) -> str:
    """`2.4 ×`, `63 ×`."""
    return f"{ratio:.1f} ×" if ratio < 10 else f"{ratio:,.0f} ×"
