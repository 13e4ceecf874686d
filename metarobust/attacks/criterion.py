"""What an attack is after: what it climbs, and which images are where it wants them.

    untargeted      climb loss(z, y)         reached where argmax z != y
    target t        climb loss(z, y, t)      reached where argmax z == t

Most of the images that fall do so early. Where an attack exits early, those leave the batch. That asks of `predict`
that it treats every image alone, in a batch of any size: so does a model in eval mode, and not many models at once.

Sources: AutoAttack, Croce and Hein 2020 (arXiv 2003.01690), where each attack is run on what the last one left; both
criteria are in Carlini and Wagner 2017 (arXiv 1608.04644), section II.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from metarobust.attacks.losses import LOSSES, TARGETED, bounded
from metarobust.attacks.threat import length, tiny, wide
from metarobust.errors import InputError, choose, short_repr

Predict = Callable[[Tensor], Tensor]
"""Images `[n, ...]` to logits `[n, classes]`; a model is one."""


def misclassified(logits: Tensor, labels: Tensor) -> Tensor:
    """Which logits `[n, classes]` do not say the label. A NaN says nothing, though argmax would take it for a class."""
    return (logits.argmax(1) != labels) | logits.isnan().any(1)


@dataclass(frozen=True)
class Criterion:
    """What is climbed for each of n images, and when the climb is over.

    Attributes:
        loss: a name in LOSSES.
        labels, targets: the right classes, and the wrong ones wanted, int64 `[n]`; targets None for any.
        settle: climb toward the targets, and be content with any wrong class.
    """

    loss: str
    labels: Tensor
    targets: Tensor | None = None
    settle: bool = False

    def __post_init__(self) -> None:
        choose(self.loss, LOSSES, "attack loss")

    def of(self, rows: Tensor) -> Criterion:
        """The same for some of the images."""
        return replace(self, labels=self.labels[rows], targets=None if self.targets is None else self.targets[rows])

    def losses(self, logits: Tensor) -> Tensor:
        """What to climb, `[n]`."""
        logits = bounded(logits) if self.loss == "dlr" else logits  # the others do not divide by a masked one
        if self.targets is None:
            return LOSSES[self.loss](logits, self.labels)
        return TARGETED[self.loss](logits, self.labels, self.targets)

    def reached(self, logits: Tensor) -> Tensor:
        """Which images are where the attack wants them, bool `[n]`."""
        if self.targets is None or self.settle:
            return misclassified(logits, self.labels)
        return ~misclassified(logits, self.targets)


def check_logits(logits: Tensor, n: int, classes: int) -> None:
    """Raise InputError for what are no logits `[n, classes or more]`."""
    if not isinstance(logits, Tensor):
        raise InputError(f"the model returns {short_repr(logits)}; attacks need logits: give lambda x: model(x).logits")
    if not logits.is_floating_point() or logits.ndim != 2 or logits.shape[1] < 2:
        do = "give one output for each of 2 classes or more, of a single output z as torch.cat([-z, z], 1)"
        if n == 1 and logits.ndim == 1:
            do = "for one image a squeeze() drops the batch, too; give it the dimension to drop, as squeeze(-1)"
        raise InputError(
            f"the model returns {logits.dtype} of shape {list(logits.shape)}; attacks need logits [n, classes]: {do}"
        )
    if len(logits) != n:
        raise InputError(f"the model returns logits for {len(logits)} of {n} images: give one row to each")
    if logits.shape[1] < classes:
        raise InputError(
            f"labels or targets go up to {classes - 1}; the model has {logits.shape[1]} outputs, "
            f"0 to {logits.shape[1] - 1}: give classes that it knows"
        )


def checked(predict: Predict, images: Tensor, classes: int = 2) -> Predict:
    """The model as attacks ask it: points to logits, in float32 or wider. It may write into its input.

    images: in the type that it takes. classes: how many outputs it must have. Gradients into logits of half precision
    are brought to a largest entry of 1 for each image, as tiny ones would be 0 there.
    """
    if not callable(predict):
        raise InputError(f"predict is {short_repr(predict)}; give a function from images to logits, such as a model")

    def ask(x: Tensor) -> Tensor:
        own = x.to(images.dtype, copy=not x.requires_grad)
        try:
            logits = predict(own)
        except RuntimeError:  # PyTorch's own, where a model writes into a leaf that wants a gradient
            logits = predict(own.clone())
        check_logits(logits, len(x), classes)
        exact = wide(logits)
        if exact.dtype != logits.dtype and exact.requires_grad:
            exact.register_hook(lambda g: g / length(g, "linf").clamp_min(tiny(g.dtype))[:, None])
        return exact

    return ask


def value_and_grad(
    predict: Predict, x: Tensor, criterion: Criterion, *, gradient: bool = True
) -> tuple[Tensor, Tensor, Tensor]:
    """Logits `[n, classes]`, losses `[n]` and their gradient at x, `[n, ...]`.

    Args:
        predict: images to logits, `checked`.
        x: the points, `[n, ...]`.
        criterion: what is climbed.
        gradient: whether it is asked for; if not, x stands in its place, unused.

    Raises:
        InputError: for a model that has no gradient at all. One that is not a number becomes 0.
    """
    with torch.set_grad_enabled(gradient):
        leaf = x.detach().requires_grad_() if gradient else x
        logits = predict(leaf)
        losses = criterion.losses(logits)
        if not gradient:
            return logits, losses, x
        # Of no images there may be no graph, and nothing to climb.
        grad = torch.autograd.grad(losses.sum(), leaf, allow_unused=True)[0] if losses.requires_grad else None
    if grad is None:
        if len(x):
            raise InputError(
                "the model's logits have no gradient for its images: give it without detach, no_grad, inference_mode "
                "and NumPy, or use the square attack, which needs no gradient"
            )
        return logits.detach(), losses.detach(), x
    # In place where no two entries share a place in memory.
    return logits.detach(), losses.detach(), grad.nan_to_num_(0) if grad.is_contiguous() else grad.nan_to_num(0)


@torch.no_grad()
def first_look(
    predict: Predict, images: Tensor, criterion: Criterion, *, early_exit: bool
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """What a strong attack begins with.

    With early exit, one image is asked about alone, too: a `predict` that is many models at once refuses that, before
    it could be given images of another model.

    Returns:
        Logits `[n, classes]`, losses `[n]`, which images are reached as they are, bool `[n]`, and the rows to attack.
    """
    logits, losses, _ = value_and_grad(predict, images, criterion, gradient=False)
    if early_exit and len(images) > 1:
        predict(images[:1])
    reached = criterion.reached(logits)
    rows = (~reached).nonzero()[:, 0] if early_exit else torch.arange(len(images), device=images.device)
    return logits, losses, reached, rows
