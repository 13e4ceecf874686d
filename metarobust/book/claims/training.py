"""Training fresh models, with many images and with few, and what a learned optimizer turned out to do."""

import pandas as pd

from metarobust.book.claims.claim import ADDED, Range, claim
from metarobust.lab.compare import acc, best, gap
from metarobust.lab.results import PENALTIES

FEW = "few-images-digits-small"
KNOCKED = "what-was-learned-digits-small"
FEW_PAGES = "README", "deviations", "few-images", "results", "which-method"
PGD, CURVATURE = "PGD-7 training", "curvature penalty"
FRESH = "README", "deviations", "costs-and-limits", "learning-from-mistakes", "results"


@claim(ADDED, *FRESH, networks=Range(2, 2, "", 0))
def train_mnist_penalties():
    """Without adversarial examples, the curvature penalty trains {networks} of five fresh networks of MNIST better than
    the learned rule, and three worse."""
    return {"networks": (gap("train-mnist-small", CURVATURE, "learned") > 0).sum()}


@claim(ADDED, *FRESH, networks=Range(5, 5, "", 0), pgd=Range(-10, 10))
def train_digits_curvature():
    """Without adversarial examples, the curvature penalty trains {networks} of five fresh networks of the digits better
    than the learned rule; from PGD-7 training it differs by {pgd}, in both directions."""
    run = "train-digits-small"
    return {"networks": (gap(run, CURVATURE, "learned") > 0).sum(), "pgd": gap(run, CURVATURE, PGD)}


@claim(ADDED, *FEW_PAGES, plain=Range(6, 8, "", 0), pgd=Range(5, 8, "", 0))
def few_images():
    """With five to forty images a class of the digits, on two kinds of networks that no rule learned on, the learned
    penalties end more robust than the best of three plain rules in {plain} of eight cases, and than PGD-7 training
    in {pgd}."""
    plain = acc(FEW, PENALTIES) - best(FEW, by="robust")
    return {"plain": (plain > 0).sum(), "pgd": (gap(FEW, PENALTIES, PGD) > 0).sum()}


@claim(ADDED, *FEW_PAGES, trades=Range(2, 4, "", 0))
def few_images_trades():
    """In the same eight cases the learned penalties are more robust than TRADES in {trades}."""
    return {"trades": (gap(FEW, PENALTIES, "TRADES") > 0).sum()}


@claim(ADDED, "README", "deviations", "few-images", digits=Range(0), mnist=Range(0))
def few_images_clean_gradients():
    """With few images, a rule that sees clean gradients alone stays behind PGD-7 training in as many steps, by {digits}
    under attack on the digits and by {mnist} on MNIST."""
    digits, mnist = (gap(run, PGD, "learned") for run in ("low-data-digits-small", "low-data-mnist-small"))
    return {"digits": digits, "mnist": mnist}


def lost(run: str, knockout: str, metric: str = "robust") -> float:
    """By how much the learned penalties do worse without a part: the mean over kinds of networks of the digits."""
    return gap(run, PENALTIES, f"{PENALTIES}, {knockout}", metric).mean()


@claim(ADDED, "results", "what-was-learned", curvature=Range(0.5), everything=Range(10))
def parts_penalties():
    """Fresh networks of the digits, trained by the learned penalties, lose {curvature} under attack on average where
    the penalty on curvature is knocked out, and {everything} where all penalties are."""
    return {"curvature": lost(KNOCKED, "no curvature"), "everything": lost(KNOCKED, "no penalties")}


@claim(ADDED, "what-was-learned", alone=Range(-2, 2))
def parts_alone():
    """Slope, slack, label smoothing and noise, each knocked out alone, change robust accuracy by {alone} on average."""
    parts = ("no slope", "no slack", "no smoothing", "no noise")
    return {"alone": -pd.Series([lost(KNOCKED, part) for part in parts])}


@claim(ADDED, "what-was-learned", constant=Range(0.5), clean=Range(0))
def parts_curves():
    """Where all hyperparameters are constant, at their geometric means over the run, the same networks lose {constant}
    under attack and {clean} of clean accuracy."""
    return {"constant": lost(KNOCKED, "all constant"), "clean": lost(KNOCKED, "all constant", "clean")}


@claim(ADDED, "what-was-learned", hand=Range(0.5), rates=Range(-2, 2))
def parts_hand():
    """The curves that meta-training began with, set by hand, lose {hand} under attack; one rate for all layers in place
    of three loses {rates}."""
    return {"hand": lost(KNOCKED, "set by hand"), "rates": lost(KNOCKED, "one rate")}
