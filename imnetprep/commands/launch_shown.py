"""A plan of a launch, printed: each figure with where it is from, or that it is unknown."""

from collections.abc import Iterator
from dataclasses import asdict
from typing import Any

from imnetprep.catalog.datasets import Split
from imnetprep.commands.terminal import is_json, print_note, print_result
from imnetprep.launching.contents import ARCHIVES
from imnetprep.launching.estimate import (
    ADDRESS_USD,
    S3_USD,
    Stage,
    format_hours,
    run_bytes,
    volume_hourly,
)
from imnetprep.launching.facts import Quota
from imnetprep.launching.plan import Forecast, LaunchPlan
from imnetprep.messages import count, format_bytes

_NO_FIGURE = "unknown"


def show_plan(plan: LaunchPlan, forecast: Forecast) -> None:
    """The plan on stdout, and on stderr what is to be known of it."""
    lines = [f"{label:<10}{text}" for label, text in _rows(plan, forecast)]
    print_result(*lines, **_fields(plan, forecast))
    if not is_json():
        for note in forecast.notes(plan):
            print_note(f"note: {note}")


def _rows(plan: LaunchPlan, forecast: Forecast) -> Iterator[tuple[str, str]]:
    orders = plan.orders
    place = f"{orders.address}/runs/{orders.run}"
    yield "run", f"{forecast.recipe.arch} → {place}   ({_state(forecast)})"
    yield "machine", _machine(plan)
    yield "image", f"{plan.image.id} {plan.image.name}"
    yield "disk", _disk(plan, forecast)
    yield "stages", " · ".join(map(_stage, forecast.stages))
    yield "price", _price(plan, forecast)
    yield "cost", _cost(forecast, is_spot=plan.is_spot)
    yield "quota", _quota(forecast.quota)
    size = run_bytes(forecast.recipe.arch)
    stays = f"{format_bytes(size)}, {_usd(size / 1e9 * S3_USD)} a month" if size else "size unknown"
    yield "stays", f"{place} ({stays}). No volume, no machine, no address"


def _state(forecast: Forecast) -> str:
    epochs = forecast.contents.epochs
    if epochs is None:
        return "nothing there yet"
    return f"{epochs} of {forecast.recipe.epochs} epochs there: it resumes"


def _machine(plan: LaunchPlan) -> str:
    types, zones = plan.types, [each.zone for each in plan.subnets]
    way = "spot" if plan.is_spot else "on demand"
    place = zones[0] if len(zones) == 1 else f"{plan.orders.region} any of {len(zones)} zones"
    gpus = " or ".join(dict.fromkeys(each.gpu for each in types))
    vcpus = _span([each.vcpus for each in types])
    cores = _span([each.cores for each in types])
    memory = _span([round(each.memory_bytes / (1 << 30)) for each in types])
    names = " or ".join(each.name for each in types)
    return f"{names}, {way}, {place}: {gpus}, {vcpus} vCPU ({cores} cores), {memory} GB"


def _span(numbers: list[int]) -> str:
    return (
        f"{min(numbers)}" if min(numbers) == max(numbers) else f"{min(numbers)} to {max(numbers)}"
    )


def _disk(plan: LaunchPlan, forecast: Forecast) -> str:
    contents = forecast.contents
    kind = "class folders" if contents.source == ARCHIVES else "shards"
    room = f"{format_bytes(contents.needed_bytes)} ({format_bytes(contents.data_bytes)} of {kind})"
    if forecast.on_volume:
        return f"volume {plan.volume_gib} GiB gp3 holds {room}"
    disk = format_bytes(min(each.disk_bytes for each in plan.types))
    return f"local NVMe {disk} holds {room}; volume {plan.volume_gib} GiB gp3"


