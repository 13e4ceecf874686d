"""The frontier: clean and robust accuracy, and passes, of the learned penalties and of all that may look as closely."""

from dataclasses import replace

from metarobust.lab.results import FROM_BOTH, FROM_DIGITS, PENALTIES
from metarobust.lab.spec import (
    CONVOLUTIONAL,
    DEEPER,
    DEEPEST,
    DENSE,
    FRESH,
    NORMALISED,
    WIDER,
    OptimizerConfig,
    Part,
)
from metarobust.meta import MetaTrainConfig

PENALTIES_DENSE = f"{PENALTIES}, perceptrons"
RIVALS = (
    *("adam", "noise", "input-gradient penalty", "curvature penalty"),
    *("FGSM training", "N-FGSM training", "PGD-7 training", "TRADES"),
)
FEWER = ("adam", "noise", "curvature penalty", "N-FGSM training", "PGD-7 training", "TRADES")
PATCHING = ("adam", "std-prune", "N-FGSM training", "PGD-7 training")
PLAN = MetaTrainConfig(
    24, horizons=(100,), tasks=4, held_out=256, lr=0.03, beta2=0.98, warmup=5, estimator="exact", validate_every=8
)
FIRST = OptimizerConfig(
    FROM_DIGITS, "penalties", PLAN, family=(*CONVOLUTIONAL, *WIDER), meta="margin", pretrained="train-digits-penalties"
)
"""The rule for fresh models that learned on digits alone, as `frontier` on digits made it."""
SHIPPED = replace(FIRST, name=PENALTIES, pretrained="train")
"""The rule for fresh models that serves by default, as `frontier` on MNIST made it: it learned on both."""
BOTH = MetaTrainConfig(
    60, (50, 100, 200), groups=2, tasks=4, held_out=256, lr=0.03, beta2=0.98, warmup=5, estimator="exact",
    validate_every=12,
)  # fmt: skip


def frontier(scale: str, dataset: str) -> tuple[Part, ...]:
    """Fresh models and trained ones, by the learned penalties and by all that may look as closely, or that attacks.

    On MNIST a rule learns on the digits as well, and on deep networks and ones that normalise: it is the one that is
    shipped. Beside it stands that which learned on the digits alone. Where nothing is learned on a data set, the
    shipped one is used as it is: there only the rivals are fitted to the data, over the usual values, those that
    earlier searches took. A step of N-FGSM is half as many passes as one of the rule, so that it gets twice as many
    steps, too.
    """
    kinds = {"digits": on_digits, "mnist": on_mnist}
    if dataset in kinds:
        return kinds[dataset](scale)
    return (Part("train, 100 steps", 100, 64, uses=(SHIPPED,), trained=False, methods=FEWER, unseen=FRESH),)


def on_digits(scale: str) -> tuple[Part, ...]:
    """What learns on the digits and is measured on the digits; beside it what is shipped."""
    short = {"episodes": 8} if scale == "smoke" else {}
    plan = replace(PLAN, **({"episodes": 40, "tasks": 8} | short))
    home = replace(FIRST, name=PENALTIES, pretrained=None)
    dense = replace(home, name=PENALTIES_DENSE, plan=plan, family=(*DENSE, *DEEPER), compared=False)
    both = replace(home, plan=replace(PLAN, **short), begins=PENALTIES_DENSE)
    shared = {"methods": RIVALS, "unseen": FRESH}
    given = {goal: (replace(SHIPPED, name=FROM_BOTH, pretrained=goal),) for goal in ("train", "patch")}
    train = Part("train, 100 steps", 100, 64, (dense, both), trained=False, uses=given["train"], **shared)
    patch = Part("patch, 100 steps", 100, 64, (dense, both), uses=given["patch"], **shared)
    longer = {"trained": False, "uses": (both,), "home": train.name, "unseen": FRESH, "methods": ("N-FGSM training",)}
    parts = train, patch, Part("train, 200 steps", 200, 64, **longer)
    return parts[: 1 if scale == "smoke" else 3]


def on_mnist(scale: str) -> tuple[Part, ...]:
    """What learns on both, and is measured on MNIST; to patch perceptrons, it learns for twice as long."""
    short = {"episodes": 4, "groups": 1} if scale == "smoke" else {}
    home = replace(FIRST, name=PENALTIES, pretrained=None, beside=("digits",))
    deep = (*DENSE, *DEEPER, *DEEPER, *DEEPEST, *DEEPEST)  # twice, so that more than half of all draws are of these
    parts = []
    for name, trained, methods, longer in (("train", False, FEWER, 1), ("patch", True, PATCHING, 2)):
        plan = replace(BOTH, **({"episodes": 60 * longer} | short))
        dense = replace(home, name=PENALTIES_DENSE, plan=plan, family=deep, compared=False)
        plan = replace(BOTH, **({"episodes": 40, "tasks": 2} | short))
        both = replace(home, plan=plan, family=(*CONVOLUTIONAL, *WIDER, *NORMALISED), begins=PENALTIES_DENSE)
        far = replace(FIRST, pretrained=f"{name}-digits-penalties")
        shared = {"uses": (far,), "methods": methods, "unseen": FRESH, "trained": trained}
        parts.append(Part(f"{name}, 100 steps", 100, 64, (dense, both), **shared))
    return tuple(parts[: 1 if scale == "smoke" else 2])
