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

from metarobust.errors import InputError, choose

NORMS = ("linf", "l2")
FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
TINY = 1e-12


def check(images: Tensor, labels: Tensor, eps: float, norm: str, toward: Tensor | None = None) -> int:
    """Refuses what would make an attack look weak or a model look strong, and returns the largest label.

    Raises InputError for images that are not floating point or leave [0, 1], labels or target classes that do not fit
    them, a target that is the label, a bad eps or an unknown norm. In l2, eps may be up to the distance of black from
    white: an eps of bytes is seen in either norm.
    """
    if not isinstance(images, Tensor):
        raise InputError(f"images are {said(images)}; give a tensor of floats in [0, 1]")
    if images.dtype not in FLOATS:
        raise InputError(f"images are {images.dtype}; attacks need floats in [0, 1]: convert and divide by 255")
    if images.ndim < 2 or 0 in images.shape[1:]:
        raise InputError(
            f"images have shape {list(images.shape)}; give [n, ...], a batch of pixels: one image is x[None]"
        )
    if images.numel() and not (float(images.min()) >= 0 and float(images.max()) <= 1):
        low, high = float(images.min()), float(images.max())
        if low != low:  # a NaN
            raise InputError("images hold nan, which is no pixel: look for a division by 0, and give floats in [0, 1]")
        raise InputError(
            f"images run from {low:g} to {high:g}, not within [0, 1]: undo the normalisation, "
            f"and put it inside the model"
        )
    _check_classes("labels", labels, images)
    if toward is not None:
        _check_classes("target classes (toward)", toward, images)
        if bool((toward == labels).any()):
            first = int((toward == labels).nonzero()[0])
            raise InputError(
                f"image {first} is to be turned toward {int(toward[first])}, its own label: give a wrong class"
            )
    check_eps(eps, norm)
    far = math.sqrt(math.prod(images.shape[1:]))
    if norm == "l2" and eps > far:
        raise InputError(
            f"eps is {said(eps)}; no two such images are further apart than {far:g} in l2: give a distance between "
            f"images in [0, 1], as 128/255, not 128"
        )
    return int(labels.max()) if labels.numel() else 0


def _check_classes(what: str, classes: Tensor, images: Tensor) -> None:
    shape = f"give one int64 class per image: shape [{len(images)}]"
    if not isinstance(classes, Tensor):
        raise InputError(f"{what} are {said(classes)}; {shape}, a tensor")
    if classes.dtype != torch.int64 or classes.shape != images.shape[:1]:
        raise InputError(f"{what} are {classes.dtype} of shape {list(classes.shape)}; {shape}")
    if classes.device != images.device:
        raise InputError(f"{what} are on {classes.device} and images on {images.device}: move them with .to")
    if classes.numel() and int(classes.min()) < 0:
        raise InputError(f"{what} go down to {int(classes.min())}; classes count from 0: give those")


def check_outputs(logits: Tensor, top: int, what: str = "label") -> None:
    """Raises InputError for what are no logits `[n, classes]`, and for no output for `top`, the largest label."""
    if not isinstance(logits, Tensor):
        raise InputError(f"the model returns {said(logits)}; attacks need logits: give a function to a tensor")
    if not logits.is_floating_point() or logits.ndim != 2 or logits.shape[1] < 2:
        raise InputError(
            f"the model returns {logits.dtype} of shape {list(logits.shape)}; attacks need logits [n, classes]: "
            f"give a model with one output for each of 2 classes or more"
        )
    classes = logits.shape[-1]
    if top >= classes:
        raise InputError(
            f"a {what} is {top}; the model has {classes} outputs, 0 to {classes - 1}: give {what}s that it knows"
        )


