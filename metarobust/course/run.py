"""One submission from file to records: read it, look at its imports, and run it in a process of its own, watched.

The grader's side of `metarobust.course.child`. Nothing of the submission is executed in this process.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import metarobust
from metarobust.course import confine, recording
from metarobust.course.question import Assignment
from metarobust.course.submission import forbidden, read_notebook
from metarobust.course.watch import remove, watch
from metarobust.errors import InputError

LOUD = 100_000  # characters printed that are worth a note


@dataclass(frozen=True)
class Limits:
    """seconds: for the whole submission. memory: bytes of all its processes together. cell: seconds for one cell.

    Raises InputError for seconds outside of 5 to 86400, and for memory outside of 1 to 1000 GB.
    """

    seconds: float = 900.0
    memory: int = 4_000_000_000
    cell: float = 600.0

    def __post_init__(self) -> None:
        if not 5 <= self.seconds <= 86_400 or not 1e9 <= self.memory <= 1e12:
            raise InputError(
                f"limits of {self.seconds:g} s and {self.memory / 1e9:g} GB; give 5 to 86400 s, and 1 to 1000 GB"
            )


@dataclass
class Ran:
    """status: `graded`, or why not. notes: what an instructor should know. records: by question and seed."""

    status: str
    notes: list[str] = field(default_factory=list)
    records: dict[str, dict[int, Any]] = field(default_factory=dict)
    executed: bytes | None = None


def run(path: Path, assignment: Assignment, seeds: Sequence[int], limits: Limits) -> Ran:
    """Execute a submission and probe its functions. Whatever it does ends in a Ran."""
    try:
        notebook = read_notebook(path)
    except InputError as error:
        return Ran("not a notebook", [str(error)])
    banned = forbidden(notebook, assignment)
    if banned:
        return Ran("forbidden import", [
            f"it imports {', '.join(banned)}, which this assignment does without; take it out and hand in again"
        ])  # fmt: skip
    folder = Path(tempfile.mkdtemp(prefix="metarobust-grade-")).resolve()
    try:
        return _run(notebook, folder, assignment, seeds, limits)
    finally:
        remove(folder)


def _run(notebook: dict[str, Any], folder: Path, assignment: Assignment, seeds: Sequence[int], limits: Limits) -> Ran:
    for name in ("work", "answers", "lib", "home"):
        (folder / name).mkdir()
    package = Path(metarobust.__file__).resolve().parent
    (folder / "lib" / "metarobust").symlink_to(package)  # the library, and nothing of what lies beside it
    (folder / "submission.ipynb").write_text(json.dumps(notebook))
    command = confine.namespace()
    job = {"folder": str(folder), "number": assignment.number, "seeds": list(seeds), "namespace": bool(command),
           "memory": limits.memory, "cell_seconds": limits.cell}  # fmt: skip
    (folder / "job.json").write_text(json.dumps(job))
    with open(folder / "log", "wb") as log:
        process = subprocess.Popen(
            [*command, sys.executable, str(Path(__file__).with_name("child.py")), str(folder / "job.json")],
            env=_environment(folder), cwd=folder, stdin=subprocess.DEVNULL, stdout=log, stderr=log,
            start_new_session=True,
        )  # fmt: skip
        why = watch(process, folder, limits.seconds, limits.memory)
    return _collect(folder, assignment, seeds, why)


def _environment(folder: Path) -> dict[str, str]:
    """Nothing of the grader's own but where programs are and what language they speak."""
    kept = {name: os.environ[name] for name in ("PATH", "LANG", "LC_ALL") if name in os.environ}
    return kept | {
        "PYTHONPATH": str(folder / "lib"), "HOME": str(folder / "home"), "TMPDIR": str(folder / "work"),
        "IPYTHONDIR": str(folder / "home"), "JUPYTER_CONFIG_DIR": str(folder / "home"),
        "JUPYTER_DATA_DIR": str(folder / "home"), "JUPYTER_RUNTIME_DIR": str(folder / "home"),
        "MPLCONFIGDIR": str(folder / "home"), "MPLBACKEND": "agg", "OMP_NUM_THREADS": "1", "TQDM_DISABLE": "1",
        "PYTHONDONTWRITEBYTECODE": "1", "JOBLIB_MULTIPROCESSING": "0",
    }  # fmt: skip


def _collect(folder: Path, assignment: Assignment, seeds: Sequence[int], why: str) -> Ran:
    """What the run left behind."""
    cells, stopped = (_json(folder / name) for name in ("cells.json", "stopped.json"))
    notes = []
    for number, cell in enumerate(cells[1:] if isinstance(cells, list) else [], 1):
        if not isinstance(cell, dict):
            break
        error = str(cell.get("error", ""))[:200]
        if error.startswith("KeyboardInterrupt"):  # by nbclient, which does not say so
            notes.append(f"cell {number} was interrupted: it took longer than a cell may")
        elif error:
            notes.append(f"cell {number} stops with {error}")
        if isinstance(cell.get("printed"), int) and cell["printed"] > LOUD:
            notes.append(f"cell {number} prints {cell['printed']:,} characters; the first of them are kept")
    records: dict[str, dict[int, Any]] = {q.name: {} for q in assignment.questions}
    for question in assignment.questions:
        for seed in seeds:
            record = recording.read(folder / "answers", f"{question.name}-{seed}")
            if record is not None:
                records[question.name][seed] = record
    complete = all(len(found) == len(seeds) for found in records.values())
    status = why or ("graded" if complete else "crashed")
    if status == "crashed":
        log = recording.content(folder / "log") or b""
        last = (log.decode(errors="replace").strip().splitlines() or [""])[-1]
        notes.append(f"its process ended early: {str(stopped or last or 'without a word')[:300]}")
    elif why:
        notes.append(f"it was ended, {why}; what it had shown by then counts")
    return Ran(status, notes[:20], records, recording.content(folder / "executed.ipynb"))


def _json(path: Path) -> Any:
    try:
        return json.loads(recording.content(path) or b"null")
    except (ValueError, RecursionError):
        return None
