"""Results of finished runs as one tidy DataFrame, and the few questions that every table, figure and claim asks of it.

A row is one value. Columns that carry what names used to: `learned` (1 or 0), `start` ("trained" or "fresh" models),
`network` ("dense" or "convolutional"), `images_per_class` (missing: all images), and `scope` of a robust accuracy:
"worst case" over all attacks of the run, "pair" over two PGDs, "single" for any other.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from scipy import stats

from metarobust.errors import InputError, choose
from metarobust.lab.tables import read_csv, sound
from metarobust.storage import read_json

RECORDED = Path(__file__).parent / "recorded"
"""The folder of the runs that are shipped with the package."""
GROUP = ["part", "model", "method"]
BEFORE, ADAM, REFERENCE = "before", "adam", "PGD-7 training"
LEARNED, JOINT, PENALTIES = "learned", "learned, joint", "learned penalties"
FROM_DIGITS, FROM_BOTH = "learned on digits", "learned on digits and MNIST"
"""Methods that tables and figures ask for by name; `before` are the models as they were."""
PLAIN, ATTACKED = ("0", "1", "2"), "adversarial"
"""Tiers: what a method may look at. 0: clean gradients, 1: noised ones, 2: input gradients; or adversarial examples."""
FLAGS = "flags of the checks"
"""The metric of the rows that say how many flags the checks raised; their `attack` says which."""


class Results(NamedTuple):
    """A finished run: what was run, by which code, where; and the table of its values."""

    manifest: dict[str, Any]
    frame: pd.DataFrame


class Interval(NamedTuple):
    """A mean over seeds, and half the width of its 95 % t-interval."""

    mean: float
    half: float


def load(folder: Path | str) -> Results:
    """Reads a finished run.

    Args:
        folder: where the run was written to.

    Returns:
        Its manifest, and its table: a row a value, whole numbers as Int64, text never missing.

    Raises:
        InputError: the run is missing, unfinished, or damaged.
    """
    folder = Path(folder)
    if not (folder / "manifest.json").exists():
        raise InputError(f"{folder} holds no run (no manifest.json); give the folder a run was written to")
    manifest = read_json(folder / "manifest.json")
    if manifest.get("status") != "complete":
        raise InputError(f"the run in {folder} is not finished; repeat its command with --resume")
    path = folder / "results.csv"
    path = path if path.exists() else folder / "results.csv.gz"
    with sound(folder / "manifest.json"):
        return Results(manifest, read_csv(path, manifest["columns"], manifest["files_sha256"]["results.csv"]))


def as_rows(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """The rows as dictionaries, None for what is missing."""
    return frame.astype(object).where(frame.notna(), None).to_dict("records")


def available() -> list[str]:
    """The names of the recorded runs of experiments, such as `patch-mnist-small`."""
    return sorted(path.parent.name for path in RECORDED.glob("*/manifest.json"))


@cache
def recorded(name: str) -> Results:
    """A run that is shipped with the package; read once, so copy the frame before changing it.

    Args:
        name: one of `available()`, or of a comparison with other libraries: `bench/attacks`.

    Raises:
        InputError: no such run; it lists those there are.
    """
    benches = [f"bench/{path.parent.name}" for path in RECORDED.glob("bench/*/manifest.json")]
    if not available():
        raise InputError(f"recorded run {name!r}: none is shipped with this installation; install the whole package")
    return load(RECORDED / choose(name, [*available(), *benches], "recorded run"))


def names(frame: pd.DataFrame, column: str) -> list[Any]:
    """The values of a column, in the order in which they first come."""
    return frame[column].unique().tolist()


def select(frame: pd.DataFrame, **columns: Any) -> pd.DataFrame:
    """The rows where each named column has the given value, or one of a list; None leaves a column free.

    Raises:
        InputError: a column or a value is not there; it lists those there are.
    """
    for column, wanted in columns.items():
        if wanted is None:
            continue
        choose(column, frame.columns, "column of these results")
        there = names(frame, column)
        if isinstance(wanted, str):
            choose(wanted, there, column)
        chosen = frame[frame[column].isin(wanted if isinstance(wanted, (list, tuple, set)) else [wanted])]
        if chosen.empty:
            raise InputError(f"these results hold no {column} {wanted!r}; there are {', '.join(map(repr, there))}")
        frame = chosen
    return frame


def accuracy(
    frame: pd.DataFrame,
    metric: str = "robust",
    *,
    split: str = "test",
    step: int | None = None,
    scope: str | None = "worst case",
) -> pd.Series:
    """Accuracy of each seed, as a share: of a learned optimizer the mean over its meta-seeds.

    Args:
        frame: rows of results.
        metric: "robust" or "clean".
        split: "test" images, or "train" for a model's own training images.
        step: of training; None for the last one of each part, model and method.
        scope: of robust accuracy; None for all rows of the frame, which should then be of one attack and radius.

    Returns:
        Values indexed by part, model, method and seed, in the order of the frame. Empty where nothing was measured.
    """
    choose(metric, ("robust", "clean"), "metric")
    rows = (frame["metric"] == f"{metric} accuracy") & (frame["split"] == split)
    if metric == "robust" and scope is not None:
        rows &= frame["scope"] == scope
    kept = frame[rows]
    last = kept.groupby(GROUP, sort=False)["step"].transform("max") if step is None else step
    return kept[kept["step"] == last].groupby([*GROUP, "seed"], sort=False)["value"].mean()


def interval(values: Iterable[float]) -> Interval:
    """Mean, and half the width of its 95 % t-interval: infinite for a single value, which shows no spread.

    Raises:
        InputError: there are no values.
    """
    values = np.asarray(list(values), dtype=float)
    if not len(values):
        raise InputError("there are no values to average: give at least one seed's; check part, model and method")
    mean = math.fsum(values) / len(values)
    if len(values) < 2:
        return Interval(mean, math.inf)
    return Interval(mean, t_quantile(len(values) - 1) * float(values.std(ddof=1)) / math.sqrt(len(values)))


def intervals(values: pd.Series) -> pd.DataFrame:
    """`interval` for each part, model and method of what `accuracy` returns: columns `mean` and `half`."""
    groups = values.groupby(level=GROUP, sort=False).agg(["mean", "std", "count"])
    half = groups["std"] / np.sqrt(groups["count"]) * stats.t.ppf(0.975, groups["count"] - 1)
    return pd.DataFrame({"mean": groups["mean"], "half": half.fillna(math.inf)})


def best_baselines(frame: pd.DataFrame, tiers: Sequence[str] = PLAIN) -> pd.Series:
    """On each network the method without learning that has the best mean of clean and robust accuracy.

    It is picked on the very results that it is shown in, which flatters the baselines, never the learned optimizer.

    Args:
        frame: rows of results.
        tiers: what a method may look at: "0" clean gradients, "1" noised ones, "2" input gradients, "adversarial".

    Returns:
        Names of methods, indexed by part and model. Empty where nothing of the kind was measured.
    """
    kept = frame[(frame["learned"] == 0) & frame["tier"].isin(tiers)]
    clean, robust = (accuracy(kept, metric).groupby(level=GROUP, sort=False).mean() for metric in ("clean", "robust"))
    best = (clean + robust).groupby(level=GROUP[:2], sort=False).idxmax()
    return best.map(lambda key: key[2])


def best_baseline(frame: pd.DataFrame, part: str, model: str, tiers: Sequence[str] = PLAIN) -> str:
    """`best_baselines` on one network of a part.

    Raises:
        InputError: no such method was measured there.
    """
    best = best_baselines(select(frame, part=part, model=model), tiers)
    if best.empty:
        raise InputError(f"part {part!r} holds no accuracy of a baseline on {model}; name another part or tier")
    return best.item()


def lowered(frame: pd.DataFrame) -> pd.DataFrame:
    """How far stronger attacks, on what two PGDs had left, lower the robust accuracy of the same models.

    Returns:
        A row for each model and step, whose `value` is the fall on test images, as a share. Empty where none was run.
    """
    robust = frame[(frame["metric"] == "robust accuracy") & (frame["split"] != "train")]
    strong = robust[robust["scope"] == "worst case"]
    weak = robust[(robust["scope"] == "pair") & robust["eps"].isin(strong["eps"])]
    same = [*GROUP, "meta_seed", "seed", "step"]
    both = strong.merge(weak[[*same, "value"]], on=same, suffixes=("", "_weak"))
    return both.assign(value=both["value_weak"] - both["value"]).drop(columns="value_weak")


def to_markdown(lines: Sequence[Sequence[str]]) -> str:
    """Lines of cells, the first of them the header, as a Markdown table."""
    head, *rest = lines
    return "\n".join("| " + " | ".join(line) + " |" for line in [head, ["---"] * len(head), *rest])


def to_text(lines: Sequence[Sequence[str]], right: bool = False) -> str:
    """The same in columns for a terminal. right: all columns but the first are set to the right."""
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    sides = ["<", *(">" if right else "<" for _ in widths[1:])]
    return "\n".join(
        "  ".join(f"{cell:{side}{width}}" for cell, side, width in zip(line, sides, widths, strict=True))
        for line in lines
    )


@cache
def t_quantile(freedom: int) -> float:
    return float(stats.t.ppf(0.975, freedom))
