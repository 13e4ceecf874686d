"""Counts the adversarial examples that were made, so that "none" is a measurement and not a promise."""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass


@dataclass
class ExampleCounter:
    """examples: adversarial images generated while the tally was open."""

    examples: int = 0


_open: ContextVar[tuple[ExampleCounter, ...]] = ContextVar("_open", default=())


@contextmanager
def counting() -> Iterator[ExampleCounter]:
    """`with counting() as tally: ...` counts every adversarial example made inside; tallies may be nested."""
    tally = ExampleCounter()
    token = _open.set((*_open.get(), tally))
    try:
        yield tally
    finally:
        _open.reset(token)


def made(examples: int) -> None:
    """Every attack calls this once with the number of images it was given."""
    for tally in _open.get():
        tally.examples += examples
