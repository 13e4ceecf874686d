"""How far a share of images can be trusted."""

import math

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
