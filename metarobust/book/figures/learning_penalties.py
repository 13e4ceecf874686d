"""What the learned penalties weigh while a run goes on, and what they reach for what they cost."""

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.figure import Figure

from metarobust.book.figures.results import label, points
from metarobust.book.figures.style import as_percent, label_column, line, name_ends, role, style, ticks
from metarobust.book.figures.style import points as in_points
from metarobust.lab.paired import paired
from metarobust.lab.results import ATTACKED, PENALTIES, accuracy, names, select, to_markdown
from metarobust.lab.summary import Cells

PANELS = {
    "rate first": "step, first layer",
    "bend": "weight of the bend",
    "far": "how far it looks, in eps",
    "slope": "weight of the slope, in eps",
    "slack": "lowered margin, in eps",
    "noise": "noise, in eps",
}


def over_the_run(hyperparameters: Sequence[str], curves: Mapping[str, tuple[str, Sequence[Sequence[float]]]]) -> Figure:
    """Six small panels: a hyperparameter each, over the share of the run that is done, on a logarithmic scale.

    Args:
        hyperparameters: names of the rows of each curve, those of PANELS among them.
        curves: label to (role, rows), a value for each of some places from 0 to 1.
    """
    with style():
        figure, grid = plt.subplots(3, 2, figsize=(5.6, 5.4), sharex=True)
        for axes, (name, title) in zip(grid.flat, PANELS.items(), strict=True):
            lines = [(how, rows[list(hyperparameters).index(name)]) for how, rows in curves.values()]
            for how, row in lines:
                axes.plot([i / (len(row) - 1) for i in range(len(row))], row, **(line(how) | {"marker": ""}))
            axes.set_yscale("log")
            low, high = (pick(pick(row) for _, row in lines) for pick in (min, max))
            places = [step * 10**power for power in range(-4, 2) for step in (1, 2, 5)]
            ticks(axes, "y", [place for place in places if 0.7 * low <= place <= 1.4 * high])
            axes.set_ylim(0.8 * low, 1.25 * high)
            axes.set_title(title, fontsize=10)
        for axes in grid[-1]:
            axes.set(xlabel="share of the run")
            axes.xaxis.set_major_formatter(as_percent)
        ends = [(rows[list(hyperparameters).index("noise")][-1], text, how) for text, (how, rows) in curves.items()]
        name_ends(grid[-1, -1], 1.0, ends, 0.14)
    return figure


def cost_of(frame: pd.DataFrame, method: str) -> float:
    """Passes of one model on one image of a step, forward and backward, as they were counted."""
    rows = select(frame, method=method, metric="passes")
    models = rows["n"] * rows["step"]
    return float((rows["value"] / models).mean()) / 64


def by_passes(frame: pd.DataFrame, part: str) -> Figure:
    """Robust accuracy (filled) and clean accuracy (hollow) over the passes that a step costs: means over networks."""
    every = points(frame, part)
    methods = [name for name in names(select(frame, part=part), "method") if name != "before"]
    with style():
        figure, axes = plt.subplots(figsize=(5.2, 0.26 * len(methods) + 1.4))
        ends = []
        for method in methods:
            mine = [point for point in every if point.method == method]
            how, cost = role(mine[0].role), cost_of(select(frame, part=part), method)
            robust, clean = (sum(getattr(p, name) for p in mine) / len(mine) for name in ("robust", "clean"))
            size = 9 if mine[0].role == "learned" else 6
            axes.plot([cost, cost], [robust, clean], color=how.colour, lw=1, alpha=0.4)
            axes.plot(cost, robust, color=how.colour, marker=how.marker, ms=size, ls="")
            axes.plot(cost, clean, color=how.colour, marker=how.hollow, mfc="white", ms=size, ls="")
            ends.append((label(method), cost, robust, mine[0].role))
        axes.set_xlim(left=0)
        axes.yaxis.set_major_formatter(as_percent)
        label_column(axes, ends, 1.06, bold="learned")
        axes.set(xlabel="passes for each image of a step", ylabel="test images read correctly")
    return figure


def against(frame: pd.DataFrame, part: str, method: str = PENALTIES) -> str:
    """A Markdown table: on each network the rule's clean and robust accuracy in per cent, and how far its robust
    accuracy is ahead of each rival that may look as closely, in points: means over paired seeds, ± 95 %."""
    rows = select(frame, part=part)
    values, cells = accuracy(rows), Cells(rows)
    closer = rows[(rows["learned"] == 0) & rows["tier"].isin(("2", ATTACKED))]
    rivals = names(closer, "method")
    lines = [["network", "learned: clean/robust", *(label(rival) for rival in rivals)]]
    for model in names(rows, "model"):
        gaps = [paired(values[part, model, method], values[part, model, rival]) for rival in rivals]
        gaps = [in_points(gap.difference, gap.half) for gap in gaps]
        lines.append([f"`{model}`", cells(part, model, method), *gaps])
    return to_markdown(lines)
