"""Projected gradient descent: many small steps, each pulled back into the ball.

    x_0 random in the ball,   x_{k+1} = Proj( x_k + alpha * sign(grad_x loss(f(x_k), y)) )

Source: Madry et al. 2018 (arXiv 1706.06083), section 2.1.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from metarobust.attacks.count import made
from metarobust.attacks.losses import LOSSES
from metarobust.attacks.threat import check, check_outputs, project, random_start, steepest
from metarobust.errors import InputError, choose


def pgd(
    predict: Callable[[Tensor], Tensor],
    images: Tensor,
    labels: Tensor,
    *,
    eps: float,
    steps: int = 40,
    step_size: float | None = None,
    norm: str = "linf",
    loss: str = "ce",
    restarts: int = 1,
    generator: torch.Generator | None = None,
    best: bool = True,
) -> Tensor:
    """Adversarial images `[n, ...]`, within eps of `images` and within [0, 1].

    predict: images to logits. images: floats in [0, 1]. labels: int64 `[n]`. eps: radius in pixel units.
    step_size: alpha; 2.5 eps / steps if None, enough to cross the ball. generator: where given, each restart begins
    at a random point. best: return the point of highest loss seen on the way, the image itself included, instead of
    the last one. Raises InputError for input that `threat.check` refuses, and for labels the model has no output for. No parameter's `.grad` is touched.
    """
    top = check(images, labels, eps, norm)
    climb = LOSSES[choose(loss, LOSSES, "attack loss")]
    if steps < 1 or restarts < 1:
        raise InputError(f"PGD was given steps={steps}, restarts={restarts}; both count from 1")
    if restarts > 1 and generator is None:
        raise InputError(
            f"{restarts} restarts without a generator would all be alike: pass generator=torch.Generator()"
        )
    alpha = 2.5 * eps / steps if step_size is None else step_size
    if not (0 < alpha < math.inf or alpha == eps == 0):
        raise InputError(f"step_size is {alpha:g}; give a length above 0, or leave it out for 2.5 eps / steps")
    made(len(images))
    images = images.detach()

    def value(x: Tensor) -> Tensor:
        logits = predict(x)
        check_outputs(logits, top)
        return climb(logits, labels)

    worst, worst_loss = images, None
    if best and generator is not None:  # the starts are other points: the image as it is counts too
        with torch.no_grad():
            worst_loss = value(images)
    for _ in range(restarts):
        current = random_start(images, eps, norm, generator) if generator is not None else images
        for _ in range(steps):
            with torch.enable_grad():
                leaf = current.clone().requires_grad_()
                losses = value(leaf)
                (gradient,) = torch.autograd.grad(losses.sum(), leaf)
            if best:
                worst, worst_loss = _keep(current, losses.detach(), worst, worst_loss)
            current = project(current + alpha * steepest(gradient, norm), images, eps, norm)
        if not best and restarts == 1:
            return current
        with torch.no_grad():
            worst, worst_loss = _keep(current, value(current), worst, worst_loss)
    return worst


def _keep(new: Tensor, new_loss: Tensor, old: Tensor, old_loss: Tensor | None) -> tuple[Tensor, Tensor]:
    """Per example, the one of higher loss."""
    if old_loss is None:
        return new, new_loss
    higher = new_loss > old_loss
    return torch.where(higher.view(-1, *[1] * (new.ndim - 1)), new, old), torch.maximum(new_loss, old_loss)
