"""The frontier: clean and robust accuracy, and passes, of the learned penalties and of all that may look as closely."""

from dataclasses import replace

from metarobust.lab.results import PENALTIES
from metarobust.lab.spec import CONVOLUTIONAL, DEEPER, DENSE, FRESH, WIDER, OptimizerConfig, Part
from metarobust.meta import MetaTrainConfig

PENALTIES_DENSE = f"{PENALTIES}, perceptrons"
RIVALS = (
    *("adam", "noise", "input-gradient penalty", "curvature penalty"),
    *("FGSM training", "N-FGSM training", "PGD-7 training", "TRADES"),
)
FEWER = ("adam", "noise", "curvature penalty", "N-FGSM training", "PGD-7 training", "TRADES")
PLAN = MetaTrainConfig(
    24, horizons=(100,), tasks=4, held_out=256, lr=0.03, beta2=0.98, warmup=5, estimator="exact", validate_every=8
)
SHIPPED = OptimizerConfig(
    PENALTIES, "penalties", PLAN, family=(*CONVOLUTIONAL, *WIDER), meta="margin", pretrained="train"
)
"""The rule for fresh models as it comes with the library, learned on digits: nothing is learned anew."""


def frontier(scale: str, dataset: str) -> tuple[Part, ...]:
    """Fresh models and trained ones, by the learned penalties and by all that may look as closely, or that attacks.

    On other data than the digits a rule is used as it is shipped, learned on digits: there only the rivals are fitted
    to the data, over the usual values, those that earlier searches took. A step of N-FGSM is half as many passes as one
    of the rule, so that it gets twice as many steps, too.
    """
    short = {"episodes": 8} if scale == "smoke" else {}
    plan = replace(PLAN, **({"episodes": 40, "tasks": 8} | short))
    dense = replace(SHIPPED, name=PENALTIES_DENSE, plan=plan, family=(*DENSE, *DEEPER), compared=False, pretrained=None)
    both = replace(SHIPPED, plan=replace(PLAN, **short), begins=PENALTIES_DENSE, pretrained=None)
    shared = {"methods": RIVALS if dataset == "digits" else FEWER, "unseen": FRESH}
    if dataset != "digits":
        return (Part("train, 100 steps", 100, 64, uses=(SHIPPED,), trained=False, **shared),)
    train = Part("train, 100 steps", 100, 64, (dense, both), trained=False, **shared)
    patch = Part("patch, 100 steps", 100, 64, (dense, both), **shared)
    longer = {"trained": False, "uses": (both,), "home": train.name, "unseen": FRESH, "methods": ("N-FGSM training",)}
    parts = train, patch, Part("train, 200 steps", 200, 64, **longer)
    return parts[: 1 if scale == "smoke" else 3]
