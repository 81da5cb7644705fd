"""The plan of a launch: a value that says all, decided before anything is done."""

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime

from imnetprep import __version__
from imnetprep.launching.aws import Aws
from imnetprep.launching.contents import Contents, read_contents, read_rates, require_near
from imnetprep.launching.estimate import (
    Cost,
    Stage,
    cost_of,
    format_hours,
    hourly,
    least_hours,
    stages,
)
from imnetprep.launching.facts import (
    Image,
    MachineType,
    Price,
    Quota,
    Subnet,
    read_image,
    read_on_demand_prices,
    read_quota,
    read_spot_prices,
    read_subnets,
    read_types,
    read_volume_price,
)
from imnetprep.launching.orders import SAVED_BEFORE_S, Orders
from imnetprep.messages import ImnetprepError, WrongUsage, format_bytes
from imnetprep.recipes.recipe import Recipe
from imnetprep.s3.address import S3Address, Settings
from imnetprep.s3.bucket import Bucket

_GIB = 1 << 30
# Torch with its CUDA libraries takes 5.8 GB, and as much again while it is installed.
_INSTALLED_GIB = 15
_LARGEST_VOLUME_GIB = 65_536
# Of a file system, for its own tables and for root alone.
_FILE_SYSTEM_SHARE = 1.07
_SAVED_BEFORE_HOURS = SAVED_BEFORE_S / 3600
PUSH_S, LEASE_S, STARTS = 120.0, 300.0, 3


@dataclass(frozen=True)
class Wish:
    """What was asked for: `command` is the verb with its options, `layout` and `recipe` as it says.

    `zone`, `volume_gib`, `max_cost`: None where nothing was said. `wheel`: its name and bytes.
    """

    address: S3Address
    run: str
    command: tuple[str, ...]
    layout: str | None
    recipe: Recipe
    needs_gpu: bool
    dataset: str | None
    types: tuple[str, ...]
    is_spot: bool
    zone: str | None
    volume_gib: int | None
    max_hours: float
    max_cost: float | None
    keep_minutes: int
    wheel: tuple[str, bytes]
    endpoint_url: str | None
    role: str
    creates_role: bool


@dataclass(frozen=True)
class LaunchPlan:
    """What a launch makes, by which orders; nothing is done yet.

    `files`: what the machine finds beside its orders under `launches/RUN/`, by name: the wheel, and
    `dataset/…`. `settings`: how the bucket is reached from here. `subnets`: where the group may
    start a machine. `volume_gib`: of the root volume. `role`: the name of the machine's role and of
    its instance profile, which `creates_role` makes where it is absent. `usd_per_hour`: the highest
    price of what may be started, volume and address in it; None: unknown. Its user data are
    `user_data(orders)`.
    """

    orders: Orders
    files: Mapping[str, bytes]
    settings: Settings
    types: tuple[MachineType, ...]
    image: Image
    vpc: str
    subnets: tuple[Subnet, ...]
    is_spot: bool
    volume_gib: int
    role: str
    creates_role: bool
    usd_per_hour: float | None


@dataclass(frozen=True)
class Forecast:
    """What a launch takes: data and stages, prices and quota, by the `recipe` of its training.

    `on_volume`: the data lie on the root volume, since a type's own disk is too small. `prices`:
    spot ones and those on demand; `volume_usd`: of a GiB and month, None: unknown.
    """

    contents: Contents
    recipe: Recipe
    stages: tuple[Stage, ...]
    on_volume: bool
    max_hours: float
    prices: tuple[Price, ...]
    volume_usd: float | None
    cost: Cost
    quota: Quota

    def notes(self, plan: LaunchPlan) -> Iterator[str]:
        """What is to be known before it is launched."""
        words = " ".join(plan.orders.command)
        for each in plan.types:
            if each.gpus > 1 and "--devices" not in words:
                yield (
                    f"{each.name} has {each.gpus} GPUs, and training uses one of them: train"
                    f" --devices {each.gpus} uses all"
                )
        if (hours := least_hours(self.stages)) + _SAVED_BEFORE_HOURS > self.max_hours:
            yield (
                f"all of it takes {format_hours(hours)} at least:"
                f" after {format_hours(self.max_hours)} it is saved as far as it came;"
                " launched again it resumes"
            )

    def require(self, plan: LaunchPlan) -> None:
        """Raise ImnetprepError where no machine would start, or none would come to the training."""
        before_training = least_hours(self.stages[:-1]) + _SAVED_BEFORE_HOURS
        if before_training >= self.max_hours:
            raise WrongUsage(
                f"after {format_hours(self.max_hours)} it ends before anything is trained:"
                " installation, data and the last save take"
                f" {format_hours(before_training)} at least",
                hint="a larger --max-hours or --max-cost",
            )
        free, least = self.quota.free, min(each.vcpus for each in plan.types)
        if free is not None and free < least:
            name, region = self.quota.name, plan.orders.region
            raise ImnetprepError(
                f"{least} vCPU are needed, and {free:g} of {self.quota.vcpus:g} are free in"
                f" {region} ({name.title}, {name.code})",
                hint=f"ask for a higher quota, which takes hours or days: {name.page(region)}",
            )


