"""What a machine showed in a measurement, and the time that a training takes by it."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, NamedTuple

from imnetprep.plain_values import real_number, table, whole_number

_SMALLEST = 1e-6  # images/s


class Rate(NamedTuple):
    """Images/s with crops of `side_px`."""

    side_px: int
    images_per_s: float


class Gain(NamedTuple):
    """How much faster one core decodes and crops an image whose short side is `side_px`.

    `ratio`: to the images of the root as they are; of so many `images`.
    """

    side_px: int
    ratio: float
    images: int


@dataclass(frozen=True)
class Rates:
    """Images/s of the `step` alone and the `loader` alone, at the first and the last crop size.

    `end_to_end` is of both together at the last size, `wait_share` the share of its time in which
    the step waited for data; `validation` of a whole pass, `cache` the share of the images that lay
    in the page cache before they were read. None: not measured. `step_images`: of a measured step.
    `busy_cores`: of other programs at that time. `fetch`: of train shards that came from elsewhere.
    """

    step: tuple[Rate, ...]
    step_images: int
    loader: tuple[Rate, ...] = ()
    end_to_end: float | None = None
    wait_share: float | None = None
    validation: float | None = None
    gain: Gain | None = None
    cache: float | None = None
    busy_cores: float = 0.0
    fetch: float | None = None

    def as_json(self) -> dict[str, Any]:
        """The fields, each rate and gain as a table."""
        return asdict(self) | {
            "step": [each._asdict() for each in self.step],
            "loader": [each._asdict() for each in self.loader],
            "gain": self.gain and self.gain._asdict(),
        }

    def training(self, side_px: int) -> float | None:
        """Images/s of a training with crops of `side_px`; None without a loader.

        At another size than the last one: the slower of loader and step, by as much less as both
        together lacked at the last.
        """
        if self.end_to_end is None:
            return None
        slowest, last = (
            min(_rate_at(self.loader, side), _rate_at(self.step, side))
            for side in (side_px, self.step[-1].side_px)
        )
        return self.end_to_end * slowest / last


class Duration(NamedTuple):
    """Seconds of a training: its last epoch, the validation in it, and all epochs."""

    epoch_s: float
    validation_s: float
    total_s: float


def duration(
    rates: Rates,
    sides_px: Sequence[int],
    *,
    train_images: int,
    val_images: int,
    fetched_epochs: int = 0,
) -> Duration | None:
    """The time of epochs with crops of `sides_px`, each validated on `val_images`.

    In so many of the first epochs images are no faster than their shards come. None where the rates
    lack what it takes.
    """
    epochs = [rates.training(side) for side in sides_px]
    speeds = [rate for rate in epochs if rate]
    if not speeds or len(speeds) < len(epochs) or (val_images and not rates.validation):
        return None
    validations_s, seconds = list[float](), list[float]()
    for epoch, rate in enumerate(speeds):
        limit = (epoch < fetched_epochs and rates.fetch) or math.inf
        validations_s.append(val_images / min(rates.validation, limit) if rates.validation else 0.0)
        seconds.append(train_images / min(rate, limit) + validations_s[-1])
    return Duration(seconds[-1], validations_s[-1], sum(seconds))


def format_rate(rate: float) -> str:
    """Three digits of images/s: `2,600`, `61.2`."""
    return f"{float(f'{rate:.3g}'):,.{max(0, 2 - int(math.log10(max(rate, 1))))}f}"


def parse_rates(value: object) -> Rates:
    """The rates in a table that anybody may have written. Raises ValueError, KeyError."""
    fields = table(value)
    step, gain = _parse_points(fields["step"]), fields["gain"]
    if not step:
        raise ValueError("there is no rate of a step")
    return Rates(
        step,
        whole_number(fields["step_images"], least=1),
        _parse_points(fields["loader"]),
        _optional(fields["end_to_end"]),
        _optional(fields["wait_share"], least=0, limit=1),
        _optional(fields["validation"]),
        None if gain is None else _parse_gain(table(gain)),
        _optional(fields["cache"], least=0, limit=1),
        real_number(fields["busy_cores"], least=0),
        _optional(fields["fetch"]),
    )


def _rate_at(points: Sequence[Rate], side_px: int) -> float:
    """The rate at `side_px`: between two points seconds an image grow with its pixels."""
    (first, slow), (last, fast) = points[0], points[-1]
    if first == last:
        return fast
    way = (side_px**2 - first**2) / (last**2 - first**2)
    return 1 / (1 / slow + way * (1 / fast - 1 / slow))


def _parse_points(value: object) -> tuple[Rate, ...]:
    if not isinstance(value, list):
        raise ValueError(f"{value!r:.40} is no list")
    points = tuple(
        Rate(
            whole_number(each["side_px"], least=1),
            real_number(each["images_per_s"], least=_SMALLEST),
        )
        for each in map(table, value)
    )
    if len(points) > 2 or points != tuple(sorted(points)):
        raise ValueError(f"{len(points)} rates are not of a first and a last size")
    return points


def _parse_gain(fields: Mapping[str, Any]) -> Gain:
    return Gain(
        whole_number(fields["side_px"], least=1),
        real_number(fields["ratio"], least=_SMALLEST),
        whole_number(fields["images"], least=1),
    )


def _optional(
    value: object, *, least: float = _SMALLEST, limit: float = float("inf")
) -> float | None:
    return None if value is None else real_number(value, least=least, limit=limit)
