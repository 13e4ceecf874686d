"""From a record to a mark: what holds, what does not, and a hint for each property that was missed."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from metarobust.course.question import BEGIN, NOT_REACHED, NOTHING, CannotJudge, Question, Record


@dataclass(frozen=True)
class Finding:
    """One property: points earned, out of how many, what failed ("" where it holds) and the hint."""

    name: str
    asks: str
    points: int
    out_of: int
    said: str = ""
    hint: str = ""

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
        return {**asdict(self), "findings": [asdict(f) for f in self.findings],
                "points": self.points, "out_of": self.out_of}  # fmt: skip


def judge(question: Question, seeds: Sequence[int], records: Mapping[int, Record]) -> Mark:
    """The mark of an answer on the variants `seeds`: a property earns its points where it holds on all of them.

    records: of each seed, what the probe found; one that is missing earns nothing.
    """
    worst: dict[str, tuple[str, str]] = {}
    for seed in seeds:
        for name, why in _failures(question, seed, records.get(seed, {})).items():
            worst.setdefault(name, why)
    findings = []
    for p in question.properties:
        reason, hint = worst.get(p.name, ("", ""))
        findings.append(Finding(p.name, p.asks, 0 if reason else p.points, p.points, reason, hint))
    return Mark(question.name, question.answer, tuple(findings))


def _failures(question: Question, seed: int, record: Record) -> dict[str, tuple[str, str]]:
    """What fails on one variant, by property: (what, hint)."""
    case = question.case(seed)
    try:
        if record.get("stopped"):
            raise CannotJudge(str(record["stopped"])[:200])
        question.returns(case, record)
    except Exception as error:
        why = error if isinstance(error, CannotJudge) else "what came back cannot be judged."
        return dict.fromkeys((p.name for p in question.properties), (str(why), _hint(str(why))))
    found = {}
    for p in question.properties:
        try:
            reason = p.fails(case, record)
        except CannotJudge as why:
            reason = str(why)
        except Exception:  # a record is the student's: whatever it holds, judging it ends in points
            reason = "what came back cannot be judged."
        if reason:
            found[p.name] = (reason, p.hint)
    return found


def _hint(reason: str) -> str:
    if reason == NOTHING:
        return BEGIN
    if reason == NOT_REACHED:
        return "something before it took the run down; the notes say what."
    if "requires_grad" in reason or "does not require grad" in reason:
        return "a gradient is for a tensor that nothing led to: x.detach().clone().requires_grad_(), then the loss."
    if reason.startswith("it stops"):
        return "run the function on a small tensor of your own and read the whole message."
    return "compare what you return with what the text above the function asks for."


def mark(question: Question, answer: Callable[..., Any] | None, seeds: Sequence[int] = (0,)) -> Mark:
    """Probe and judge in one process: what a student's own check does."""
    records = {} if not callable(answer) else {seed: question.probe(answer, question.case(seed)) for seed in seeds}
    return judge(question, seeds, records)
