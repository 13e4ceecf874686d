"""The process in which one submission runs, cells first, and then its functions as the judge asks for them.

Started by `metarobust.course.sandbox`, with the number of its end of a pipe. It gets tensors and sends tensors: no
judge, no seed and no case lies here, so nothing here is worth changing for a student but the answers themselves.
"""

from __future__ import annotations

import ast
import hashlib
import io
import json
import os
import re
import resource
import sys
from collections.abc import Callable, Iterator
from contextlib import nullcontext, redirect_stderr, redirect_stdout
from dataclasses import dataclass
from importlib import import_module
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from metarobust import course
from metarobust.course.calling import OutOfTime, limit, perform
from metarobust.course.wire import Channel

LOUD = 100_000  # characters printed that are worth a note
CALL_SECONDS = 20.0  # for one call; all of them take less than one
OPEN = ("check", "earn", "suspects")  # of the course, to students
JUDGES = ("attacks", "classroom", "evaluation", "grade", "mistakes", "optimizer", "question", "reply", "sandbox")


def main(number: str) -> None:
    os.set_inheritable(int(number), False)
    channel = Channel(Connection(int(number)))
    job = channel.receive(trusted=True)
    limits(job["memory"], job["alone"])
    try:
        cells = read(Path("submission.ipynb").read_bytes())
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError, MemoryError):
        channel.send({"refused": "it is not a notebook, or a damaged one; hand in the .ipynb file itself"})
        return
    assignment = job["number"] or number_of(cells)
    banned = job["forbidden"].get(str(assignment), [])
    code = [source for kind, source in cells if kind == "code"]
    channel.send({"number": assignment, "imports": forbidden(code, banned), "code": digest(code)})
    guard(banned)
    session = Session(channel)
    session.run(code, job["cell"])
    session.serve("end")


def limits(memory: int, alone: bool) -> None:
    """memory: bytes of data that a process may have. alone: whether no process of somebody else's counts as ours."""
    # Not RLIMIT_AS: torch reserves tens of gigabytes of addresses that it never touches.
    wanted = {resource.RLIMIT_DATA: memory, resource.RLIMIT_FSIZE: 64_000_000, resource.RLIMIT_CORE: 0}
    for what, most in (wanted | ({resource.RLIMIT_NPROC: 200} if alone else {})).items():
        hard = resource.getrlimit(what)[1]
        most = most if hard == resource.RLIM_INFINITY else min(most, hard)
        resource.setrlimit(what, (most, most))


def read(content: bytes) -> list[tuple[str, str]]:
    """Kind and text of each cell. Raises ValueError, KeyError or TypeError for what is no notebook."""
    found = json.loads(content)
    sources = [(str(cell["cell_type"]), cell["source"]) for cell in found["cells"]]
    cells = [(kind, "".join(source) if isinstance(source, list) else source) for kind, source in sources]
    if not cells or found["nbformat"] != 4 or not all(isinstance(source, str) for _, source in cells):
        raise ValueError
    said = found.get("metadata", {}).get("metarobust", {}).get("assignment")
    return [("about", f"# Assignment {said}"), *cells]


def number_of(cells: list[tuple[str, str]]) -> int | None:
    """Which assignment it says that it is: in its metadata, or in its title."""
    titles = [re.match(r"# Assignment ([1-4])\b", source) for kind, source in cells if kind != "code"]
    return next((int(title[1]) for title in titles if title), None)


def parsed(code: list[str]) -> Iterator[tuple[str, ast.AST | None]]:
    """Each cell with its syntax tree; None where it will not run either."""
    for source in code:
        lines = [line for line in source.splitlines() if not line.lstrip().startswith(("%", "!"))]
        try:
            yield source, ast.parse("\n".join(lines))
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            yield source, None


def digest(code: list[str]) -> str:
    """Of what the code does: comments, blank lines and layout do not count."""
    try:
        trees = [ast.dump(tree) if tree else source for source, tree in parsed(code)]
    except RecursionError:
        trees = code
    return hashlib.sha256("\n".join(trees).encode(errors="replace")).hexdigest()


def forbidden(code: list[str], banned: list[str]) -> list[str]:
    """The imports that the assignment does without, and calls that would hide one."""
    names = {name for _, tree in parsed(code) if tree for name in _imports(tree)}
    inside = ("metarobust.course.", *(f"{one}." for one in banned))
    return sorted(name[:100] for name in names if name in banned or name.startswith(inside))


