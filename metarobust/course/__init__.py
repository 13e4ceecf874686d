"""The course: four assignments, the checks behind their points, and a grader for submissions.

from metarobust.course import check
check(1, "q2", fgsm)                     # which properties hold, and a hint for each that does not
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from metarobust.errors import InputError, choose

if TYPE_CHECKING:
    from metarobust.course.marks import Mark
    from metarobust.course.question import Assignment

__all__ = ["NUMBERS", "assignment", "check", "earn", "suspects"]

_MODULES = {1: "walks", 2: "diagnosis", 3: "meta_gradient", 4: "patches"}
NUMBERS = tuple(_MODULES)
SECRET = "METAROBUST_COURSE_SEED"
"""The environment variable with the seed of the hidden variants."""


def assignment(number: int) -> Assignment:
    """The assignment, 1 to 4. Raises InputError for another number."""
    if number not in _MODULES:
        raise InputError(f"there is no assignment {number!r}; choose one of {', '.join(map(str, _MODULES))}")
    # On demand: an assignment that is done without a part of the library is also checked without it.
    found: Assignment = importlib.import_module(f"metarobust.course.{_MODULES[number]}").ASSIGNMENT
    return found


def check(number: int, question: str, answer: Callable[..., Any], seed: int = 0) -> Mark:
    """What a student's own check shows: the points of a function on one variant of the question, with hints.

    seed: another variant. Raises InputError for an assignment or a question that does not exist.
    """
    from metarobust.course.marks import mark  # not above: the process that starts a submission does without torch

    return mark(assignment(number).question(question), answer, (seed,))


def earn(number: int, question: str, property_name: str, answer: Callable[..., Any], hidden: bool = False) -> None:
    """One property, for a test of otter's. Raises AssertionError, with the hint, where it does not hold.

    hidden: on the variants of the seed in METAROBUST_COURSE_SEED (1 where there is none), not on the one that the
    student sees.
    """
    from metarobust.course.marks import mark

    asked = assignment(number).question(question)
    choose(property_name, [p.name for p in asked.properties], f"property of {question}")
    secret = _secret() if hidden else 0
    for finding in mark(asked, answer, (secret, secret + 1) if hidden else (0,)).findings:
        if finding.name == property_name and finding.said:
            raise AssertionError(f"{finding.name}: {finding.said} Hint: {finding.hint}")


def _secret() -> int:
    given = os.environ.get(SECRET, "1")
    if not given.isdecimal() or len(given) > 9:
        raise InputError(f"{SECRET} is {given!r}; give a whole number from 1 to 999999999")
    return int(given)


def suspects(model: Any, seed: int) -> dict[str, Any]:
    """See `metarobust.course.diagnosis.suspects`, which assignment 2 is about."""
    from metarobust.course import diagnosis

    return diagnosis.suspects(model, seed)
