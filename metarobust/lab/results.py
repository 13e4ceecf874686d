"""The results of finished runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from metarobust.errors import InputError
from metarobust.storage import read_csv, read_json

_TYPES = {kind.__name__: kind for kind in (str, int, float)}


def load_results(folder: Path | str) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """The manifest and the rows of a finished run.

    Raises InputError when the run is missing, unfinished, or a byte of either file was changed.
    """
    folder = Path(folder)
    if not (folder / "manifest.json").exists():
        raise InputError(f"{folder} holds no run (no manifest.json); give the folder a run was written to")
    manifest = read_json(folder / "manifest.json")
    if manifest.get("status") != "complete":
        raise InputError(f"the run in {folder} is not finished; repeat its command with --resume")
    columns = {name: _TYPES[kind] for name, kind in manifest["columns"].items()}
    rows = read_csv(folder / "results.csv", columns, manifest["files_sha256"]["results.csv"])
    return manifest, rows
