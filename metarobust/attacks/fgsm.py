"""The fast gradient sign method: one step of length eps.

    x' = Proj( x_0 + eps * sign(grad_x loss(f(x_0), y)) )              in l2:   g / ||g||_2 instead of the sign

x_0 is x itself, where the projection only clips to [0, 1], or a random point of the ball.

Source: Goodfellow et al. 2015 (arXiv 1412.6572), section 4. The random start is that of Wong et al. 2020
(arXiv 2001.03994), section 4, with a step of eps and not of 1.25 eps: without it, training against FGSM can collapse.
"""

import torch
from torch import Tensor

from metarobust.attacks.criterion import Criterion, Predict, value_and_grad
from metarobust.attacks.inputs import attack
from metarobust.attacks.threat import random_starts, step


@attack
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
        predict, images, labels, eps, norm, loss, targets: as in `pgd`.
        generator: where given, the step starts from a random point of the ball.

    Returns:
        Adversarial images, as `pgd` with its last point.
    """
    (start,) = random_starts(images, eps, norm, generator)
    _, _, gradient = value_and_grad(predict, start, Criterion(loss, labels, targets))
    return step(start, gradient, eps, images, eps, norm)
