"""MI-FGSM: gradient steps that remember where they were going, for examples that fool other models too.

    g_{k+1} = mu g_k + grad_x loss(f(x_k), y) / ||grad_x loss(f(x_k), y)||_1
    x_{k+1} = Proj( x_k + (eps / steps) * sign(g_{k+1}) )              in l2:   g / ||g||_2 instead of the sign

The sum of past gradients passes over what is peculiar to this model, and keeps what it shares with others. So it is the
attack for a transfer from a surrogate; against the model at hand itself, PGD and APGD are stronger.

Source: Dong et al. 2018 (arXiv 1710.06081), section 3 and algorithm 1.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from metarobust.attacks.count import made
from metarobust.attacks.losses import LOSSES
from metarobust.attacks.threat import check, check_outputs, project, random_start, steepest
from metarobust.errors import InputError, choose


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
    generator: torch.Generator | None = None,
) -> Tensor:
    """Adversarial images `[n, ...]`, within eps of `images` and within [0, 1]: the last point, as in the paper.

    predict: images to logits. images: floats in [0, 1]. labels: int64 `[n]`. eps: radius in pixel units.
    momentum: mu; 0 forgets at once, which is PGD with steps of eps / steps. generator: where given, the first step
    starts from a random point of the ball.
    Raises InputError for input that `threat.check` refuses, and for labels the model has no output for. No parameter's
    `.grad` is touched.
    """
    top = check(images, labels, eps, norm)
    climb = LOSSES[choose(loss, LOSSES, "attack loss")]
    if steps < 1:
        raise InputError(f"MI-FGSM was given steps={steps}; they count from 1")
    if not 0 <= momentum < math.inf:
        raise InputError(f"momentum is {momentum:g}; give a number from 0, which forgets at once; the paper's is 1")
    made(len(images))
    images = images.detach()
    x = random_start(images, eps, norm, generator) if generator is not None else images
    memory = torch.zeros_like(images)
    for _ in range(steps):
        with torch.enable_grad():
            leaf = x.clone().requires_grad_()
            logits = predict(leaf)
            check_outputs(logits, top)
            (gradient,) = torch.autograd.grad(climb(logits, labels).sum(), leaf)
        memory = momentum * memory + _unit(gradient)
        x = project(x + eps / steps * steepest(memory, norm), images, eps, norm)
    return x


def _unit(gradient: Tensor) -> Tensor:
    """Each gradient divided by the sum of its absolute values; a gradient of 0 stays 0."""
    size = gradient.flatten(1).abs().sum(1).clamp_min(torch.finfo(gradient.dtype).tiny)
    return gradient / size.view(-1, *[1] * (gradient.ndim - 1))
