"""The one error a user can cause, and a helper that words it."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches


class InputError(ValueError):
    """Bad input by the user.

    The message is one line that names the value, says what is allowed and what to do about it.
    The command line prints it without a traceback and leaves with exit code 2.
    """


def choose(value: str, allowed: Iterable[str], what: str) -> str:
    """Return `value` when it is one of `allowed`.

    `what` says what is being chosen, for example "data set".

    Raises InputError, listing the allowed values and the closest match, otherwise.
    """
    names = list(allowed)
    if isinstance(value, str) and value in names:
        return value
    message = f"unknown {what} {value!r}; choose one of {', '.join(names)}"
    near = get_close_matches(str(value).lower(), names, n=1)
    if near:
        message += f" (did you mean {near[0]!r}?)"
    raise InputError(message)
