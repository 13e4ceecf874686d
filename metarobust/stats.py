"""How far a measured accuracy can be trusted: an interval over images, and one over seeds."""

import math
from collections.abc import Sequence
from statistics import fmean, stdev

from metarobust.errors import InputError


def wilson(right: int, n: int, z: float = 1.96) -> tuple[float, float]:
    """The Wilson score interval of a share `right / n` of images, 95 % at z = 1.96 (Wilson 1927).

    Unlike share ± z * sqrt(p(1 - p) / n) it stays inside [0, 1] and is right near 0 and 1.
    """
    if not 0 <= right <= n or n < 1:
        raise InputError(f"{right} right of {n} is no share; give 0 <= right <= n and n of at least 1")
    p, spread = right / n, z * z / n
    middle = (p + spread / 2) / (1 + spread)
    half = z * math.sqrt(p * (1 - p) / n + spread / (4 * n)) / (1 + spread)
    return max(0.0, min(p, middle - half)), min(1.0, max(p, middle + half))  # p itself, whatever the rounding


def over_seeds(values: Sequence[float]) -> tuple[float, float]:
    """Mean over seeds and half the width of its 95 % t-interval; infinite for a single seed, which shows no spread."""
    if not values:
        raise InputError("there are no values to average: give at least one seed's")
    if len(values) < 2:
        return fmean(values), math.inf
    from scipy.stats import t  # scipy comes with scikit-learn; imported late, it takes a while

    return fmean(values), float(t.ppf(0.975, len(values) - 1)) * stdev(values) / math.sqrt(len(values))
