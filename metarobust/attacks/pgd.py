"""Projected gradient descent: many small steps, each pulled back into the ball.

    x_0 random in the ball,   x_{k+1} = Proj( x_k + alpha * sign(grad_x loss(f(x_k), y)) )

In l2 the step is alpha * g / ||g||_2. Without a generator x_0 is the image itself.

Source: Madry et al. 2018 (arXiv 1706.06083), section 2.1.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from metarobust.attacks.counter import made
from metarobust.attacks.criterion import Criterion, look
from metarobust.attacks.threat import (
    check,
    check_answer,
    check_count,
    check_generator,
    is_number,
    project,
    random_starts,
    said,
    steepest,
)
from metarobust.errors import InputError


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
    toward: Tensor | None = None,
    restarts: int = 1,
    generator: torch.Generator | None = None,
    best: bool = True,
    leave: bool = False,
) -> Tensor:
    """Adversarial images `[n, ...]`, within eps of `images` and within [0, 1].

    predict: images to logits. images: floats in [0, 1]. labels: int64 `[n]`. eps: radius in pixel units. norm: `linf`
    or `l2`. loss: what is climbed; `ce`, `margin` or `dlr`. steps: of each run. restarts: runs, at the worst of which
    an image is judged. step_size: alpha; 2.5 eps / steps if None, enough to cross the ball. toward: the wrong classes
    that the model shall say, int64 `[n]`; None for any. generator: where given, each restart begins at a random point.
    best: return the point of highest loss seen on the way, the image itself included, instead of the last one. leave:
    an image that is turned (with `toward`: to that very class) leaves the batch, with the point that did it, so that an
    attack gets faster as it goes; predict is then called with fewer and fewer images.
    Raises InputError for input that `threat.check` refuses, and for classes the model has no output for. No parameter's
    `.grad` is touched.
    """
    check(images, labels, eps, norm, toward)
    check_count("steps", steps)
    check_generator(generator, restarts)
    goal = Criterion(loss, labels, toward)
    alpha = 2.5 * eps / steps if step_size is None else step_size
    if not is_number(alpha) or not (0 < alpha < math.inf or alpha == eps == 0):
        raise InputError(f"step_size is {said(step_size)}; give a length above 0, or leave it out for 2.5 eps / steps")
    for name, value in (("best", best), ("leave", leave)):
        check_answer(name, value)
    made(len(images))
    images = images.detach()
    starts = random_starts(images, eps, norm, generator, restarts)
    if not best and not leave and restarts == 1:
        current = starts[0]
        for _ in range(steps):
            _, _, gradient = look(predict, current, goal)
            current = project(current.add(steepest(gradient, norm), alpha=alpha), images, eps, norm)
        return current

    worst, gone = images.clone(), torch.zeros(len(images), dtype=torch.bool, device=images.device)
    _, worst_loss, _ = look(predict, images, goal, slope=False)
    for start in starts:
        here = (~gone).nonzero()[:, 0]
        x, aim, current = images[here], goal.of(here), start[here]
        for step in range(steps + 1):
            logits, losses, gradient = look(predict, current, aim, slope=step < steps)
            if best or step == steps:
                higher = losses > worst_loss[here]
                worst[here[higher]], worst_loss[here[higher]] = current[higher], losses[higher]
            turned = aim.reached(logits)
            if leave and bool(turned.any()):
                worst[here[turned]], gone[here[turned]] = current[turned], True
                here, x, current, gradient = (part[~turned] for part in (here, x, current, gradient))
                aim = goal.of(here)
            if step == steps or not len(here):
                break
            current = project(current.add(steepest(gradient, norm), alpha=alpha), x, eps, norm)
    return worst
