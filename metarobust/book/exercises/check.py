"""What an exercise is: an answer goes in, a verdict with a hint comes out, and nothing is raised.

    (nearest,) = numbers("nearest")      # as `numbers.toml` has it

    @function(first="square it.")
    def square(answer):
        yield answer(2) == 4, "it is not the square.", "multiply."      # see `metarobust.book.properties`
        yield answer(-3) == 9, "it fails below 0.", "no abs()."

A check looks at tiny fixed inputs whose right answer is known, never at a trained accuracy. Properties come in the
order in which they should be mended; the first that fails is the verdict.
"""

import functools
import tomllib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor
from torch.utils._pytree import tree_leaves as leaves  # of tuples, lists and dictionaries

from metarobust.book.properties import NOTHING, CannotJudge, calm, near
from metarobust.errors import is_number

ANY = "any"  # in a known mistake, whatever that number is
Properties = Callable[[Any], Iterable[tuple[Any, str, str]]]
"""An answer to its properties: whether each holds, what fails where it does not, a hint."""


@dataclass(frozen=True, repr=False)
class Verdict:
    """Whether an answer passed; what holds, or the first property that fails; and what to look at."""

    passed: bool
    message: str
    hint: str = ""

    def __bool__(self) -> bool:
        return self.passed

    def __repr__(self) -> str:
        return f"Passed: {self.message}" if self.passed else f"Not yet: {self.message}\nHint: {self.hint}"


def number(
    right: Any, mistakes: Iterable[tuple[Any, str]], *, first: str, passed: str, exact: bool = False
) -> Callable[..., Verdict]:
    """Make an exercise whose answer is a number, or so many numbers; what is given is said in `numbers.toml`."""

    def listed(value: Any) -> list[Any]:
        return list(value) if isinstance(value, tuple | list) else [value]

    def equal(given: list[float], known: Any) -> bool:
        pairs = zip(given, listed(known), strict=True)
        return all(k == ANY or abs(g - k) <= (0 if exact else 0.005 * abs(k)) for g, k in pairs)

    size = len(listed(right))
    nothing = "is no number" if size == 1 else f"are no {'two' if size == 2 else 'four'} numbers"

    def check(*answer: Any) -> Verdict:
        given = listed(answer[0] if len(answer) == 1 else answer)
        if len(given) != size or not all(map(is_number, given)):
            return Verdict(False, f"there {nothing} yet.", first)
        if equal(given, right):
            return Verdict(True, passed)
        hint = next((hint for wrong, hint in mistakes if equal(given, wrong)), first)
        return Verdict(False, f"{', '.join(f'{n:,g}' for n in given)}: that is not it.", hint)

    return check


def numbers(*names: str) -> list[Callable[..., Verdict]]:
    """The exercises of these names in `numbers.toml`."""
    known = tomllib.loads(Path(__file__).with_name("numbers.toml").read_text(encoding="utf-8"))
    return [number(**known[name]) for name in names]


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
                with calm():
                    for holds, message, hint in properties(_guarded(answer)):
                        if not holds:
                            return Verdict(False, message, hint)
            except CannotJudge as why:
                return Verdict(False, str(why), why.hint or first)
            except Exception as error:
                return Verdict(False, f"it stops with {type(error).__name__}: {error}".splitlines()[0], stops or first)
            return Verdict(True, "every property that was asked for holds.")

        return check

    return decorate


def hint_for(found: Any, mistakes: Mapping[str, Any], otherwise: str, tolerance: float = 1e-5) -> str:
    """The hint for the mistake that leads to what was found; `otherwise` where none of them does."""
    return next((hint for hint, wrong in mistakes.items() if near(found, wrong, tolerance)), otherwise)


def _guarded(answer: Callable[..., Any]) -> Callable[..., Any]:
    def state(given: Any) -> list[Any]:  # of tensors as small as those of a check
        return [(x.tolist(), x.requires_grad) if isinstance(x, Tensor) else x for x in leaves(given)]

    def call(*given: Any) -> Any:
        before = state(given)
        result = answer(*given)
        if result is None:
            raise CannotJudge(NOTHING)
        if state(given) != before:
            raise CannotJudge("it changes what it was given.", "work on copies: x.clone(), and neither += nor mul_.")
        return result

    return call
