"""What the readers' checks have in common: a verdict on a number, or on a function by the properties that it has.

A verdict raises nothing, so that an unfinished exercise does not stop a notebook.
"""

import inspect
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from types import FunctionType
from typing import Any

CLOSE = 1e-5
Claim = tuple[bool, str, str]
"""Whether a property holds; what fails where it does not; a hint."""


@dataclass(frozen=True)
class Verdict:
    """passed: whether everything holds. said: what holds, or the first property that fails. hint: what to look at."""

    passed: bool
    said: str
    hint: str = ""

    def __bool__(self) -> bool:
        return self.passed

    def __str__(self) -> str:
        return f"Passed: {self.said}" if self.passed else f"Not yet: {self.said}\nHint: {self.hint}"

    __repr__ = __str__


def relatively(found: float, known: float) -> bool:
    """To half a per cent of what is known."""
    return abs(found - known) <= 0.005 * abs(known)


def absolutely(found: float, known: float) -> bool:
    """To half a hundredth: both as they would be written with two decimals."""
    return abs(found - known) < 0.005


def number(
    answer: Any,
    right: float,
    mistakes: Mapping[float, str],
    *,
    first: str,
    passed: str,
    other: str = "",
    what: str = "it",
    close: Callable[[float, float], bool] = relatively,
    shown: str = "g",
) -> Verdict:
    """A number against the right one and against known mistakes, each of which has a hint.

    first: a hint to begin with. other: the hint for a mistake that is not known; without one, the first again. what:
    the name of the number, as in "the distance". close: whether an answer is meant to be a known number. shown: the
    format of the answer.
    """
    if isinstance(answer, bool) or not isinstance(answer, int | float):
        return Verdict(False, "there is no number yet.", first)
    if close(answer, right):
        return Verdict(True, passed)
    hint = next((hint for wrong, hint in mistakes.items() if close(answer, wrong)), other or first)
    return Verdict(False, f"{answer:{shown}} is not {what}.", hint)


def judged(
    answer: Callable[..., Any], claims: Iterable[Claim], *, first: str, passed: str, stops: str = "", later: str = ""
) -> Verdict:
    """The first property of a function that does not hold.

    claims: lazily, in the order in which they should be mended; they call the answer, and so may stop on the way.
    first: a hint to begin with. stops: the hint where the answer stops before any claim; without one, the first again.
    later: the hint where it stops after a claim that holds, at another input; without one, that of `stops`.
    """
    if _unwritten(answer):
        return Verdict(False, "nothing is written yet.", first)
    hint = stops or first
    try:
        for holds, said, advice in claims:
            if not holds:
                return Verdict(False, said, advice)
            hint = later or stops or first
    except Exception as error:
        return Verdict(False, f"it stops with {type(error).__name__}: {error}".splitlines()[0], hint)
    return Verdict(True, passed)


def _empty() -> None: ...


def _described() -> None:
    """As an exercise that says what it should do."""


def _unwritten(answer: Callable[..., Any]) -> bool:
    # Not by what it returns: a function that is written, but forgets its return, is to get another hint.
    inside = inspect.unwrap(answer)
    if not isinstance(inside, FunctionType):
        return False
    code, empty = inside.__code__, (_empty.__code__.co_code, _described.__code__.co_code)
    return code.co_code in empty and set(code.co_consts) <= {None, inside.__doc__}  # else it returns a constant
