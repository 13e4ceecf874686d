"""Named wrong answers to the questions of the assignments, and the one property that each of them violates."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Wrong:
    """number, question: where. violates: the property's name. name: of the mistake, in words. answer: the function."""

    number: int
    question: str
    violates: str
    answer: Callable[..., Any]

    @property
    def name(self) -> str:
        return self.answer.__name__.replace("_", " ")


def wrong(number: int, question: str, **violations: list[Callable[..., Any]]) -> list[Wrong]:
    """The functions, by the property that they violate (with _ for a space or a hyphen)."""
    return [Wrong(number, question, name, answer) for name, answers in violations.items() for answer in answers]
