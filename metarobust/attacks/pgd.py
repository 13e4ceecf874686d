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
from metarobust.attacks.standing import fooled
from metarobust.attacks.threat import check, check_outputs, project, random_start, steepest
from metarobust.errors import InputError, choose

Climb = Callable[[Tensor, Tensor], Tensor]


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
    leave: bool = False,
) -> Tensor:
    """Adversarial images `[n, ...]`, within eps of `images` and within [0, 1].

    predict: images to logits. images: floats in [0, 1]. labels: int64 `[n]`. eps: radius in pixel units.
    step_size: alpha; 2.5 eps / steps if None, enough to cross the ball. generator: where given, each restart begins
    at a random point. best: return the point of highest loss seen on the way, the image itself included, instead of
    the last one. leave: an image that is fooled leaves the batch, with the point that did it, so that an attack gets
    faster as it goes; predict is then called with fewer and fewer images.
    Raises InputError for input that `threat.check` refuses, and for labels the model has no output for. No
    parameter's `.grad` is touched.
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
    if step_size is not None and not (0 < step_size < math.inf or step_size == eps == 0):
        raise InputError(f"step_size is {step_size:g}; give a length above 0, or leave it out for 2.5 eps / steps")
    made(len(images))
    images = images.detach()
    if not best and not leave and restarts == 1:
        current = random_start(images, eps, norm, generator) if generator is not None else images
        for _ in range(steps):
            _, _, gradient = _look(predict, current, labels, climb, top, slope=True)
            current = project(current + alpha * steepest(gradient, norm), images, eps, norm)
        return current

    worst, gone = images.clone(), torch.zeros(len(images), dtype=torch.bool, device=images.device)
    _, worst_loss, _ = _look(predict, images, labels, climb, top, slope=False)
    for _ in range(restarts):
        here = (~gone).nonzero()[:, 0]
        x, y = images[here], labels[here]
        current = random_start(x, eps, norm, generator) if generator is not None else x
        for step in range(steps + 1):
            logits, losses, gradient = _look(predict, current, y, climb, top, slope=step < steps)
            if best or step == steps:
                higher = losses > worst_loss[here]
                worst[here[higher]], worst_loss[here[higher]] = current[higher], losses[higher]
            wrong = fooled(logits, y)
            if leave and bool(wrong.any()):
                worst[here[wrong]], gone[here[wrong]] = current[wrong], True
                here, x, y, current, gradient = (part[~wrong] for part in (here, x, y, current, gradient))
            if step == steps or not len(here):
                break
            current = project(current + alpha * steepest(gradient, norm), x, eps, norm)
    return worst


def _look(
    predict: Callable[[Tensor], Tensor], x: Tensor, labels: Tensor, climb: Climb, top: int, *, slope: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """Logits and losses at x, and where asked for the gradient of the losses (else x itself, unused)."""
    with torch.set_grad_enabled(slope):
        leaf = x.clone().requires_grad_(slope)
        logits = predict(leaf)
        check_outputs(logits, top)
        losses = climb(logits, labels)
        gradient = torch.autograd.grad(losses.sum(), leaf)[0] if slope else x
    return logits.detach(), losses.detach(), gradient
