"""The fast gradient sign method: one step of length eps.

    x' = Proj( x_0 + eps * sign(grad_x loss(f(x_0), y)) )              in l2:   g / ||g||_2 instead of the sign

x_0 is x itself, where the projection only clips to [0, 1], or a random point of the ball.

Source: Goodfellow et al. 2015 (arXiv 1412.6572), section 4. The random start is that of Wong et al. 2020
(arXiv 2001.03994), section 4, with a step of eps and not of 1.25 eps: without it, training against FGSM can collapse.
"""

import torch
from torch import Tensor

from metarobust.attacks.criterion import Predict, value_and_grad
from metarobust.attacks.inputs import enter
from metarobust.attacks.pgd import ascend
from metarobust.attacks.threat import random_starts


def fgsm(
    predict: Predict,
    images: Tensor,
    labels: Tensor,
    *,
    eps: float,
    norm: str = "linf",
    loss: str = "ce",
    targets: Tensor | None = None,
    generator: torch.Generator | None = None,
) -> Tensor:
    """One step of length eps up the loss.

    Args:
        predict: images to logits.
        images: floats in [0, 1], `[n, ...]`.
        labels: int64 `[n]`.
        eps: radius in pixel units.
        norm: `linf` or `l2`.
        loss: what is climbed; `ce`, `margin` or `dlr`.
        targets: the wrong classes wanted, int64 `[n]`; None for any.
        generator: where given, the step starts from a random point of the ball.

    Returns:
        Adversarial images `[n, ...]`, within eps of `images` and within [0, 1]. No parameter's `.grad` is touched.

    Raises:
        InputError: for bad input, and for classes the model has no output for.
    """
    criterion = enter(images, labels, eps=eps, norm=norm, loss=loss, targets=targets, generator=generator)
    images = images.detach()
    (start,) = random_starts(images, eps, norm, generator)
    return ascend(
        lambda x: value_and_grad(predict, x, criterion)[2], start, images, eps=eps, norm=norm, steps=1, step_size=eps
    )
