"""MI-FGSM: gradient steps that remember where they were going, for examples that fool other models too.

    g_{k+1} = mu g_k + grad_x loss(f(x_k), y) / ||grad_x loss(f(x_k), y)||_1,                       g_0 = 0
    x_{k+1} = Proj( x_k + (eps / steps) * sign(g_{k+1}) )              in l2:   g / ||g||_2 instead of the sign

The sum of past gradients passes over what is peculiar to this model, and keeps what it shares with others. Against the
model at hand, PGD and APGD are stronger; between deep networks, examples of MI-FGSM transfer best.

Source: Dong et al. 2018 (arXiv 1710.06081), section 3 and algorithm 1.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from metarobust.attacks.counter import made
from metarobust.attacks.criterion import Criterion, look
from metarobust.attacks.threat import (
    check,
    check_count,
    check_generator,
    is_number,
    project,
    random_starts,
    said,
    steepest,
)
from metarobust.errors import InputError


def mi_fgsm(
    predict: Callable[[Tensor], Tensor],
    images: Tensor,
    labels: Tensor,
    *,
    eps: float,
    steps: int = 10,
    momentum: float = 1.0,
    norm: str = "linf",
    loss: str = "ce",
    toward: Tensor | None = None,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Adversarial images `[n, ...]`, within eps of `images` and within [0, 1]: the last point, as in the paper.

    predict: images to logits. images: floats in [0, 1]. labels: int64 `[n]`. eps: radius in pixel units. norm: `linf`
    or `l2`. loss: what is climbed; `ce`, `margin` or `dlr`. steps: each of length eps / steps. momentum: mu; 0 forgets
    at once, which is PGD with steps of eps / steps. toward: the wrong classes that the model shall say, int64 `[n]`;
    None for any. generator: where given, the first step starts from a random point of the ball.
    Raises InputError for input that `threat.check` refuses, and for classes the model has no output for. No parameter's
    `.grad` is touched.
    """
    check(images, labels, eps, norm, toward)
    check_generator(generator)
    check_count("steps", steps)
    goal = Criterion(loss, labels, toward)
    if not is_number(momentum) or not 0 <= momentum < math.inf:
        raise InputError(f"momentum is {said(momentum)}; give a number from 0, which forgets at once; the paper's is 1")
    made(len(images))
    images = images.detach()
    (x,) = random_starts(images, eps, norm, generator)
    memory = torch.zeros_like(images)
    for _ in range(steps):
        _, _, gradient = look(predict, x, goal)
        memory = momentum * memory + _unit(gradient)
        x = project(x + eps / steps * steepest(memory, norm), images, eps, norm)
    return x


def _unit(gradient: Tensor) -> Tensor:
    """Each gradient divided by the sum of its absolute values; a gradient of 0 stays 0."""
    size = gradient.flatten(1).abs().sum(1).clamp_min(torch.finfo(gradient.dtype).tiny)
    return gradient / size.view(-1, *[1] * (gradient.ndim - 1))
