"""What a graded question is: a function that tries an answer on one variant, and judges what came of it.

    def square(g, ask):                             # g draws the variant
        x = uniform(g, -1, 1, 3)
        found = ask(x).tensor(3)                    # where this is none, nothing is earned
        yield near(found, x**2), "it is not the square.", "size"    # see `metarobust.book.properties`

What each property is worth and asks, and a hint, is in `questions.toml`. The answer may live in another process: `ask`
sends what it is given there, and gets back a `Reply`. A variant is a recipe, not a table of answers: whoever knows the
recipe has to write the function all the same.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from importlib import import_module
from pathlib import Path
from typing import Any

import torch

from metarobust.book.properties import NOTHING, CannotJudge, calm
from metarobust.course.calls import Reply, perform, read, request
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
    """One property of an answer.

    name: a word. out_of: points for it. asks: what has to hold. hint: where to look. said: what failed; "" where it
    holds, or was not judged yet.
    """

    name: str
    out_of: int
    asks: str
    hint: str
    said: str = ""

    @property
    def points(self) -> int:
        return 0 if self.said else self.out_of

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
    findings: tuple[Property, ...]

    @property
    def failed(self) -> set[str]:
        """The names of the properties that do not hold."""
        return {f.name for f in self.findings if f.said}

    def __bool__(self) -> bool:
        return not self.failed

    def __repr__(self) -> str:
        lines, reasons = [str(f) for f in self.findings], {(f.said, f.hint) for f in self.findings}
        if self.failed and len(reasons) == 1:  # which need be said only once
            lines = [f"  {self.findings[0].said}\n  Hint: {self.findings[0].hint}"]
        return "\n".join([f"{self.question} {self.answer}: {self.points} of {self.out_of} points", *lines])


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

    def mark(self, function: Callable[..., Any] | None, seeds: Sequence[int] = (0,)) -> Mark:
        """The mark of a function of this process, which gets copies: what a student's own check says."""

        def ask(*given: Any, **options: Any) -> Reply:
            return Reply(read(perform(function, request(*given, **options))) if callable(function) else {})

        with calm():
            return self.judge(seeds, ask)

    def judge(self, seeds: Sequence[int], ask: Ask) -> Mark:
        """The mark of an answer on the variants `seeds`: a property earns its points where it holds on all of them.

        Without seeds, that of a question that was not reached.
        """
        failed = {} if seeds else {p.name: _reason(NOT_REACHED) for p in self.properties}
        for seed in seeds:
            if len(failed) < len(self.properties):  # else there is nothing left to lose
                failed = self._failed(seed, ask) | failed
        findings = tuple(replace(p, **failed.get(p.name, {})) for p in self.properties)
        return Mark(self.name, self.answer, sum(f.points for f in findings), self.out_of, findings)

    def _failed(self, seed: int, ask: Ask) -> dict[str, dict[str, str]]:
        """What fails on one variant: by property `said`, and its `hint` where that is another one."""
        found, rest = {}, "it is not judged."
        try:
            for *claim, name in self.judged(torch.Generator().manual_seed(1000 * seed + int(self.name[1:])), ask):
                found[name] = _wrong(*claim)
        except UNKNOWN as error:
            rest = _why(error)
        unjudged = {p.name: _reason(rest) for p in self.properties if p.name not in found}
        return unjudged | {name: {"said": wrong} for name, wrong in found.items() if wrong}


def _wrong(holds: Any, message: str = "") -> str:
    try:
        found = holds() if callable(holds) else holds
    except UNKNOWN as error:
        return _why(error)
    return "" if found else getattr(found, "message", message)


def _why(error: Exception) -> str:
    return str(error) if isinstance(error, CannotJudge) else "what came back cannot be judged."


def _reason(said: str) -> dict[str, str]:
    return {"said": said, "hint": next(hint for pattern, hint in HINTS.items() if re.search(pattern, said))}


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
    about = tomllib.loads(Path(__file__).with_name("questions.toml").read_text(encoding="utf-8"))[str(number)]
    judges = import_module(f"metarobust.course.{about['module']}")
    questions = tuple(
        Question(name, q["answer"], tuple(Property(*p) for p in q["properties"]), getattr(judges, q["answer"]))
        for name, q in about["questions"].items()
    )
    return Assignment(number, about["slug"], about["title"], tuple(about["forbidden"]), questions)