def check_eps(eps: float, norm: str = "linf") -> None:
    """Raises InputError unless eps is a number from 0 (in L-infinity to 1), in units of pixels in [0, 1]."""
    choose(norm, NORMS, "norm")
    if not is_number(eps) or not 0 <= eps < math.inf or (norm == "linf" and eps > 1):
        top = "1" if norm == "linf" else "infinity"
        raise InputError(
            f"eps is {said(eps)}; it is a distance between images in [0, 1]: give a number from 0 to {top} "
            f"(8/255 is 0.031)"
        )


def check_count(name: str, value: int) -> None:
    """Raises InputError for what is no whole number from 1."""
    if not is_whole(value) or value < 1:
        raise InputError(f"{name} is {said(value)}; give a whole number from 1")


def check_answer(name: str, value: bool) -> None:
    """Raises InputError for what is neither True nor False: 1 and "no" are both true to Python."""
    if not isinstance(value, bool):
        raise InputError(f"{name} is {said(value)}; give True or False")


def check_generator(generator: torch.Generator | None, restarts: int = 1) -> None:
    """Raises InputError for a generator of another kind, as a seed is, and for restarts that would be all alike."""
    if generator is not None and not isinstance(generator, torch.Generator):
        raise InputError(
            f"generator is {said(generator)}; pass generator=torch.Generator(), after .manual_seed(seed) where you "
            f"want the same result again"
        )
    check_count("restarts", restarts)
    if restarts > 1 and generator is None:
        raise InputError(
            f"{restarts} restarts without a generator would all be alike: pass generator=torch.Generator()"
        )


def is_number(value: object) -> bool:
    """A Python number; a bool is an answer, and a tensor would be a different radius for each image."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def is_whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def said(value: object) -> str:
    """The value as a message names it: on one line, and not more of it than a reader wants."""
    text = " ".join(repr(value).split())
    return text if len(text) <= 60 else f"{text[:57]}..."


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
    """The eps-ball around images, as far as it is in [0, 1], for attacks that project many times.

    images: `[n, ...]` in [0, 1]. eps: radius in pixel units. norm: `linf` or `l2`.
    """

    def __init__(self, images: Tensor, eps: float, norm: str):
        self.images, self.eps, self.norm = images, eps, norm
        if norm == "linf":  # a box: its bounds are made once, and a projection is a single pass
            self.low, self.high = (images - eps).clamp_(min=0), (images + eps).clamp_(max=1)

    def project_(self, perturbed: Tensor) -> Tensor:
        """As `project`, up to rounding: `[n, ...]` to `[n, ...]`. What it is given is used up, and may come back."""
        if self.norm == "linf":
            return perturbed.clamp_(self.low, self.high)
        return project(perturbed, self.images, self.eps, self.norm)


def random_starts(
    images: Tensor, eps: float, norm: str, generator: torch.Generator | None, count: int = 1
) -> list[Tensor]:
    """`count` uniformly random points of the eps-ball around each image, clipped to [0, 1]; no generator: the images.

    All numbers are drawn here and at once, first those of the first image. So with a generator on the CPU, a set in
    parts, one after the other, starts from the same points as the whole, whichever images leave on the way.
    """
    if generator is None:
        return [images] * count
    pixels = images[0].numel() if len(images) else 1
    exact = torch.promote_types(images.dtype, torch.float32)
    more = norm == "l2"  # one more number, for the radius
    chance = torch.rand((len(images), count, pixels + more), generator=generator, dtype=exact, device=generator.device)
    noise = 2 * chance[..., :pixels].to(images.device) - 1
    if more:
        # Normal numbers have no direction they prefer. Not randn: its numbers depend on how many are drawn at once.
        noise = torch.erfinv(noise * (1 - torch.finfo(exact).eps))
        # In d dimensions nearly all of a ball lies near its surface: the radius grows as U^(1/d).
        radius = chance[..., pixels:].to(images.device) ** (1 / pixels)
        noise = radius * steepest(noise.flatten(0, 1), norm).view_as(noise)
    starts = [part.view(images.shape).to(images.dtype) for part in noise.unbind(1)]
    return [project(images + eps * part, images, eps, norm) for part in starts]
