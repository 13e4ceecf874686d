"""Counts the adversarial examples that were made, so that "none" is a measurement and not a promise."""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass


@dataclass
class ExampleCounter:
    """How many adversarial images were generated inside a `counting()` block, in `examples`."""

    examples: int = 0


_open: ContextVar[tuple[ExampleCounter, ...]] = ContextVar("_open", default=())


@contextmanager
def counting() -> Iterator[ExampleCounter]:
    """Count every adversarial example that is made inside: `with counting() as counter: ...`. Blocks may be nested."""
    counter = ExampleCounter()
    token = _open.set((*_open.get(), counter))
    try:
        yield counter
    finally:
        _open.reset(token)


def count_examples(examples: int) -> None:
    """Every attack calls this once with the number of images it was given."""
    for counter in _open.get():
        counter.examples += examples
