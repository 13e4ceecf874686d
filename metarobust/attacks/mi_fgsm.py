"""MI-FGSM: gradient steps that remember where they were going, for examples that fool other models too.

    g_{k+1} = mu g_k + grad_x loss(f(x_k), y) / ||grad_x loss(f(x_k), y)||_1,                       g_0 = 0
    x_{k+1} = Proj( x_k + (eps / steps) * sign(g_{k+1}) )              in l2:   g / ||g||_2 instead of the sign

The sum of past gradients passes over what is peculiar to this model, and keeps what it shares with others. Against the
model at hand, PGD and APGD are stronger; between deep networks, examples of MI-FGSM transfer best.

Source: Dong et al. 2018 (arXiv 1710.06081), section 3 and algorithm 1.
"""

import math

import torch
from torch import Tensor

from metarobust.attacks.criterion import Predict, value_and_grad
from metarobust.attacks.inputs import enter
from metarobust.attacks.pgd import ascend
from metarobust.attacks.threat import random_starts
from metarobust.errors import InputError, check_count, is_number, short_repr


def mi_fgsm(
    predict: Predict,
    images: Tensor,
    labels: Tensor,
    *,
    eps: float,
    steps: int = 10,
    momentum: float = 1.0,
    norm: str = "linf",
    loss: str = "ce",
    targets: Tensor | None = None,
    generator: torch.Generator | None = None,
) -> Tensor:
    """PGD along a running sum of gradients.

    Args:
        predict: images to logits.
        images: floats in [0, 1], `[n, ...]`.
        labels: int64 `[n]`.
        eps: radius in pixel units.
        steps: how many, each of length eps / steps.
        momentum: mu; 0 forgets at once, which is PGD with steps of eps / steps.
        norm: `linf` or `l2`.
        loss: what is climbed; `ce`, `margin` or `dlr`.
        targets: the wrong classes wanted, int64 `[n]`; None for any.
        generator: where given, the first step starts from a random point of the ball.

    Returns:
        The last points, `[n, ...]`, within eps of `images` and within [0, 1]. No parameter's `.grad` is touched.

    Raises:
        InputError: for bad input, and for classes the model has no output for.
    """
    check_count("steps", steps)
    if not is_number(momentum) or not 0 <= momentum < math.inf:
        raise InputError(
            f"momentum is {short_repr(momentum)}; give a number from 0, which forgets at once; the paper's is 1"
        )
    criterion = enter(images, labels, eps=eps, norm=norm, loss=loss, targets=targets, generator=generator)
    images = images.detach()
    (start,) = random_starts(images, eps, norm, generator)
    memory = torch.zeros_like(images)

    def gradient(x: Tensor) -> Tensor:
        nonlocal memory
        _, _, now = value_and_grad(predict, x, criterion)
        memory = momentum * memory + _unit(now)
        return memory

    return ascend(gradient, start, images, eps=eps, norm=norm, steps=steps, step_size=eps / steps)


def _unit(gradient: Tensor) -> Tensor:
    """Each gradient divided by the sum of its absolute values; a gradient of 0 stays 0."""
    size = gradient.flatten(1).abs().sum(1).clamp_min(torch.finfo(gradient.dtype).tiny)
    return gradient / size.view(-1, *[1] * (gradient.ndim - 1))
