"""Which images still stand: an attack that only has to turn an image need not go on once it has.

The strong attacks are long, and most of the images that fall do so early. Those leave the batch, so that the rest of
the work is spent where it is needed. It asks of `predict` that it treats every image alone, in a batch of any size:
that holds for a model in eval mode, and not for many models attacked together, which are for `pgd`.

Source: AutoAttack, Croce and Hein 2020 (arXiv 2003.01690), where each attack is run on what the last one left.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from metarobust.attacks.threat import check_outputs


def fooled(logits: Tensor, labels: Tensor) -> Tensor:
    """Which logits `[n, classes]` do not say the label. A NaN says nothing, though argmax would take it for a class."""
    return (logits.argmax(1) != labels) | logits.isnan().any(1)


@torch.no_grad()
def first_look(predict: Callable[[Tensor], Tensor], images: Tensor, labels: Tensor, top: int) -> tuple[Tensor, Tensor]:
    """Logits `[n, classes]`, and the indices of the images that the model still gets right.

    Raises InputError for labels the model has no output for. One image is asked about alone as well: a `predict` that
    is many models at once refuses it here, before it could be given images of another model.
    """
    logits = predict(images)
    check_outputs(logits, top)
    if len(images) > 1:
        predict(images[:1])
    return logits, (~fooled(logits, labels)).nonzero()[:, 0]
