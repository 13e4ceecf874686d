"""What an exercise is: an answer goes in, a verdict with a hint comes out, and nothing is raised.

    nearest = number(0.2, {1 / 7: "that is L-infinity."}, first="go straight.", passed="w is 5 long.")

    @function(first="square it.")
    def square(answer):
        yield answer(2) == 4, "it is not the square.", "multiply."
        yield answer(-3) == 9, "it fails below 0.", "no abs()."

A check looks at tiny fixed inputs whose right answer is known, never at a trained accuracy. Properties come in the
order in which they should be mended; the first that fails is the verdict.
"""

import functools
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves as leaves  # of tuples, lists and dictionaries

CLOSE = 1e-5
Properties = Callable[[Any], Iterable[tuple[bool, str, str]]]
"""An answer to its properties: whether each holds, what fails where it does not, a hint."""


@dataclass(frozen=True)
class Verdict:
    """Whether an answer passed; what holds, or the first property that fails; and what to look at."""

    passed: bool
    message: str
    hint: str = ""

    def __bool__(self) -> bool:
        return self.passed

    def __str__(self) -> str:
        return f"Passed: {self.message}" if self.passed else f"Not yet: {self.message}\nHint: {self.hint}"

    __repr__ = __str__


def number(
    right: float | tuple[float, ...], mistakes: Mapping[Any, str], *, first: str, passed: str, exact: bool = False
) -> Callable[..., Verdict]:
    """Make an exercise whose answer is a number, or so many numbers.

    Args:
        right: The right answer.
        mistakes: A known mistake to its hint. Of several numbers, None stands for any.
        first: The hint for who has not begun, and for mistakes that are not known.
        passed: What is said of the right answer.
        exact: Whether an answer has to be equal to a known number, and not only to half a per cent.
    """

    def numbers(value: Any) -> tuple[Any, ...]:
        return tuple(value) if isinstance(value, tuple | list) else (value,)

    def equal(given: tuple[float, ...], known: Any) -> bool:
        pairs = zip(given, numbers(known), strict=True)
        return all(k is None or abs(g - k) <= (0 if exact else 0.005 * abs(k)) for g, k in pairs)

    size = len(numbers(right))
    nothing = "is no number" if size == 1 else f"are no {'two' if size == 2 else 'four'} numbers"

    def check(*answer: Any) -> Verdict:
        given = numbers(answer[0] if len(answer) == 1 else answer)
        if len(given) != size or any(isinstance(n, bool) or not isinstance(n, int | float) for n in given):
            return Verdict(False, f"there {nothing} yet.", first)
        if equal(given, right):
            return Verdict(True, passed)
        hint = next((hint for wrong, hint in mistakes.items() if equal(given, wrong)), first)
        return Verdict(False, f"{', '.join(f'{n:,g}' for n in given)}: that is not it.", hint)

    return check


def function(*, first: str, stops: str = "") -> Callable[[Properties], Callable[[Any], Verdict]]:
    """Make an exercise of the properties that a function has to have: a decorator for a generator of them.

    Whatever it is, an answer has to return something, and to leave what it is given as it is.

    Args:
        first: The hint for who has not begun.
        stops: The hint where the answer stops with an error; without one, `first`.
    """

    def decorate(properties: Properties) -> Callable[[Any], Verdict]:
        @functools.wraps(properties)
        def check(answer: Any) -> Verdict:
            try:
                for holds, message, hint in properties(_guarded(answer, first)):
                    if not holds:
                        return Verdict(False, message, hint)
            except _Fails as failed:
                return Verdict(False, *failed.args)
            except Exception as error:
                return Verdict(False, f"it stops with {type(error).__name__}: {error}".splitlines()[0], stops or first)
            return Verdict(True, "every property that was asked for holds.")

        return check

    return decorate


def near(result: Any, expected: Any, tolerance: float = CLOSE) -> bool:
    """Whether two numbers or tensors are equal up to rounding."""
    pair = (torch.as_tensor(value).detach().double() for value in (result, expected))
    return torch.allclose(*pair, rtol=1e-5, atol=tolerance)


def like(result: Any, given: Tensor) -> tuple[bool, str, str]:
    """The property that a result has the shape of what was given."""
    hint = (
        f"it gives {type(result).__name__} {list(getattr(result, 'shape', []))}, and should give {list(given.shape)}."
    )
    return getattr(result, "shape", None) == given.shape, "it returns something of another shape.", hint


class _Fails(Exception):
    """A message and a hint."""


def _guarded(answer: Callable[..., Any], first: str) -> Callable[..., Any]:
    def state(given: Any) -> list[Any]:  # of tensors as small as those of a check
        return [(x.tolist(), x.requires_grad) if isinstance(x, Tensor) else x for x in leaves(given)]

    def call(*given: Any) -> Any:
        before = state(given)
        result = answer(*given)
        if result is None:
            raise _Fails("it returns nothing yet.", first)
        if state(given) != before:
            raise _Fails("it changes what it was given.", "work on copies: x.clone(), and neither += nor mul_.")
        return result

    return call
