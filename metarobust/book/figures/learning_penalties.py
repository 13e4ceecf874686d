"""What the learned penalties weigh while a run goes on, and what they reach for what they cost."""

import math
from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.figure import Figure

from metarobust.book.figures.results import label, roles
from metarobust.book.figures.style import as_percent, label_column, line, name_ends, role, style, ticks
from metarobust.book.figures.style import points as in_points
from metarobust.errors import InputError
from metarobust.lab.paired import paired
from metarobust.lab.results import (
    ATTACKED,
    BEFORE,
    PENALTIES,
    REFERENCE,
    Interval,
    accuracy,
    interval,
    names,
    select,
    to_markdown,
)
from metarobust.lab.summary import Cells
from metarobust.pretrained import IMAGES

PANELS = {
    "rate first": "step, first layer",
    "rate middle": "step, middle layers",
    "bend": "weight of the bend",
    "far": "how far it looks, in eps",
    "slope": "weight of the slope, in eps",
    "slack": "lowered margin, in eps",
}
BATCH = 64  # images a step, in the recorded runs
PATCHED = {BEFORE: "control", PENALTIES: "learned", "std-prune": "rule", REFERENCE: "reference"}


def over_the_run(
    hyperparameters: Sequence[str],
    curves: Mapping[str, tuple[str, Sequence[Sequence[float]]]],
    panels: Mapping[str, str] = PANELS,
) -> Figure:
    """Small panels, two a row: a hyperparameter each, over the share of the run that is done, on a logarithmic scale.

    Args:
        hyperparameters: names of the rows of each curve, those of the panels among them.
        curves: label to (role, rows), a value for each of some places from 0 to 1.
        panels: which hyperparameters are drawn, to their titles; an even number.
    """
    with style():
        figure, grid = plt.subplots(len(panels) // 2, 2, figsize=(5.6, 0.9 * len(panels)), sharex=True)
        for axes, (name, title) in zip(grid.flat, panels.items(), strict=True):
            lines = [(rows[list(hyperparameters).index(name)], text, how) for text, (how, rows) in curves.items()]
            for row, _, how in lines:
                axes.plot([i / (len(row) - 1) for i in range(len(row))], row, **(line(how) | {"marker": ""}))
            axes.set_yscale("log")
            low, high = (pick(pick(row) for row, _, _ in lines) for pick in (min, max))
            places = [step * 10**power for power in range(-4, 2) for step in (1, 2, 5)]
            ticks(axes, "y", [place for place in places if 0.7 * low <= place <= 1.4 * high])
            axes.set_ylim(0.8 * low, 1.25 * high)
            axes.set_title(title, fontsize=10)
        for axes in grid[-1]:
            axes.set(xlabel="share of the run")
            axes.xaxis.set_major_formatter(as_percent)
        name_ends(grid[-1, -1], 1.0, [(row[-1], text, how) for row, text, how in lines], 0.14)
    return figure


def passes_of(rows: pd.DataFrame) -> float:
    """Passes that a training takes for each place in a batch, forward and backward: the rows of one method and part."""
    counts = select(rows, metric="passes")
    return float((counts["value"] / counts["n"]).mean()) / BATCH


def by_passes(frame: pd.DataFrame, parts: Sequence[str]) -> Figure:
    """Robust accuracy (filled) and clean accuracy (hollow) over the passes of a whole training: means over networks.

    Args:
        frame: rows of results.
        parts: that differ in the number of steps; a line joins what a method reaches in each.
    """
    rows = select(frame, part=list(parts))
    robust, clean = (accuracy(rows, metric).groupby(level=["method", "part"]).mean() for metric in ("robust", "clean"))
    drawn = roles(rows[rows["method"] != BEFORE])
    with style():
        figure, axes = plt.subplots(figsize=(5.2, 0.26 * len(drawn) + 1.4))
        ends = []
        for method, name in drawn.items():
            path = {passes_of(select(rows, part=part, method=method)): part for part in robust[method].index}
            costs, how, size = sorted(path), role(name), 9 if name == "learned" else 6
            high, low = ([values[method, path[cost]] for cost in costs] for values in (clean, robust))
            axes.vlines(costs, low, high, color=how.colour, lw=1, alpha=0.4)
            axes.plot(costs, low, color=how.colour, marker=how.marker, ms=size, lw=1)
            axes.plot(costs, high, color=how.colour, marker=how.hollow, mfc="white", ms=size, ls="")
            ends.append((label(method), costs[-1], low[-1], name))
        axes.set_xlim(left=0)
        axes.yaxis.set_major_formatter(as_percent)
        label_column(axes, ends, 1.06, bold="learned")
        axes.set(xlabel="passes of the whole training, for each image of a batch", ylabel="test images read correctly")
    return figure


def against(frame: pd.DataFrame, part: str, method: str = PENALTIES) -> str:
    """A Markdown table: on each network the rule's clean and robust accuracy in per cent, and how far its robust
    accuracy is ahead of std-prune and of each that may look as closely, in points: means over paired seeds, ± 95 %."""
    rows = select(frame, part=part)
    values, cells = accuracy(rows), Cells(rows)
    closer = rows["tier"].isin(("2", ATTACKED)) | (rows["method"] == "std-prune")
    rivals = names(rows[closer & (rows["method"] != method)], "method")
    lines = [["network", "learned: clean/robust", *(label(rival) for rival in rivals)]]
    for model in names(rows, "model"):
        gaps = [paired(values[part, model, method], values[part, model, rival]) for rival in rivals]
        gaps = [in_points(gap.difference, gap.half) for gap in gaps]
        lines.append([f"`{model}`", cells[part, model, method], *gaps])
    return to_markdown(lines)


def by_pixels(frame: pd.DataFrame) -> Figure:
    """A panel for each network of the experiment `pixels`: what is left where an attacker may move the pixels that say
    most about the class and no others, by how many. Means over seeds with 95 % intervals."""
    models = names(frame, "model")
    with style():
        figure, grid = plt.subplots(len(models), 1, figsize=(5.2, 2.9 * len(models)), sharex=True)
        for axes, model in zip(grid, models, strict=True):
            ends = []
            for method, kind in PATCHED.items():
                rows, how = select(frame, model=model, method=method), role(kind)
                points = pixel_curve(rows)
                x, y, high = list(points), *zip(*points.values(), strict=True)
                looks = {"color": how.colour, "marker": how.marker, "ls": how.line, "lw": 1, "elinewidth": 0.8}
                axes.errorbar(x, y, yerr=high, **looks)
                ends.append((method, x[-1], y[-1], kind))
            label_column(axes, ends, 1.04)
            axes.set_title(model)
            axes.set_ylabel("robust accuracy")
            axes.yaxis.set_major_formatter(as_percent)
        grid[-1].set_xlabel("pixels that may be moved, those that say most first")
    return figure


def pixel_curve(rows: pd.DataFrame) -> dict[int, Interval]:
    """The accuracy under two PGDs of one method on one network, by how many pixels they may move.

    Raises:
        InputError: the rows have no attack on a part of the pixels.
    """
    some = rows[rows["attack"].str.endswith(" pixels")]
    if some.empty:
        raise InputError("no attack on a part of the pixels in these results; give those of the experiment `pixels`")
    found = {int(attack.split()[-2]): of["value"] for attack, of in some.groupby("attack")}
    found[math.prod(IMAGES[names(rows, "dataset")[0]])] = rows[rows["scope"] == "pair"]["value"]
    return {few: interval(found[few]) for few in sorted(found)}
