"""The two tags of everything that a launch makes: by them it is found, changed and removed."""

from collections.abc import Mapping
from typing import Any

from imnetprep.launching.orders import Orders
from imnetprep.messages import ImnetprepError, shell_command

# TAG says of which run a thing is, PLACE_TAG for which s3://….
TAG, PLACE_TAG = "imnetprep", "imnetprep-place"


def has_both(tags: Mapping[str, str]) -> bool:
    """Are these the tags of a thing that a launch made?"""
    return {TAG, PLACE_TAG} <= tags.keys()


def tags_of(thing: Mapping[str, Any]) -> dict[str, str]:
    """The tags of a thing, as AWS lists them."""
    return {each["Key"]: each["Value"] for each in thing.get("Tags") or ()}


def tag_list(orders: Orders, *, run: str | None = None) -> list[dict[str, str]]:
    """Our tags, as AWS takes them; `run` in place of that of the orders."""
    values = {TAG: run or orders.run, PLACE_TAG: orders.address}
    return [{"Key": key, "Value": value} for key, value in values.items()]


def specification(orders: Orders, *kinds: str) -> list[dict[str, Any]]:
    """Our tags for things of these kinds, as EC2 takes them where it makes one."""
    return [{"ResourceType": each, "Tags": tag_list(orders)} for each in kinds]


def require_ours(thing: Mapping[str, Any], orders: Orders, kind: str) -> None:
    """Raise ImnetprepError where a thing of our name is a stranger's, or of another place."""
    tags = tags_of(thing)
    if tags.get(TAG) != orders.run:
        raise ImnetprepError(
            f"there is a {kind} {orders.group}, and it is not of imnetprep",
            hint="launch under another name: --run NAME",
        )
    if tags.get(PLACE_TAG) != orders.address:
        raise ImnetprepError(
            f"{orders.run} is launched already, for {tags.get(PLACE_TAG)}",
            hint="launch under another name (--run NAME), or show it: "
            + shell_command("imnetprep", "machines", orders.run),
        )
