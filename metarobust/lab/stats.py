"""How far a measured accuracy can be trusted: intervals over images and over seeds, and tests of paired seeds."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean, stdev

from metarobust.errors import InputError


def over_seeds(values: Sequence[float]) -> tuple[float, float]:
    """Mean over seeds and half the width of its 95 % t-interval; infinite for a single seed, which shows no spread."""
    if not values:
        raise InputError("there are no values to average: give at least one seed's")
    if len(values) < 2:
        return fmean(values), math.inf
    from scipy.stats import t  # scipy comes with scikit-learn; imported late, it takes a while

    return fmean(values), float(t.ppf(0.975, len(values) - 1)) * stdev(values) / math.sqrt(len(values))


@dataclass(frozen=True)
class Paired:
    """How two ways differ on the same seeds: mean of a - b, half the width of its 95 % interval, and two p-values."""

    seeds: int
    difference: float
    half: float
    p_t: float
    p_wilcoxon: float


def paired(a: Sequence[float], b: Sequence[float]) -> Paired:
    """Compares a and b, value by value over the same seeds; p-values are two-sided.

    The paired t-test (Student 1908) takes differences as normal; the signed-rank test (Wilcoxon 1945) takes them as
    symmetric. Its p-value is exact, ties included, by going through all signs; pairs without a difference are left out.
    Raises InputError for unequal lengths and for fewer than two seeds, which show no spread.
    """
    if len(a) != len(b):
        raise InputError(f"{len(a)} and {len(b)} values are no pairs; give one of each for every seed")
    if len(a) < 2:
        raise InputError(f"{len(a)} pair of values shows no spread; give at least two seeds")
    differences = [x - y for x, y in zip(a, b, strict=True)]
    mean, half = over_seeds(differences)
    if half == 0:
        p_t = float(mean == 0)
    else:
        from scipy.stats import t

        error = stdev(differences) / math.sqrt(len(differences))
        p_t = float(2 * t.sf(abs(mean) / error, len(differences) - 1))
    return Paired(len(a), mean, half, p_t, signed_rank(differences))


def signed_rank(differences: Sequence[float]) -> float:
    """The two-sided p-value of Wilcoxon's signed-rank test: how likely is a rank sum as far from the middle, or more?

    Each sign is a fair coin if there is no difference. So the sums of ranks are counted over all signs, in half ranks,
    which ties have. Source: Wilcoxon 1945, Individual comparisons by ranking methods.
    """
    # Shares of images come through float32: what differs by a millionth of the largest is a tie, or zero.
    unit = 1e-6 * max(map(abs, differences), default=0.0) or 1.0
    left = sorted((x for x in (round(x / unit) for x in differences) if x), key=abs)
    sizes = [abs(x) for x in left]
    # Twice the mean rank of those of the same size: first rank + last rank, from 1.
    ranks = [sizes.index(size) + 1 + len(sizes) - sizes[::-1].index(size) for size in sizes]
    ways = {0: 1}
    for rank in ranks:
        with_it = {total + rank: count for total, count in ways.items()}
        ways = {total: ways.get(total, 0) + with_it.get(total, 0) for total in ways | with_it}
    middle = sum(ranks) / 2
    seen = abs(sum(rank for rank, x in zip(ranks, left, strict=True) if x > 0) - middle)
    return sum(count for total, count in ways.items() if abs(total - middle) >= seen) / 2 ** len(ranks)


def holm(p_values: Sequence[float]) -> list[float]:
    """p-values of several comparisons, each raised so that one below 5 % is by chance in one table of twenty at most.

    The smallest counts as many times as there are comparisons, the next one time less, and so on; none falls below
    one before it. Source: Holm 1979, A simple sequentially rejective multiple test procedure.
    """
    raised = [0.0] * len(p_values)
    highest = 0.0
    for done, i in enumerate(sorted(range(len(p_values)), key=lambda i: p_values[i])):
        highest = max(highest, min(1.0, (len(p_values) - done) * p_values[i]))
        raised[i] = highest
    return raised
