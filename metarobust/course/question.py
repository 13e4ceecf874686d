"""What a graded question is: a function that tries an answer on one variant, and judges what came of it.

    def square(g, ask):                             # g draws the variant
        x = uniform(g, -1, 1, 3)
        found = ask(x).tensor(3)                    # where this is none, nothing is earned
        yield "size", not close(found, x**2) and "it is not the square."   # by property: what is wrong, or nothing

What each property is worth and asks, and a hint, is in `questions.toml`. The answer may live in another process: `ask`
sends what it is given, and gets back a `Reply`. A variant is a recipe, not a table of answers: whoever knows the
recipe has to write the function all the same.
"""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from metarobust.course.calling import calm, perform, state
from metarobust.course.wire import pack, unpack
from metarobust.errors import choose

CLOSE = 1e-4
NOTHING = "it returns nothing yet."
NOT_REACHED = "it was not reached."
Ask = Callable[..., "Reply"]
Verdicts = Iterator[tuple[str, Any]]
"""By property what is wrong with it, or something false; or a function that says so."""


class CannotJudge(Exception):
    """What came back is not of the kind that was asked for; the message says how."""


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
    judged: Callable[[torch.Generator, Ask], Verdicts]

    @property
    def out_of(self) -> int:
        return sum(p.points for p in self.properties)

    def fails(self, seed: int, ask: Ask) -> dict[str, tuple[str, str]]:
        """What fails on one variant, by property: (what, hint). What a function raises, it cannot be judged by."""
        hints, found, rest = {p.name: p.hint for p in self.properties}, {}, "it is not judged."
        try:
            for name, wrong in self.judged(torch.Generator().manual_seed(1000 * seed + int(self.name[1:])), ask):
                found[name] = _said(wrong)
        except (CannotJudge, ArithmeticError, LookupError, TypeError, ValueError, RuntimeError, AttributeError) as why:
            rest = _why(why)
        missing = {name: (rest, _hint(rest)) for name in hints if name not in found}
        return missing | {name: (said, hints[name]) for name, said in found.items() if said}


def _said(wrong: Any) -> str:
    try:
        return str((wrong() if callable(wrong) else wrong) or "")
    except (CannotJudge, ArithmeticError, LookupError, TypeError, ValueError, RuntimeError, AttributeError) as why:
        return _why(why)


def _why(error: Exception) -> str:
    return str(error) if isinstance(error, CannotJudge) else "what came back cannot be judged."


def _hint(reason: str) -> str:
    if reason == NOTHING:
        return "write the function; the text above it says what it is given and what it returns."
    if reason == NOT_REACHED:
        return "something before it took the run down; the notes say what."
    if "requires_grad" in reason or "does not require grad" in reason:
        return "a gradient is for a tensor that nothing led to: x.detach().clone().requires_grad_(), then the loss."
    if reason.startswith("it stops"):
        return "run the function on a small tensor of your own and read the whole message."
    return "compare what you return with what the text above the function asks for."


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


class Reply:
    """What a function returned for what it was given, and what it left behind; see `metarobust.course.calling`."""

    def __init__(self, given: Sequence[Any], found: dict[str, Any]):
        self._before, self._found = [state(one) for one in given], found

    def value(self) -> Any:
        """Raises CannotJudge where the function returned nothing, or stopped."""
        if "raised" in self._found:
            raise CannotJudge(f"it stops with {self._found['raised']}")
        if self._found.get("value") is None:
            raise CannotJudge(str(self._found.get("stopped") or NOTHING)[:200])
        return self._found["value"]

    def tensor(self, *shape: int, finite: bool = True) -> Tensor:
        """A floating-point tensor of this shape. Raises CannotJudge where it is none."""
        return tensor(self.value(), shape, finite)

    def number(self) -> float:
        """One finite number. Raises CannotJudge where it is none."""
        return number(self.value())

    def parts(self, many: int, what: str) -> list[Any]:
        """The parts of a list, tuple or array. what: it should be, for CannotJudge."""
        found = self.value()
        found = list(found) if isinstance(found, Tensor) and found.ndim else found
        if not isinstance(found, list) or len(found) != many:
            raise CannotJudge(f"it does not return {what}.")
        return found

    def graph(self) -> bool:
        """Whether what it returned can be differentiated."""
        return any(one[0] for one in self._found["graph"])

    def chained(self) -> bool:
        """Whether what it returned was computed from what has a gradient."""
        return any(one[1] for one in self._found["graph"])

    def slopes(self, shape: Sequence[int]) -> list[Tensor]:
        """The gradients of each of its tensors; 0 where there is none."""
        found = self._found.get("slopes") or []
        return [s if isinstance(s, Tensor) and s.shape == tuple(shape) else torch.zeros(*shape) for s in found]

    def after(self, which: int, what: str | None = None) -> Any:
        """The state of what it was given: of a tensor a list, of a toy its `notes`, `training` or `parts`."""
        found = self._found["after"][which]
        return found[what] if what else found

    def kept(self, *which: int, what: str | None = None) -> bool:
        """Whether what it was given is as it was: values, gradients, and a model's mode."""
        before = [self._before[i][what] if what else self._before[i] for i in which]
        return all(_same(one, self.after(i, what)) for one, i in zip(before, which, strict=True))


