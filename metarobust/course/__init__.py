"""The course: four assignments, the checks behind their points, and a grader for submissions.

from metarobust.course import check
check(1, "q2", fgsm)                     # which properties hold, and a hint for each that does not
"""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import cache
from typing import TYPE_CHECKING, Any

from metarobust.course.toys import suspects
from metarobust.errors import InputError, choose

if TYPE_CHECKING:
    from metarobust.course.question import Assignment, Mark

__all__ = ["NUMBERS", "assignment", "check", "earn", "suspects"]

NUMBERS = (1, 2, 3, 4)
SECRET = "METAROBUST_COURSE_SEED"
"""The environment variable with the seed of the hidden variants."""


@cache
def assignment(number: int) -> Assignment:
    """The assignment, 1 to 4. Raises InputError for another number."""
    if number not in NUMBERS:
        raise InputError(f"there is no assignment {number!r}; choose one of 1, 2, 3, 4")
    from metarobust.course.question import load  # not above: where a submission runs, there is no such module

    return load(number)


def check(number: int, question: str, answer: Callable[..., Any], seed: int = 0) -> Mark:
    """What a student's own check shows: the points of a function on one variant of the question, with hints.

    seed: another variant. Raises InputError for an assignment or a question that does not exist.
    """
    return assignment(number).question(question).mark(answer, (seed,))


def earn(number: int, question: str, property_name: str, answer: Callable[..., Any], hidden: bool = False) -> None:
    """One property, for a test of otter's. Raises AssertionError, with the hint, where it does not hold.

    hidden: on the variants of the seed in METAROBUST_COURSE_SEED (1 where there is none), not on the one that the
    student sees.
    """
    asked = assignment(number).question(question)
    choose(property_name, [p.name for p in asked.properties], f"property of {question}")
    given = os.environ.get(SECRET, "1")
    if not given.isdecimal() or len(given) > 9:
        raise InputError(f"{SECRET} is {given!r}; give a whole number from 1 to 999999999")
    for finding in asked.mark(answer, (int(given), int(given) + 1) if hidden else (0,)).findings:
        if finding.name == property_name and finding.said:
            raise AssertionError(f"{finding.name}: {finding.said} Hint: {finding.hint}")
