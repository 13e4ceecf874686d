"""What a graded question is: a function that tries an answer on one variant, and judges what came of it.

    def square(g, ask):                             # g draws the variant
        x = uniform(g, -1, 1, 3)
        found = ask(x).tensor(3)                    # where this is none, nothing is earned
        yield near(found, x**2), "it is not the square.", "size"    # see `metarobust.book.properties`

What each property is worth and asks, and a hint, is in `questions.toml`. The answer may live in another process: `ask`
sends what it is given, and gets back a `Reply`. A variant is a recipe, not a table of answers: whoever knows the
recipe has to write the function all the same.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from metarobust.book.properties import NOTHING, CannotJudge, calm
from metarobust.course.calling import perform
from metarobust.course.reply import Reply
from metarobust.course.wire import pack, unpack
from metarobust.errors import choose

NOT_REACHED = "it was not reached."
HINTS = {
    NOTHING: "write the function; the text above it says what it is given and what it returns.",
    NOT_REACHED: "something before it took the run down; the notes say what.",
    "requires?.grad": "a gradient is for a tensor without a past: x.detach().clone().requires_grad_(), then the loss.",
    "^it stops": "run the function on a small tensor of your own and read the whole message.",
    "": "compare what you return with what the text above the function asks for.",
}
"""For what keeps a question from being judged, by a pattern in it."""
UNKNOWN = (CannotJudge, ArithmeticError, LookupError, TypeError, ValueError, RuntimeError, AttributeError)
"""What a judge stops with where a reply is forged, or of a kind that nobody thought of."""
Ask = Callable[..., Reply]
Judged = Iterator[tuple[Any, ...]]
"""Whether it holds, what fails where not, the property's name. The first may be a function that says so: what it raises
leaves the other properties alone."""


@dataclass(frozen=True)
class Property:
    """name: a word. points: for it. asks: what has to hold. hint: where to look."""

    name: str
    points: int
    asks: str
    hint: str


@dataclass(frozen=True)
class Question:
    """name: q1, q2, ... answer: the function's name in the notebook. judged: see the top of this file."""

    name: str
    answer: str
    properties: tuple[Property, ...]
    judged: Callable[[torch.Generator, Ask], Judged]

    @property
    def out_of(self) -> int:
        return sum(p.points for p in self.properties)

    def fails(self, seed: int, ask: Ask) -> dict[str, tuple[str, str]]:
        """What fails on one variant, by property: (what, hint). What a function raises, it cannot be judged by."""
        hints, found, rest = {p.name: p.hint for p in self.properties}, {}, "it is not judged."
        try:
            for *claim, name in self.judged(torch.Generator().manual_seed(1000 * seed + int(self.name[1:])), ask):
                found[name] = _wrong(*claim)
        except UNKNOWN as error:
            rest = _why(error)
        unjudged = {name: (rest, _hint(rest)) for name in hints if name not in found}
        return unjudged | {name: (wrong, hints[name]) for name, wrong in found.items() if wrong}


def _wrong(holds: Any, message: str = "") -> str:
    try:
        found = holds() if callable(holds) else holds
    except UNKNOWN as error:
        return _why(error)
    return "" if found else getattr(found, "message", message)


def _why(error: Exception) -> str:
    return str(error) if isinstance(error, CannotJudge) else "what came back cannot be judged."


def _hint(reason: str) -> str:
    return next(hint for pattern, hint in HINTS.items() if re.search(pattern, reason))


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


def load(number: int) -> Assignment:
    """The assignment of this number, with the judges of its own questions and no others."""
    text = Path(__file__).with_name("questions.toml").read_text(encoding="utf-8")
    about = tomllib.loads(text)[str(number)]
    judges = import_module(f"metarobust.course.{about['module']}")
    questions = tuple(
        Question(name, q["answer"], tuple(Property(*p) for p in q["properties"]), getattr(judges, q["answer"]))
        for name, q in about["questions"].items()
    )
    return Assignment(number, about["slug"], about["title"], tuple(about["forbidden"]), questions)


@dataclass(frozen=True)
class Finding:
    """One property: points earned, out of how many, what failed ("" where it holds) and the hint."""

    name: str
    asks: str
    points: int
    out_of: int
    said: str
    hint: str

    def __str__(self) -> str:
        worth = f"{self.points}/{self.out_of}"
        if not self.said:
            return f"  ok  {worth}  {self.name}: {self.asks}"
        return f"  --  {worth}  {self.name}: {self.said}\n            Hint: {self.hint}"


@dataclass(frozen=True, repr=False)
class Mark:
    """One question."""

    question: str
    answer: str
    points: int
    out_of: int
    findings: tuple[Finding, ...]

    @property
    def failed(self) -> set[str]:
        """The names of the properties that do not hold."""
        return {f.name for f in self.findings if f.said}

    def __bool__(self) -> bool:
        return not self.failed

    @property
    def reason(self) -> Finding | None:
        """The first of findings that all fail for one reason, which need be said only once."""
        return self.findings[0] if self.failed and len({(f.said, f.hint) for f in self.findings}) == 1 else None

    def __repr__(self) -> str:
        why = [f"  {self.reason.said}\n  Hint: {self.reason.hint}"] if self.reason else map(str, self.findings)
        return "\n".join([f"{self.question} {self.answer}: {self.points} of {self.out_of} points", *why])


def judge(question: Question, seeds: Sequence[int], ask: Ask) -> Mark:
    """The mark of an answer on the variants `seeds`: a property earns its points where it holds on all of them.

    Without seeds, that of a question that was not reached.
    """
    failed = {} if seeds else {p.name: (NOT_REACHED, _hint(NOT_REACHED)) for p in question.properties}
    for seed in seeds:
        if len(failed) < len(question.properties):  # else there is nothing left to lose
            failed = question.fails(seed, ask) | failed
    findings = tuple(
        Finding(p.name, p.asks, 0 if p.name in failed else p.points, p.points, *failed.get(p.name, ("", "")))
        for p in question.properties
    )
    return Mark(question.name, question.answer, sum(f.points for f in findings), question.out_of, findings)


def mark(question: Question, function: Callable[..., Any] | None, seeds: Sequence[int] = (0,)) -> Mark:
    """Judge a function of this process, which gets copies: what a student's own check does."""

    def ask(*given: Any, slope: int | None = None) -> Reply:
        if not callable(function):
            return Reply(given, {})
        tensors: dict[str, Tensor] = {}
        tree = pack(list(given), tensors)
        return Reply(given, perform(function, unpack(tree, tensors, trusted=True), slope))

    with calm():
        return judge(question, seeds, ask)
