"""What it costs, and the tools that measured it."""

import pandas as pd

from metarobust.book.claims.claim import ADDED, Range, claim
from metarobust.lab.compare import acc, gap
from metarobust.lab.cost.bill import networks, payback
from metarobust.lab.results import recorded, select
from metarobust.lab.spec import network_kind

COST, PGD = "cost-digits-small", "PGD-7 training"


@claim(ADDED, "README", "costs-and-limits", models=Range(100, 1000, "", 0), convolutional=Range(1e9, unit=""))
def cost_pays_against_pgd():
    """Counted in seconds, meta-training has paid against PGD-7 training after {models} perceptrons; on the
    convolutional network it never does."""
    frame = recorded(COST).frame
    pays = "models to break even in seconds, search counted"
    first = {model: payback(frame, "as-learned", model).loc[PGD, pays] for model in networks(frame)}
    by_kind = pd.Series(first).groupby(network_kind)
    return {"models": by_kind.get_group("dense"), "convolutional": by_kind.get_group("convolutional").item()}


@claim(ADDED, "costs-and-limits", ahead=Range(10, 40), price=Range(0, 10))
def cost_reference_goes_on():
    """In a hundred steps PGD-7 training comes out {ahead} more robust than the learned optimizer, on every network;
    going on so long costs the learned optimizer {price} of clean accuracy."""
    how = {"part": "long", "step": 100}
    price = acc(COST, "before", "clean", part="before") - acc(COST, "learned", "clean", **how)
    return {"ahead": gap(COST, PGD, "learned", **how), "price": price}


@claim(ADDED, "costs-and-limits", share=Range(80, 100, "%", 0))
def cost_prune_on_mnist():
    """On MNIST std-prune has {share} of the learned optimizer's gain on perceptrons."""
    how = {"part": "patch", "network": "dense"}
    std_prune, learned = (gap("patch-mnist-small", method, "before", **how) for method in ("std-prune", "learned"))
    return {"share": 100 * std_prune / learned}


@claim(ADDED, "README", "attacks", "results", level=Range(-0.5, 0.5), share=Range(0, 0.65, "", 2))
def attacks_level():
    """The standard evaluation is as strong as AutoAttack on five networks in two norms: robust accuracies differ by
    {level}, in {share} of the time."""
    peers = select(recorded("bench/peers").frame, attack="standard")
    robust = peers.set_index(["library", "model", "norm"])["robust"]
    times = select(recorded("bench/attacks").frame, part="standard")
    seconds = times.set_index(["way", "model", "norm"])["seconds"]
    level = 100 * (robust["metarobust"] - robust["AutoAttack"])
    return {"level": level, "share": seconds["metarobust"] / seconds["AutoAttack"]}


@claim(ADDED, "evaluation", "results", robust=Range(82.93, 92.52, "%"))
def anchor_madry():
    """Adversarial training of Madry's network, done here, reaches {robust} under the standard ensemble at eps 0.3:
    between the lowest and the highest published figure of one network each."""
    return {"robust": acc("anchor-mnist-small", "PGD-8 training")}
