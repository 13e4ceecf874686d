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


def frontier(scale: str, dataset: str) -> tuple[Part, ...]:
    """Fresh models and trained ones, by the learned penalties and by all that may look as closely, or that attacks.

    On other data than the digits the rules are those that learned on digits, as they are shipped: there only the rivals
    are fitted to the data, over the usual values, those that earlier searches took.
    """
    numbers = {"horizons": (100,), "held_out": 256, "lr": 0.03, "beta2": 0.98, "warmup": 5, "validate_every": 8}
    first, then = (
        MetaTrainConfig(8 if scale == "smoke" else episodes, tasks=tasks, estimator="exact", **numbers)
        for episodes, tasks in ((40, 8), (24, 4))
    )
    how = {"kind": "penalties", "meta": "margin"}
    dense = OptimizerConfig(PENALTIES_DENSE, plan=first, family=(*DENSE, *DEEPER), compared=False, **how)
    both = OptimizerConfig(PENALTIES, plan=then, family=(*CONVOLUTIONAL, *WIDER), begins=PENALTIES_DENSE, **how)
    shared = {"methods": RIVALS if dataset == "digits" else FEWER, "unseen": FRESH}
    if dataset != "digits":
        fresh, trained = (replace(both, begins=None, pretrained=name) for name in ("train", "patch"))
        train = Part("train, 100 steps", 100, 64, uses=(fresh,), trained=False, **shared)
        parts = train, Part("patch, 100 steps", 100, 64, uses=(trained,), **shared | {"methods": FEWER[:-1]})
        return parts[: 1 if scale == "smoke" else 2]
    train = Part("train, 100 steps", 100, 64, (dense, both), trained=False, **shared)
    patch = Part("patch, 100 steps", 100, 64, (dense, both), **shared)
    return (train,) if scale == "smoke" else (train, patch)
