"""A tiny experiment with checkpoints and units that need others, for the tests of the engine and the command line.

`python tests/lab/fake_experiment.py ...` is the command `metarobust ...` with it as the only experiment.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path

import pytest
import torch

from metarobust.lab import running
from metarobust.lab.engine import Unit

NAME = "fake"
SUMMARY = "counts"
SCALES = ("smoke", "small")
PAUSE = "FAKE_PAUSE"
"""Seconds between checkpoints, in the environment; the killed runs are slowed with it."""
DIE = "FAKE_DIE"
"""A folder, in the environment: the process of each unit named there by a file removes the file and kills itself."""


def make_spec(scale, dataset, seeds):
    return {"experiment": NAME, "scale": scale, "dataset": dataset, "seeds": seeds or [0, 1], "steps": (2, 4)}


def units(spec, dataset):
    names = [f"patch-seed{seed}" for seed in spec["seeds"]]
    patch = [Unit(name, count, (seed, "patch")) for seed, name in zip(spec["seeds"], names, strict=True)]
    train = [Unit(f"train-seed{seed}", count, (seed, "train")) for seed in spec["seeds"]]
    return [*patch, *train, Unit("sum", total, (names,), needs=tuple(names))]


def collect(spec, rows):
    table = [row for name, those in rows.items() if name != "sum" for row in those]
    return table, {"mean": rows["sum"][0]["total"] / len(table)}


def total(worker, names):
    return [{"total": sum(row["value"] for name in names for row in worker.rows(name)[:3])}]


def count(worker, seed, part):
    if (order := Path(os.environ.get(DIE, "no"), f"{part}-{seed}")).exists():
        order.unlink()
        os.kill(os.getpid(), signal.SIGKILL)
    tensors, about = worker.restore(f"{part}{seed}") or (
        {"x": torch.full((3,), 0.1 + seed, dtype=torch.float64)},
        {"step": 0},
    )
    for step in range(about["step"], worker.spec["steps"][1]):
        time.sleep(float(os.environ.get(PAUSE, 0)))
        tensors = {"x": tensors["x"] * 1.1 + 1 / 3}
        worker.save(f"{part}{seed}", tensors, {"step": step + 1})
    common = {
        "experiment": NAME, "dataset": worker.spec["dataset"], "part": part, "model": 'a, "b"\nc', "method": "count",
        "tier": "", "seed": seed, "step": worker.spec["steps"][1], "split": "test", "attack": "none",
        "eps": None if part == "train" else 0.1, "metric": "x", "n": 500,
    }  # fmt: skip
    return [common | {"value": value} for value in tensors["x"].tolist()]


def table(rows):
    return f"fake table of {len(rows)} rows"


def brief(rows):
    return f"fake headline of {len(rows)} rows"


def install(patch, **experiments):
    """Makes this, or these by name, the only experiments, until the MonkeyPatch `patch` is undone."""
    from metarobust.lab import experiments as known

    chosen = experiments or {NAME: sys.modules[__name__]}
    for module in (known, running):
        patch.setattr(module, "EXPERIMENTS", chosen)


if __name__ == "__main__":
    import fake_experiment

    from metarobust.cli import main

    os.environ.setdefault(PAUSE, "0.05")
    fake_experiment.install(pytest.MonkeyPatch())
    raise SystemExit(main())
