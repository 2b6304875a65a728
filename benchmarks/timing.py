"""How the benchmarks take times: in turn, with medians and ranges."""

import statistics
import time
from collections.abc import Callable, Mapping
from typing import TypeVar

T = TypeVar("T")


def in_turn(calls: Mapping[str, Callable[[], T]], repeats: int) -> tuple[dict[str, list[float]], dict[str, T]]:
    """Make each call ``repeats`` times, one after the other, so that a busy moment meets all alike.

    Returns
    -------
    seconds, last
        By name: of every time, and what the last one returned.
    """
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    last: dict[str, T] = {}
    for _ in range(repeats):
        for name, call in calls.items():
            start = time.perf_counter()
            last[name] = call()
            seconds[name].append(time.perf_counter() - start)
    return seconds, last


def rates(work: float, seconds: list[float]) -> dict[str, str]:
    """Return the median of work per second, its range and the number of repeats, as columns of a table."""
    found = [work / each for each in seconds]
    return {"median": short(statistics.median(found)), "range": spread(found), "repeats": str(len(found))}


def short(number: float) -> str:
    """Write three digits of a number, or all before the point."""
    return f"{number:,.0f}" if number >= 100 else f"{number:.3g}"


def spread(numbers: list[float]) -> str:
    """Write the range."""
    return f"{short(min(numbers))} to {short(max(numbers))}"
