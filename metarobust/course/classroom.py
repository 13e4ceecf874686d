"""Grading a folder of submissions: in parallel, with a progress bar, and again from where it was stopped.

Each submission has a JSON file and a feedback file in the output folder, written whole or not at all. What is there for
the same content, seed and assignment is not graded again. The table `grades.csv` is made of them at the end.
"""

from __future__ import annotations

import os
import re
import sys
from collections import defaultdict
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from tqdm import tqdm

from metarobust import __version__
from metarobust.course.grade import Result, draw_seed, feedback, grade_file, printable
from metarobust.course.sandbox import Limits, confine
from metarobust.errors import InputError
from metarobust.lab.running import only_writer
from metarobust.lab.tables import sound, write_csv
from metarobust.storage import read_json, sha256, write_atomic, write_json

DEPTH = 6  # folders in each other
ANSWERS = ("q1", "q2", "q3", "q4", "q5")
COLUMNS = {
    **dict.fromkeys(("student", "file", "digest", "same as", "handed in"), str),
    **dict.fromkeys((*ANSWERS, "points", "out of"), int),
    **dict.fromkeys(("status", "notes"), str),
}


@dataclass(frozen=True)
class Submission:
    """student: a folder's name, or a file's without its ending. path: of the file. others: of the same student."""

    student: str
    path: Path
    handed_in: str
    others: tuple[str, ...] = ()

    @property
    def stored(self) -> str:
        """The name of its results: short, plain, and nobody else's."""
        word = re.sub(r"[^A-Za-z0-9]+", "-", printable(self.student))[:40].strip("-")
        return f"{word}-{sha256(os.fsencode(self.student))[:8]}"


def submissions(folder: Path) -> list[Submission]:
    """One for each file of a folder, and one for each folder in it: its last notebook. In order of their students.

    Hidden files, links and what lies deeper than six folders are left out.
    """
    if not folder.is_dir():
        raise InputError(f"{folder} is not a folder; give the one that holds the submissions")
    found: dict[str, list[Path]] = defaultdict(list)
    for place, names, files in os.walk(folder):
        parts = Path(place).relative_to(folder).parts
        names[:] = [name for name in names if not name.startswith(".")] if len(parts) < DEPTH else []
        for path in (Path(place) / name for name in files if not name.startswith(".")):
            if path.is_file() and not path.is_symlink():
                found[(*parts, path.name)[0]].append(path)
    if not found:
        raise InputError(f"{folder} holds no submissions; put one file or one folder for each student there")
    return [_submission(folder, name, paths) for name, paths in sorted(found.items())]


def _submission(folder: Path, name: str, paths: Sequence[Path]) -> Submission:
    when = {path: path.stat().st_mtime for path in paths}
    last = max(paths, key=lambda path: (path.suffix == ".ipynb", when[path], os.fsencode(path)))
    others = tuple(sorted(str(path.relative_to(folder)) for path in paths if path != last))
    handed_in = datetime.fromtimestamp(when[last], UTC).strftime("%Y-%m-%d %H:%M:%S")
    return Submission(name if (folder / name).is_dir() else Path(name).stem, last, handed_in, others)


