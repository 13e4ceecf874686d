"""The door of every attack: what would make an attack look weak, or a model look strong, is refused here.

Most checks read the data, and on a GPU that makes the processor wait. So who has checked the data once, and then
attacks many times, does it inside `inputs_checked()`.
"""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from contextvars import ContextVar
from functools import wraps
from inspect import signature
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from metarobust.attacks.counter import count
from metarobust.attacks.criterion import checked
from metarobust.attacks.threat import check_eps
from metarobust.errors import InputError, check_count, plain, short_repr

FLOATS = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
DATA = ("images", "labels", "targets")
COUNTS = {"steps", "queries", "restarts"}
F = TypeVar("F", bound=Callable[..., Any])
_checked: ContextVar[bool] = ContextVar("_checked", default=False)


def careful(function: F) -> F:
    """Lets a function take models, tensors and numbers as people have them, and changes none of them.

    What was made inside torch.inference_mode is copied, and the function itself is run outside of it, where there are
    gradients. Buffers, such as the running averages of a model in train mode, are put back.
    """
    parameters = signature(function)

    @wraps(function)
    def run(*args: Any, **kwargs: Any) -> Any:
        bound = parameters.bind(*args, **kwargs)
        bound.apply_defaults()
        given = bound.arguments
        outside = torch.inference_mode(False) if torch.is_inference_mode_enabled() else nullcontext()
        with outside, buffers_kept(*given.values()):
            for name, value in given.items():
                if name not in DATA:
                    given[name] = plain(value)
                elif isinstance(value, Tensor):
                    given[name] = value.clone() if value.is_inference() else value.detach()
            return function(**given)

    return run  # pyright: ignore[reportReturnType]


def attack(function: F) -> F:
    """A `careful` attack: what it is given is checked, and its images are counted. For the arguments see `pgd`.

    Of images in half precision it may hold points in float32.
    """

    @wraps(function)
    def run(**given: Any) -> Tensor:
        images, generator = given["images"], given["generator"]
        classes = check_inputs(images, given["labels"], **{name: given[name] for name in ("eps", "norm", "targets")})
        if generator is not None and not isinstance(generator, torch.Generator):
            raise InputError(f"generator is {short_repr(generator)}; pass generator=torch.Generator().manual_seed(0)")
        for name in COUNTS & given.keys():
            check_count(name, given[name])
        if given.get("restarts", 1) > 1 and generator is None:
            raise InputError("several restarts without a generator are all alike: pass generator=torch.Generator()")
        moved = function(**given | {"predict": checked(given["predict"], images, classes)})
        count(examples=len(images))
        return moved.to(images.dtype)

    return careful(run)  # pyright: ignore[reportReturnType]


@contextmanager
def buffers_kept(*models: object) -> Iterator[None]:
    """Outside, the buffers of those that are modules are as they were."""
    modules = [module for model in models if isinstance(model, nn.Module) for module in model.modules()]
    buffers = [(module, name, b) for module in modules for name, b in module._buffers.items() if b is not None]
    kept = [(module, name, b, b.clone()) for module, name, b in buffers if not is_lazy(b) and 0 not in b.stride()]
    try:
        yield
    finally:
        for module, name, buffer, value in kept:
            with torch.inference_mode():  # where the buffer, too, may be from
                buffer.data.copy_(value)  # by data: a loss may wait for its backward, to which this is no change
            if getattr(module, name) is not buffer:
                setattr(module, name, buffer)


@contextmanager
def inputs_checked() -> Iterator[None]:
    """Inside, images, labels and targets count as checked; numbers and names are checked as ever."""
    token = _checked.set(True)
    try:
        yield
    finally:
        _checked.reset(token)


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
        raise InputError(f"images are {images.dtype}; give floats in [0, 1]: convert and divide by 255")
    if images.ndim < 2 or 0 in images.shape[1:]:
        raise InputError(f"images have shape {list(images.shape)}; give [n, ...], a batch: one image is x[None]")
    low, high = images.aminmax() if images.numel() else images.new_tensor([0, 1])
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
