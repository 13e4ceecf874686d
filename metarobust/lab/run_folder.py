"""The output folder of one run: a manifest, finished units of work, checkpoints of unfinished ones, and one tidy table.

manifest.json    what was run, by which code, where; status "running", then "complete"
units/           one file for each finished unit
checkpoints/     tensors of meta-trainings, to go on from and to be used
results.csv      one row for each value, the same to the byte whether or not the run was interrupted
"""

import json
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any

from torch import Tensor

from metarobust.errors import InputError
from metarobust.lab.provenance import code, peak_memory, versions
from metarobust.lab.tables import sound, write_csv
from metarobust.storage import TEMPORARY, load_tensors, read_json, save_tensors, sha256, write_json

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
    "learned": int,
    "start": str,
    "network": str,
    "images_per_class": int,
    "scope": str,
}
"""The columns of results.csv and their types.

n is the number of images behind the value; learned, 1 for a learned optimizer, else 0; start, whether it began from
`trained` or `fresh` models; network, `dense` or `convolutional`; images_per_class, of a model's training set, None for
all images. scope, of a robust accuracy: the `worst case` over the ensemble of attacks, the worst case with those
`by hand` too, the `pair` of two PGDs, or a `single` one.
"""

LOCK = ".lock"
"""Beside the manifest while a process writes to the folder."""