def class_table(
    folder: Path,
    out: Path,
    number: int | None = None,
    seed: int | None = None,
    workers: int | None = None,
    limits: Limits | None = None,
    trust: bool = False,
    retry: Sequence[Path] = (),
) -> str:
    """Grade all submissions of a folder.

    Args:
        folder: one file, or one folder, for each student.
        out: where the results go; what is there of the same content, seed and assignment is kept.
        number: of the assignment; as each notebook says where None.
        seed: of the hidden variants, one for the whole class; that of the last call for this `out` where None.
        workers: submissions at a time; one for each core where None.
        limits: of time and memory, for each.
        trust: run them without walls.
        retry: files, or folders of students, to grade again although nothing changed.

    Returns:
        The table, which is also in `out`, as `grades.csv`.

    Raises:
        InputError: there is nothing to grade, `out` lies within `folder` or is being written, or bubblewrap is missing.
    """
    confine(trust)
    folder, out = folder.resolve(), out.resolve()
    if out.is_relative_to(folder):
        raise InputError(f"results in {out} would lie among the submissions; give another folder with --out")
    workers = len(os.sched_getaffinity(0)) if workers is None else workers
    if workers < 1:
        raise InputError(f"{workers} submissions at a time; give at least 1")
    found = submissions(folder)
    again = {one for one in found if any(one.path.is_relative_to(path.resolve()) for path in retry)}
    if retry and not again:
        raise InputError(f"no submission is {printable(str(retry[0]))}; give a file or a folder of {folder}")
    results: dict[Submission, dict[str, Any]] = {}
    with only_writer(out), tqdm(total=len(found), desc="grade") as bar, ThreadPoolExecutor(workers) as pool:
        given = (number, _class_seed(out, seed), limits or Limits(), trust)
        waiting = {pool.submit(_one, one, out, one in again, *given): one for one in found}
        try:
            for done in as_completed(waiting):
                results[waiting[done]] = done.result()
                bar.update()
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)  # no new one begins
            bar.write("stopping: those that run are graded first", file=sys.stderr)
            raise
        write_csv(out / "grades.csv", [_row(one, folder, results) for one in found], COLUMNS)
    return (out / "grades.csv").read_text()


def _class_seed(out: Path, seed: int | None) -> int:
    """The class's seed, kept beside the results."""
    with sound(kept := out / "grading.json"):
        if seed is None:
            seed = int(read_json(kept)["seed"]) if kept.exists() else draw_seed()
    write_json(kept, {"seed": seed, "version": __version__})
    return seed


def _one(
    one: Submission, out: Path, again: bool, number: int | None, seed: int, limits: Limits, trust: bool
) -> dict[str, Any]:
    """The result of one submission: the one that is there, or a new one. Whatever happens to it stays its own."""
    stored, handed_back = out / "results" / f"{one.stored}.json", out / "feedback" / f"{one.stored}.md"
    try:
        before = read_json(stored) if stored.exists() and handed_back.exists() and not again else {}
    except InputError:
        before = {}  # damaged: it is made again
    try:
        same = {"digest": sha256(one.path.read_bytes()), "seed": seed, "version": __version__}
        if before and {name: before[name] for name in same} == same and number in (None, before["assignment"]):
            return before
        found = grade_file(one.path, number, seed, limits, trust)
    except Exception as error:
        found = Result(printable(one.path.name), "", seed, number or 0, "not graded")
        found.notes.append(f"{type(error).__name__}: {error}"[:300])
    write_atomic(handed_back, feedback(found, printable(one.student)))
    write_json(stored, found.as_json())
    return found.as_json()


def _row(one: Submission, folder: Path, results: dict[Submission, dict[str, Any]]) -> dict[str, Any]:
    result = results[one]
    alike = [other.student for other, its in results.items() if other != one and its["code"] == result["code"]]
    notes = [*result["notes"], *(f"not graded: {name}, which is older or no notebook" for name in one.others)]
    row = {
        "student": one.student,
        "file": str(one.path.relative_to(folder)),
        "digest": result["digest"][:12],
        "same as": "; ".join(sorted(alike)) if result["points"] else "",
        "handed in": one.handed_in,
        **dict.fromkeys(ANSWERS, None),
        **{q["question"]: q["points"] for q in result["questions"]},
        "points": result["points"],
        "out of": result["out_of"],
        "status": result["status"],
        "notes": " | ".join(notes)[:2000],
    }
    return {name: _escaped(value) if isinstance(value, str) else value for name, value in row.items()}


def _escaped(text: str) -> str:
    """Text that neither a terminal nor a spreadsheet takes for a command."""
    return re.sub("^[=+@-]", r"'\g<0>", printable(text))
