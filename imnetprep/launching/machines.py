"""The launches that there are, as AWS and the bucket have them: what each does, and how it ends."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from imnetprep.launching.aws import Aws
from imnetprep.launching.folder import Ending, Event, LaunchFolder, Lease
from imnetprep.launching.pace import Pace, read_pace
from imnetprep.launching.refusals import explain
from imnetprep.launching.tags import PLACE_TAG, TAG, has_both, tags_of
from imnetprep.messages import ImnetprepError, format_duration, shell_command

# A machine that is gone is listed for an hour.
_LIVE_STATES = ("pending", "running", "stopping", "stopped", "shutting-down")
OUR_TAG = {"Name": "tag-key", "Values": [PLACE_TAG]}
LATEST_EVENTS = 8


@dataclass(frozen=True)
class Machine:
    """A machine of EC2; `launched_at`: Unix time."""

    id: str
    type: str
    zone: str
    state: str
    is_spot: bool
    launched_at: float

    def __str__(self) -> str:
        way = "spot" if self.is_spot else "on demand"
        return f"{self.id} {self.type} {way} {self.zone}"


@dataclass(frozen=True)
class Story:
    """What the bucket says of a launch; `failure`: why it says nothing, and what to do.

    `launched_at`: Unix time; `usd_per_hour`: the most that its machine takes, None: unknown.
    """

    deadline: float | None = None
    launched_at: float | None = None
    usd_per_hour: float | None = None
    events: tuple[Event, ...] = ()
    lease: Lease | None = None
    ending: Ending | None = None
    is_stop_requested: bool = False
    last_line: str | None = None
    pace: Pace | None = None
    failure: tuple[str, str] | None = None

    def usd_at_most(self, *, moment: float) -> float | None:
        """What the machines took until `moment` if there was one all the time; None: unknown."""
        if self.usd_per_hour is None or self.launched_at is None or self.deadline is None:
            return None
        end = min(moment, self.deadline, self.ending.at if self.ending is not None else moment)
        return self.usd_per_hour * max(0.0, end - self.launched_at) / 3600


@dataclass(frozen=True)
class Launch:
    """What AWS says of a launch. `capacity`: how many machines its group asks for; None: no group.

    `obstacle`: why the group got no machine, and what to do, where it asks for one in vain.
    """

    run: str
    address: str
    capacity: int | None
    machines: tuple[Machine, ...]
    obstacle: tuple[str, str] | None

    @property
    def is_alive(self) -> bool:
        """Is there a machine, or will there be one?"""
        return bool(self.capacity or self.machines)


def launches(aws: Aws) -> list[Launch]:
    """All launches of which AWS has a group or a machine, by name."""
    machines: dict[tuple[str, str], list[Machine]] = {}
    for each in tagged_instances(aws):
        tags = tags_of(each)
        machines.setdefault((tags[TAG], tags[PLACE_TAG]), []).append(_machine(each))
    found = []
    for group in tagged_groups(aws):
        tags = tags_of(group)
        place = tags[TAG], tags[PLACE_TAG]
        capacity, own = group["DesiredCapacity"], tuple(machines.pop(place, ()))
        obstacle = _obstacle(aws, group) if capacity and not own else None
        found.append(Launch(*place, capacity, own, obstacle))
    found += [Launch(*place, None, tuple(rest), None) for place, rest in machines.items()]
    return sorted(found, key=lambda launch: (launch.run, launch.address))


def find_launch(aws: Aws, run: str) -> Launch:
    """The launch of that name. Raises ImnetprepError."""
    names = []
    for each in launches(aws):
        if each.run == run:
            return each
        names.append(each.run)
    raise ImnetprepError(
        f"AWS has no launch {run} in {aws.region}",
        hint=f"there are {', '.join(names)}" if names else "--region names another region",
    )


def tagged_groups(aws: Aws) -> list[Any]:
    """The groups that carry both tags of ours."""
    groups = aws.items(
        "autoscaling", "describe_auto_scaling_groups", "AutoScalingGroups", Filters=[OUR_TAG]
    )
    return [each for each in groups if has_both(tags_of(each))]


def tagged_instances(aws: Aws) -> Iterator[Any]:
    """The machines that carry both tags of ours and are not gone."""
    filters = [OUR_TAG, {"Name": "instance-state-name", "Values": list(_LIVE_STATES)}]
    for each in aws.items("ec2", "describe_instances", "Reservations", Filters=filters):
        yield from (instance for instance in each["Instances"] if has_both(tags_of(instance)))


def _machine(instance: Any) -> Machine:
    return Machine(
        instance["InstanceId"],
        instance["InstanceType"],
        instance["Placement"]["AvailabilityZone"],
        instance["State"]["Name"],
        instance.get("InstanceLifecycle") == "spot",
        instance["LaunchTime"].timestamp(),
    )


def _obstacle(aws: Aws, group: Any) -> tuple[str, str] | None:
    """Why the latest try to start a machine failed, and what to do; None: none failed yet."""
    answer = aws.call(
        "autoscaling",
        "describe_scaling_activities",
        AutoScalingGroupName=group["AutoScalingGroupName"],
        MaxRecords=10,
    )
    for each in answer["Activities"][:1]:
        if each["StatusCode"] in ("Failed", "Cancelled"):
            policy = group.get("MixedInstancesPolicy") or {}
            types = [
                override["InstanceType"]
                for override in policy.get("LaunchTemplate", {}).get("Overrides", ())
            ]
            share = policy.get("InstancesDistribution", {}).get(
                "OnDemandPercentageAboveBaseCapacity"
            )
            return explain(
                str(each.get("StatusMessage")), region=aws.region, types=types, is_spot=share != 100
            )
    return None


def read_story(folder: LaunchFolder) -> Story:
    """What the bucket says; what it refuses is in the story, and fails nothing."""
    try:
        orders, first = folder.orders(), folder.first_event()
        price = first and first.details.get("usd_per_hour")
        return Story(
            deadline=None if orders is None else orders.deadline,
            launched_at=None if first is None else first.at,
            usd_per_hour=price if isinstance(price, float) else None,
            events=tuple(folder.events(latest=LATEST_EVENTS)),
            lease=folder.lease(),
            ending=folder.done(),
            is_stop_requested=folder.is_stop_requested(),
            last_line=folder.last_line(),
            pace=read_pace(folder.bucket, folder.address, folder.run),
        )
    except ImnetprepError as error:
        return Story(failure=(str(error), error.hint))


def state_of(launch: Launch, story: Story, *, moment: float) -> str:
    """What a launch does at a moment, in words."""
    if not launch.is_alive:
        if story.ending is not None:
            return f"ended {story.ending.code}: {story.ending.reason}"
        if story.deadline is not None and story.deadline <= moment:
            return "ended by its deadline"
        return "has no machine, and asks for none"
    if story.ending is not None:
        return f"ending {story.ending.code}: {story.ending.reason}"
    if not launch.machines:
        return "waits for a machine"
    ids = {each.id for each in launch.machines}
    latest = [each for each in story.events if each.instance in ids]
    stop = ", asked to stop" if story.is_stop_requested else ""
    if not latest:
        return f"starts{stop}"
    age = format_duration(max(0.0, moment - latest[-1].at))
    return f"{described(latest[-1])}, {age} ago{stop}"


def end_of_training(launch: Launch, story: Story, *, moment: float) -> float | None:
    """When the training will be done (Unix time) if nothing interrupts it; None: nobody can say.

    An epoch that is under way counts from the push of the one before, or from its machine's start.
    """
    ids, pace = {each.id for each in launch.machines}, story.pace
    stages = [each for each in story.events if each.kind == "stage" and each.instance in ids]
    begun_at = stages[-1].at if stages else 0.0
    is_training = not stages or stages[-1].details.get("stage") == "train"
    if pace is None or not ids or not is_training or story.ending is not None:
        return None
    left_s = (pace.epochs - pace.epoch) * pace.epoch_s
    return max(moment, max(pace.at, begun_at) + left_s)


def described(event: Event) -> str:
    """An event in a few words: `stage train`, `progress (epoch 3, step 0)`."""
    if event.kind == "stage":
        return f"stage {event.details.get('stage')}"
    details = ", ".join(f"{name} {value}" for name, value in event.details.items())
    return f"{event.kind} ({details})" if details else event.kind


def disagreements(launch: Launch, story: Story, *, moment: float) -> Iterator[tuple[str, str]]:
    """Where AWS and the bucket say different things: what it is, and what to do."""
    terminate = shell_command("imnetprep", "machines", launch.run, "--terminate")
    ids = {each.id for each in launch.machines}
    if story.failure is not None:
        sentence, hint = story.failure
        yield f"the bucket says nothing of it: {sentence}", hint
        return
    if launch.capacity is None:
        yield f"{', '.join(sorted(ids))} is in no group, and nothing ends it", terminate
        return
    if len(ids) > 1:
        yield f"{len(ids)} machines run, and one is meant to", terminate
    if launch.is_alive and story.deadline is None:
        yield f"{launch.address} has no orders of it", terminate
    elif launch.is_alive and story.deadline is not None and story.deadline <= moment:
        yield "its deadline has passed, and AWS still has a machine of it", terminate
    if story.ending is not None and launch.capacity:
        yield "the bucket says that it ended, and its group still asks for a machine", terminate
    lease = story.lease
    if lease is not None and lease.end > moment and lease.owner not in ids and launch.is_alive:
        rest = format_duration(lease.end - moment)
        yield f"{lease.owner} is gone, and holds the run for {rest} more", "the next one waits"
    if not launch.is_alive and story.ending is None and story.deadline and story.deadline > moment:
        yield (
            "the bucket has its orders and no end of it, and AWS neither a machine nor a wish for"
            " one",
            "the same imnetprep launch again goes on with it",
        )
