"""Grading a folder of submissions: in parallel, with a progress bar, and again from where it was stopped.

Each submission has a JSON file of its own in the output folder, written whole or not at all; one that is there, for the
same file, seed and assignment, is not graded again. The table `grades.csv` is made out of them at the end.
"""

from __future__ import annotations

import os
import sys
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import Any

from tqdm import tqdm

from metarobust import __version__
from metarobust.course.grade import draw_seed, grade_file
from metarobust.course.run import Limits
from metarobust.errors import InputError
from metarobust.lab.tables import write_csv
from metarobust.storage import read_bytes, read_json, sha256, write_json

COLUMNS = {"submission": str, "assignment": int, "status": str, "points": int, "out_of": int, "questions": str,
           "lost": str, "notes": str}  # fmt: skip


def submissions(folder: Path) -> list[Path]:
    """The files of a folder and of the folders in it, in order; hidden ones and checkpoints are left out."""
    if not folder.is_dir():
        raise InputError(f"{folder} is not a folder; give the one that holds the submissions")
    inside = [path for path in folder.rglob("*") if path.is_file() and not path.is_symlink()]
    found = [p for p in inside if not any(part.startswith(".") for part in p.relative_to(folder).parts)]
    if not found:
        raise InputError(f"{folder} holds no submissions; put one file for each student there")
    return sorted(found)


def class_table(
    folder: Path, out: Path, number: int | None = None, seed: int | None = None, workers: int | None = None,
    limits: Limits | None = None,
) -> str:  # fmt: skip
    """Grade all submissions of a folder. Returns the table, which is also in `out`, as `grades.csv`.

    seed: of the hidden variants, one for the whole class; that of the last call for this `out` where None, else drawn.
    workers: submissions at a time; one for each core where None.
    Raises InputError where there is nothing to grade, or `out` lies within `folder`.
    """
    folder, out = folder.resolve(), out.resolve()
    if out.is_relative_to(folder):
        raise InputError(f"results in {out} would lie among the submissions; give another folder with --out")
    workers = len(os.sched_getaffinity(0)) if workers is None else workers
    if workers < 1:
        raise InputError(f"{workers} submissions at a time; give at least 1")
    paths = submissions(folder)
    seed = _class_seed(out, seed)
    limits = limits or Limits()
    results: dict[Path, dict[str, Any]] = {}
    with tqdm(total=len(paths), desc="grade", unit="submission") as bar, ThreadPoolExecutor(workers) as pool:
        waiting = {pool.submit(_one, path, folder, out, number, seed, limits): path for path in paths}
        try:
            for done in as_completed(waiting):
                results[waiting[done]] = done.result()
                bar.update()
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)  # no new one begins
            bar.write("stopping: those that run are graded first", file=sys.stderr)
            raise
    rows = [_row(path.relative_to(folder), results[path]) for path in paths]
    write_csv(out / "grades.csv", rows, COLUMNS)
    return (out / "grades.csv").read_text()


def _class_seed(out: Path, seed: int | None) -> int:
    """The class's seed, kept beside the results."""
    kept = out / "grading.json"
    if seed is None:
        seed = int(read_json(kept)["seed"]) if kept.exists() else draw_seed()
    write_json(kept, {"seed": seed, "version": __version__})
    return seed


def _one(path: Path, folder: Path, out: Path, number: int | None, seed: int, limits: Limits) -> dict[str, Any]:
    """The result of one submission: the one that is there, or a new one."""
    name = "__".join(path.relative_to(folder).parts)
    stored = out / f"{name}.json"
    try:
        before = read_json(stored) if stored.exists() else None
    except InputError:
        before = None  # damaged: it is made again
    try:
        digest = sha256(read_bytes(path))
        if before and _same(before, digest, number, seed):
            return before
        found = grade_file(path, number, seed, limits, keep=out / f"{name}.executed.ipynb").as_json()
    except InputError as error:
        found = {"submission": path.name, "digest": "", "assignment": number or 0, "status": "not graded", "points": 0,
                 "out_of": 0, "seed": seed, "notes": [str(error)], "questions": [], "confined": [],
                 "version": __version__}  # fmt: skip
    write_json(stored, found)
    return found


def _same(before: dict[str, Any], digest: str, number: int | None, seed: int) -> bool:
    asked = number is None or before.get("assignment") == number
    return asked and (before.get("digest"), before.get("seed"), before.get("version")) == (digest, seed, __version__)


def _row(path: Path, result: dict[str, Any]) -> dict[str, Any]:
    questions = " ".join(f"{q['question']}={q['points']}/{q['out_of']}" for q in result["questions"])
    lost = [f"{q['question']} {f['name']}" for q in result["questions"] for f in q["findings"] if f["said"]]
    return {
        "submission": str(path), "assignment": result["assignment"], "status": result["status"],
        "points": result["points"], "out_of": result["out_of"], "questions": questions,
        "lost": "; ".join(lost), "notes": " | ".join(" ".join(note.split()) for note in result["notes"]),
    }  # fmt: skip
