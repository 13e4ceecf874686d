"""What the abstract of Serban, Poll and Visser (2020) says, in our words. None of the numbers is the paper's."""

import pandas as pd

from metarobust.book.claims.claim import ABSTRACT, PARTLY, RECONSTRUCTED, UNTESTED, Range, claim
from metarobust.lab.compare import acc, best, gap, made, value
from metarobust.lab.results import FROM_BOTH, PENALTIES

FIRST_FIVE = "patch-mnist-small", "patch-digits-small"
FRESH = "train-mnist-small", "train-digits-small"
FEW = "low-data-mnist-small", "low-data-digits-small"
FRONTIERS = {"frontier-digits-small": FROM_BOTH, "frontier-mnist-small": PENALTIES}
NEW_DATA = "transfer-data-folder-cifar10-jpeg-small"
AHEAD = Range(0)
PATCH = {"part": "patch"}


@claim(ABSTRACT, passes=Range(2, unit="", digits=0), gap=Range(10))
def abstract_overfits():
    """Adversarial training takes more time than ordinary training, and overfits. On these small networks a step of
    PGD-7 training takes {passes} times as many passes through the model, and after training on ten images a class its
    robust accuracy is {gap} higher on these images than on others."""
    how = {"part": "long", "step": 100, "model": "mlp-72-elu", "metric": "model evaluations"}
    attacked, clean = (value("cost-digits-small", method=one, **how) for one in ("PGD-7 training", "std-prune"))
    own, others = (
        pd.concat([acc(run, "PGD-7 training", part="10 images a class", split=split) for run in FEW], keys=FEW)
        for split in ("train", "test")
    )
    return {"passes": attacked / clean, "gap": own - others}


@claim(ABSTRACT, states=PARTLY, ahead=AHEAD, fresh=AHEAD)
def abstract_learns():
    """Fed adversarial examples, a meta-optimizer learns to make a model robust. With one step of FGSM inside it patches
    networks of the digits and ends {ahead} above PGD-7 training at equal steps; fresh networks come out {fresh} apart
    from the best adversarial training."""
    run = "robust-training-digits-small"
    ahead = gap("ablation-digits-small", "learned, FGSM inside, PGD outside", "PGD-7 training")
    return {"ahead": ahead, "fresh": acc(run, "learned") - best(run, by="robust", tier="adversarial")}


@claim(ABSTRACT, "README", "deviations", "few-images", adam=AHEAD, pgd=AHEAD)
def abstract_low_data():
    """Robust models can be trained where data is scarce. Here, with 5 to 40 images a class of the digits and 60 of
    MNIST, and without adversarial examples, robust accuracy is {adam} above that of Adam; against PGD-7 training in as
    many steps the difference is {pgd}."""
    parts = {"frontier-mnist-small": "train, 100 steps", "few-images-digits-small": None}
    adam = pd.concat([gap(run, PENALTIES, "adam", part=part) for run, part in parts.items()])
    pgd = pd.concat([gap(run, PENALTIES, "PGD-7 training", part=part) for run, part in parts.items()])
    return {"adam": adam, "pgd": pgd}


@claim(ABSTRACT, "README", "intro", "deviations", made=Range(0, 0, "", 0), gain=AHEAD)
def abstract_no_new_examples():
    """What was learned about attacks passes to new perceptrons and to a small convolutional network without new
    adversarial examples: {made} were made, and robust accuracy rose by {gain}, on both data sets."""
    examples = max(made(run, learned=1) for run in FIRST_FIVE + FRESH)
    return {"made": examples, "gain": pd.concat([gap(run, "learned", "before", **PATCH) for run in FIRST_FIVE])}


@claim(ABSTRACT, "README", "deviations", first=AHEAD, more=AHEAD)
def abstract_architectures():
    """It holds across architectures: on six kinds of networks of the digits and of MNIST that the optimizer never saw,
    two of them convolutional, a patch in a hundred steps raises robust accuracy by {first}. On three more kinds of the
    digits, of which one is deeper than any that it learned on and one is a small ResNet, it rises by {more}."""
    both = [gap(run, name, "before", part="patch, 100 steps") for run, name in FRONTIERS.items()]
    return {"first": pd.concat(both), "more": gap("new-kinds-digits-small", PENALTIES, "before")}


@claim(ABSTRACT, "README", "deviations", "new-data", states=PARTLY, grey=AHEAD, photographs=AHEAD)
def abstract_data_sets():
    """It holds across data sets: meta-trained on the 8 × 8 digits alone, the optimizer patches networks of MNIST and
    Fashion-MNIST, by {grey}. On photographs, CIFAR-10 (JPEG), robust accuracy changes by {photographs}."""
    first = gap("patch-mnist-small", "learned on digits", "before", **PATCH)
    second = gap(NEW_DATA, "learned on digits", "before", part=["patch, mnist", "patch, fashion-mnist"])
    photographs = gap(NEW_DATA, "learned on digits", "before", part="patch, cifar10-jpeg")
    return {"grey": pd.concat([first, second]), "photographs": photographs}


@claim(ABSTRACT, "README", "intro", "deviations", "learning-from-mistakes", gain=Range(30), cost=Range(2, 7))
def abstract_patching():
    """Trained, vulnerable models can be patched: in twenty clean steps robust accuracy on MNIST rises by {gain}, at a
    price of {cost} of clean accuracy."""
    run = "patch-mnist-small"
    return {"gain": gap(run, "learned", "before", **PATCH), "cost": gap(run, "before", "learned", "clean", **PATCH)}


@claim(RECONSTRUCTED, "deviations", "two-by-two", adam=AHEAD, clean=AHEAD)
def clean_inside():
    """Clean gradients inside and an adversarial meta-loss outside are enough: patched so, each network is {adam} above
    the same steps of Adam under attack. With a clean meta-loss, all else equal, it ends {clean} lower."""
    clean = gap("ablation-digits-small", "learned", "learned, clean inside and outside")
    return {"adam": pd.concat([gap(run, "learned", "adam", **PATCH) for run in FIRST_FIVE]), "clean": clean}


@claim(RECONSTRUCTED, "costs-and-limits", change=Range(high=0.5))
def lstm_patches_nothing():
    """The LSTM of the literature, which sees the gradient alone, patches nothing: on MNIST robust accuracy changes by
    {change}."""
    return {"change": gap("patch-mnist-small", "learned LSTM", "before", **PATCH)}


@claim(RECONSTRUCTED, "deviations", states=UNTESTED, wants="runs at scale full on a GPU")
def larger_models():
    """It holds for networks of the size that is in use, which read photographs well."""
    return {}
