"""What a launch takes: minutes of each stage, USD, each figure with where it is from."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from imnetprep.catalog.datasets import Split
from imnetprep.launching.contents import ARCHIVES, Contents
from imnetprep.launching.facts import MachineType, Price
from imnetprep.recipes.recipe import Recipe

# Boot, updates masked, torch and its CUDA libraries (5.8 GB installed) from the package index.
_INSTALL_MINUTES = (3.0, 6.0)
# docs/benchmarks.md: 4 s of CPU for 2.02 GB from a bucket; and one reader for an MD5.
_ORGANIZED_BYTES_PER_CORE = 500e6
_MD5_BYTES_PER_S = 350e6
# JPEGs of ILSVRC2012 decoded, cropped to 224 px and turned to tensors, by a core.
IMAGES_PER_CORE = 600.0
_GP3_BYTES_PER_S = 125 * (1 << 20)
_HOURS_A_MONTH = 730.0
# The list price of every region since 2024.
ADDRESS_USD = 0.005
# S3 Standard in us-east-1, a GB and month: what stays is told by its order of magnitude.
S3_USD = 0.023
# Parameters, by torchvision's own table; float32, with their momentum and the best weights apart.
_PARAMETERS = {
    "resnet18": 11_689_512,
    "resnet34": 21_797_672,
    "resnet50": 25_557_032,
    "resnet101": 44_549_160,
    "resnet152": 60_192_808,
}
Rates = Mapping[str, float]  # images/s that runs showed, by type


@dataclass(frozen=True)
class Stage:
    """A part of the machine's work: minutes at least and at most (None: unknown), and why so."""

    name: str
    least_minutes: float
    most_minutes: float | None
    reason: str


@dataclass(frozen=True)
class Cost:
    """USD of a launch: at least, at most by today's price, at most by that on demand, which spot
    never exceeds. None: unknown.
    """

    lowest: float | None
    highest: float | None
    ceiling: float | None


def stages(
    contents: Contents,
    recipe: Recipe,
    types: Sequence[MachineType],
    *,
    rates: Rates,
    on_volume: bool,
) -> tuple[Stage, ...]:
    """What the machine does, stage by stage."""
    install = Stage("install", *_INSTALL_MINUTES, "a guess, until a machine has done it")
    return install, _transfer(contents, types), _training(
        contents, recipe, types, rates=rates, on_volume=on_volume
    )  # fmt: skip


def _transfer(contents: Contents, types: Sequence[MachineType]) -> Stage:
    """From the bucket to the disk: the network of the machine, or what its cores can take."""
    size = contents.size_bytes
    slowest = min(
        min(
            each.cores * _ORGANIZED_BYTES_PER_CORE,
            (each.network_gbps or each.network_peak_gbps) * 1e9 / 8,
            _MD5_BYTES_PER_S,
        )
        for each in types
    )
    fastest = max(
        min(each.cores * _ORGANIZED_BYTES_PER_CORE, each.network_peak_gbps * 1e9 / 8)
        for each in types
    )
    verb = "organize" if contents.source == ARCHIVES else "pull"
    rates = [*(each.network_gbps for each in types), *(each.network_peak_gbps for each in types)]
    return Stage(
        f"{verb} from the bucket",
        size / fastest / 60 if fastest else 0.0,
        size / slowest / 60 if slowest else None,
        f"network {min(rates):g} to {max(rates):g} Gb/s",
    )


def _training(
    contents: Contents,
    recipe: Recipe,
    types: Sequence[MachineType],
    *,
    rates: Rates,
    on_volume: bool,
) -> Stage:
    """The epochs that are left: what a run showed on the type, else at best what its cores load."""
    epochs = max(0, recipe.epochs - (contents.epochs or 0))
    images = contents.images(Split.TRAIN)
    if recipe.val and not recipe.val_fraction:  # which is a part of train
        images += contents.images(Split.VAL)
    name = f"{epochs} epochs"
    if speeds := [rates[each.name] for each in types if each.name in rates]:
        is_whole = len(speeds) == len(types)
        rate = " to ".join(dict.fromkeys(f"{each:,.3g}" for each in (min(speeds), max(speeds))))
        return Stage(
            name,
            epochs * images / max(speeds) / 60,
            epochs * images / min(speeds) / 60 if is_whole else None,
            f"{rate} images/s, as earlier runs showed",
        )
    loader = max(each.cores for each in types) * IMAGES_PER_CORE
    reason = f"loader: {loader:,.0f} images/s by its cores; GPU unknown"
    if on_volume and contents.data_bytes:
        volume = _GP3_BYTES_PER_S * images / contents.data_bytes
        if volume < loader:
            loader, reason = volume, f"volume: {volume:,.0f} images/s at 125 MiB/s; GPU unknown"
    return Stage(name, epochs * images / loader / 60, None, reason)


def least_hours(work: Sequence[Stage]) -> float:
    """The hours that all stages take at least."""
    return sum(each.least_minutes for each in work) / 60


def format_hours(hours: float) -> str:
    """`1 min` at least, `119 min`, `14 h`."""
    return f"{hours:.0f} h" if hours >= 2 else f"{max(1.0, 60 * hours):.0f} min"


def cost_of(
    work: Sequence[Stage],
    usd: tuple[float, float] | None,
    demand: tuple[float, float] | None,
    *,
    max_hours: float,
) -> Cost:
    """The cost of all stages, by USD an hour: the lowest and highest of what may be started, and
    of the same on demand.
    """
    ceiling = demand and max_hours * demand[1]
    if usd is None:
        return Cost(None, None, ceiling)
    return Cost(min(max_hours, least_hours(work)) * usd[0], max_hours * usd[1], ceiling)


def hourly(price: Price, *, volume_gib: int, volume_usd: float | None) -> float:
    """USD an hour of the machine, its volume (a GiB and month costs `volume_usd`) and address."""
    return price.usd + volume_gib * (volume_usd or 0.0) / _HOURS_A_MONTH + ADDRESS_USD


def volume_hourly(volume_gib: int, volume_usd: float | None) -> float | None:
    """USD an hour of the volume."""
    return None if volume_usd is None else volume_gib * volume_usd / _HOURS_A_MONTH


def run_bytes(arch: str) -> int | None:
    """What the run will take in the bucket: last.pt with its momentum, and best.pt."""
    parameters = _PARAMETERS.get(arch)
    return None if parameters is None else 3 * 4 * parameters
