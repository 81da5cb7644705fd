"""How many cores other programs keep busy: what is measured beside them is what they leave."""

import re
import time
from pathlib import Path

from imnetprep.jobs import core_numbers

_COUNTERS = Path("/proc/stat")  # Linux
_LOOK_S = 0.3
_LINE = re.compile(r"cpu(\d+) ([\d ]+)")
_IDLE, _IO_WAIT = 3, 4  # proc(5)
_STATES = 8  # a guest's time is a part of user time
_LEAST = 0.3  # cores: a desktop is never quite idle


def busy_cores() -> float:
    """How many of the cores of this process are busy while it sleeps; 0: none, or unknown."""
    try:
        start = _COUNTERS.read_text("ascii")
        time.sleep(_LOOK_S)
        busy = count_busy(start, _COUNTERS.read_text("ascii"), core_numbers())
    except (OSError, ValueError):
        return 0.0
    return busy if busy >= _LEAST else 0.0


def count_busy(start: str, end: str, cores: set[int]) -> float:
    """How many of `cores` were busy between two texts of /proc/stat, in the mean."""
    first, busy = _times(start), 0.0
    for core, times in _times(end).items():
        if core in cores and core in first:
            deltas = [last - tick for last, tick in zip(times, first[core], strict=True)]
            total = sum(deltas)
            busy += (total - deltas[_IDLE] - deltas[_IO_WAIT]) / total if total else 0
    return busy


def _times(text: str) -> dict[int, list[int]]:
    """The ticks of each core in each of its states."""
    matches = map(_LINE.match, text.splitlines())
    return {int(match[1]): [*map(int, match[2].split())][:_STATES] for match in matches if match}
