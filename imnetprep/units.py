"""Numbers as people write and read them: bytes, rates, durations, counts."""

import re

_BYTE_UNITS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12,
               "ki": 2**10, "mi": 2**20, "gi": 2**30, "ti": 2**40}  # fmt: skip
_SECONDS = {"": 1, "s": 1, "m": 60, "min": 60, "h": 3600, "d": 86400}


def parse_bytes(text: str) -> int:
    """`"10MB"`, `"1.5GiB"`, `"512k"` or `"800000"` as bytes. Raises ValueError."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([kmgt]?i?)b?(?:/s)?", text.strip().lower())
    if not match or match[2] not in _BYTE_UNITS:
        raise ValueError(f"{text!r} is not a number of bytes such as 800k, 10MB or 1.5GiB")
    return int(float(match[1]) * _BYTE_UNITS[match[2]])


def parse_duration(text: str) -> float:
    """`"90"`, `"90s"`, `"15m"`, `"2h"` or `"1d"` as seconds. Raises ValueError."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([a-z]*)", text.strip().lower())
    if not match or match[2] not in _SECONDS:
        raise ValueError(f"{text!r} is not a duration such as 90s, 15m or 2h")
    return float(match[1]) * _SECONDS[match[2]]


def format_bytes(size_bytes: float) -> str:
    """1 234 567 as `1.23 MB`: three figures, decimal units as disks are sold."""
    for unit in ("B", "kB", "MB", "GB"):
        if size_bytes < 999.5:
            return f"{size_bytes:.0f} B" if unit == "B" else f"{size_bytes:.3g} {unit}"
        size_bytes /= 1000
    return f"{size_bytes:.3g} TB"


def format_duration(seconds: float) -> str:
    """75 as `1:15`, 4,000 as `1:06:40`."""
    minutes, second = divmod(round(seconds), 60)
    hour, minute = divmod(minutes, 60)
    return f"{hour}:{minute:02}:{second:02}" if hour else f"{minute}:{second:02}"


def count(number: int, noun: str) -> str:
    """`1 image`, `1,281,167 images`, `10 classes`."""
    if number != 1:
        noun += "es" if noun.endswith("s") else "s"
    return f"{number:,} {noun}"
