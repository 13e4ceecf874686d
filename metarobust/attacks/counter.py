"""Counts the adversarial examples that were made, so that "none" is a measurement and not a promise.

Points near an image at which a penalty takes a gradient are counted apart: no label is asked of them, and nothing is
trained to be right there, but one step along the sign of a gradient finds a point as FGSM does.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass


@dataclass
class ExampleCounter:
    """What was made inside a `counting()` block.

    Attributes:
        examples: adversarial images that were generated.
        points: points beside the images at which a penalty took a gradient.
    """

    examples: int = 0
    points: int = 0


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


def count(examples: int = 0, points: int = 0) -> None:
    """Every attack calls this once with the number of its images, a penalty with the points it visits beside them."""
    for counter in _open.get():
        counter.examples += examples
        counter.points += points
