"""Values of a file that anybody may have written, taken only as what they must be.

JSON, SQLite and bencode give true for 1, 10^23 for a size, and a list for a name; each function
returns the value as it is, or raises ValueError.
"""

import math
from collections.abc import Mapping
from typing import Any

LARGEST = 2**63 - 1  # as of SQLite, of a file's size, and of a tensor's element


def whole_number(value: object, *, least: int = 0, limit: int = LARGEST) -> int:
    """An int from `least` to `limit`."""
    if type(value) is not int or not least <= value <= limit:
        raise ValueError(f"{value!r:.40} is no number from {least:,} to {limit:,}")
    return value


def real_number(value: object, *, least: float = -math.inf, limit: float = math.inf) -> float:
    """A finite float, or an int that is one, from `least` to `limit`."""
    is_number = type(value) is float or (type(value) is int and abs(value) <= LARGEST)
    if not is_number or not math.isfinite(value) or not least <= value <= limit:  # type: ignore
        raise ValueError(f"{value!r:.40} is no number from {least:g} to {limit:g}")
    return float(value)  # type: ignore[arg-type]


def flag(value: object) -> bool:
    """True or false."""
    if not isinstance(value, bool):
        raise ValueError(f"{value!r:.40} is neither true nor false")
    return value


def plain_text(value: object) -> str:
    """A line of text that can be shown."""
    if not isinstance(value, str) or not value.isprintable():
        raise ValueError(f"{value!r:.40} is no plain text")
    return value


def table(value: object) -> Mapping[str, Any]:
    """A table by text."""
    if not isinstance(value, dict) or not all(isinstance(key, str) for key in value):
        raise ValueError(f"{value!r:.40} is no table")
    return value
