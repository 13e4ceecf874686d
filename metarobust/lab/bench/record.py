"""What a bench is, how it takes times, and how its result is stored: results.csv, and a manifest with where and when.

Recorded ones lie in `recorded/bench/NAME`, beside the recorded experiments, and are read like those.
"""

import platform
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from statistics import median
from typing import Any, TypeVar

import torch

from metarobust.lab.bench.libraries import INSTALL, installed, need
from metarobust.lab.provenance import code, versions
from metarobust.lab.results import load, to_markdown, to_text
from metarobust.lab.tables import write_csv
from metarobust.storage import write_json

FOLDER = Path(__file__).parents[1] / "recorded" / "bench"
Result = TypeVar("Result")
Row = Mapping[str, Any]
Table = tuple[str, Sequence[Sequence[str]]]


@dataclass(frozen=True)
class Bench:
    """A comparison with other libraries, measured in one run.

    Args:
        name: As `metarobust bench` takes it.
        summary: One line for the list.
        libraries: The peers that a stored result needs.
        columns: The columns of its table, and their types.
        measure: Whether to be quick, to the rows.
        tables: The rows to captioned tables; the first line of each is its header.
        keep: Stores what else belongs to a result in its folder, after `measure`.
    """

    name: str
    summary: str
    libraries: tuple[str, ...]
    columns: Mapping[str, type]
    measure: Callable[[bool], list[dict[str, Any]]]
    tables: Callable[[Sequence[Row]], list[Table]]
    keep: Callable[[Path], None] = field(default=lambda folder: None)

    def run(self, *, out: Path | None = None, quick: bool = False) -> str:
        """Measures, and returns what is to be printed.

        Args:
            out: The folder to store the result in; None for none.
            quick: A tiny size, to see that it works.

        Raises:
            InputError: A library is missing that a stored result needs.
        """
        if out is not None:
            for library in self.libraries:
                need(library)
        start = time.perf_counter()
        rows = self.measure(quick)
        manifest = {
            "status": "complete",
            "bench": self.name,
            "command": f"metarobust bench {self.name}",
            "device": {"type": "cpu", "name": platform.machine()},
            "threads": torch.get_num_threads(),
            "versions": versions() | {library: installed(library) for library in self.libraries},
            "code": code(),
            "finished": datetime.now(UTC).isoformat(timespec="seconds"),
            "wall_seconds": round(time.perf_counter() - start, 1),
        }
        if out is not None:
            self.keep(out)
            write_json(out / "manifest.json", manifest | write_csv(out / "results.csv", rows, self.columns))
        return self.table(manifest, rows)

    def table(self, manifest: Row, rows: Sequence[Row]) -> str:
        """The tables as text for a terminal."""
        blocks = [f"{caption}\n{to_text(lines)}\n" for caption, lines in self.tables(rows)]
        text = "\n".join([*blocks, self._setting(manifest)])
        return "\n".join(line.rstrip() for line in text.splitlines())

    def markdown(self, manifest: Row, rows: Sequence[Row]) -> str:
        """The tables as Markdown."""
        blocks = [f"{caption}.\n\n{to_markdown(lines)}" for caption, lines in self.tables(rows)]
        return "\n\n".join([*blocks, f"{self._setting(manifest)}."])

    def recorded(self, folder: Path = FOLDER) -> tuple[dict[str, Any], list[dict[str, Any]]]:
        """Manifest and rows of the result that comes with the package."""
        results = load(folder / self.name)
        return results.manifest, results.frame.to_dict("records")

    def _setting(self, manifest: Row) -> str:
        """The machine, its threads and the versions; and how to install what is missing."""
        versions = ", ".join(f"{name} {number or 'missing'}" for name, number in manifest["versions"].items())
        threads = manifest["threads"]
        missing = [f"{one} is not installed: {INSTALL}" for one in self.libraries if manifest["versions"][one] is None]
        words = f"{manifest['device']['name']}, {threads} {'thread' if threads == 1 else 'threads'}; {versions}"
        return "\n".join([words, *missing])


def interleaved(
    ways: Mapping[str, Callable[[], Result]],
    rounds: int,
    warm_up: int = 1,
    clock: Callable[[], float] = time.perf_counter,
) -> tuple[dict[str, list[float]], dict[str, Result]]:
    """Times ways of doing the same work in turn, round after round, so that a busy moment hits all of them alike.

    Args:
        ways: What to call, by name. Each round begins with another.
        rounds: That count, after `warm_up` others.
        warm_up: Rounds before those.
        clock: Says the seconds, the wall's unless it is `time.process_time`.

    Returns:
        Seconds of each round, by way, and what each way returned last.
    """
    names, results = list(ways), {}
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    for turn in range(-warm_up, rounds):
        at = turn % len(names)
        for name in names[at:] + names[:at]:
            start = clock()
            results[name] = ways[name]()
            took = clock() - start
            if turn >= 0:
                seconds[name].append(took)
    return seconds, results


def timed(times: Mapping[str, Sequence[float]], unit: str) -> dict[str, dict[str, Any]]:
    """By way: seconds (the median over rounds), the fastest and slowest round, and the ratio to the way `unit`.

    The ratio is the median of the rounds' ratios: what slows down a whole round cancels out.
    """
    return {
        way: {
            "seconds": median(seconds), "fastest": min(seconds), "slowest": max(seconds), "rounds": len(seconds),
            "ratio": median(one / other for one, other in zip(seconds, times[unit], strict=True)),
        }
        for way, seconds in times.items()
    }  # fmt: skip


def pace(row: Row, work: float, form: str = ",.0f") -> list[str]:
    """Work a second, its spread over the rounds, and the ratio, as the cells of a table."""
    low, typical, high = (format(work / row[key], form) for key in ("slowest", "seconds", "fastest"))
    return [typical, f"{low} to {high}", f"{row['ratio']:.2f}"]
