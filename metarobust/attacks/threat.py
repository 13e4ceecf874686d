"""The threat model: how far, and in which norm, an attacker may move an image.

The ball of radius eps around x is {x' : ||x' - x|| <= eps}, cut with the images that exist, [0, 1]. Everything an
attack needs to know of a norm is here: its steepest step, a projection onto its ball, and random points in it.

Half precision rounds: at 0.9 the pixels of bfloat16 are 1/256 apart. So an attack holds its points in float32, and a
projection onto the ball around images of a half type gives a point that is in the ball when it is rounded to that type.

In L-infinity the projection finds the nearest point of that cut; in l2 a point that is in both, near it: it is brought
into the ball and then clipped, which takes it no further away.

Source: Madry et al. 2018 (arXiv 1706.06083), section 2; Goodfellow et al. 2015 (arXiv 1412.6572), section 3.
"""

import math
from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from metarobust.errors import InputError, choose, is_number, short_repr

NORMS = ("linf", "l2")
TINY = 1e-12
AT_ONCE = 2**22  # random numbers that are drawn: 16 MB


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


def per_image(values: Tensor, images: Tensor) -> Tensor:
    """One number an image, `[n]`, in the shape that multiplies the images: `[n, 1, ...]`."""
    return values.view(-1, *[1] * (images.ndim - 1))


def wide(x: Tensor) -> Tensor:
    """As it is, or half precision in float32."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


def tiny(dtype: torch.dtype) -> float:
    """What to divide by instead of 0: in half precision 1e-12 would be 0 itself."""
    return max(TINY, torch.finfo(dtype).tiny)


def steepest(gradient: Tensor, norm: str) -> Tensor:
    """The step of length 1 that raises the loss most, to first order: sign(g), or g / ||g||."""
    if norm == "linf":
        return gradient.sign()
    # First to a largest entry of 1: the squares of a sure model's tiny gradient would be rounded to 0.
    gradient = gradient / per_image(length(gradient, "linf").clamp_min(torch.finfo(gradient.dtype).tiny), gradient)
    return gradient / per_image(length(gradient, "l2").clamp_min(tiny(gradient.dtype)), gradient)


def project(perturbed: Tensor, images: Tensor, eps: float, norm: str) -> Tensor:
    """The nearest point to `perturbed` in the eps-ball around `images`, then in [0, 1]."""
    delta = perturbed - images  # new, so that the rest can be done in place: for small models it is half of the time
    if norm == "linf":
        delta.clamp_(-eps, eps)
    else:
        scale = (eps / length(delta, "l2").clamp_min(tiny(delta.dtype))).clamp_max(1)
        delta.mul_(per_image(scale, delta))
    moved = delta.add_(images).clamp_(0, 1)
    if moved.dtype == images.dtype:
        return moved
    if norm == "linf":
        near = moved.to(images.dtype)
        # Of floats from 0 the bits count up: the next one toward the image.
        back = (near.view(torch.int16) + (images - near).sign().to(torch.int16)).view(images.dtype)
        return torch.where((near.to(moved.dtype) - images).abs() > eps, back.to(moved.dtype), moved)
    for shrink in (0.999, 0.999, 0.99, 0.9, 0):
        far = length(moved.to(images.dtype).to(moved.dtype) - images, norm)
        scale = torch.where(far > eps, shrink * eps / far, 1)
        moved = torch.lerp(images.to(moved.dtype), moved, per_image(scale, moved))
    return moved


def projection(images: Tensor, eps: float, norm: str) -> Callable[[Tensor], Tensor]:
    """As `project`, up to rounding, for many points: it may write into what it is given."""
    if norm == "linf" and wide(images) is images:  # a box: its bounds are made once, and a projection is a single pass
        low, high = (images - eps).clamp_(min=0), (images + eps).clamp_(max=1)
        return lambda perturbed: perturbed.clamp_(low, high)
    return lambda perturbed: project(perturbed, images, eps, norm)


def step(x: Tensor, gradient: Tensor, size: float, images: Tensor, eps: float, norm: str) -> Tensor:
    """A step of length `size` up the gradient, pulled back into the eps-ball around the images."""
    return project(x.add(steepest(gradient, norm), alpha=size), images, eps, norm)


def random_starts(
    images: Tensor, eps: float, norm: str, generator: torch.Generator | None, count: int = 1
) -> Iterator[Tensor]:
    """Uniformly random points of the eps-ball around each image, clipped to [0, 1].

    The numbers of all starts are drawn image by image. So with a generator on the CPU, a set in parts, one after the
    other, starts from the same points as the whole, whichever images leave on the way. They are drawn again for each
    start, so that no more than one is held.

    Yields:
        `count` tensors `[n, ...]`, one after the other; without a generator the images themselves.
    """
    exact = wide(images)
    if generator is None:
        yield from [exact] * count
        return
    pixels, more = exact[:1].numel() or 1, int(norm == "l2")  # one more number, for the radius
    parts, before = exact.split(max(AT_ONCE // (count * (pixels + more)), 1)), generator.clone_state()
    how = {"dtype": exact.dtype, "device": generator.device}
    for k in range(count):
        rng = before.clone_state() if k else generator
        drawn = (torch.rand((len(part), count, pixels + more), generator=rng, **how) for part in parts)
        uniform = torch.cat([part[:, k].clone() for part in drawn]).to(images.device)
        noise = 2 * uniform[:, :pixels] - 1
        if more:
            # Normal numbers have no direction they prefer. Not randn: its numbers depend on how many are drawn at once.
            noise = torch.erfinv(noise * (1 - torch.finfo(noise.dtype).eps))
            # In d dimensions nearly all of a ball lies near its surface: the radius grows as U^(1/d).
            noise = uniform[:, pixels:] ** (1 / pixels) * steepest(noise, norm)
        yield project(exact + eps * noise.view(exact.shape), images, eps, norm)
