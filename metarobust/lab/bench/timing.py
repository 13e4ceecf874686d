"""Times several ways of doing the same work: in turn, round after round, so that a busy moment hits all of them alike.

A way's time is the median over rounds. Two ways are compared within a round, and the ratio is the median of the rounds'
ratios: what slows down a whole round cancels out.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from statistics import median
from typing import TypeVar

from metarobust.errors import InputError

Result = TypeVar("Result")


def interleaved(
    ways: Mapping[str, Callable[[], Result]],
    rounds: int,
    warm_up: int = 1,
    clock: Callable[[], float] = time.perf_counter,
) -> tuple[dict[str, list[float]], dict[str, Result]]:
    """Seconds of each round, by way, and what each way returned last.

    Each round begins with another way; the first `warm_up` rounds do not count. clock: says the seconds, the
    wall's unless it is `time.process_time`. Raises InputError for no round.
    """
    if rounds < 1 or warm_up < 0:
        raise InputError(f"timing {rounds} rounds after {warm_up} of warm-up: give at least 1, and 0 or more")
    names, results = list(ways), {}
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for turn in range(-warm_up, rounds):
        at = turn % len(names)
        for name in names[at:] + names[:at]:
            start = clock()
            results[name] = ways[name]()
            took = clock() - start
            if turn >= 0:
                seconds[name].append(took)
    return seconds, results


def ratio(seconds: Mapping[str, Sequence[float]], name: str, to: str) -> float:
    """How many times as long as `to` the way `name` takes."""
    return median(one / other for one, other in zip(seconds[name], seconds[to], strict=True))
