"""What a graded question is: a case to try the answer on, a probe that does, and properties that are judged.

    case = make(seed)             the tensors, shapes and numbers of one variant; the same seed, the same variant
    record = probe(answer, case)  what the student's function returned and left behind, in the student's process
    mark = judge(case, record)    which properties hold, in the process of whoever judges

Probe and judge are apart so that a grader can keep the judging to itself: a record is tensors, numbers and text, and
nothing in it is ever run. A variant is a recipe, not a table of answers: whoever knows the recipe has to write the
function all the same.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from metarobust.errors import choose

CLOSE = 1e-4
NOTHING = "it returns nothing yet."
NOT_REACHED = "it was not reached."
BEGIN = "write the function; the text above it says what it is given and what it returns."
Answer = Callable[..., Any]
Record = Mapping[str, Any]
Fails = Callable[[Any, Record], str | None]


class CannotJudge(Exception):
    """What came back is not of the kind that was asked for; the message says how."""


@dataclass(frozen=True)
class Property:
    """name: a word. points: for it. asks: what has to hold. hint: where to look. fails: says what is wrong, or None."""

    name: str
    points: int
    asks: str
    hint: str
    fails: Fails


@dataclass(frozen=True)
class Question:
    """name: q1, q2, ... answer: the function's name in the notebook. make, probe: see the top of this file.

    returns: raises CannotJudge where the main result is not of the right kind; then no property is looked at.
    """

    name: str
    answer: str
    make: Callable[[torch.Generator], Any]
    probe: Callable[[Answer, Any], dict[str, Any]]
    returns: Callable[[Any, Record], object]
    properties: tuple[Property, ...]

    @property
    def out_of(self) -> int:
        return sum(p.points for p in self.properties)

    def case(self, seed: int) -> Any:
        """The variant of this seed."""
        return self.make(torch.Generator().manual_seed(1000 * seed + int(self.name[1:])))

    def property_named(self, name: str) -> Property:
        named = {p.name: p for p in self.properties}
        return named[choose(name, named, f"property of {self.name}")]


@dataclass(frozen=True)
class Assignment:
    """number: 1 to 4. slug: the master's file name. forbidden: modules that the notebook shall do without."""

    number: int
    slug: str
    title: str
    forbidden: tuple[str, ...]
    questions: tuple[Question, ...]

    @property
    def out_of(self) -> int:
        return sum(q.out_of for q in self.questions)

    def question(self, name: str) -> Question:
        """Raises InputError for a name that no question has."""
        named = {q.name: q for q in self.questions}
        return named[choose(name, named, f"question of assignment {self.number}")]


def call(function: Answer, *given: Any) -> Any:
    """What the function returns, without its graph; a dictionary that says so where it stops."""
    try:
        return plain(function(*given))
    except Exception as error:
        # The text is the student's own and may be as long as they like.
        text = " ".join(str(error)[:500].split())[:160]
        return {"raised": f"{type(error).__name__}: {text}" if text else type(error).__name__}


def plain(value: Any) -> Any:
    """Tensors as they are now, cut from their graph; containers of them; numbers, text, None; else the type's name."""
    if isinstance(value, Tensor):
        return value.detach().clone()
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, dict):
        return {str(name): plain(part) for name, part in value.items()}
    if isinstance(value, list | tuple):
        return [plain(part) for part in value]
    return {"type": type(value).__name__}


def tensor(record: Record, name: str, shape: tuple[int, ...], finite: bool = True) -> Tensor:
    """An entry that has to be a floating-point tensor of this shape. Raises CannotJudge where it is not."""
    value = entry(record, name)
    if not isinstance(value, Tensor):
        raise CannotJudge(f"it returns {said(value)}, not a tensor.")
    if tuple(value.shape) != tuple(shape):
        raise CannotJudge(f"it returns shape {list(value.shape)}, not {list(shape)}.")
    if not value.is_floating_point():
        raise CannotJudge(f"it returns {value.dtype}, not floats.")
    if finite and not bool(value.isfinite().all()):
        raise CannotJudge("what it returns is not finite.")
    return value.float()


def number(record: Record, name: str) -> float:
    """An entry that has to be one finite number. Raises CannotJudge where it is not."""
    value = entry(record, name)
    if isinstance(value, Tensor) and value.numel() == 1:
        value = value.item()
    if not isinstance(value, int | float) or isinstance(value, bool):
        raise CannotJudge(f"it returns {said(value)}, not a number.")
    if not abs(value) < float("inf"):
        raise CannotJudge(f"it returns {value}.")
    return float(value)


def entry(record: Record, name: str) -> Any:
    """An entry, whatever it is. Raises CannotJudge where the function returned nothing, or stopped."""
    value = record.get(name)
    if value is None:
        raise CannotJudge(NOTHING)
    if isinstance(value, dict) and "raised" in value:
        raise CannotJudge(f"it stops with {value['raised']}")
    return value


def noted(name: str, says: str, wanted: bool = True) -> Fails:
    """For what the probe has seen by itself: says so where the record's entry is anything but `wanted`."""
    return lambda case, record: None if record.get(name) is wanted else says


def said(value: Any) -> str:
    """A value in a few words."""
    if isinstance(value, Tensor):
        return f"a tensor of shape {list(value.shape)}"
    if isinstance(value, dict) and set(value) == {"type"}:
        return f"a {value['type']}"
    text = " ".join(repr(value).split())
    return text if len(text) <= 60 else f"{text[:57]}..."


def close(found: Tensor, right: Tensor, tolerance: float = CLOSE) -> bool:
    """Equal up to a share of the largest entry, or of 1 where that is small."""
    return bool((found - right).abs().max() <= tolerance * max(1.0, float(right.abs().max())))


def uniform(generator: torch.Generator, low: float, high: float, *shape: int) -> Tensor:
    """Random floats from low to high."""
    return torch.rand(shape, generator=generator) * (high - low) + low


def whole(generator: torch.Generator, low: int, high: int) -> int:
    """A random whole number from low to high, both included."""
    return int(torch.randint(low, high + 1, (), generator=generator))
