"""What AWS says of machines, images, subnets, prices and quotas: the facts of a plan."""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from imnetprep.launching.aws import Aws
from imnetprep.launching.refusals import QuotaName, quota_name
from imnetprep.launching.tags import TAG, tags_of
from imnetprep.messages import ImnetprepError, SourceFailed, WrongUsage

IMAGE_SERIES = "base-oss-nvidia-driver-gpu-ubuntu-24.04"
_PARAMETER = f"/aws/service/deeplearning/ami/x86_64/{IMAGE_SERIES}/latest/ami-id"
# The open kernel modules of NVIDIA's driver, which that image has, need Turing or later.
_OLD_GPUS = ("K520", "K80", "M60", "V100")
_MIB, _GB = 1 << 20, 10**9


@dataclass(frozen=True)
class MachineType:
    """A type of machine; `disk_bytes` of NVMe in it, 0: none; network in Gb/s, EBS in bytes/s."""

    name: str
    vcpus: int
    cores: int
    memory_bytes: int
    gpus: int
    gpu_name: str
    gpu_bytes: int
    disk_bytes: int
    network_gbps: float
    network_peak_gbps: float
    ebs_bytes_per_s: float

    @property
    def gpu(self) -> str:
        """`A10G 24 GB`, `8 × A100 40 GB`, or that there is none."""
        if not self.gpus:
            return "no GPU"
        several = f"{self.gpus} × " if self.gpus > 1 else ""
        return f"{several}{self.gpu_name} {self.gpu_bytes / _GB:.0f} GB"


@dataclass(frozen=True)
class Image:
    """The image of a machine's disk, resolved to one id, so that each machine gets the same."""

    id: str
    name: str
    root_device: str
    size_gib: int


@dataclass(frozen=True)
class Subnet:
    """A subnet of the default VPC, which is in one zone."""

    id: str
    zone: str


@dataclass(frozen=True)
class Price:
    """USD for an hour of a machine of that type; `zone`: "" where it is one price in all."""

    type_name: str
    zone: str
    usd: float
    is_spot: bool


@dataclass(frozen=True)
class Quota:
    """How many vCPUs may run, and how many do; None where AWS does not say."""

    name: QuotaName
    vcpus: float | None
    in_use: int

    @property
    def free(self) -> float | None:
        """The vCPUs that may still be started."""
        return None if self.vcpus is None else max(0.0, self.vcpus - self.in_use)


def read_types(
    aws: Aws, names: Sequence[str], *, needs_gpu: bool, is_spot: bool
) -> tuple[MachineType, ...]:
    """What those types have, in their order. Raises WrongUsage where one cannot run a training."""
    # By their names alone, AWS refuses all where it has not one of them.
    answers = aws.items(
        "ec2", "describe_instance_types", "InstanceTypes", Filters=[_filter("instance-type", names)]
    )
    tables = {each["InstanceType"]: each for each in answers}
    for name in names:
        problem = (
            _problem(tables[name], needs_gpu=needs_gpu, is_spot=is_spot)
            if name in tables
            else f"{aws.region} has no such type"
        )
        if problem:
            series = name.partition(".")[0]
            raise WrongUsage(
                f"--instance {name}: {problem}",
                hint="g4dn, g5, g6, g6e and p4d have what a training needs; aws ec2"
                f" describe-instance-types --region {aws.region} --filters"
                f" Name=instance-type,Values='{series if name in tables else 'g*'}.*' lists more",
            )
    return tuple(_parse_type(tables[name]) for name in names)


def _problem(table: Mapping[str, Any], *, needs_gpu: bool, is_spot: bool) -> str | None:
    """Why a machine of that type cannot run a training as we launch it; None where it can."""
    gpus = table.get("GpuInfo", {}).get("Gpus", [])
    if "x86_64" not in table["ProcessorInfo"]["SupportedArchitectures"]:
        return "its cores are arm64, and the image of the launch is x86_64"
    if not needs_gpu:
        pass
    elif not gpus:
        return "it has no GPU (train --device cpu would need none)"
    elif gpus[0].get("Manufacturer") != "NVIDIA":
        return f"its GPU is of {gpus[0].get('Manufacturer')}, and training needs one of NVIDIA"
    elif gpus[0].get("Count", 0) < 1:
        part = gpus[0].get("GpuPartitionSize", 0)
        return f"it has a part of a GPU ({part:g} of {gpus[0]['Name']}), not a whole one"
    elif gpus[0]["Name"] in _OLD_GPUS:
        return f"its {gpus[0]['Name']} is older than the driver of the image supports"
    way = "spot" if is_spot else "on-demand"
    if way not in table.get("SupportedUsageClasses", [way]):
        return f"EC2 has none {'as spot (--on-demand takes one)' if is_spot else 'on demand'}"
    return None


