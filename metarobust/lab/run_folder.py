"""The output folder of one run: a manifest, resumable units of work, and one tidy table.

manifest.json    what was run, by which code, where; status "running", then "complete"
units/           one file for each finished unit of work
checkpoints/     tensors of an unfinished one, the last two
results.csv      one row for each value, the same to the byte whether or not the run was interrupted
searches.json    of a comparison that scores the best settings of its searches again: these, with both scores
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from metarobust.checkpoints import Checkpoints
from metarobust.errors import InputError
from metarobust.lab.environment import code, peak_memory, versions
from metarobust.lab.tables import write_csv
from metarobust.storage import TEMPORARY, read_json, sha256, write_json

if TYPE_CHECKING:
    from torch import Tensor

COLUMNS: dict[str, type] = {
    "experiment": str,
    "dataset": str,
    "part": str,
    "model": str,
    "method": str,
    "meta_seed": int,
    "tier": str,
    "seed": int,
    "step": int,
    "split": str,
    "attack": str,
    "eps": float,
    "metric": str,
    "value": float,
    "n": int,
}
"""The columns of results.csv and their types; n is the number of images behind the value."""

LOCK = ".lock"
"""Beside the manifest while a process writes to the folder."""


class Run:
    """One run's folder `out`, made or, with `resume`, taken up where it was left.

    spec: the frozen specification, a JSON object: experiment, scale, dataset, seeds and every number.
    about: what else must stay the same in a resumed run (data_sha256, device) and what is worth recording
    (threads, command, ...). All of it goes into the manifest, which is written at once.

    Raises InputError when `out` holds other files, a run and `resume` is False, a damaged manifest, or a run
    that differs in specification, data, device, versions or code.
    """

    def __init__(self, out: Path | str, spec: Mapping[str, Any], *, resume: bool, about: Mapping[str, Any]):
        self.out = Path(out)
        self.spec = json.loads(json.dumps(spec))  # so that a tuple equals the list it was stored as
        self.spec_sha256 = sha256(json.dumps(self.spec, sort_keys=True))
        self._began = time.perf_counter()
        self._named: set[str] = set()
        self._checkpoints: dict[str, Checkpoints] = {}
        manifest = {
            "status": "running",
            "spec": self.spec,
            "spec_sha256": self.spec_sha256,
            **json.loads(json.dumps(about)),
            "versions": versions(),
            "code": code(),
            "started": datetime.now(UTC).isoformat(timespec="seconds"),
            "wall_seconds": 0.0,
        }
        if self.out.exists() and not self.out.is_dir():
            raise InputError(f"{self.out} is a file; choose another --out")
        if (self.out / "manifest.json").exists():
            manifest = self._take_up(manifest, resume)
        elif found := self._foreign():
            raise InputError(f"{self.out} holds {found!r}, which is not of a run; choose another --out")
        for left in self.out.rglob(f".*{TEMPORARY}"):
            left.unlink(missing_ok=True)
        self._manifest = manifest
        self._spent = manifest["wall_seconds"]
        if not self.complete:
            self._write_manifest()

    def _take_up(self, new: dict[str, Any], resume: bool) -> dict[str, Any]:
        old = read_json(self.out / "manifest.json")
        for key in ("spec", "data_sha256", "device", "versions"):
            if found := _difference(key, old.get(key), new.get(key)):
                raise InputError(f"{self.out} holds another run: {found}; choose another --out")
        if not resume:
            raise InputError(f"{self.out} already holds this run; give --resume to go on with it, or another --out")
        if old["code"]["sha256"] != new["code"]["sha256"]:
            raise InputError(f"{self.out} was begun with other code of metarobust; choose another --out")
        return old

    def _foreign(self) -> str | None:
        names = [path.name for path in self.out.iterdir()] if self.out.exists() else []
        return next((name for name in sorted(names) if name != LOCK and not name.endswith(TEMPORARY)), None)

    @property
    def complete(self) -> bool:
        """Whether the run is finished, so that there is nothing left to do."""
        return self._manifest["status"] == "complete"

    def unit(self, name: str, compute: Callable[[], list[dict[str, Any]]]) -> list[dict[str, Any]]:
        """The rows of the unit of work `name`: stored ones where there are any, else `compute()`'s, stored.

        Either way the rows have been through JSON, so an interrupted run sees what an uninterrupted one sees.

        Raises InputError for a damaged unit file, ValueError for a name used twice or with odd characters.
        """
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._=+-]*", name) or name in self._named:
            raise ValueError(f"unit name {name!r} was used before or is not of letters, digits and . _ = + -")
        self._named.add(name)
        path = self.out / "units" / f"{name}.json"
        if not path.exists():
            write_json(path, {"unit": name, "spec_sha256": self.spec_sha256, "rows": compute()})
            self._write_manifest()
        try:
            stored = read_json(path)
        except InputError as error:
            raise InputError(f"{path} is damaged or cut short; delete it and give --resume") from error
        if (stored.get("unit"), stored.get("spec_sha256")) != (name, self.spec_sha256):
            raise InputError(f"{path} is of another run; delete it and give --resume")
        return stored["rows"]

    def finished(self, name: str) -> bool:
        """Whether the rows of a unit are stored."""
        return (self.out / "units" / f"{name}.json").exists()

    def rows(self, name: str) -> list[dict[str, Any]]:
        """The rows of a unit that is finished. Raises InputError where it is not."""
        return read_json(self.out / "units" / f"{name}.json")["rows"]

    def checkpoints(self, name: str) -> Checkpoints:
        """The last two checkpoints of this name, in `checkpoints/`."""
        if name not in self._checkpoints:
            self._checkpoints[name] = Checkpoints(self.out / "checkpoints", name, self.spec_sha256)
        return self._checkpoints[name]

    def save(self, name: str, tensors: Mapping[str, Tensor], about: Mapping[str, Any]) -> None:
        """Store a checkpoint of this name; the last two are kept. See `Checkpoints.save`."""
        self.checkpoints(name).save(tensors, about)
        self._write_manifest()

    def restore(self, name: str) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
        """The last checkpoint of this name that can be used, or None when there is none.

        A damaged one and one of another run are refused with a line; raises InputError where no other is left.
        """
        return self.checkpoints(name).load()

    def stored(self, name: str) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """The last checkpoint of this name. Raises InputError where it is gone."""
        held = self.restore(name)
        if held is None:
            lost, unit = self.checkpoints(name).paths[0], self.out / "units" / f"{name}.json"
            raise InputError(f"{lost} is missing; delete {unit} too and give --resume, so that it is learned again")
        return held

    def finish(
        self, rows: Sequence[Mapping[str, Any]], columns: Mapping[str, type], summary: Mapping[str, Any]
    ) -> None:
        """Write results.csv, then the manifest with status "complete" and the table's digest."""
        digest = write_csv(self.out / "results.csv", rows, columns)
        self._manifest |= {
            "status": "complete",
            "summary": dict(summary),
            "columns": {name: kind.__name__ for name, kind in columns.items()},
            "files_sha256": {"results.csv": digest},
        }
        self._write_manifest()

    def _write_manifest(self) -> None:
        self._manifest["wall_seconds"] = round(self._spent + time.perf_counter() - self._began, 3)
        self._manifest["peak_memory_mb"] = max(self._manifest.get("peak_memory_mb", 0), peak_memory())
        write_json(self.out / "manifest.json", self._manifest)


def _difference(key: str, old: Any, new: Any) -> str | None:
    """The first place where two JSON values differ, in words."""
    if isinstance(old, dict) and isinstance(new, dict):
        found = (_difference(f"{key}.{name}", old.get(name), new.get(name)) for name in {**old, **new})
        return next(filter(None, found), None)
    return None if old == new else f"{key.removeprefix('spec.')} is {old!r} there and {new!r} here"
