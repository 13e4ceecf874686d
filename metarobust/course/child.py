"""The process in which one submission runs: its cells, and then its functions, as the judge asks for them.

Started by `metarobust.course.sandbox`, with the number of its end of a pipe. It gets tensors and sends tensors: no
judge, no seed and no case lies here, so nothing here is worth changing for a student but the answers themselves.
"""

from __future__ import annotations

import ast
import hashlib
import json
import os
import pickle
import re
import resource
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, suppress
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from metarobust import course, data, family, meta  # noqa: F401 (which need what an assignment may forbid)
from metarobust.course.calls import perform, stopped, words

CALL_SECONDS = 20.0  # for one call; all of them take less than one
JUDGES = ("attacks", "classroom", "evaluation", "grade", "mistakes", "optimizer", "question", "sandbox")


def main(descriptor: int) -> None:
    """Does what the pipe says, to its end: each message is a method of `Submission`, and what it gets."""
    os.set_inheritable(descriptor, False)
    pipe = Connection(descriptor)
    submission = Submission()
    with suppress(EOFError):
        while True:
            what, *given = pickle.loads(pipe.recv_bytes())
            pipe.send_bytes(getattr(submission, what)(*given))


class Unasked:
    """What a student's `check` returns while it is graded. The judge asks later: what a check guards is not run."""

    points, failed = 0, frozenset[str]()

    def __bool__(self) -> bool:
        return False


class Submission:
    """A student's cells and functions, as the judge reaches them. Every answer is JSON."""

    def begin(self, number: int, forbidden: dict[int, tuple[str, ...]], memory: int, alone: bool) -> bytes:
        """Its assignment, the number of its cells, a digest of them, and what they import of what is forbidden.

        Args:
            number: of the assignment; 0 for what it says itself.
            forbidden: modules, by assignment.
            memory: bytes that a process may have.
            alone: whether all processes of this user are its own.
        """
        limit_resources(memory, alone)
        try:
            named, self.code = read(Path("submission.ipynb").read_bytes())
        except (ValueError, LookupError, TypeError, AttributeError, RecursionError, MemoryError):
            return b'{"refused": "it is not a notebook, or a damaged one; hand in the .ipynb file itself"}'
        number = number or named
        banned = forbidden.get(number, ())
        hide((*banned, *(f"metarobust.course.{name}" for name in JUDGES)))  # where no walls leave these out
        course.check = lambda *given, **options: Unasked()
        self.shell = _shell()
        seen = {"cells": len(self.code), "code": digest(self.code), "imports": imported(self.code, banned)}
        return json.dumps({"number": number, **seen}).encode()

    def run(self, cell: int, seconds: float) -> bytes:
        """Runs a cell for so many seconds. What there is to say of it, or nothing."""
        began, error = time.monotonic(), None
        try:
            with limit(seconds):
                result = self.shell.run_cell(self.code[cell], store_history=False)
                error = result.error_before_exec or result.error_in_exec
        except BaseException as raised:
            error = raised
        note = f"cell {cell + 1} stops with {words(error)}" if error is not None else ""
        if time.monotonic() - began >= seconds:
            note = f"cell {cell + 1} was interrupted: it took longer than a cell may"
        return json.dumps({"note": note}).encode()

    def call(self, name: str, request: bytes) -> bytes:
        """What the function of this name replies."""
        function = self.shell.user_ns.get(name)
        if not callable(function):
            return json.dumps({"stopped": f"there is no function called {name}."}).encode()
        try:
            with limit(CALL_SECONDS):
                return perform(function, request)
        except BaseException as error:  # such as SystemExit
            return stopped(error)


class OutOfTime(BaseException):
    """Not an Exception, so that a student's `except Exception` does not swallow it."""


@contextmanager
def limit(seconds: float) -> Iterator[None]:
    """Raises OutOfTime in what is inside after so many seconds, and again each second, should it be swallowed."""

    def stop(*_: object) -> None:
        raise OutOfTime(f"it does not end; {seconds:g} seconds were not enough.")

    signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, seconds, 1.0)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)


def limit_resources(memory: int, alone: bool) -> None:
    """See `Submission.begin`."""
    # Not RLIMIT_AS: torch reserves tens of gigabytes of addresses that it never touches.
    wanted = {resource.RLIMIT_DATA: memory, resource.RLIMIT_FSIZE: 64_000_000, resource.RLIMIT_CORE: 0}
    for what, most in (wanted | ({resource.RLIMIT_NPROC: 200} if alone else {})).items():
        hard = resource.getrlimit(what)[1]
        most = most if hard == resource.RLIM_INFINITY else min(most, hard)
        resource.setrlimit(what, (most, most))


def read(content: bytes) -> tuple[int, list[str]]:
    """Which assignment a notebook says that it is, in its metadata or its title, else 0; and its cells of code.

    Raises ValueError, LookupError, TypeError, AttributeError or RecursionError for what is no notebook.
    """
    found = json.loads(content)
    cells = [(cell["cell_type"], "".join(cell["source"])) for cell in found["cells"]]
    number = found.get("metadata", {}).get("metarobust", {}).get("assignment")
    if number not in course.NUMBERS:
        titles = [re.match(r"# Assignment ([1-4])\b", source) for kind, source in cells if kind == "markdown"]
        number = next((int(title[1]) for title in titles if title), 0)
    return number, [source for kind, source in cells if kind == "code"]


def parsed(source: str) -> ast.Module:
    """The syntax tree of a cell; an empty one where it will not run either."""
    lines = [line for line in source.splitlines() if not line.lstrip().startswith(("%", "!"))]
    try:
        return ast.parse("\n".join(lines))
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return ast.Module([], [])


def digest(code: list[str]) -> str:
    """Of what the code does: comments, blank lines and layout do not count."""
    try:
        text = [ast.dump(parsed(source)) for source in code]
    except RecursionError:
        text = code
    return hashlib.sha256("\n".join(text).encode(errors="replace")).hexdigest()


def imported(code: list[str], banned: tuple[str, ...]) -> list[str]:
    """Those of the banned modules that the code imports, as a whole or in part."""
    names = set()
    for node in (node for source in code for node in ast.walk(parsed(source))):
        if isinstance(node, ast.Import):
            names |= {one.name for one in node.names}
        elif isinstance(node, ast.ImportFrom):
            names |= {f"{node.module}.{one.name}" for one in node.names}
    return [one for one in banned if any(f"{name}.".startswith(f"{one}.") for name in names)]


def hide(banned: tuple[str, ...]) -> None:
    """Put the modules that the assignment forbids out of reach; those of the library that need them keep them."""
    within = tuple(f"{one}." for one in banned)
    for name in [*banned, *(loaded for loaded in sys.modules if loaded.startswith(within))]:
        sys.modules[name] = None  # type: ignore[assignment]
        parent, _, last = name.rpartition(".")
        if sys.modules.get(parent):
            vars(sys.modules[parent]).pop(last, None)


def _shell() -> Any:
    """What runs cells as a notebook does, magic commands included."""
    from IPython.core.interactiveshell import InteractiveShell
    from traitlets.config import Config

    class Shell(InteractiveShell):
        def enable_gui(self, gui: str | None = None) -> None:
            pass

        def _tee(self, channel: str) -> Any:  # it would keep all that is printed
            return nullcontext()

    return Shell.instance(config=Config(HistoryManager={"enabled": False}), colors="nocolor")


if __name__ == "__main__":
    main(int(sys.argv[1]))
