"""What an attack climbs: cross-entropy, the margin, or the difference of logits ratio (DLR); z are the logits.

    ce      -log softmax(z)_y                                target t:    log softmax(z)_t
    margin  max_{k != y} z_k - z_y                           target t:    z_t - max_{k != t} z_k
    dlr     (max_{k != y} z_k - z_y) / (z_1st - z_3rd)       target t:    (z_t - z_y) / (z_1st - (z_3rd + z_4th) / 2)

Cross-entropy goes flat where a model is very sure, and an attack that climbs it alone overstates robustness. The margin
does not: it is above 0 exactly where the image is misclassified. DLR is the margin in units of the spread of the logits
(1st, 3rd, 4th are the places when they are sorted), so that z and a z + b give the same value for any a > 0: a model
cannot hide behind large logits. A targeted form rises as the model turns to class t.

Sources: Carlini and Wagner 2017 (arXiv 1608.04644), section V-A, f_6 without its clipping; Croce and Hein 2020 (arXiv
2003.01690), section 4.
"""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from metarobust.attacks.threat import tiny, wide
from metarobust.errors import InputError

BOUND = -1e30  # of a logit from below: a masked class may have -inf, whose difference or ratio is no number


def bounded(logits: Tensor) -> Tensor:
    """Logits that can be told apart and divided: in float32 or wider, those of masked classes at BOUND."""
    exact = wide(logits)
    # Most have none: to look costs a processor less than to clamp and go back through it, and would make a GPU wait.
    return exact.clamp_min(BOUND) if exact.is_cuda or bool((exact < BOUND).any()) else exact


def cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """-log softmax(z)_y for each example: `[n, classes]`, `[n]` to `[n]`."""
    return F.cross_entropy(logits, labels, reduction="none")


def margin(logits: Tensor, labels: Tensor) -> Tensor:
    """max over k != y of z_k, minus z_y, for each example: `[n, classes]`, `[n]` to `[n]`."""
    _check_one_each(logits, labels)
    right = labels[:, None]
    return logits.scatter(1, right, -torch.inf).amax(1) - logits.gather(1, right)[:, 0]


def dlr(logits: Tensor, labels: Tensor) -> Tensor:
    """The margin over z_1st - z_3rd, for each example: `[n, classes]`, `[n]` to `[n]`; 3 classes or more."""
    largest = _largest(logits, 3, "DLR loss")
    return margin(logits, labels) / (largest[:, 0] - largest[:, 2] + tiny(logits.dtype))


def targeted_dlr(logits: Tensor, labels: Tensor, targets: Tensor) -> Tensor:
    """(z_t - z_y) over z_1st - (z_3rd + z_4th) / 2: `[n, classes]`, `[n]`, `[n]` to `[n]`; 4 classes or more."""
    _check_one_each(logits, labels)
    _check_one_each(logits, targets)
    largest = _largest(logits, 4, "targeted DLR loss")
    ahead = logits.gather(1, targets[:, None]) - logits.gather(1, labels[:, None])
    return ahead[:, 0] / (largest[:, 0] - (largest[:, 2] + largest[:, 3]) / 2 + tiny(logits.dtype))


def _check_one_each(logits: Tensor, labels: Tensor) -> None:
    # PyTorch would take one label for all examples, and give numbers that are of none.
    if labels.shape != logits.shape[:1]:
        raise InputError(
            f"labels have shape {list(labels.shape)} and logits {list(logits.shape)}; give [n] labels to [n, classes]"
        )


def _largest(logits: Tensor, count: int, what: str) -> Tensor:
    """The `count` largest logits of each example, in order: `[n, count]`."""
    classes = logits.shape[1]
    if classes < count:
        raise InputError(
            f"the {what} compares the {count} largest logits and the model has {classes} outputs: "
            f"climb 'margin' or 'ce' with so few classes"
        )
    return logits.topk(count, dim=1).values


LOSSES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {"ce": cross_entropy, "margin": margin, "dlr": dlr}
TARGETED: dict[str, Callable[[Tensor, Tensor, Tensor], Tensor]] = {
    "ce": lambda logits, labels, targets: -cross_entropy(logits, targets),
    "margin": lambda logits, labels, targets: -margin(logits, targets),
    "dlr": targeted_dlr,
}
