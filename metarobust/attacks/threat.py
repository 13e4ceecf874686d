"""The threat model: how far, and in which norm, an attacker may move an image.

The ball of radius eps around x is {x' : ||x' - x|| <= eps}, cut with the images that exist, [0, 1]. Everything an
attack needs to know of a norm is here: its steepest step, a projection onto its ball, and a random point in it.

Source: Madry et al. 2018 (arXiv 1706.06083), section 2; Goodfellow et al. 2015 (arXiv 1412.6572), section 3.
"""

import torch
from torch import Tensor

from metarobust.errors import InputError, choose

NORMS = ("linf", "l2")
TINY = 1e-12


def check(images: Tensor, labels: Tensor, eps: float, norm: str) -> int:
    """Refuses what would make an attack look weak or a model look strong, and returns the largest label.

    Raises InputError for images that are not floating point or leave [0, 1], labels that do not fit them, a
    negative eps, eps over 1 in L-infinity, or an unknown norm.
    """
    if not images.is_floating_point():
        raise InputError(f"images are {images.dtype}; attacks need floats in [0, 1]: convert and divide by 255")
    if images.numel() and not (float(images.min()) >= 0 and float(images.max()) <= 1):
        low, high = float(images.min()), float(images.max())
        if low != low:  # a NaN
            raise InputError("images hold nan, which is no pixel: look for a division by 0, and give floats in [0, 1]")
        raise InputError(
            f"images run from {low:g} to {high:g}, not within [0, 1]: undo the normalisation, "
            f"and put it inside the model"
        )
    if labels.dtype != torch.int64 or labels.shape != images.shape[:1]:
        raise InputError(
            f"labels are {labels.dtype} of shape {list(labels.shape)}; give one int64 class per image: "
            f"shape [{len(images)}]"
        )
    if labels.numel() and int(labels.min()) < 0:
        raise InputError(f"labels go down to {int(labels.min())}; classes count from 0")
    check_eps(eps, norm)
    return int(labels.max()) if labels.numel() else 0


def check_outputs(logits: Tensor, top: int) -> None:
    """Raises InputError where the model has no output for `top`, the largest label."""
    classes = logits.shape[-1]
    if top >= classes:
        raise InputError(
            f"a label is {top}; the model has {classes} outputs, 0 to {classes - 1}: give labels that it knows"
        )


def check_eps(eps: float, norm: str = "linf") -> None:
    """Raises InputError unless eps is a number from 0 (in L-infinity to 1), in units of pixels in [0, 1]."""
    choose(norm, NORMS, "norm")
    if not eps >= 0 or (norm == "linf" and eps > 1) or eps == float("inf"):
        top = "1" if norm == "linf" else "infinity"
        raise InputError(f"eps is {eps:g}; it is a distance between images in [0, 1], from 0 to {top} (8/255 is 0.031)")


def length(delta: Tensor, norm: str) -> Tensor:
    """The norm of each perturbation: `[n, ...]` to `[n]`."""
    flat = delta.flatten(1)
    return flat.abs().amax(1) if norm == "linf" else flat.norm(dim=1)


def steepest(gradient: Tensor, norm: str) -> Tensor:
    """The step of length 1 that raises the loss most, to first order: sign(g), or g / ||g||."""
    if norm == "linf":
        return gradient.sign()
    each = (-1, *[1] * (gradient.ndim - 1))
    # First to a largest entry of 1: the squares of a sure model's tiny gradient would be rounded to 0.
    gradient = gradient / length(gradient, "linf").clamp_min(torch.finfo(gradient.dtype).tiny).view(each)
    return gradient / length(gradient, "l2").clamp_min(TINY).view(each)


def project(perturbed: Tensor, images: Tensor, eps: float, norm: str) -> Tensor:
    """The nearest point to `perturbed` in the eps-ball around `images`, then in [0, 1]."""
    delta = perturbed - images
    if norm == "linf":
        delta = delta.clamp(-eps, eps)
    else:
        scale = (eps / length(delta, "l2").clamp_min(TINY)).clamp_max(1)
        delta = delta * scale.view(-1, *[1] * (delta.ndim - 1))
    return (images + delta).clamp(0, 1)


def random_start(images: Tensor, eps: float, norm: str, generator: torch.Generator) -> Tensor:
    """A uniformly random point of the eps-ball around each image, clipped to [0, 1]."""
    if norm == "linf":
        noise = torch.rand(images.shape, generator=generator, dtype=images.dtype, device=images.device) * 2 - 1
        return project(images + eps * noise, images, eps, norm)
    noise = torch.randn(images.shape, generator=generator, dtype=images.dtype, device=images.device)
    radius = torch.rand(len(images), generator=generator, dtype=images.dtype, device=images.device)
    # In d dimensions nearly all of a ball lies near its surface: the radius grows as U^(1/d).
    radius = radius ** (1 / max(images[0].numel() if len(images) else 1, 1))
    scaled = steepest(noise, norm) * radius.view(-1, *[1] * (images.ndim - 1))
    return project(images + eps * scaled, images, eps, norm)
