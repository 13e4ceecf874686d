"""New architectures and new data sets, and the variants of the two-by-two."""

import pandas as pd

from metarobust.book.claims.claim import ADDED, Range, claim
from metarobust.lab.compare import gap

NETWORKS, ABLATION = "transfer-architecture-digits-small", "ablation-digits-small"
NEW_DATA = "transfer-data-folder-cifar10-jpeg-small"


@claim(ADDED, "README", "deviations", "new-architectures", "which-method", change=Range(high=0), pgd=Range(15))
def resnet_not_patched():
    """A small ResNet is not patched: the rule on features changes its robust accuracy by {change}, where PGD-7 training
    gains {pgd} in the same twenty steps."""
    change, pgd = (gap(NETWORKS, method, "before", model="resnet-6-1-relu") for method in ("learned", "PGD-7 training"))
    return {"change": change, "pgd": pgd}


@claim(ADDED, "README", "deviations", "new-data", "optimizers", digits=Range(0), mnist=Range(0))
def data_clothes():
    """What was learned on clothes (Fashion-MNIST) is worth more than what was learned at home: {digits} more under
    attack on networks of the digits, and {mnist} more on those of MNIST."""
    ours = "learned on fashion-mnist"
    digits, mnist = (gap(NEW_DATA, ours, f"learned on {data}", part=f"patch, {data}") for data in ("digits", "mnist"))
    return {"digits": digits.mean(), "mnist": mnist}


@claim(ADDED, "README", "deviations", "new-data", home=Range(-3, 3), pgd=Range(-3, 3))
def data_photographs():
    """Photographs, CIFAR-10 (JPEG), are not patched: the rule that learned there changes robust accuracy by {home}, and
    PGD-7 training, in as many steps, by {pgd}."""
    part = "patch, cifar10-jpeg"
    home, pgd = (gap(NEW_DATA, one, "before", part=part) for one in ("learned on cifar10-jpeg", "PGD-7 training"))
    return {"home": home.mean(), "pgd": pgd.mean()}


@claim(ADDED, "new-data", gain=Range(0), clean=Range(high=0))
def other_attacks():
    """In the worst case of PGD, APGD and Square an optimizer that met one attack in its meta-loss, FGSM or PGD, gains
    {gain} on networks of the digits; with a clean meta-loss it changes by {clean}, although it gains against FGSM."""
    run = "attack-transfer-digits-small"
    gain = pd.concat([gap(run, method, "before") for method in ("learned", "learned, FGSM outside")])
    return {"gain": gain, "clean": gap(run, "learned, clean outside", "before")}


@claim(ADDED, "two-by-two", without=Range(high=3), parts=Range(3))
def variants_decay():
    """A patch hangs on the weight that it gives up: without a decay the rule is {without} above Adam under attack; the
    decay alone is worth {parts}."""
    bare = "learned, without a decay"
    return {"without": gap(ABLATION, bare, "adam"), "parts": gap(ABLATION, "learned", bare)}


@claim(ADDED, "two-by-two", more=Range(0), pgd=Range(0))
def variants_inside():
    """Where attacks may be made while patching, one step of FGSM inside adds {more} under attack to the learned rule,
    and puts it {pgd} above PGD-7 training at equal steps."""
    both = "learned, FGSM inside, PGD outside"
    return {"more": gap(ABLATION, both, "learned"), "pgd": gap(ABLATION, both, "PGD-7 training")}
