"""The fast gradient sign method: one step of length eps.

    x' = clip(x + eps * sign(grad_x loss(f(x), y)), 0, 1)

Source: Goodfellow et al. 2015 (arXiv 1412.6572), section 4. The random start is that of Wong et al. 2020
(arXiv 2001.03994), section 4: without it, training against FGSM can collapse.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from metarobust.attacks.count import made
from metarobust.attacks.losses import LOSSES
from metarobust.attacks.threat import check, check_outputs, project, random_start, steepest
from metarobust.errors import choose


def fgsm(
    predict: Callable[[Tensor], Tensor],
    images: Tensor,
    labels: Tensor,
    *,
    eps: float,
    norm: str = "linf",
    loss: str = "ce",
    generator: torch.Generator | None = None,
) -> Tensor:
    """Adversarial images `[n, ...]`, within eps of `images` and within [0, 1].

    predict: images to logits. images: floats in [0, 1]. labels: int64 `[n]`. eps: radius in pixel units.
    generator: where given, the step starts from a random point of the ball.
    Raises InputError for input that `threat.check` refuses, and for labels the model has no output for. No parameter's
    `.grad` is touched.
    """
    top = check(images, labels, eps, norm)
    climb = LOSSES[choose(loss, LOSSES, "attack loss")]
    made(len(images))
    start = random_start(images, eps, norm, generator) if generator is not None else images.detach()
    with torch.enable_grad():
        leaf = start.clone().requires_grad_()
        logits = predict(leaf)
        check_outputs(logits, top)
        (gradient,) = torch.autograd.grad(climb(logits, labels).sum(), leaf)
    return project(start + eps * steepest(gradient, norm), images.detach(), eps, norm)