def plan_launch(
    wish: Wish, aws: Aws, bucket: Bucket, *, at: datetime
) -> tuple[LaunchPlan, Forecast]:
    """Read what there is, decide all, and do nothing. Raises ImnetprepError."""
    if bucket.settings.endpoint_url is None:
        require_near(bucket, wish.address, aws.region)
    contents = read_contents(
        bucket, wish.address, dataset_name=wish.dataset, layout=wish.layout, run=wish.run
    )
    types = read_types(aws, wish.types, needs_gpu=wish.needs_gpu, is_spot=wish.is_spot)
    image = read_image(aws)
    vpc, subnets = read_subnets(aws, wish.types, zone=wish.zone)
    least_gib, on_volume = volume_for(contents.needed_bytes, types, image)
    volume_gib = _volume_gib(wish, least_gib, contents, on_volume=on_volume)
    zones = [each.zone for each in subnets]
    spot = read_spot_prices(aws, wish.types, zones, at=at) if wish.is_spot else ()
    prices = (*spot, *read_on_demand_prices(aws, wish.types))
    volume_usd = read_volume_price(aws)
    usd = _hourly(prices, volume_gib, volume_usd, is_spot=wish.is_spot)
    max_hours = _hours(wish, usd)
    rates = read_rates(bucket, wish.address, wish.recipe, wish.types)
    work = stages(contents, wish.recipe, types, rates=rates, on_volume=on_volume)
    plan = LaunchPlan(
        orders=_orders(wish, contents, aws.region, at=at, max_hours=max_hours),
        files=_files(wish, contents),
        settings=bucket.settings,
        types=types,
        image=image,
        vpc=vpc,
        subnets=subnets,
        is_spot=wish.is_spot,
        volume_gib=volume_gib,
        role=wish.role,
        creates_role=wish.creates_role,
        usd_per_hour=usd and usd[1],
    )
    demand = _hourly(prices, volume_gib, volume_usd, is_spot=False)
    forecast = Forecast(
        contents=contents,
        recipe=wish.recipe,
        stages=work,
        on_volume=on_volume,
        max_hours=max_hours,
        prices=prices,
        volume_usd=volume_usd,
        cost=cost_of(work, usd, demand, max_hours=max_hours),
        quota=read_quota(aws, types[0].name, is_spot=wish.is_spot, run=wish.run),
    )
    return plan, forecast


def volume_for(data_bytes: int, types: tuple[MachineType, ...], image: Image) -> tuple[int, bool]:
    """GiB that the root volume needs, and whether the data lie on it: where the disk of one of the
    types is too small.
    """
    room = int(data_bytes * _FILE_SYSTEM_SHARE)
    on_volume = any(each.disk_bytes < room for each in types)
    return image.size_gib + _INSTALLED_GIB + on_volume * -(-room // _GIB), on_volume


def _volume_gib(wish: Wish, least_gib: int, contents: Contents, *, on_volume: bool) -> int:
    """The size of the volume as asked for, or as needed. Raises WrongUsage where it cannot be."""
    volume_gib = wish.volume_gib or least_gib
    if volume_gib < least_gib:
        data = f" and {format_bytes(contents.needed_bytes)} of data" if on_volume else ""
        raise WrongUsage(
            f"--volume {volume_gib} is too small for image and packages{data}",
            hint=f"--volume {least_gib}, or leave it out",
        )
    if volume_gib > _LARGEST_VOLUME_GIB:
        raise WrongUsage(
            f"a volume of {volume_gib:,} GiB is larger than gp3 can be ({_LARGEST_VOLUME_GIB:,})",
            hint="name types with larger disks of their own by --instance",
        )
    return volume_gib


def _hourly(
    prices: tuple[Price, ...], volume_gib: int, volume_usd: float | None, *, is_spot: bool
) -> tuple[float, float] | None:
    usd = [
        hourly(each, volume_gib=volume_gib, volume_usd=volume_usd)
        for each in prices
        if each.is_spot is is_spot
    ]
    return (min(usd), max(usd)) if usd else None


def _hours(wish: Wish, usd: tuple[float, float] | None) -> float:
    """--max-hours, or fewer by --max-cost. Raises WrongUsage where no price is known for that."""
    if wish.max_cost is None:
        return wish.max_hours
    if usd is None:
        raise WrongUsage(
            "--max-cost needs a price, and AWS says none for these types",
            hint="--max-hours bounds the launch without one",
        )
    return min(wish.max_hours, wish.max_cost / usd[1])


def _files(wish: Wish, contents: Contents) -> dict[str, bytes]:
    dataset = {f"dataset/{name}": body for name, body in contents.files.items()}
    return {wish.wheel[0]: wish.wheel[1], **dataset}


def _orders(
    wish: Wish, contents: Contents, region: str, *, at: datetime, max_hours: float
) -> Orders:
    return Orders(
        run=wish.run,
        address=str(wish.address),
        command=wish.command,
        region=region,
        types=wish.types,
        endpoint_url=wish.endpoint_url,
        source=contents.source,
        dataset=contents.dataset_name,
        dataset_files=tuple(contents.files),
        wheel=wish.wheel[0],
        wheel_sha256=hashlib.sha256(wish.wheel[1]).hexdigest(),
        version=__version__,
        needed_bytes=contents.needed_bytes,
        needs_gpu=wish.needs_gpu,
        deadline=float(int(at.timestamp() + 3600 * max_hours)),
        keep_minutes=wish.keep_minutes,
        push_s=PUSH_S,
        lease_s=LEASE_S,
        starts=STARTS,
    )
