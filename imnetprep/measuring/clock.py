"""The clock of a measurement: the median of several short intervals.

One disturbance of the machine does not count.
"""

import statistics
import sys
import time
from collections.abc import Callable

INTERVALS = 5


def median_rate(
    advance: Callable[[], int],
    *,
    seconds: float,
    limit: int = sys.maxsize,
    settle: Callable[[], None] = lambda: None,
    on_interval: Callable[[], None] = lambda: None,
) -> float:
    """Images/s of `advance`, which does some work and returns of how many images it was.

    An interval ends after its part of the `seconds`, or after `limit` calls: a device takes orders
    faster than it works. `settle` waits until all is done.
    """
    rates = []
    for _ in range(INTERVALS):
        images = calls = 0
        begun_s = time.perf_counter()
        while not calls or (calls < limit and time.perf_counter() - begun_s < seconds / INTERVALS):
            images += advance()
            calls += 1
        settle()
        rates.append(images / (time.perf_counter() - begun_s))
        on_interval()
    return statistics.median(rates)