def _parse_type(table: Mapping[str, Any]) -> MachineType:
    name, cpus = table["InstanceType"], table["VCpuInfo"]
    gpus = table.get("GpuInfo", {}).get("Gpus", [])
    network = table.get("NetworkInfo", {}).get("NetworkCards", [])
    ebs = table.get("EbsInfo", {}).get("EbsOptimizedInfo", {})
    return MachineType(
        name=name,
        vcpus=cpus["DefaultVCpus"],
        cores=cpus.get("DefaultCores", max(1, cpus["DefaultVCpus"] // 2)),
        memory_bytes=table["MemoryInfo"]["SizeInMiB"] * _MIB,
        gpus=sum(each.get("Count", 0) for each in gpus),
        gpu_name=gpus[0]["Name"] if gpus else "",
        gpu_bytes=gpus[0].get("MemoryInfo", {}).get("SizeInMiB", 0) * _MIB if gpus else 0,
        disk_bytes=table.get("InstanceStorageInfo", {}).get("TotalSizeInGB", 0) * _GB,
        network_gbps=sum(each.get("BaselineBandwidthInGbps", 0) for each in network),
        network_peak_gbps=sum(each.get("PeakBandwidthInGbps", 0) for each in network),
        ebs_bytes_per_s=ebs.get("BaselineThroughputInMBps", 0) * 1e6,
    )


def read_image(aws: Aws) -> Image:
    """The newest image of the series, by its id: later ones do not change a launch."""
    parameter = aws.call("ssm", "get_parameter", Name=_PARAMETER)["Parameter"]["Value"]
    images = aws.call("ec2", "describe_images", ImageIds=[parameter])["Images"]
    if not images:
        raise SourceFailed(
            f"{aws.region} has no image {parameter}", hint="another --region, or run it again later"
        )
    table = images[0]
    sizes = [
        each["Ebs"].get("VolumeSize", 0)
        for each in table["BlockDeviceMappings"]
        if each.get("DeviceName") == table["RootDeviceName"] and "Ebs" in each
    ]
    return Image(table["ImageId"], table["Name"], table["RootDeviceName"], max(sizes, default=0))


def read_subnets(
    aws: Aws, types: Iterable[str], *, zone: str | None
) -> tuple[str, tuple[Subnet, ...]]:
    """The default VPC, and its subnets in zones that have one of `types`; `zone`: in that alone.

    Raises ImnetprepError where there is none.
    """
    tables = list(
        aws.items(
            "ec2", "describe_subnets", "Subnets", Filters=[_filter("default-for-az", ["true"])]
        )
    )
    if not tables:
        raise SourceFailed(
            f"{aws.region} has no default VPC, and so no subnet for the machine",
            hint=f"aws ec2 create-default-vpc --region {aws.region} makes one, which costs nothing",
        )
    subnets = [
        Subnet(each["SubnetId"], each["AvailabilityZone"])
        for each in sorted(tables, key=lambda table: str(table["AvailabilityZone"]))
    ]
    offers = aws.items(
        "ec2", "describe_instance_type_offerings", "InstanceTypeOfferings",
        LocationType="availability-zone", Filters=[_filter("instance-type", types)],
    )  # fmt: skip
    zones = {each["Location"] for each in offers}
    usable = tuple(each for each in subnets if each.zone in zones and zone in (None, each.zone))
    if not usable:
        place = zone or aws.region
        raise WrongUsage(
            f"{place} has no {' and no '.join(types)} beside a subnet of the default VPC",
            hint=f"--zone {' or '.join(sorted(zones & {each.zone for each in subnets}))}"
            if zone and zones
            else "name another type by --instance, or another --region",
        )
    return str(tables[0]["VpcId"]), usable


def _filter(name: str, values: Iterable[str]) -> Mapping[str, Any]:
    return {"Name": name, "Values": [*values]}


def read_spot_prices(
    aws: Aws, types: Sequence[str], zones: Iterable[str], *, at: datetime
) -> tuple[Price, ...]:
    """What spot costs now, by type and zone; none where AWS does not say."""
    zone_names = frozenset(zones)
    try:
        rows = [
            *aws.items(
                "ec2", "describe_spot_price_history", "SpotPriceHistory", InstanceTypes=[*types],
                ProductDescriptions=["Linux/UNIX"], StartTime=at, EndTime=at,
            )
        ]  # fmt: skip
    except SourceFailed:
        return ()
    newest: dict[tuple[str, str], Price] = {}
    for each in sorted(rows, key=lambda row: row["Timestamp"]):
        name, zone = each["InstanceType"], each["AvailabilityZone"]
        if zone in zone_names:
            newest[name, zone] = Price(name, zone, float(each["SpotPrice"]), is_spot=True)
    return tuple(newest.values())


def read_on_demand_prices(aws: Aws, types: Iterable[str]) -> tuple[Price, ...]:
    """What the types cost on demand in the region, of the Pricing API; none where it fails."""
    prices = []
    for name in types:
        filters = {
            "instanceType": name,
            "operatingSystem": "Linux",
            "tenancy": "Shared",
            "preInstalledSw": "NA",
            "capacitystatus": "Used",
        }
        usd = _read_price(aws, filters, unit="Hrs")
        if usd is not None:
            prices.append(Price(name, "", usd, is_spot=False))
    return tuple(prices)


def read_volume_price(aws: Aws) -> float | None:
    """USD for a GiB of gp3 and a month; None where the Pricing API does not say."""
    filters = {"productFamily": "Storage", "volumeApiName": "gp3"}
    return _read_price(aws, filters, unit="GB-Mo")


def _read_price(aws: Aws, filters: Mapping[str, str], *, unit: str) -> float | None:
    fields = {"regionCode": aws.region, **filters}
    matches = [{"Type": "TERM_MATCH", "Field": key, "Value": fields[key]} for key in fields]
    try:
        answer = aws.call("pricing", "get_products", ServiceCode="AmazonEC2", Filters=matches)
        prices = [
            float(dimension["pricePerUnit"]["USD"])
            for each in answer["PriceList"]
            for term in json.loads(each)["terms"].get("OnDemand", {}).values()
            for dimension in term["priceDimensions"].values()
            if dimension.get("unit") == unit
        ]
    except (ImnetprepError, ValueError, KeyError):
        return None  # a price is told as unknown, and stops no launch
    return min((each for each in prices if each > 0), default=None)


def read_quota(aws: Aws, type_name: str, *, is_spot: bool, run: str | None = None) -> Quota:
    """The quota that a machine of that type counts against, and what runs of it by now.

    A machine of `run` is not counted: launching the run again starts no second one.
    """
    name = quota_name(type_name, is_spot=is_spot)
    vcpus = None
    if name.code is not None:
        try:
            answer = aws.call(
                "service-quotas", "get_service_quota", ServiceCode="ec2", QuotaCode=name.code
            )
            vcpus = float(answer["Quota"]["Value"])
        except SourceFailed:
            vcpus = None
    return Quota(name, vcpus, _vcpus_in_use(aws, name, is_spot=is_spot, run=run))


def _vcpus_in_use(aws: Aws, name: QuotaName, *, is_spot: bool, run: str | None) -> int:
    states = _filter("instance-state-name", ["pending", "running"])
    machines = [
        each
        for group in aws.items("ec2", "describe_instances", "Reservations", Filters=[states])
        for each in group["Instances"]
        if (each.get("InstanceLifecycle") == "spot") is is_spot
        and quota_name(each["InstanceType"], is_spot=is_spot) == name
        and (run is None or tags_of(each).get(TAG) != run)
    ]
    names = sorted({each["InstanceType"] for each in machines})
    if not names:
        return 0
    vcpus = {
        each["InstanceType"]: int(each["VCpuInfo"]["DefaultVCpus"])
        for each in aws.items(
            "ec2", "describe_instance_types", "InstanceTypes", InstanceTypes=names
        )
    }
    return sum(vcpus[each["InstanceType"]] for each in machines)
