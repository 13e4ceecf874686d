"""The one error a user can cause, and the checks and words that many functions share."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches
from typing import Any


class InputError(ValueError):
    """Bad input by the user.

    The message is one line that names the value, says what is allowed and what to do about it.
    The command line prints it without a traceback and leaves with exit code 2.
    """


def choose(value: str, allowed: Iterable[str], what: str) -> str:
    """Return `value` when it is one of `allowed`.

    Args:
        value: the name that was given.
        allowed: the names to choose from.
        what: what is being chosen, for example "data set".

    Raises:
        InputError: for any other value, with the allowed ones and the closest match.
    """
    names = list(allowed)
    if isinstance(value, str) and value in names:
        return value
    message = f"unknown {what} {value!r}; choose one of {', '.join(names)}"
    near = get_close_matches(str(value).lower(), names, n=1)
    if near:
        message += f" (did you mean {near[0]!r}?)"
    raise InputError(message)


def check_count(name: str, value: int) -> None:
    """Raise InputError for what is no whole number from 1."""
    if not is_whole(value) or value < 1:
        raise InputError(f"{name} is {short_repr(value)}; give a whole number from 1")


def plain(value: Any) -> Any:
    """A number of NumPy's or PyTorch's as Python's; anything else as it is."""
    return value.item() if getattr(value, "ndim", None) == 0 else value


def is_number(value: object) -> bool:
    """Whether this is a Python number; a bool is an answer, and a tensor could hold many numbers."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def is_whole(value: object) -> bool:
    """Whether this is a Python integer, and no bool."""
    return isinstance(value, int) and not isinstance(value, bool)


def short_repr(value: object) -> str:
    """The value as a message names it: on one line, of at most 60 characters."""
    text = " ".join(repr(value).split())
    return text if len(text) <= 60 else f"{text[:57]}..."
