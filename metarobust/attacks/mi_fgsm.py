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

from metarobust.attacks.criterion import Criterion, Predict, value_and_grad
from metarobust.attacks.inputs import attack
from metarobust.attacks.threat import per_image, random_starts, step
from metarobust.errors import InputError, is_number, short_repr


@attack
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
        predict, images, labels, eps, norm, loss, targets, generator: as in `pgd`.
        steps: how many, each of length eps / steps.
        momentum: mu; 0 forgets at once, which is PGD with steps of eps / steps.

    Returns:
        Adversarial images, as `pgd` with its last point.
    """
    if not is_number(momentum) or not 0 <= momentum < math.inf:
        raise InputError(f"momentum is {short_repr(momentum)}; give a number from 0, which forgets at once, such as 1")
    (x,) = random_starts(images, eps, norm, generator)
    criterion, memory = Criterion(loss, labels, targets), torch.zeros_like(x)
    for _ in range(steps):
        _, _, gradient = value_and_grad(predict, x, criterion)
        size = gradient.flatten(1).abs().sum(1).clamp_min(torch.finfo(gradient.dtype).tiny)  # a gradient of 0 stays 0
        memory = momentum * memory + gradient / per_image(size, gradient)
        x = step(x, memory, eps / steps, images, eps, norm)
    return x
