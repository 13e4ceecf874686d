"""Calling a student's function, in whatever process: what it returns, and what it leaves behind."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.utils._pytree import tree_leaves

from metarobust.book.properties import calm
from metarobust.course.toys import Toy
from metarobust.course.wire import plain


class OutOfTime(BaseException):
    """Not an Exception, so that a student's `except Exception` does not swallow it."""


@contextmanager
def limit(seconds: float) -> Iterator[list[bool]]:
    """Raises OutOfTime in what is inside after so many seconds, and again each second, should it be swallowed.

    Yields a list, empty until then: what is inside may turn OutOfTime into another error on its way out.
    """
    late: list[bool] = []

    def stop(*_: object) -> None:
        late.append(True)
        raise OutOfTime

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds, 1.0)
    try:
        yield late
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def perform(function: Callable[..., Any], given: Sequence[Any], slope: int | None = None) -> dict[str, Any]:
    """Call a function.

    Args:
        function: the student's.
        given: what it gets.
        slope: which of these to differentiate the sum of each result by; None for none.

    Returns:
        `value`, what it returned; `graph`, of each tensor whether it has a gradient and a graph; `slopes`, of each
        tensor; `after`, the given as they are now. Only `raised`, in words, where it stops.
    """
    with calm():
        try:
            result = function(*given)
            leaves = [one for one in tree_leaves(result) if isinstance(one, Tensor)]
            found = {"value": plain(result), "graph": [[t.requires_grad, t.grad_fn is not None] for t in leaves[:100]]}
            if slope is not None:
                leaf = given[slope] if isinstance(given[slope], Tensor) else next(given[slope].parameters())
                found["slopes"] = [_slope(t, leaf) if t.requires_grad else None for t in leaves[:10]]
        except Exception as error:
            text = " ".join(str(error)[:500].split())[:160]  # the student's own, and as long as they like
            return {"raised": f"{type(error).__name__}: {text}" if text else type(error).__name__}
        return {**found, "after": [state(one) for one in given]}


def _slope(result: Tensor, leaf: Tensor) -> Tensor | None:
    return torch.autograd.grad(result.sum(), leaf, retain_graph=True, allow_unused=True)[0]


def state(given: Any) -> Any:
    """What a function might have changed of what it was given."""
    if isinstance(given, Tensor):
        return [given.detach(), given.requires_grad, given.grad]
    if isinstance(given, Toy):
        parts = {name: [p.detach(), p.grad] for name, p in given.named_parameters()}
        return {"notes": plain(given.notes[:200]), "training": given.training, "parts": parts}
    return [state(part) for part in given] if isinstance(given, list) else None
