"""The learned penalties against all that may look as closely, and against what attacks, at equal steps."""

import pandas as pd

from metarobust.book.claims.claim import ADDED, Range, claim
from metarobust.lab.compare import acc, best, gap, made
from metarobust.lab.results import FROM_DIGITS, PENALTIES, REFERENCE

DIGITS, MNIST = "frontier-digits-small", "frontier-mnist-small"
KINDS, BY_HAND = "new-kinds-digits-small", "adaptive-digits-small"
FRESH, TRAINED = {"part": "train, 100 steps"}, {"part": "patch, 100 steps"}
PAGES = "README", "learning-penalties", "results", "which-method"


def ahead(**rivals: object) -> pd.Series:
    """On each fresh network, how far the learned penalties are ahead under attack of the most robust of some rivals."""
    return acc(DIGITS, PENALTIES, **FRESH) - best(DIGITS, by="robust", **FRESH, **rivals)


@claim(ADDED, *PAGES, plain=Range(0), made=Range(0, 0, "", 0))
def frontier_plain():
    """Fresh networks of the digits, trained in a hundred steps by the learned penalties, end {plain} more robust than
    by the best of four plain rules, constant or annealed: Adam, noise, and the penalties on slope and on curvature;
    {made} adversarial examples were made."""
    return {"plain": ahead(), "made": made(DIGITS, PENALTIES)}


@claim(ADDED, *PAGES, pgd=Range(4, 6, "", 0), every=Range(3, 6, "", 0))
def frontier_attacked():
    """Of these six kinds of networks, {pgd} come out more robust than from as many steps of PGD-7 training, constant or
    annealed, and {every} more robust than from any of FGSM, N-FGSM and PGD-7 training and TRADES."""
    pgd = gap(DIGITS, PENALTIES, REFERENCE, **FRESH)
    return {"pgd": (pgd > 0).sum(), "every": (ahead(tier="adversarial") > 0).sum()}


@claim(ADDED, *PAGES, gain=Range(0), cost=Range(high=5))
def frontier_patch():
    """Trained networks of the digits, patched in a hundred steps by the learned penalties, gain {gain} under attack,
    for {cost} of clean accuracy."""
    cost = gap(DIGITS, "before", PENALTIES, "clean", **TRAINED)
    return {"gain": gap(DIGITS, PENALTIES, "before", **TRAINED), "cost": cost}


@claim(ADDED, *PAGES, more=Range(0, 5, "", 0))
def frontier_patch_attacked():
    """As many steps of PGD-7 training, constant or annealed, make {more} of the same six kinds of trained networks more
    robust than the learned penalties do."""
    return {"more": (gap(DIGITS, REFERENCE, PENALTIES, **TRAINED) > 0).sum()}


@claim(ADDED, "learning-penalties", ahead=Range(2, 4, "", 0), steps=Range(5, 6, "", 0))
def frontier_longer():
    """Given as many passes, which are twice as many steps, N-FGSM training ends less robust than the learned penalties
    on {ahead} of six kinds of networks of the digits; given twice as many steps too, these are ahead of it on
    {steps}."""
    longer = {"part": "train, 200 steps"}
    fast = acc(DIGITS, "N-FGSM training", **longer)
    ours = acc(DIGITS, PENALTIES, **FRESH), acc(DIGITS, PENALTIES, **longer)
    return dict(zip(("ahead", "steps"), (int((own > fast).sum()) for own in ours), strict=True))


@claim(ADDED, "learning-penalties", plain=Range(2, 4, "", 0), pgd=Range(2, 4, "", 0))
def frontier_mnist():
    """A rule that learned on 8 × 8 digits alone, used on MNIST as it is: fresh networks end, on {plain} of six kinds,
    above the best of three plain rules that were tuned there, and on {pgd} above PGD-7 training."""
    plain = acc(MNIST, FROM_DIGITS, **FRESH) - best(MNIST, by="robust", **FRESH)
    return {"plain": (plain > 0).sum(), "pgd": (gap(MNIST, FROM_DIGITS, REFERENCE, **FRESH) > 0).sum()}


@claim(ADDED, *PAGES, pgd=Range(5, 6, "", 0), trades=Range(3, 6, "", 0))
def frontier_both():
    """A rule that learned on digits and MNIST at once, and on deeper networks: fresh networks of MNIST end, on {pgd} of
    six kinds, above PGD-7 training, and on {trades} above TRADES, all in as many steps."""
    pgd, trades = (gap(MNIST, PENALTIES, rival, **FRESH) for rival in (REFERENCE, "TRADES"))
    return {"pgd": (pgd > 0).sum(), "trades": (trades > 0).sum()}


@claim(ADDED, "README", "which-method", gain=Range(20), cost=Range(high=8))
def frontier_both_patch():
    """Trained networks of MNIST, patched in a hundred steps by the rule that learned on both, gain {gain} under attack,
    for {cost} of clean accuracy."""
    cost = gap(MNIST, "before", PENALTIES, "clean", **TRAINED)
    return {"gain": gap(MNIST, PENALTIES, "before", **TRAINED), "cost": cost}


@claim(ADDED, *PAGES, pgd=Range(4, 6, "", 0), fast=Range(4, 6, "", 0))
def frontier_both_patch_attacked():
    """Of the same six kinds of networks of MNIST, {pgd} come out of that patch more robust than of as many steps of
    PGD-7 training, and {fast} more robust than of N-FGSM training."""
    pgd, fast = (gap(MNIST, PENALTIES, rival, **TRAINED) for rival in (REFERENCE, "N-FGSM training"))
    return {"pgd": (pgd > 0).sum(), "fast": (fast > 0).sum()}


@claim(ADDED, "README", "new-architectures", "which-method", "results", gain=Range(0), pgd=Range(0))
def new_kinds():
    """The rule that is shipped for trained models, on a network deeper than any that it learned on, and on two that
    normalise, one of them a small ResNet: robust accuracy rises by {gain}; by PGD-7 training, in as many steps, by
    {pgd}."""
    gain, pgd = (gap(KINDS, method, "before") for method in (PENALTIES, REFERENCE))
    return {"gain": gain, "pgd": pgd}


@claim(ADDED, "costs-and-limits", "results", more=Range(0, 3), left=Range(0, 5, "%"))
def by_hand():
    """Attacks made by hand for the learned penalties, on networks that these trained or patched, lower what the
    standard ensemble leaves by {more}; and at four times the radius, {left} of the images are left."""
    more = acc(BY_HAND, PENALTIES) - acc(BY_HAND, PENALTIES, scope="by hand")
    return {"more": more, "left": acc(BY_HAND, PENALTIES, scope="pair", eps=0.4)}
