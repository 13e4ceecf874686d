"""Recorded runs as the ledger sees them: rows chosen by column, and labelled by what differs among them.

A column may be given as a value, as a pattern with * and ?, or as a list of either. What is left out is free. Of a
method's several steps the last counts, unless `step` is given.
"""

from collections.abc import Iterable
from fnmatch import fnmatchcase
from functools import cached_property
from pathlib import Path
from typing import Any

from metarobust.errors import InputError, choose
from metarobust.lab.bench import BENCHES
from metarobust.lab.experiments import EXPERIMENTS
from metarobust.lab.results import load_results
from metarobust.storage import read_json

Row = dict[str, Any]
Wanted = str | int | float | list[Any] | None

LABELS = ("dataset", "part", "model", "norm", "library", "way", "method", "step", "eps", "split", "attack")
"""The columns that rows are told apart by, of experiments and comparisons. Seeds are averaged over."""


class NotRecorded(InputError):
    """What was asked of a run that is not among the recorded ones, though it may be made."""


class Records:
    """The recorded runs in a folder, each read once."""

    def __init__(self, folder: Path):
        self.folder = folder
        self._loaded: dict[str, tuple[dict[str, Any], list[Row]]] = {}
        self._chosen: dict[str, list[Row]] = {}

    @cached_property
    def names(self) -> list[str]:
        """All that are there: `patch-mnist-small`, `bench/attacks`."""
        found = sorted(path.parent for path in self.folder.glob("**/manifest.json"))
        return [path.relative_to(self.folder).as_posix() for path in found]

    def load(self, run: str) -> tuple[dict[str, Any], list[Row]]:
        """Manifest and rows. Raises NotRecorded where there might be such a run, InputError where there cannot."""
        if run not in self.names:
            bench = run in {f"bench/{name}" for name in BENCHES}
            if not bench and not any(run.startswith(f"{name}-") for name in EXPERIMENTS):
                choose(run, [*self.names, *(f"{name}-DATASET-SCALE" for name in EXPERIMENTS)], "run")
            raise NotRecorded(f"{run} is not recorded")
        if run not in self._loaded:
            self._loaded[run] = load_results(self.folder / run)
        return self._loaded[run]

    def rows(self, run: str, **wanted: Wanted) -> list[Row]:
        """The rows that fit. Raises InputError for a column or a value that is not there, saying which are."""
        _, rows = self.load(run)
        question = f"{run} {wanted}"
        if question not in self._chosen:
            self._chosen[question] = self._choose(run, rows, wanted)
        return self._chosen[question]

    def _choose(self, run: str, rows: list[Row], wanted: dict[str, Wanted]) -> list[Row]:
        for column, value in wanted.items():
            if value is None:
                continue
            choose(column, rows[0], f"column of {run}")
            there = dict.fromkeys(row[column] for row in rows)
            wanted_here = {one for one in there if fits(one, value)}
            found = [row for row in rows if row[column] in wanted_here]
            if not found:
                values = ", ".join(map(repr, there))
                raise InputError(f"{run}: no rows with {column} {value!r} are left; there are {values}")
            rows = found
        return rows

    def json(self, run: str, file: str) -> Any:
        """A JSON file that lies beside a run's table, such as its manifest."""
        self.load(run)
        return read_json(self.folder / run / file)


def fits(value: Any, wanted: Wanted) -> bool:
    """Whether a value is the wanted one, fits its pattern, or does so for one of a list."""
    if isinstance(wanted, list):
        return any(fits(value, one) for one in wanted)
    if isinstance(wanted, str) and isinstance(value, str):
        return value == wanted or fnmatchcase(value, wanted)
    return value == wanted


def labelled(rows: list[Row], ignore: Iterable[str] = (), among: Iterable[str] = LABELS) -> dict[str, list[Row]]:
    """The rows by what differs among them, as words: `mlp-64-sigmoid`, or `trained as usual, linf`."""
    columns = [column for column in among if column in rows[0] and column not in ignore]
    differing = [column for column in columns if len({row[column] for row in rows}) > 1]
    groups: dict[str, list[Row]] = {}
    for row in rows:
        groups.setdefault(", ".join(str(row[column]) for column in differing), []).append(row)
    return groups
