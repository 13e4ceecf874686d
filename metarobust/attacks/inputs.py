"""The door of every attack: what would make an attack look weak, or a model look strong, is refused here.

Most checks read the data, and on a GPU that makes the processor wait. So who has checked the data once, and then
attacks many times, does it inside `inputs_checked()`.
"""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import torch
from torch import Tensor

from metarobust.attacks.counter import count_examples
from metarobust.attacks.criterion import Criterion
from metarobust.attacks.threat import check_eps
from metarobust.errors import InputError, check_count, short_repr

FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
_checked: ContextVar[bool] = ContextVar("_checked", default=False)


@contextmanager
def inputs_checked() -> Iterator[None]:
    """Inside, images, labels and targets count as checked; numbers and names are checked as ever."""
    token = _checked.set(True)
    try:
        yield
    finally:
        _checked.reset(token)


def enter(
    images: Tensor,
    labels: Tensor,
    *,
    eps: float,
    norm: str,
    loss: str = "margin",
    targets: Tensor | None = None,
    generator: torch.Generator | None = None,
    restarts: int = 1,
) -> Criterion:
    """Check what an attack was given, count its images, and return what it climbs. For the arguments see `pgd`."""
    classes = check_inputs(images, labels, eps=eps, norm=norm, targets=targets)
    if generator is not None and not isinstance(generator, torch.Generator):
        raise InputError(
            f"generator is {short_repr(generator)}; pass generator=torch.Generator(), after .manual_seed(seed) "
            f"where you want the same result again"
        )
    check_count("restarts", restarts)
    if restarts > 1 and generator is None:
        raise InputError(
            f"{restarts} restarts without a generator would all be alike: pass generator=torch.Generator()"
        )
    criterion = Criterion(loss, labels, targets, classes=classes)
    count_examples(len(images))
    return criterion


def check_inputs(images: Tensor, labels: Tensor, *, eps: float, norm: str, targets: Tensor | None = None) -> int:
    """Check images, labels, threat and targets, for whose shapes and ranges see `pgd`.

    In l2, eps may be at most the distance of black from white, so that an eps of bytes is seen.

    Returns:
        How many outputs a model must have for these classes.

    Raises:
        InputError: for what is out of shape or range, and for a target that is the label.
    """
    if not _checked.get():
        _check_images(images)  # first: who gives bytes gives eps in bytes, too
    check_eps(eps, norm)
    if _checked.get():
        return 2
    far = math.sqrt(math.prod(images.shape[1:]))
    if norm == "l2" and eps > far:
        raise InputError(
            f"eps is {short_repr(eps)}; no two such images are further apart than {far:g} in l2: give a distance "
            f"between images in [0, 1], as 128/255, not 128"
        )
    classes = _check_classes("labels", labels, images)
    if targets is None:
        return classes
    classes = max(classes, _check_classes("targets", targets, images))
    if bool((targets == labels).any()):
        first = int((targets == labels).nonzero()[0])
        raise InputError(f"the target of image {first} is {int(targets[first])}, its own label: give a wrong class")
    return classes


def _check_images(images: Tensor) -> None:
    if not isinstance(images, Tensor):
        raise InputError(f"images are {short_repr(images)}; give a tensor of floats in [0, 1]")
    if images.dtype not in FLOATS:
        raise InputError(f"images are {images.dtype}; attacks need floats in [0, 1]: convert and divide by 255")
    if images.ndim < 2 or 0 in images.shape[1:]:
        raise InputError(
            f"images have shape {list(images.shape)}; give [n, ...], a batch of pixels: one image is x[None]"
        )
    low, high = images.aminmax() if images.numel() else (torch.zeros(()), torch.ones(()))
    low, high = torch.stack([low, high]).tolist()
    if low != low:  # a NaN
        raise InputError("images hold nan, which is no pixel: look for a division by 0, and give floats in [0, 1]")
    if not (low >= 0 and high <= 1):
        raise InputError(
            f"images run from {low:g} to {high:g}, not within [0, 1]: undo the normalisation, "
            f"and put it inside the model"
        )


def _check_classes(name: str, classes: Tensor, images: Tensor) -> int:
    """Check labels or targets; returns how many outputs a model must have for them."""
    shape = f"give one int64 class per image: shape [{len(images)}]"
    if not isinstance(classes, Tensor):
        raise InputError(f"{name} are {short_repr(classes)}; {shape}, a tensor")
    if classes.dtype != torch.int64 or classes.shape != images.shape[:1]:
        raise InputError(f"{name} are {classes.dtype} of shape {list(classes.shape)}; {shape}")
    if classes.device != images.device:
        raise InputError(f"{name} are on {classes.device} and images on {images.device}: move them with .to")
    if not len(classes):
        return 2
    low, high = torch.stack(classes.aminmax()).tolist()
    if low < 0:
        raise InputError(f"{name} go down to {low}; classes count from 0: give those")
    return max(high + 1, 2)
