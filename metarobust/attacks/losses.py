"""What an attack climbs: cross-entropy, or the margin between the best wrong logit and the right one.

Cross-entropy goes flat where a model is very sure, and an attack that climbs it alone overstates robustness. The margin
does not: z_best_wrong - z_y is above 0 exactly where the image is misclassified.

Source: Carlini and Wagner 2017 (arXiv 1608.04644), section V-A, f_6 without its clipping.
"""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F


def cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """-log softmax(z)_y for each example: `[n, classes]`, `[n]` to `[n]`."""
    return F.cross_entropy(logits, labels, reduction="none")


def margin(logits: Tensor, labels: Tensor) -> Tensor:
    """max over k != y of z_k, minus z_y, for each example: `[n, classes]`, `[n]` to `[n]`."""
    right = F.one_hot(labels, logits.shape[1]).bool()
    wrong = logits.masked_fill(right, -torch.inf).amax(1)
    return wrong - logits.gather(1, labels[:, None])[:, 0]


LOSSES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {"ce": cross_entropy, "margin": margin}
