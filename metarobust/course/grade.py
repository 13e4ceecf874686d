"""Grading one submission: its functions are asked in a process of their own, and judged here.

result = grade_file(Path("submission.ipynb"))
print(result.text())
"""

from __future__ import annotations

import json
import re
import secrets
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from metarobust import __version__
from metarobust.course import NUMBERS, assignment
from metarobust.course.question import Mark, judge
from metarobust.course.reply import Reply
from metarobust.course.sandbox import Ended, Limits, confine, started
from metarobust.course.wire import Broken, Channel
from metarobust.errors import InputError
from metarobust.storage import sha256

MOST_BYTES = 20_000_000  # of a notebook
CHECKS = 200  # of a student's own, that are answered


@dataclass
class Result:
    """What a submission earned. status: `graded`, or what prevented it. code: a digest that ignores layout."""

    name: str
    digest: str
    seed: int
    assignment: int = 0
    status: str = "graded"
    code: str = ""
    notes: list[str] = field(default_factory=list)
    questions: list[Mark] = field(default_factory=list)
    version: str = __version__

    @property
    def points(self) -> int:
        return sum(one.points for one in self.questions)

    @property
    def out_of(self) -> int:
        return assignment(self.assignment).out_of if self.assignment else 0

    def text(self, as_json: bool = False) -> str:
        """For a person, or for a program."""
        if as_json:
            return json.dumps(self.as_json(), indent=1)
        head = f"{self.name}: {self.points} of {self.out_of} points ({self.status}; {_title(self.assignment)})"
        lines = [head, *(f"Note: {note}" for note in self.notes), *"\n".join(map(str, self.questions)).split("\n")]
        return "\n".join(map(printable, lines))

    def as_json(self) -> dict[str, Any]:
        return {**asdict(self), "points": self.points, "out_of": self.out_of}


def _title(number: int) -> str:
    return assignment(number).title if number else "No assignment"


def printable(text: str) -> str:
    """Text without what a terminal would take for a command, and without what is no text at all."""
    readable = text.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in readable)


def draw_seed() -> int:
    """A seed for hidden variants, that nobody knows beforehand."""
    return secrets.randbelow(900_000) + 1_000


def grade_file(
    path: Path, number: int | None = None, seed: int | None = None, limits: Limits | None = None, trust: bool = False
) -> Result:
    """Grade one submission, whatever it is.

    Args:
        path: of the notebook.
        number: of the assignment; as the notebook itself says where None.
        seed: of the hidden variants; drawn where None. A property earns its points where it holds on the visible
            variant, 0, and on the hidden ones, seed and seed + 1.
        limits: of time and memory.
        trust: run it without walls.

    Returns:
        Its points, and why. A crash is tried again once: a busy machine may have been the reason.

    Raises:
        InputError: there is no such file or assignment, or bubblewrap is missing and it is not trusted.
    """
    confine(trust)
    if number is not None:
        assignment(number)
    try:
        size = path.stat().st_size
        content = path.read_bytes() if size <= MOST_BYTES else b""
    except OSError as error:
        raise InputError(f"cannot read {printable(str(path))}: {error.strerror}; check the path") from error
    seed = draw_seed() if seed is None else seed
    result = Result(printable(path.name), sha256(content), seed)
    if not content:
        note = f"it has {size:,} bytes; clear its outputs, and hand in the .ipynb file itself"
        return replace(result, status="not a notebook", notes=[note])
    graded = _grade(result, content, number, limits or Limits(), trust)
    return _grade(result, content, number, limits or Limits(), trust) if graded.status == "crashed" else graded


def _grade(new: Result, content: bytes, number: int | None, limits: Limits, trust: bool) -> Result:
    result = replace(new, notes=[], questions=[])
    banned = {str(n): list(assignment(n).forbidden) for n in NUMBERS}
    job = {"memory": limits.memory, "cell": limits.seconds / 10, "alone": not trust, "number": number or 0}
    try:
        with started(content, limits, trust) as channel:
            channel.send({**job, "forbidden": banned})
            about = channel.receive()
            if about.get("refused"):
                return replace(result, status="not a notebook", notes=[str(about["refused"])[:200]])
            result.assignment = number or (about["number"] if about.get("number") in NUMBERS else 0)
            result.code, imports = str(about.get("code"))[:64], about.get("imports")
            if not result.assignment:
                result.status = "not graded"
                result.notes.append("it does not say which assignment it is; give --assignment 1, 2, 3 or 4")
            elif imports:
                result.status = "forbidden import"
                names = ", ".join(map(str, imports))[:200]
                result.notes.append(f"it imports {names}, which this assignment does without; take it out")
            else:
                _judged(result, channel)
    except (Ended, Broken) as why:
        result.status = str(why) if isinstance(why, Ended) else "crashed"
        result.notes.append(f"it was ended, {why}" if isinstance(why, Ended) else str(why))
    if result.assignment:
        unreached = assignment(result.assignment).questions[len(result.questions) :]
        result.questions += [judge(question, (), None) for question in unreached]
    return result


def _judged(result: Result, channel: Channel) -> None:
    """Hears the notes of a run, answers a student's own checks, and then judges each question."""
    checks = 0
    while not (message := channel.receive()).get("done"):
        if "check" in message:
            checks += 1
            channel.send(_check(message, channel) if checks <= CHECKS else {"text": "", "error": "too many checks"})
        elif len(result.notes) < 20:
            result.notes.append(str(message.get("note"))[:300])
    for question in assignment(result.assignment).questions:
        seeds = (0, result.seed, result.seed + 1)
        result.questions.append(judge(question, seeds, _asking(channel, question.answer)))
    channel.send({"end": True})


def _check(message: dict[str, Any], channel: Channel) -> dict[str, Any]:
    try:
        question = assignment(int(message["number"])).question(str(message["check"]))
        mark = judge(question, [int(message["seed"])], _asking(channel, ""))
    except (InputError, ValueError, TypeError, KeyError, OverflowError, RuntimeError) as error:
        return {"text": "", "error": str(error)[:200]}
    return {"text": str(mark), "holds": bool(mark), "points": mark.points}


def _asking(channel: Channel, name: str) -> Any:
    """Asks about the function of this name; about the one being checked where it is empty."""

    def ask(*given: Any, slope: int | None = None) -> Reply:
        channel.send({"call": name, "given": list(given), "slope": slope})
        return Reply(given, channel.receive())

    return ask


def feedback(result: Result, student: str) -> str:
    """Markdown that a student may see: points, what is missing and a hint for it. No seed, and nobody else."""
    points = f"**{result.points} of {result.out_of} points**, {result.status}."
    lines = [f"# {_title(result.assignment)}", f"{student}: {points}"]
    lines += [f"- Note: `{printable(note).replace('`', '')}`" for note in result.notes]
    for mark in result.questions:
        lines.append(f"## {mark.question} `{mark.answer}`: {mark.points} of {mark.out_of}")
        whys = [f"{_cell(one.said)} *Hint:* {one.hint}" if one.said else "" for one in mark.findings]
        each = zip(mark.findings, whys, strict=True)
        points = [f"- **{one.points}/{one.out_of}** {one.name}: {one.asks}. {why}".rstrip() for one, why in each]
        lines += whys[:1] if mark.reason else points
    return "\n\n".join(lines) + "\n"


def _cell(text: str) -> str:
    return re.sub(r"[\\`*_\[\]<>|#]", r"\\\g<0>", printable(text))
