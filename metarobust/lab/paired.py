"""Two methods compared seed by seed: the mean difference, its interval, and what chance says of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy import stats

from metarobust.errors import InputError
from metarobust.lab.results import interval, t_quantile


class Paired(NamedTuple):
    """How two methods differ on the same seeds: mean of ours - theirs, half its 95 % interval, two-sided p-values."""

    seeds: int
    difference: float
    half: float
    p_t: float
    p_wilcoxon: float


def paired(ours: pd.Series | Sequence[float], theirs: pd.Series | Sequence[float]) -> Paired:
    """Compares two methods seed by seed.

    The paired t-test (Student 1908) takes the differences as normal, the signed-rank test (Wilcoxon 1945) as symmetric;
    its p-value is exact, ties included, and pairs without a difference are left out.

    Args:
        ours: values of one method on one network, indexed by seed as `accuracy` has them; or plain values in order.
        theirs: the same of the other. Seeds that only one of them has are left out.

    Raises:
        InputError: plain values of unequal number, or fewer than two common seeds, which show no spread.
    """
    if not isinstance(ours, pd.Series) and len(ours) != len(theirs):
        raise InputError(f"{len(ours)} and {len(theirs)} values are no pairs; give one of each for every seed")
    ours, theirs = _by_seed(ours), _by_seed(theirs)
    common = ours.index.intersection(theirs.index)
    if len(common) < 2:
        raise InputError(
            f"pairs over {len(common)} of the seeds show no spread; give values of at least two seeds of both"
        )
    differences = (ours[common] - theirs[common]).to_numpy(dtype=float)
    mean, half = interval(differences)
    error = half / t_quantile(len(common) - 1)
    p_t = float(2 * stats.t.sf(abs(mean) / error, len(common) - 1)) if half else float(mean == 0)
    return Paired(len(common), mean, half, p_t, signed_rank(differences))


def signed_rank(differences: np.ndarray) -> float:
    """The two-sided p-value of Wilcoxon's signed-rank test, exact with ties, too; zeros are left out.

    Each sign is a fair coin if there is no difference, so the sums of ranks are counted over all signs. scipy's own
    exact test refuses ties, and its permutation test takes half a second.
    """
    # Shares of images come through float32: what differs by a millionth of the largest is a tie, or zero.
    unit = 1e-6 * np.abs(differences).max() or 1.0
    steps = np.round(differences / unit)
    steps = steps[steps != 0]
    ranks = np.rint(2 * stats.rankdata(np.abs(steps))).astype(int)  # twice, since ties have half ranks
    ways = np.ones(1)
    for rank in ranks:
        ways = np.convolve(ways, [1, *[0] * (rank - 1), 1])
    distance = np.abs(np.arange(len(ways)) - ranks.sum() / 2)
    return float(ways[distance >= abs(ranks[steps > 0].sum() - ranks.sum() / 2)].sum() / ways.sum())


def holm(p_values: Sequence[float]) -> list[float]:
    """p-values of several comparisons, each raised so that one below 5 % is by chance in one table of twenty at most.

    The smallest counts as many times as there are comparisons, the next one time less, and so on; none falls below
    one before it. Source: Holm 1979, A simple sequentially rejective multiple test procedure.
    """
    ordered = pd.Series(p_values, dtype=float).sort_values(kind="stable")
    return (ordered * np.arange(len(ordered), 0, -1)).clip(upper=1).cummax().sort_index().tolist()


def _by_seed(values: pd.Series | Sequence[float]) -> pd.Series:
    if not isinstance(values, pd.Series):
        return pd.Series(list(values), dtype=float)
    if values.index.nlevels == 1:
        return values
    return values.droplevel([name for name in values.index.names if name != "seed"])
