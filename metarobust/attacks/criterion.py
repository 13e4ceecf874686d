"""What an attack is after, and which images still stand: an attack need not go on with an image that it has turned.

    untargeted      climb loss(z, y)         reached where argmax z != y
    toward t        climb loss(z, y, t)      reached where argmax z == t

The strong attacks are long, and most of the images that fall do so early. Those leave the batch, so that the rest of
the work is spent where it is needed. It asks of `predict` that it treats every image alone, in a batch of any size:
that holds for a model in eval mode, and not for many models attacked together: for these nobody may leave.

Sources: AutoAttack, Croce and Hein 2020 (arXiv 2003.01690), where each attack is run on what the last one left; both
goals are in Carlini and Wagner 2017 (arXiv 1608.04644), section II.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property

import torch
from torch import Tensor

from metarobust.attacks.losses import LOSSES, TARGETED
from metarobust.attacks.threat import check_outputs, said
from metarobust.errors import InputError, choose


def misclassified(logits: Tensor, labels: Tensor) -> Tensor:
    """Which logits `[n, classes]` do not say the label. A NaN says nothing, though argmax would take it for a class."""
    return (logits.argmax(1) != labels) | logits.isnan().any(1)


@dataclass(frozen=True)
class Criterion:
    """What is climbed for each of n images, and when the climb is over.

    loss: a name in LOSSES. labels: the right classes, int64 `[n]`. toward: the classes that the model shall say, int64
    `[n]`; None for any but the label. settle: run toward those classes, and be content with any wrong one.
    """

    loss: str
    labels: Tensor
    toward: Tensor | None = None
    settle: bool = False

    def __post_init__(self) -> None:
        choose(self.loss, LOSSES, "attack loss")

    def of(self, rows: Tensor) -> Criterion:
        """The same for some of the images."""
        return replace(self, labels=self.labels[rows], toward=None if self.toward is None else self.toward[rows])

    def losses(self, logits: Tensor) -> Tensor:
        """What to climb, for each image. Raises InputError for a class the model has no output for."""
        for what, top in self._tops.items():
            check_outputs(logits, top, what)
        if len(logits) != len(self.labels):
            raise InputError(
                f"the model returns logits for {len(logits)} of {len(self.labels)} images: give one row to each"
            )
        if self.toward is None:
            return LOSSES[self.loss](logits, self.labels)
        return TARGETED[self.loss](logits, self.labels, self.toward)

    def reached(self, logits: Tensor) -> Tensor:
        """Which images are where the attack wants them."""
        if self.toward is None or self.settle:
            return misclassified(logits, self.labels)
        return ~misclassified(logits, self.toward)

    @cached_property
    def _tops(self) -> dict[str, int]:
        named = {"label": self.labels} | ({} if self.toward is None else {"target": self.toward})
        return {what: int(classes.max()) if len(classes) else 0 for what, classes in named.items()}


def look(
    predict: Callable[[Tensor], Tensor], x: Tensor, goal: Criterion, *, slope: bool = True
) -> tuple[Tensor, Tensor, Tensor]:
    """Logits and losses at x, and where asked for the gradient of the losses (else x itself, unused).

    Where the gradient is not a number it points nowhere: 0. Raises InputError for a model that has none at all.
    """
    if not callable(predict):
        raise InputError(f"predict is {said(predict)}; give a function from images to logits, such as a model")
    with torch.set_grad_enabled(slope):
        # A model may write into its input; into a leaf that wants a gradient it cannot, so that one needs no copy.
        leaf = x.detach().requires_grad_() if slope else x.clone()
        logits = predict(leaf)
        losses = goal.losses(logits)
        if not slope:
            return logits, losses, x
        # Of no images there may be no graph, and nothing to climb.
        found = torch.autograd.grad(losses.sum(), leaf, allow_unused=True)[0] if losses.requires_grad else None
    if found is None and len(x):
        raise InputError(
            "the model's logits have no gradient for its images: give it without detach, no_grad and NumPy, "
            "or use the square attack, which needs no gradient"
        )
    if found is None:
        return logits.detach(), losses.detach(), x
    # In place where no two entries share a place in memory.
    return logits.detach(), losses.detach(), found.nan_to_num_(0) if found.is_contiguous() else found.nan_to_num(0)


@torch.no_grad()
def first_value(
    predict: Callable[[Tensor], Tensor], images: Tensor, goal: Criterion, *, alone: bool = True
) -> tuple[Tensor, Tensor, Tensor]:
    """Logits `[n, classes]`, losses `[n]`, and the indices of the images that are not yet where they shall be.

    Raises InputError for classes the model has no output for. alone: one image is asked about alone as well; a
    `predict` that is many models at once refuses it here, before it could be given images of another model.
    """
    logits, losses, _ = look(predict, images, goal, slope=False)
    if alone and len(images) > 1:
        predict(images[:1])
    return logits, losses, (~goal.reached(logits)).nonzero()[:, 0]
