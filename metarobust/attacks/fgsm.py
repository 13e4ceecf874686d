"""The fast gradient sign method: one step of length eps.

    x' = Proj( x_0 + eps * sign(grad_x loss(f(x_0), y)) )              in l2:   g / ||g||_2 instead of the sign

x_0 is x itself, where the projection only clips to [0, 1], or a random point of the ball.

Source: Goodfellow et al. 2015 (arXiv 1412.6572), section 4. The random start is that of Wong et al. 2020
(arXiv 2001.03994), section 4, with a step of eps and not of 1.25 eps: without it, training against FGSM can collapse.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from metarobust.attacks.counter import made
from metarobust.attacks.criterion import Criterion, look
from metarobust.attacks.threat import check, check_generator, project, random_starts, steepest


def fgsm(
    predict: Callable[[Tensor], Tensor],
    images: Tensor,
    labels: Tensor,
    *,
    eps: float,
    norm: str = "linf",
    loss: str = "ce",
    toward: Tensor | None = None,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Adversarial images `[n, ...]`, within eps of `images` and within [0, 1].

    predict: images to logits. images: floats in [0, 1]. labels: int64 `[n]`. eps: radius in pixel units. norm: `linf`
    or `l2`. loss: what is climbed; `ce`, `margin` or `dlr`. toward: the wrong classes that the model shall say, int64
    `[n]`; None for any. generator: where given, the step starts from a random point of the ball.
    Raises InputError for input that `threat.check` refuses, and for classes the model has no output for. No parameter's
    `.grad` is touched.
    """
    check(images, labels, eps, norm, toward)
    check_generator(generator)
    goal = Criterion(loss, labels, toward)
    made(len(images))
    images = images.detach()
    (start,) = random_starts(images, eps, norm, generator)
    _, _, gradient = look(predict, start, goal)
    return project(start.add(steepest(gradient, norm), alpha=eps), images, eps, norm)
