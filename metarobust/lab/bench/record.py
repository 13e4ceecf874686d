"""A bench's result as two files: results.csv, and manifest.json with where, when and with what it was made.

They lie in `recorded/bench/NAME`, beside the recorded experiments but not among them, and are read like those.
"""

import platform
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from metarobust.lab.bench.libraries import installed
from metarobust.lab.environment import code
from metarobust.lab.results import load_results
from metarobust.lab.tables import write_csv
from metarobust.storage import write_json

FOLDER = Path(__file__).parents[1] / "recorded" / "bench"


def about(seconds: float, libraries: Iterable[str]) -> dict[str, Any]:
    """What a figure depends on beside the code: the machine, its threads, and the versions, also of libraries."""
    versions = {name: version(name) for name in ("torch", "numpy")}
    return {
        "device": {"type": "cpu", "name": platform.machine()},
        "threads": torch.get_num_threads(),
        "versions": {"python": platform.python_version()} | versions | {name: installed(name) for name in libraries},
        "code": code(),
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
        "wall_seconds": round(seconds, 1),
    }


def setting(manifest: Mapping[str, Any]) -> str:
    """The machine, its threads and the versions, in one line."""
    versions = ", ".join(f"{name} {number or 'missing'}" for name, number in manifest["versions"].items())
    threads = manifest["threads"]
    return f"{manifest['device']['name']}, {threads} {'thread' if threads == 1 else 'threads'}; {versions}"


def write(
    folder: Path, manifest: Mapping[str, Any], rows: Sequence[Mapping[str, Any]], columns: Mapping[str, type]
) -> None:
    """Store a result, in place of an older one. Raises InputError as `write_csv` does."""
    digest = write_csv(folder / "results.csv", rows, columns)
    kinds = {name: kind.__name__ for name, kind in columns.items()}
    stored = {"status": "complete", **manifest, "columns": kinds, "files_sha256": {"results.csv": digest}}
    write_json(folder / "manifest.json", stored)


def again(name: str) -> str:
    """The command that records a bench anew, from the folder of this project."""
    return f"metarobust bench {name} --out metarobust/lab/recorded/bench/{name}"


def recorded(name: str) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Manifest and rows of a bench that is shipped with the package. Raises InputError as `load_results` does."""
    return load_results(FOLDER / name)
