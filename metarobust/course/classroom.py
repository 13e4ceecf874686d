"""Grading a folder of submissions: in parallel, with a progress bar, and again from where it was stopped.

Each submission has a JSON file and a feedback file in the output folder, written whole or not at all. What is there for
the same content, seed and assignment is not graded again. The table `grades.csv` is made of them at the end.
"""

from __future__ import annotations

import csv
import io
import os
import re
import sys
from collections import defaultdict
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tqdm import tqdm

from metarobust import __version__
from metarobust.course.grade import Result, draw_seed, grade_file, printable
from metarobust.course.sandbox import Sandbox
from metarobust.errors import InputError
from metarobust.lab.running import only_writer
from metarobust.lab.tables import sound
from metarobust.storage import read_json, sha256, write_atomic, write_json

DEPTH = 6  # folders in each other
COLUMNS = (
    *("student", "file", "digest", "same as", "handed in"),
    *("q1", "q2", "q3", "q4", "q5", "points", "out of", "status", "notes"),
)


def submissions(folder: Path) -> dict[str, list[Path]]:
    """The files of each student, the last notebook first, which counts; in order of the students.

    A student is a folder, or a file without its ending. Hidden files, links and what lies deeper than six folders are
    left out. Raises InputError where there is none.
    """
    if not folder.is_dir():
        raise InputError(f"{folder} is not a folder; give the one that holds the submissions")
    found: dict[str, list[Path]] = defaultdict(list)
    for place, names, files in os.walk(folder):
        parts = Path(place).relative_to(folder).parts
        names[:] = [name for name in names if not name.startswith(".")] if len(parts) < DEPTH else []
        for path in (Path(place) / name for name in files if not name.startswith(".")):
            if path.is_file() and not path.is_symlink():
                found[(*parts, path.stem)[0]].append(path)
    if not found:
        raise InputError(f"{folder} holds no submissions; put one file or one folder for each student there")

    def rank(path: Path) -> tuple[Any, ...]:
        return path.suffix == ".ipynb", path.stat().st_mtime, os.fsencode(path)

    return {student: sorted(paths, key=rank, reverse=True) for student, paths in sorted(found.items())}


def class_table(
    folder: Path,
    out: Path,
    number: int | None = None,
    seed: int | None = None,
    sandbox: Sandbox | None = None,
    workers: int | None = None,
    retry: Sequence[Path] = (),
) -> str:
    """Grade all submissions of a folder.

    Args:
        folder: one file, or one folder, for each student.
        out: where the results go; what is there of the same content, seed and assignment is kept.
        number: of the assignment; as each notebook says where None.
        seed: of the hidden variants, one for the whole class; that of the last call for this `out` where None.
        sandbox: to run each submission in; one with walls where None.
        workers: submissions at a time; one for each core where None.
        retry: files, or folders of students, to grade again although nothing changed.

    Returns:
        The table, which is also in `out`, as `grades.csv`.

    Raises:
        InputError: there is nothing to grade, `out` lies within `folder` or is being written, or bubblewrap is missing.
    """
    sandbox, folder, out = sandbox or Sandbox(), folder.resolve(), out.resolve()
    if out.is_relative_to(folder):
        raise InputError(f"results in {out} would lie among the submissions; give another folder with --out")
    workers = len(os.sched_getaffinity(0)) if workers is None else workers
    if workers < 1:
        raise InputError(f"{workers} submissions at a time; give at least 1")
    found = submissions(folder)
    again = {one for one in found if any(found[one][0].is_relative_to(path.resolve()) for path in retry)}
    if retry and not again:
        raise InputError(f"no submission is {printable(str(retry[0]))}; give a file or a folder of {folder}")
    results: dict[str, dict[str, Any]] = {}
    with only_writer(out), tqdm(total=len(found), desc="grade") as bar, ThreadPoolExecutor(workers) as pool:
        seed = _class_seed(out, seed)
        given = (out, number, seed, sandbox)
        waiting = {pool.submit(_one, one, paths[0], one in again, *given): one for one, paths in found.items()}
        try:
            for done in as_completed(waiting):
                results[waiting[done]] = done.result()
                bar.update()
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)  # no new one begins
            bar.write("stopping: those that run are graded first", file=sys.stderr)
            raise
        table = io.StringIO()
        writer = csv.DictWriter(table, COLUMNS, lineterminator="\n")
        writer.writeheader()
        writer.writerows(_row(one, found[one], folder, results) for one in found)
        write_atomic(out / "grades.csv", table.getvalue())
    return table.getvalue()


def _class_seed(out: Path, seed: int | None) -> int:
    """The class's seed, kept beside the results."""
    with sound(kept := out / "grading.json"):
        if seed is None:
            seed = int(read_json(kept)["seed"]) if kept.exists() else draw_seed()
    write_json(kept, {"seed": seed, "version": __version__})
    return seed


def _one(
    student: str, path: Path, again: bool, out: Path, number: int | None, seed: int, sandbox: Sandbox
) -> dict[str, Any]:
    """The result of one submission: the one that is there, or a new one. Whatever happens to it stays its own."""
    word = re.sub(r"[^A-Za-z0-9]+", "-", printable(student))[:40].strip("-")
    name = f"{word}-{sha256(os.fsencode(student))[:8]}"  # short, plain, and nobody else's
    stored, handed_back = out / "results" / f"{name}.json", out / "feedback" / f"{name}.md"
    try:
        before = read_json(stored) if stored.exists() and handed_back.exists() and not again else {}
    except InputError:
        before = {}  # damaged: it is made again
    try:
        same = {"digest": sha256(path.read_bytes()), "seed": seed, "version": __version__}
        if same.items() <= before.items() and number in (None, before["assignment"]):
            return before
        result = grade_file(path, number, seed, sandbox)
    except Exception as error:
        note = f"{type(error).__name__}: {error}"[:300]
        result = Result(printable(path.name), "", seed, number or 0, "not graded", notes=[note])
    write_atomic(handed_back, result.feedback(printable(student)))
    write_json(stored, result.as_json())
    return result.as_json()


def _row(student: str, paths: Sequence[Path], folder: Path, results: dict[str, dict[str, Any]]) -> dict[str, Any]:
    result, (file, *others) = results[student], [str(path.relative_to(folder)) for path in paths]
    alike = [other for other, its in results.items() if other != student and its["code"] == result["code"]]
    notes = [*result["notes"], *(f"not graded: {name}, which is older or no notebook" for name in sorted(others))]
    row = {
        "student": student,
        "file": file,
        "digest": result["digest"][:12],
        "same as": "; ".join(sorted(alike)) if result["points"] else "",
        "handed in": datetime.fromtimestamp(paths[0].stat().st_mtime, UTC).strftime("%Y-%m-%d %H:%M:%S"),
        **{mark["question"]: mark["points"] for mark in result["questions"]},
        "points": result["points"],
        "out of": result["out_of"],
        "status": result["status"],
        "notes": " | ".join(notes)[:2000],
    }
    return {name: _escaped(value) if isinstance(value, str) else value for name, value in row.items()}


def _escaped(text: str) -> str:
    """Text that neither a terminal nor a spreadsheet takes for a command."""
    return re.sub("^[=+@-]", r"'\g<0>", printable(text))
