"""Grading one submission: run it, judge what its functions did, and say so.

    result = grade_file(Path("submission.ipynb"))
    print(result.text())

The judging happens here, in a process that none of the student's code ran in; see `metarobust.course.run` for theirs.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from metarobust import __version__
from metarobust.course import assignment, confine
from metarobust.course.marks import Mark, judge
from metarobust.course.question import NOT_REACHED
from metarobust.course.run import Limits, Ran, run
from metarobust.course.submission import number_of, read_notebook
from metarobust.errors import InputError
from metarobust.storage import read_bytes, sha256


@dataclass(frozen=True)
class Result:
    """What a submission earned. status: `graded`, or what prevented it. seed: of the hidden variants."""

    submission: str
    digest: str
    number: int
    status: str
    seed: int
    notes: tuple[str, ...]
    marks: tuple[Mark, ...]
    confined: tuple[str, ...]
    out_of: int

    @property
    def points(self) -> int:
        return sum(one.points for one in self.marks)

    def text(self) -> str:
        """For a person."""
        title = assignment(self.number).title if self.number else "no assignment"
        head = f"{self.submission}: {self.points} of {self.out_of} points ({self.status}; {title}, seed {self.seed})"
        return "\n".join([head, *(f"Note: {note}" for note in self.notes), *map(str, self.marks)])

    def as_json(self) -> dict[str, Any]:
        return {
            "submission": self.submission, "digest": self.digest, "assignment": self.number, "status": self.status,
            "points": self.points, "out_of": self.out_of, "seed": self.seed, "notes": list(self.notes),
            "questions": [one.as_json() for one in self.marks], "confined": list(self.confined),
            "version": __version__,
        }  # fmt: skip


def draw_seed() -> int:
    """A seed for hidden variants, that nobody knows beforehand."""
    return secrets.randbelow(900_000) + 1_000


def grade_file(
    path: Path, number: int | None = None, seed: int | None = None, limits: Limits | None = None,
    keep: Path | None = None,
) -> Result:  # fmt: skip
    """Grade one submission, whatever it is.

    number: of the assignment; as the notebook itself says where None. seed: of the hidden variants; drawn where None.
    A property earns its points where it holds on the visible variant, 0, and on the hidden ones, seed and seed + 1.
    keep: where to write the executed notebook. Raises InputError where there is no such file, or no telling which
    assignment it is.
    """
    digest = sha256(read_bytes(path))
    seed = draw_seed() if seed is None else seed
    if number is None:
        try:
            notebook = read_notebook(path)
        except InputError as error:
            return Result(path.name, digest, 0, "not a notebook", seed, (str(error),), (), (), 0)
        number = number_of(notebook)
    if number is None:
        raise InputError(f"{path.name} does not say which assignment it is; give --assignment 1, 2, 3 or 4")
    asked = assignment(number)
    seeds = (0, seed, seed + 1)
    ran = run(path, asked, seeds, limits or Limits())
    marks = tuple(judge(question, seeds, _of(ran, question.name, seeds)) for question in asked.questions)
    if keep is not None and ran.executed is not None:
        keep.write_bytes(ran.executed)
    confined = tuple(confine.available()) if ran.records else ()
    return Result(path.name, digest, number, ran.status, seed, tuple(ran.notes), marks, confined, asked.out_of)


def _of(ran: Ran, name: str, seeds: Sequence[int]) -> dict[int, Any]:
    """What was recorded of a question on each variant. Where a run ended early, the others were not reached."""
    found = ran.records.get(name, {})
    missing = {} if ran.status == "graded" else {"stopped": NOT_REACHED}
    return {seed: found.get(seed, missing) for seed in seeds}