def _same(before: Any, after: Any) -> bool:
    if isinstance(before, Tensor):
        return isinstance(after, Tensor) and before.dtype == after.dtype and torch.equal(before, after)
    if isinstance(before, dict):
        return all(_same(before[name], after[name]) for name in before if name != "notes")
    if isinstance(before, list):
        return len(before) == len(after) and all(map(_same, before, after))
    return bool(before == after)


def tensor(value: Any, shape: Sequence[int], finite: bool = True) -> Tensor:
    """See `Reply.tensor`."""
    if not isinstance(value, Tensor):
        raise CannotJudge(f"it returns {said(value)}, not a tensor.")
    if tuple(value.shape) != tuple(shape):
        raise CannotJudge(f"it returns shape {list(value.shape)}, not {list(shape)}.")
    if not value.is_floating_point():
        raise CannotJudge(f"it returns {value.dtype}, not floats.")
    if finite and not bool(value.isfinite().all()):
        raise CannotJudge("what it returns is not finite.")
    return value.float()


def number(value: Any) -> float:
    """See `Reply.number`: anything that float() takes, but text."""
    if isinstance(value, Tensor) and value.numel() == 1 and not value.is_complex():
        value = value.item()
    if not isinstance(value, int | float):
        raise CannotJudge(f"it returns {said(value)}, not a number.")
    if not abs(value) < 1e300:
        raise CannotJudge("it returns a number that is not finite.")
    return float(value)


def said(value: Any) -> str:
    """A value in a few words."""
    if isinstance(value, Tensor):
        return f"a tensor of shape {list(value.shape)}"
    if isinstance(value, dict) and set(value) == {"type"}:
        return f"a {str(value['type'])[:100]}"
    text = " ".join(repr(value)[:1000].split())
    return text if len(text) <= 60 else f"{text[:57]}..."


def close(found: Tensor, right: Tensor, tolerance: float = CLOSE) -> bool:
    """Equal up to a share of the largest entry, or of 1 where that is small."""
    return bool((found - right).abs().max() <= tolerance * max(1.0, float(right.abs().max())))


def off(found: float, wanted: float, tolerance: float = CLOSE) -> str:
    """What is wrong with a number; "" where it is right."""
    return "" if abs(found - wanted) < tolerance else f"it says {found:.4g} where {wanted:.4g} is right."


def begun(holds: bool, says: str) -> None:
    """Raises CannotJudge unless something was done: who has not begun earns nothing by leaving things as they are."""
    if not holds:
        raise CannotJudge(says)


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


@dataclass(frozen=True)
class Mark:
    """One question."""

    question: str
    answer: str
    findings: tuple[Finding, ...]

    @property
    def points(self) -> int:
        return sum(f.points for f in self.findings)

    @property
    def out_of(self) -> int:
        return sum(f.out_of for f in self.findings)

    @property
    def failed(self) -> set[str]:
        """The names of the properties that do not hold."""
        return {f.name for f in self.findings if f.said}

    def __bool__(self) -> bool:
        return not self.failed

    def __str__(self) -> str:
        head = f"{self.question} {self.answer}: {self.points} of {self.out_of} points"
        reasons = {(f.said, f.hint) for f in self.findings}
        if len(self.findings) > 1 and len(reasons) == 1 and self.failed:  # the same for all: say it once
            ((reason, hint),) = reasons
            return f"{head}\n  {reason}\n  Hint: {hint}"
        return "\n".join([head, *map(str, self.findings)])

    __repr__ = __str__

    def as_json(self) -> dict[str, Any]:
        return {**asdict(self), "points": self.points, "out_of": self.out_of}


def judge(question: Question, seeds: Sequence[int], ask: Ask) -> Mark:
    """The mark of an answer on the variants `seeds`: a property earns its points where it holds on all of them.

    Without seeds, that of a question that was not reached.
    """
    failed = {} if seeds else {p.name: (NOT_REACHED, _hint(NOT_REACHED)) for p in question.properties}
    for seed in seeds:
        if len(failed) < len(question.properties):  # else there is nothing left to lose
            failed = question.fails(seed, ask) | failed
    findings = [
        Finding(p.name, p.asks, 0 if p.name in failed else p.points, p.points, *failed.get(p.name, ("", "")))
        for p in question.properties
    ]
    return Mark(question.name, question.answer, tuple(findings))


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
