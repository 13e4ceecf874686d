"""Paired comparisons over seeds, held against scipy, and against all signs written out."""

import random
from itertools import product
from statistics import fmean

import pytest
from scipy import stats as peer

from metarobust.errors import InputError
from metarobust.lab.stats import holm, over_seeds, paired, signed_rank


@pytest.mark.parametrize("n", [2, 3, 5, 10, 15])
def test_paired_agrees_with_scipy(n):
    chance = random.Random(n)
    a, b = ([chance.gauss(mean, 1) for _ in range(n)] for mean in (0.5, 0))
    found, student = paired(a, b), peer.ttest_rel(a, b)
    assert found.seeds == n
    assert found.difference == pytest.approx(fmean(a) - fmean(b))
    assert found.p_t == pytest.approx(student.pvalue)
    low, high = student.confidence_interval(0.95)
    assert (found.difference - found.half, found.difference + found.half) == pytest.approx((low, high))
    assert found.p_wilcoxon == pytest.approx(peer.wilcoxon(a, b, method="exact").pvalue)


def test_signed_rank_counts_ties_over_all_signs_and_leaves_zeros_out():
    differences = [0.002, 0.002, -0.002, 0.004, 0.004, 0.006, 0.0]
    ranks = [2, 2, 2, 4.5, 4.5, 6]
    sums = [sum(rank for rank, sign in zip(ranks, signs, strict=True) if sign) for signs in product((0, 1), repeat=6)]
    middle, seen = sum(ranks) / 2, 2 + 2 + 4.5 + 4.5 + 6
    wanted = fmean(abs(total - middle) >= abs(seen - middle) for total in sums)
    assert signed_rank(differences) == pytest.approx(wanted)
    # Shares of images that went through float32 are a hair apart, and tied all the same.
    assert signed_rank([x + 1e-9 for x in differences]) == pytest.approx(wanted)


def test_no_difference_and_the_same_difference():
    assert paired([1, 2, 3], [1, 2, 3]).p_t == paired([1, 2, 3], [1, 2, 3]).p_wilcoxon == 1.0
    steady = paired([2, 3, 4], [1, 2, 3])
    assert (steady.difference, steady.half, steady.p_t) == (1.0, 0.0, 0.0)
    assert steady.p_wilcoxon == 0.25  # three seeds cannot show more


@pytest.mark.parametrize(("a", "b", "says"), [([1, 2], [1], "2 and 1 values"), ([1], [2], "at least two seeds")])
def test_what_are_no_pairs_is_refused(a, b, says):
    with pytest.raises(InputError, match=says):
        paired(a, b)


def test_holm_raises_the_smallest_most_and_keeps_the_order():
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.6, 0.9]) == [1.0, 1.0]
    assert holm([0.02]) == [0.02]
    assert holm([]) == []


def test_pairing_sees_what_the_spread_hides():
    """Seeds differ a lot, and the rule is a little better on each: the pairs show it, the intervals do not."""
    base = [0.2, 0.4, 0.6, 0.8, 0.5]
    better = [x + 0.02 + 0.001 * i for i, x in enumerate(base)]
    assert paired(better, base).p_t < 0.001
    (mean, half), (other, _) = over_seeds(better), over_seeds(base)
    assert mean - half < other
