"""What an option says of one field of a recipe: help, heading, limits, default."""

from dataclasses import MISSING, dataclass, field
from typing import Any

IMAGES, OPTIMIZER = "The network and its images", "The recipe"
SCHEDULE, MACHINE = "The schedule", "The machine"


@dataclass(frozen=True)
class Choice:
    """What an option says of one field: its help, its heading, and the values that make sense.

    `limits` and `names` are also what a checkpoint from a stranger may say. `default` is in words,
    for a field that follows from others.
    """

    help: str
    heading: str
    limits: tuple[float, float] | None = None
    default: str = ""
    names: tuple[str, ...] = ()


def choice(
    text: str,
    heading: str,
    *,
    value: Any = MISSING,
    limits: tuple[float, float] | None = None,
    default: str = "",
    names: tuple[str, ...] = (),
) -> Any:
    """A field of a recipe, with all that its option says."""
    metadata = {"choice": Choice(text, heading, limits, default, names)}
    return field(default=value, metadata=metadata)