def _imports(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        match node:
            case ast.Import(names=names):
                yield from (one.name for one in names)
            case ast.ImportFrom(module=str(module), names=names):
                yield module
                if module in ("metarobust", "metarobust.course"):  # `from metarobust import attacks`
                    yield from (f"{module}.{one.name}" for one in names if one.name not in OPEN)
            case ast.Call(
                func=ast.Name(id="__import__" | "import_module") | ast.Attribute(attr="import_module"),
                args=[ast.Constant(value=str(name)), *_],
            ):
                yield name


def guard(banned: list[str]) -> None:
    """Put the modules that the assignment forbids out of reach; those of the library that need them keep them."""
    for name in ("data", "family", "meta"):
        import_module(f"metarobust.{name}")
    for name in [*banned, *(f"metarobust.course.{one}" for one in JUDGES)]:
        for loaded in [one for one in sys.modules if one.startswith(f"{name}.")]:
            sys.modules[loaded] = None  # type: ignore[assignment]
        sys.modules[name] = None  # type: ignore[assignment]
        parent, _, last = name.rpartition(".")
        if parent and sys.modules.get(parent) is not None:
            vars(sys.modules[parent]).pop(last, None)


@dataclass(frozen=True)
class Mark:
    """What the judge says of a student's own check."""

    holds: bool
    points: int
    text: str

    def __bool__(self) -> bool:
        return self.holds

    def __repr__(self) -> str:
        return self.text


class Counter(io.TextIOBase):
    """Standard output, of which only the length is kept."""

    count = 0

    def write(self, text: str) -> int:
        self.count += len(text)
        return len(text)


class Session:
    """A student's cells and functions, as the judge reaches them."""

    def __init__(self, channel: Channel):
        self.channel, self.checked, self.names = channel, None, {}
        course.check = self.check

    def check(self, number: int, question: str, answer: Callable[..., Any], seed: int = 0) -> Mark:
        """Has the judge look at a function, as a student's own check does."""
        before, self.checked = self.checked, answer
        self.channel.send({"check": str(question), "number": int(number), "seed": int(seed)})
        said = self.serve("text")
        self.checked = before
        if said.get("error"):
            raise ValueError(said["error"])
        return Mark(said["holds"], said["points"], said["text"])

    def serve(self, until: str) -> dict[str, Any]:
        """Answers the judge's calls, up to a message with this in it, which is returned."""
        while until not in (message := self.channel.receive(trusted=True)):
            self.channel.send(self._called(message))
        return message

    def _called(self, message: dict[str, Any]) -> dict[str, Any]:
        name = message["call"]
        function = self.names.get(name) if name else self.checked
        if not callable(function):
            return {"stopped": f"there is no function called {name}."}
        try:
            with limit(CALL_SECONDS):
                return perform(function, message["given"], message["slope"])
        except OutOfTime:
            return {"raised": f"OutOfTime: it does not end; {CALL_SECONDS:g} seconds were not enough."}
        except BaseException as error:  # such as SystemExit
            return {"raised": type(error).__name__}

    def run(self, code: list[str], seconds: float) -> None:
        """Runs the cells, each for so many seconds; one that stops does not end it."""
        shell = _shell()
        self.names = shell.user_ns
        for number, source in enumerate(code, 1):
            printed = Counter()
            try:
                with redirect_stdout(printed), redirect_stderr(printed), limit(seconds) as late:
                    result = shell.run_cell(source, store_history=False)
                    error = result.error_before_exec or result.error_in_exec
            except BaseException as stopped:
                error = stopped
            if late:
                self.note(f"cell {number} was interrupted: it took longer than a cell may")
            elif error is not None:
                text = " ".join(f"{type(error).__name__}: {str(error)[:300]}".split())
                self.note(f"cell {number} stops with {text[:200]}")
            if printed.count > LOUD:
                self.note(f"cell {number} prints {printed.count:,} characters")
        self.channel.send({"done": True})

    def note(self, text: str) -> None:
        self.channel.send({"note": text})


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
    os.environ.pop("METAROBUST_COURSE_SEED", None)
    main(sys.argv[1])
