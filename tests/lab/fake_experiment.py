"""A tiny experiment with checkpoints and several units, for the tests of the command line and of Run.

`python tests/fake_experiment.py ...` is the command `metarobust ...` with it as the only experiment.
"""

from __future__ import annotations

import sys
import time

import pytest
import torch

from metarobust import lab as experiments
from metarobust.lab import running
from metarobust.lab.run_folder import COLUMNS

NAME = "fake"
SUMMARY = "counts"
SCALES = ("smoke", "small")
PAUSE = 0.0
"""Seconds between checkpoints; the killed runs are slowed with it."""


def make_spec(scale, dataset, seeds):
    return {"experiment": NAME, "scale": scale, "dataset": dataset, "seeds": seeds or [0, 1], "steps": (2, 4)}


def execute(spec, run, dataset, device, share=None):
    rows = []
    for seed in spec["seeds"]:
        for part in ("patch", "train"):
            rows += run.unit(f"{part}-seed{seed}", lambda seed=seed, part=part: count(spec, run, seed, part))
    run.finish(rows, COLUMNS, {"mean": sum(row["value"] for row in rows) / len(rows)})


def count(spec, run, seed, part):
    restored = run.restore(f"{part}{seed}")
    tensors, about = restored or ({"x": torch.full((3,), 0.1 + seed, dtype=torch.float64)}, {"step": 0})
    for step in range(about["step"], spec["steps"][1]):
        time.sleep(PAUSE)
        tensors = {"x": tensors["x"] * 1.1 + 1 / 3}
        run.save(f"{part}{seed}", tensors, {"step": step + 1})
    return [
        dict.fromkeys(COLUMNS)
        | {
            "experiment": NAME,
            "dataset": spec["dataset"],
            "part": part,
            "model": 'a, "b"\nc',
            "method": "count",
            "tier": "",
            "seed": seed,
            "step": spec["steps"][1],
            "split": "test",
            "attack": "none",
            "eps": None if part == "train" else 0.1,
            "metric": "x",
            "value": value,
            "n": 500,
        }
        for value in (*tensors["x"].tolist(), float("nan"))
    ]


def table(rows):
    return f"fake table of {len(rows)} rows"


def brief(rows):
    return f"fake headline of {len(rows)} rows"


def install(patch):
    """Makes this the only experiment, until the MonkeyPatch `patch` is undone."""
    patch.setattr(experiments, "EXPERIMENTS", {NAME: sys.modules[__name__]})
    patch.setattr(running, "EXPERIMENTS", experiments.EXPERIMENTS)


if __name__ == "__main__":
    from metarobust.cli import main

    PAUSE = 0.05
    install(pytest.MonkeyPatch())
    raise SystemExit(main())
