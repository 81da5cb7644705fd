"""What this process may use of the machine."""

import os


def usable_cores() -> int:
    """The cores this process may run on; macOS keeps no such list and says how many there are."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
