"""Properties that an answer has to have: what exercises and graded questions are made of.

A check of an answer is a generator of properties, each of them three things: whether it holds, what fails where it does
not, and what to look at then (of a graded question, the name under which `questions.toml` has that).

    yield *in_ball(moved, x, eps), "multiply the sign of the gradient by eps."
    yield near(moved, twice), "it is not the same the second time.", "repeats"
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor

CLOSE = 1e-4
NOTHING = "it returns nothing yet."


class CannotJudge(ValueError):
    """What came back is not of the kind that was asked for: the message says how, and `hint` what to do, or nothing."""

    def __init__(self, message: str, hint: str = ""):
        super().__init__(message)
        self.hint = hint


class Holds(NamedTuple):
    """Whether a property holds, and what is wrong where it does not."""

    so: bool
    message: str

    def __bool__(self) -> bool:
        return self.so


def begun(holds: Any, message: str) -> None:
    """Raises CannotJudge unless something was done: who has not begun earns nothing by leaving things as they are."""
    if not holds:
        raise CannotJudge(message)


def near(found: Any, right: Any, tolerance: float = CLOSE) -> bool:
    """Whether numbers or tensors are equal up to a share of the largest entry, or of 1 where that is small."""
    found, right = (torch.as_tensor(one).detach().double() for one in (found, right))
    return bool((found - right).abs().max() <= tolerance * max(1.0, float(right.abs().max())))


def same(found: float, right: float, tolerance: float = CLOSE) -> Holds:
    """The property that a number is the right one."""
    return Holds(abs(found - right) < tolerance, f"it says {found:.4g} where {right:.4g} is right.")


def in_ball(moved: Tensor, x: Tensor, eps: float) -> Holds:
    """The property that no pixel is further than eps from its image."""
    far = float((moved - x).abs().max())
    return Holds(far <= eps + CLOSE, f"a pixel is {far:.3f} away from the image, more than eps, {eps:.3f}.")


def in_range(images: Tensor) -> Holds:
    """The property that every pixel is in [0, 1]."""
    low, high = float(images.min()), float(images.max())
    return Holds(low >= -CLOSE and high <= 1 + CLOSE, f"pixels run from {low:.2f} to {high:.2f}, outside [0, 1].")


def tensor(value: Any, shape: Sequence[int], finite: bool = True) -> Tensor:
    """A floating-point tensor of this shape. Raises CannotJudge where it is none, or is not finite."""
    if not isinstance(value, Tensor):
        raise CannotJudge(f"it returns {said(value)}, not a tensor.")
    if tuple(value.shape) != tuple(shape):
        raise CannotJudge(f"it returns shape {list(value.shape)}, not {list(shape)}.")
    if not value.is_floating_point():
        raise CannotJudge(f"it returns {value.dtype}, not floats.")
    if finite and not bool(value.isfinite().all()):
        raise CannotJudge("what it returns is not finite.")
    return value.float()


def number(value: Any) -> float:
    """One finite number, or a tensor of one. Raises CannotJudge where it is none."""
    if isinstance(value, Tensor) and value.numel() == 1 and not value.is_complex():
        value = value.item()
    if not isinstance(value, int | float):
        raise CannotJudge(f"it returns {said(value)}, not a number.")
    if not abs(value) < 1e300:
        raise CannotJudge("it returns a number that is not finite.")
    return float(value)


def parts(value: Any, many: int, what: str) -> list[Any]:
    """The parts of a list, tuple or array. Raises CannotJudge, which says `what` it should be, where it has others."""
    found = list(value) if isinstance(value, tuple) or (isinstance(value, Tensor) and value.ndim) else value
    if not isinstance(found, list) or len(found) != many:
        raise CannotJudge(f"it does not return {what}.")
    return found


def said(value: Any) -> str:
    """A value in a few words."""
    if isinstance(value, Tensor):
        return f"a tensor of shape {list(value.shape)}"
    if isinstance(value, dict) and set(value) == {"type"}:
        return f"a {str(value['type'])[:100]}"
    text = " ".join(repr(value)[:1000].split())
    return text if len(text) <= 60 else f"{text[:57]}..."


@contextmanager
def calm() -> Iterator[None]:
    """What a program has set of torch and of warnings does not count inside, and is there again after it."""
    dtype = torch.get_default_dtype()
    torch.set_default_dtype(torch.float32)
    try:
        with (
            warnings.catch_warnings(), torch.random.fork_rng(devices=[]), torch.inference_mode(False),
            torch.enable_grad(), torch.device("cpu"),
        ):  # fmt: skip
            warnings.simplefilter("ignore")
            yield
    finally:
        torch.set_default_dtype(dtype)
