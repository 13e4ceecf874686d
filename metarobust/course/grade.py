"""Grading one submission: its functions are asked in a process of their own, and judged here.

result = grade_file(Path("submission.ipynb"))
print(result.text())
"""

from __future__ import annotations

import json
import secrets
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from metarobust import __version__
from metarobust.course import NUMBERS, assignment
from metarobust.course.calls import Ended, Reply, request
from metarobust.course.question import Mark
from metarobust.course.sandbox import Channel, Sandbox
from metarobust.errors import InputError
from metarobust.storage import sha256

MOST_BYTES = 20_000_000  # of a notebook
MOST_NOTES = 20


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

    @property
    def title(self) -> str:
        return assignment(self.assignment).title if self.assignment else "No assignment"

    def text(self, as_json: bool = False) -> str:
        """For a person, or for a program."""
        if as_json:
            return json.dumps(self.as_json(), indent=1)
        head = f"{self.name}: {self.points} of {self.out_of} points ({self.status}; {self.title})"
        return "\n".join([printable(head), *self.details()])

    def details(self) -> list[str]:
        """Lines: the notes, and of each property its points, what fails, and a hint. No seed."""
        marks = [line for mark in self.questions for line in str(mark).split("\n")]
        return list(map(printable, [*(f"Note: {note}" for note in self.notes), *marks]))

    def feedback(self, student: str) -> str:
        """Markdown that a student may see: nothing of a seed, and of nobody else."""
        points = f"**{self.points} of {self.out_of} points**, {self.status}."
        return "\n".join([f"# {self.title}\n\n{student}: {points}\n\n```text", *self.details(), "```\n"])

    def as_json(self) -> dict[str, Any]:
        return {**asdict(self), "points": self.points, "out_of": self.out_of}


def printable(text: str) -> str:
    """Text without what a terminal would take for a command, and without what is no text at all."""
    readable = text.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in readable)


def draw_seed() -> int:
    """A seed for hidden variants, that nobody knows beforehand."""
    return secrets.randbelow(900_000) + 1_000


def grade_file(
    path: Path, number: int | None = None, seed: int | None = None, sandbox: Sandbox | None = None
) -> Result:
    """Grade one submission, whatever it is.

    Args:
        path: of the notebook.
        number: of the assignment; as the notebook itself says where None.
        seed: of the hidden variants; drawn where None. A property earns its points where it holds on the visible
            variant, 0, and on the hidden ones, seed and seed + 1.
        sandbox: to run it in; one with walls where None.

    Returns:
        Its points, and why. A crash is tried again once: a busy machine may have been the reason.

    Raises:
        InputError: there is no such file or assignment, or bubblewrap is missing and it is not trusted.
    """
    sandbox, seed = sandbox or Sandbox(), draw_seed() if seed is None else seed
    if number is not None:
        assignment(number)
    try:
        size = path.stat().st_size
        content = path.read_bytes() if size <= MOST_BYTES else b""
    except OSError as error:
        raise InputError(f"cannot read {printable(str(path))}: {error.strerror}; check the path") from error
    name, digest = printable(path.name), sha256(content)
    if not content:
        note = f"it has {size:,} bytes; clear its outputs, and hand in the .ipynb file itself"
        return Result(name, digest, seed, status="not a notebook", notes=[note])
    for _ in range(2):
        result = Result(name, digest, seed, number or 0)
        try:
            with sandbox.started(content) as channel:
                _grade(result, channel, sandbox)
        except Ended as why:
            result.status, note = why.args
            result.notes.append(note)
        if result.status != "crashed":
            break
    if result.assignment:
        unreached = assignment(result.assignment).questions[len(result.questions) :]
        result.questions += [question.mark(None, ()) for question in unreached]
    return result


def _grade(result: Result, channel: Channel, sandbox: Sandbox) -> None:
    """Has the cells run, and then judges each question. Raises Ended."""
    forbidden = {n: assignment(n).forbidden for n in NUMBERS}
    about = channel.ask("begin", result.assignment, forbidden, sandbox.memory, not sandbox.trust)
    if "refused" in about:
        raise Ended("not a notebook", str(about["refused"])[:200])
    if about.get("number") not in NUMBERS:
        raise Ended("not graded", "it does not say which assignment it is; give --assignment 1, 2, 3 or 4")
    asked = assignment(about["number"])
    result.assignment, result.code = asked.number, str(about.get("code"))[:64]
    if about.get("imports"):
        names = ", ".join(map(str, about["imports"]))[:200]
        raise Ended("forbidden import", f"it imports {names}, which this assignment does without; take it out")
    for cell in range(int(about["cells"])):
        note = channel.ask("run", cell, sandbox.seconds / 10).get("note")
        if note and len(result.notes) < MOST_NOTES:
            result.notes.append(str(note)[:300])
    for question in asked.questions:

        def ask(*given: Any, name: str = question.answer, **options: Any) -> Reply:
            return Reply(channel.ask("call", name, request(*given, **options)))

        result.questions.append(question.judge((0, result.seed, result.seed + 1), ask))
