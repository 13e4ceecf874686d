"""The threat model: how far, and in which norm, an attacker may move an image.

The ball of radius eps around x is {x' : ||x' - x|| <= eps}, cut with the images that exist, [0, 1]. Everything an
attack needs to know of a norm is here: its steepest step, a projection onto its ball, and random points in it.

In L-infinity the projection finds the nearest point of that cut; in l2 a point that is in both, near it: it is brought
into the ball and then clipped, which takes it no further away.

Source: Madry et al. 2018 (arXiv 1706.06083), section 2; Goodfellow et al. 2015 (arXiv 1412.6572), section 3.
"""

import math

import torch
from torch import Tensor

from metarobust.errors import InputError, choose, is_number, short_repr

NORMS = ("linf", "l2")
TINY = 1e-12


def check_eps(eps: float, norm: str = "linf") -> None:
    """Raise InputError unless eps is a number from 0 (in L-infinity to 1), in units of pixels in [0, 1]."""
    choose(norm, NORMS, "norm")
    if not is_number(eps) or not 0 <= eps < math.inf or (norm == "linf" and eps > 1):
        top = "1" if norm == "linf" else "infinity"
        raise InputError(
            f"eps is {short_repr(eps)}; it is a distance between images in [0, 1]: give a number from 0 to {top} "
            f"(8/255 is 0.031)"
        )


def length(delta: Tensor, norm: str) -> Tensor:
    """The norm of each perturbation: `[n, ...]` to `[n]`."""
    flat = delta.flatten(1)
    return flat.abs().amax(1) if norm == "linf" else flat.norm(dim=1)


def tiny(dtype: torch.dtype) -> float:
    """What to divide by instead of 0: in half precision 1e-12 would be 0 itself."""
    return max(TINY, torch.finfo(dtype).tiny)


def steepest(gradient: Tensor, norm: str) -> Tensor:
    """The step of length 1 that raises the loss most, to first order: sign(g), or g / ||g||."""
    if norm == "linf":
        return gradient.sign()
    each = (-1, *[1] * (gradient.ndim - 1))
    # First to a largest entry of 1: the squares of a sure model's tiny gradient would be rounded to 0.
    gradient = gradient / length(gradient, "linf").clamp_min(torch.finfo(gradient.dtype).tiny).view(each)
    return gradient / length(gradient, "l2").clamp_min(tiny(gradient.dtype)).view(each)


def project(perturbed: Tensor, images: Tensor, eps: float, norm: str) -> Tensor:
    """The nearest point to `perturbed` in the eps-ball around `images`, then in [0, 1]."""
    delta = perturbed - images  # new, so that the rest can be done in place: for small models it is half of the time
    if norm == "linf":
        delta.clamp_(-eps, eps)
    else:
        scale = (eps / length(delta, "l2").clamp_min(tiny(delta.dtype))).clamp_max(1)
        delta.mul_(scale.view(-1, *[1] * (delta.ndim - 1)))
    return delta.add_(images).clamp_(0, 1)


class Ball:
    """The eps-ball around images, as far as it is in [0, 1], for attacks that project many times."""

    def __init__(self, images: Tensor, eps: float, norm: str):
        self.images, self.eps, self.norm = images, eps, norm
        if norm == "linf":  # a box: its bounds are made once, and a projection is a single pass
            self.low, self.high = (images - eps).clamp_(min=0), (images + eps).clamp_(max=1)

    def project_(self, perturbed: Tensor) -> Tensor:
        """As `project`, up to rounding, `[n, ...]` to `[n, ...]`; it may write into what it is given."""
        if self.norm == "linf":
            return perturbed.clamp_(self.low, self.high)
        return project(perturbed, self.images, self.eps, self.norm)


def random_starts(
    images: Tensor, eps: float, norm: str, generator: torch.Generator | None, count: int = 1
) -> list[Tensor]:
    """Uniformly random points of the eps-ball around each image, clipped to [0, 1].

    All numbers are drawn here and at once, first those of the first image. So with a generator on the CPU, a set in
    parts, one after the other, starts from the same points as the whole, whichever images leave on the way.

    Returns:
        `count` tensors `[n, ...]`; without a generator the images themselves.
    """
    if generator is None:
        return [images] * count
    pixels = images[0].numel() if len(images) else 1
    exact = torch.promote_types(images.dtype, torch.float32)
    more = norm == "l2"  # one more number, for the radius
    uniform = torch.rand((len(images), count, pixels + more), generator=generator, dtype=exact, device=generator.device)
    noise = 2 * uniform[..., :pixels].to(images.device) - 1
    if more:
        # Normal numbers have no direction they prefer. Not randn: its numbers depend on how many are drawn at once.
        noise = torch.erfinv(noise * (1 - torch.finfo(exact).eps))
        # In d dimensions nearly all of a ball lies near its surface: the radius grows as U^(1/d).
        radius = uniform[..., pixels:].to(images.device) ** (1 / pixels)
        noise = radius * steepest(noise.flatten(0, 1), norm).view_as(noise)
    deltas = [delta.view(images.shape).to(images.dtype) for delta in noise.unbind(1)]
    return [project(images + eps * delta, images, eps, norm) for delta in deltas]