class Units:
    """The units and checkpoints of the run in a folder: all that a worker needs to know of it."""

    def __init__(self, out: Path):
        self.out = out

    @cached_property
    def manifest(self) -> dict[str, Any]:
        """The manifest, as it was when it was first asked for."""
        return read_json(self.out / "manifest.json")

    def finished(self, name: str) -> bool:
        """Whether the rows of a unit are stored."""
        return self._path(name).exists()

    def keep(self, name: str, rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        """Stores the rows of a unit, and returns them as everybody will read them: a tuple has become a list."""
        write_json(self._path(name), {"unit": name, "spec_sha256": self.manifest["spec_sha256"], "rows": list(rows)})
        return self.rows(name)

    def rows(self, name: str) -> list[dict[str, Any]]:
        """The rows of a finished unit. Raises InputError where the file is missing, damaged or of another run."""
        path = self._path(name)
        try:
            stored = read_json(path)
        except InputError as error:
            raise InputError(f"{path} is missing, damaged or cut short; delete it and give --resume") from error
        if (stored.get("unit"), stored.get("spec_sha256")) != (name, self.manifest["spec_sha256"]):
            raise InputError(f"{path} is of another run; delete it and give --resume")
        with sound(path):
            return [dict(row) for row in stored["rows"]]

    def save(self, name: str, tensors: Mapping[str, Tensor], about: Mapping[str, Any]) -> None:
        """Stores a checkpoint of this name, tensors and a JSON object, in place of the one before."""
        save_tensors(self.checkpoint(name), tensors, {**about, "spec_sha256": self.manifest["spec_sha256"]})

    def restore(self, name: str) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
        """The checkpoint of this name, or None where there is none.

        Raises InputError where it is damaged or of another run.
        """
        path = self.checkpoint(name)
        if not path.exists():
            return None
        tensors, about = load_tensors(path)
        if about.pop("spec_sha256", None) != self.manifest["spec_sha256"]:
            raise InputError(f"{path} is of another run; delete it and give --resume")
        return tensors, about

    def stored(self, name: str) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """The checkpoint of a finished unit. Raises InputError where it is gone."""
        checkpoint = self.restore(name)
        if checkpoint is None:
            raise InputError(
                f"the checkpoint {name} is missing from {self.out / 'checkpoints'}; delete {self._path(name)} too and "
                f"give --resume, so that it is learned again"
            )
        return checkpoint

    def checkpoint(self, name: str) -> Path:
        """The file of the checkpoint of this name."""
        return self.out / "checkpoints" / f"{name}.safetensors"

    def _path(self, name: str) -> Path:
        return self.out / "units" / f"{name}.json"


class Run(Units):
    """One run's folder, made or, with `resume`, taken up where it was left. Its manifest is written at once.

    Args:
        out: The folder.
        spec: The frozen specification, a JSON object: experiment, scale, dataset, seeds and every number.
        resume: Whether to go on with the run that the folder holds.
        about: What else must stay the same in a resumed run (data_sha256, device) and what is worth recording.

    Raises:
        InputError: Where the folder holds other files, a run and `resume` is False, a damaged manifest, or a run that
            differs in specification, data, device, versions or code.
    """

    def __init__(self, out: Path | str, spec: Mapping[str, Any], *, resume: bool, about: Mapping[str, Any]):
        super().__init__(Path(out))
        self.spec = json.loads(json.dumps(spec))  # so that a tuple equals the list it was stored as
        self.spec_sha256 = sha256(json.dumps(self.spec, sort_keys=True))
        self._began = time.perf_counter()
        new = {
            "status": "running",
            "spec": self.spec,
            "spec_sha256": self.spec_sha256,
            **json.loads(json.dumps(about)),
            "versions": versions(),
            "code": code(),
            "started": datetime.now(UTC).isoformat(timespec="seconds"),
            "wall_seconds": 0.0,
        }
        if (self.out / "manifest.json").exists():
            with sound(self.out / "manifest.json"):
                self._check(read_json(self.out / "manifest.json"), new, resume)
        else:
            names = sorted(path.name for path in self.out.iterdir()) if self.out.exists() else []
            foreign = [name for name in names if name != LOCK and not name.endswith(TEMPORARY)]
            if foreign:
                raise InputError(f"{self.out} holds {foreign[0]!r}, which is not of a run; choose another --out")
            self.manifest = new
        with sound(self.out / "manifest.json"):
            self._spent = float(self.manifest["wall_seconds"])
            float(self.manifest.get("peak_memory_mb", 0))
        if not self.complete:
            self._write_manifest()

    def _check(self, old: dict[str, Any], new: dict[str, Any], resume: bool) -> None:
        complete = old["status"] == "complete"  # that a run stays, whatever made it
        for key in ("spec", "data_sha256") if complete else ("spec", "data_sha256", "device", "versions"):
            if difference := _difference(key, old.get(key), new.get(key)):
                raise InputError(f"{self.out} holds another run: {difference}; choose another --out")
        if not resume:
            raise InputError(f"{self.out} already holds this run; give --resume to go on with it, or another --out")
        if not complete and old["code"]["sha256"] != new["code"]["sha256"]:
            raise InputError(f"{self.out} was begun with other code of metarobust; choose another --out")
        self.manifest = old

    @property
    def complete(self) -> bool:
        """Whether the run is finished, so that there is nothing left to do."""
        return self.manifest["status"] == "complete"

    def keep(self, name: str, rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        """As `Units.keep`; the manifest says how long it has taken so far."""
        kept = super().keep(name, rows)
        self._write_manifest()
        return kept

    def finish(self, rows: Sequence[Mapping[str, Any]], summary: Mapping[str, Any]) -> None:
        """Writes results.csv, a column that a row lacks left empty; then the manifest, with status "complete"."""
        written = write_csv(self.out / "results.csv", rows, COLUMNS)
        self.manifest |= {"status": "complete", "summary": dict(summary), **written}
        self._write_manifest()

    def _write_manifest(self) -> None:
        self.manifest["wall_seconds"] = round(self._spent + time.perf_counter() - self._began, 3)
        self.manifest["peak_memory_mb"] = max(self.manifest.get("peak_memory_mb", 0), peak_memory())
        write_json(self.out / "manifest.json", self.manifest)


def _difference(key: str, old: Any, new: Any) -> str | None:
    """The first place where two JSON values differ, in words."""
    if isinstance(old, dict) and isinstance(new, dict):
        differences = (_difference(f"{key}.{name}", old.get(name), new.get(name)) for name in {**old, **new})
        return next(filter(None, differences), None)
    return None if old == new else f"{key.removeprefix('spec.')} is {old!r} there and {new!r} here"