def _stage(stage: Stage) -> str:
    least = format_hours(stage.least_minutes / 60)
    if stage.most_minutes is None:
        return f"{stage.name} ≥ {least} ({stage.reason})"
    longest = format_hours(stage.most_minutes / 60)
    span = least if least == longest else f"{least} to {longest}"
    return f"{stage.name} {span} ({stage.reason})"


def _price(plan: LaunchPlan, forecast: Forecast) -> str:
    parts = []
    if plan.is_spot:
        spot = min(
            (each for each in forecast.prices if each.is_spot),
            key=lambda each: each.usd,
            default=None,
        )
        parts.append(
            f"{_usd(spot.usd)}/h spot now for {spot.type_name} in {spot.zone} (its history)"
            if spot
            else f"spot {_NO_FIGURE}"
        )
    demand = [each.usd for each in forecast.prices if not each.is_spot]
    gaps = len(plan.types) - len(demand)
    span = " to ".join(dict.fromkeys(map(_usd, (min(demand), max(demand))))) if demand else ""
    source = "Pricing API" + (f"; {count(gaps, 'type')} {_NO_FIGURE}" if gaps else "")
    parts.append(f"{span}/h on demand ({source})" if demand else f"on demand {_NO_FIGURE}")
    volume = volume_hourly(plan.volume_gib, forecast.volume_usd)
    parts.append(
        f"volume {_NO_FIGURE}" if volume is None else f"volume {_usd(volume)}/h (Pricing API)"
    )
    parts.append(f"IPv4 {_usd(ADDRESS_USD)}/h (list price)")
    return "; ".join(parts)


def _cost(forecast: Forecast, *, is_spot: bool) -> str:
    cost, hours = forecast.cost, format_hours(forecast.max_hours)
    end = f"ends by itself after {hours} whatever happens"
    if cost.highest is None or cost.lowest is None:
        ceiling = (
            f"at most {_usd(cost.ceiling)} at the price on demand" if cost.ceiling else _NO_FIGURE
        )
        return f"{ceiling}: {end}"
    ceiling = ""
    if is_spot:
        text = _NO_FIGURE if cost.ceiling is None else _usd(cost.ceiling)
        ceiling = f" ({text} should spot rise to the price on demand)"
    return f"≥ {_usd(cost.lowest)}; at most {_usd(cost.highest)}{ceiling}: {end}"


def _quota(quota: Quota) -> str:
    name = f"{quota.name.title}, {quota.name.code}" if quota.name.code else quota.name.title
    if quota.free is None or quota.vcpus is None:
        return f"{_NO_FIGURE} ({name}); {quota.in_use} vCPU in use"
    return f"{quota.free:g} of {quota.vcpus:g} vCPU free ({name})"


def _usd(usd: float) -> str:
    """`$11.20`, `$0.005`."""
    return f"${usd:,.2f}" if usd >= 0.095 else f"${usd:.2g}"


def _fields(plan: LaunchPlan, forecast: Forecast) -> dict[str, Any]:
    quota = forecast.quota
    return {
        "run": plan.orders.run,
        "orders": asdict(plan.orders),
        "types": [asdict(each) for each in plan.types],
        "image": asdict(plan.image),
        "zones": [each.zone for each in plan.subnets],
        "is_spot": plan.is_spot,
        "volume_gib": plan.volume_gib,
        "data_on_volume": forecast.on_volume,
        "needed_bytes": forecast.contents.needed_bytes,
        "train_images": forecast.contents.images(Split.TRAIN),
        "epochs_done": forecast.contents.epochs,
        "stages": [asdict(each) for each in forecast.stages],
        "prices": [asdict(each) for each in forecast.prices],
        "volume_usd_per_gib_month": forecast.volume_usd,
        "max_hours": forecast.max_hours,
        "cost_usd": asdict(forecast.cost),
        "quota": {
            "title": quota.name.title,
            "code": quota.name.code,
            "vcpus": quota.vcpus,
            "free": quota.free,
        },
        "notes": list(forecast.notes(plan)),
    }
