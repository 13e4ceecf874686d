"""What runs in the student's kernel: a guard before their cells, and the probes after them.

Nothing here is a wall: a student's code may change whatever lives in its own process. That is why it only asks and
writes down, and never judges.
"""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from metarobust.course import assignment, recording
from metarobust.course.question import Question

SECONDS = 20.0  # for one question on one variant; all of them take less than one


class OutOfTime(BaseException):
    """Not an Exception, so that a student's `except Exception` does not swallow it."""


def guard(number: int, network: bool) -> None:
    """Put the modules that the assignment forbids out of reach, and the network too unless `network`."""
    for name in assignment(number).forbidden:  # after the questions are imported, which may use them
        sys.modules[name] = None  # type: ignore[assignment]
        for loaded in [one for one in sys.modules if one.startswith(f"{name}.")]:
            sys.modules[loaded] = None  # type: ignore[assignment]
    if not network:
        sys.addaudithook(_no_network)


def _no_network(event: str, given: tuple[Any, ...]) -> None:
    if event == "socket.getaddrinfo" and given[0] not in (None, "localhost", "127.0.0.1", b"localhost", b"127.0.0.1"):
        raise OSError("there is no network while a submission is graded")
    if event in ("socket.connect", "socket.sendto"):
        address = given[-1]
        if isinstance(address, tuple) and address[0] not in ("localhost", "127.0.0.1", "::1"):
            raise OSError("there is no network while a submission is graded")


def serve(namespace: Mapping[str, Any], number: int, seeds: Sequence[int], folder: str) -> None:
    """Probe every question's function, by its name in `namespace`, on every variant; a record in `folder` of each."""
    for question in assignment(number).questions:
        answer = namespace.get(question.answer)
        for seed in seeds:
            record = _probe(question, answer, seed)
            recording.write(Path(folder), f"{question.name}-{seed}", record)


def _probe(question: Question, answer: Callable[..., Any] | None, seed: int) -> dict[str, Any]:
    if not callable(answer):
        return {"stopped": f"there is no function called {question.answer}."}
    try:
        with _limit(SECONDS):
            return question.probe(answer, question.case(seed))
    except OutOfTime:
        return {"stopped": f"it does not end: {SECONDS:g} seconds were not enough."}
    except Exception as error:  # such as a signature that cannot be called at all
        return {"stopped": f"it cannot be called: {type(error).__name__}: {error}"[:200]}


@contextmanager
def _limit(seconds: float) -> Iterator[None]:
    """Raises OutOfTime in what is inside after so many seconds."""

    def stop(*_: object) -> None:
        raise OutOfTime

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
