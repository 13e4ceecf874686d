"""Patching trained models: against rivals that know as much, and how far to trust the figures."""

import pandas as pd

from metarobust.book.claims.claim import ADDED, CHOICE, PARTLY, Range, claim
from metarobust.lab.compare import acc, best, fact, gap, lowered, p_value
from metarobust.lab.results import PENALTIES

RUNS = "patch-mnist-small", "patch-digits-small"
FRESH = "train-mnist-small", "train-digits-small"
PATCH = {"part": "patch"}
DENSE = PATCH | {"network": "dense"}
CNN = PATCH | {"network": "convolutional"}


@claim(ADDED, "README", "learning-from-mistakes", "costs-and-limits", lead=Range(1, 15), clear=Range(3, 3, "", 0))
def patch_mnist_most_robust():
    """On MNIST's perceptrons the learned optimizer is {lead} ahead of the best method without learning, adversarial
    training in as many steps included; over std-prune, the next best, the lead is clear on {clear} of four."""
    lead = acc(RUNS[0], "learned", **DENSE) - best(RUNS[0], by="robust", tier=["0", "1", "2", "adversarial"], **DENSE)
    return {"lead": lead, "clear": (p_value(RUNS[0], "learned", "std-prune", **DENSE) < 0.05).sum()}


@claim(ADDED, "README", "learning-from-mistakes", plain=Range(15, 35), pgd=Range(0, 10))
def patch_mnist_cnn():
    """On MNIST's convolutional network the learned optimizer is {plain} ahead of the best plain rule, and {pgd} behind
    PGD-7 training."""
    plain = acc(RUNS[0], "learned", **CNN) - best(RUNS[0], by="robust", **CNN)
    return {"plain": plain, "pgd": gap(RUNS[0], "PGD-7 training", "learned", **CNN)}


@claim(ADDED, "README", "learning-from-mistakes", price=Range(high=1), prune=Range(-3, 3))
def patch_digits():
    """On the digits a patch costs {price} of clean accuracy; on the perceptrons it is level with std-prune, with a
    difference of {prune} under attack."""
    price = gap(RUNS[1], "before", "learned", "clean", **PATCH)
    return {"price": price, "prune": gap(RUNS[1], "learned", "std-prune", **DENSE)}


@claim(ADDED, "README", "intro", "deviations", "costs-and-limits", noise=Range(0, 10), joint=Range(0, 15))
def patch_digits_noise():
    """On the digits' convolutional network falling noise is {noise} ahead of the rule on features; the joint one, which
    may set noise itself, is {joint} ahead of every rule without learning, on every network."""
    joint = acc(RUNS[1], "learned, joint", **PATCH) - best(RUNS[1], by="robust", **PATCH)
    return {"noise": gap(RUNS[1], "falling noise + last-layer decay", "learned", **CNN), "joint": joint}


@claim(ADDED, "experiments", "results", gain=Range(30, 60), prune=Range(0, 10))
def full_mnist():
    """On a GPU, with four times as many networks in an episode and 2000 test images, patching on MNIST comes out as at
    `small`: {gain} of gain under attack, and {prune} ahead of std-prune on the perceptrons."""
    run = "patch-mnist-full"
    return {"gain": gap(run, "learned", "before", **PATCH), "prune": gap(run, "learned", "std-prune", **DENSE)}


@claim(ADDED, "costs-and-limits", "deviations", states=PARTLY, patch=Range(0), train=Range(0))
def beats_every_plain_rule():
    """Learning pays: on every network the learned optimizer is more robust than the best rule without learning and
    without adversarial examples. Patching, it differs by {patch}; training fresh networks, by {train}."""
    return {"patch": _ahead(RUNS, "patch"), "train": _ahead(FRESH, "train")}


@claim(ADDED, "costs-and-limits", states=PARTLY, patch=Range(0), train=Range(0))
def matches_adversarial_training():
    """At equal steps the learned optimizer is on every network at least as robust as the best adversarial training.
    Patching, it differs by {patch}; training fresh networks, by {train}."""
    attacked = {"tier": "adversarial"}
    return {"patch": _ahead(RUNS, "patch", **attacked), "train": _ahead(FRESH, "train", **attacked)}


@claim(ADDED, "deviations", "learning-penalties", few=Range(-5, 2), pgd=Range(0))
def few_pixels():
    """Where an attacker may move no more than the sixth of the pixels that says most about the digit, a patch by the
    learned penalties changes robust accuracy by {few}, and PGD-7 training in as many steps by {pgd}."""
    how = {"attack": "pgd-40 ce, margin on 10 pixels", "scope": None}
    few, pgd = (gap("pixels-digits-small", method, "before", **how) for method in (PENALTIES, "PGD-7 training"))
    return {"few": few, "pgd": pgd}


@claim(ADDED, "README", "deviations", "costs-and-limits", most=Range(0, 6), average=Range(-0.5, 3))
def standard_lowers():
    """Two PGDs alone say more than the standard ensemble: in each of four runs {most} at most, for a method and
    network; on average {average}, for the learned rule, std-prune and PGD-7 training alike."""
    most = pd.Series([lowered(run, part=run.partition("-")[0]).max() for run in RUNS + FRESH])
    methods = ["learned", "std-prune", "PGD-7 training"]
    average = pd.concat([lowered(run, methods, **PATCH).groupby("method").mean() for run in RUNS])
    return {"most": most, "average": average}


@claim(ADDED, "deviations", "costs-and-limits", times=Range(2, unit="times", digits=0), left=Range(0, 35, "%"))
def masked_decay():
    """A search that looked at two PGDs alone once chose gradient masking: a decay of {times} the weight in each step.
    Square, which asks for no gradient, left at most {left} of the images, where APGD left most of them."""
    lr, decay, measured = (fact(RUNS[1], name, file="masked.json") for name in ("lr", "decay", "measured"))
    return {"times": lr * decay, "left": 100 * max(one["square-5000"] for one in measured)}


@claim(CHOICE, "README", "intro", "deviations", steps=Range(20, 20, "", 0), seeds=Range(10, 10, "", 0))
def setting():
    """A patch has {steps} steps, at eps 0.1 in L-infinity, and means are over {seeds} seeds; a learned optimizer was
    meta-trained from three seeds, over which its values are averaged first."""
    steps = pd.Series([fact(run, "spec", "parts", 0, "steps") for run in RUNS])
    return {"steps": steps, "seeds": pd.Series([len(fact(run, "spec", "seeds")) for run in RUNS + FRESH])}


def _ahead(runs: tuple[str, ...], part: str, **rivals: str) -> pd.Series:
    """By how many points the learned optimizer is ahead of the best of its rivals under attack."""
    return pd.concat([acc(run, "learned", part=part) - best(run, by="robust", part=part, **rivals) for run in runs])
