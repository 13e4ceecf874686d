"""What robustness costs, drawn from the rows of the experiment `cost`."""

from collections.abc import Sequence
from typing import Any

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from metarobust.book.figures.results import LABELS
from metarobust.book.figures.style import role, style
from metarobust.errors import choose
from metarobust.lab.cost.break_even import COSTS, EVALUATIONS, Mark, curve
from metarobust.lab.cost.text import networks
from metarobust.lab.table import BEFORE, LEARNED, names

Row = dict[str, Any]
WORDS = {
    EVALUATIONS: "passes of an image through the model, for one model",
    "seconds": "seconds for one model",
    "adversarial examples": "adversarial examples for one model",
}


def against_cost(rows: Sequence[Row], model: str, metric: str = EVALUATIONS) -> Figure:
    """Robust accuracy of every way on one network against what it has cost by then, on a logarithmic axis.

    What is paid once, meta-training and search, is not in it. metric: `model evaluations`, `seconds` or `adversarial
    examples`; ways that make none are then left out. A dotted line shows the models before the first step.
    Raises InputError for another network or metric.
    """
    choose(model, networks(rows), "network in these results")
    choose(metric, COSTS, "cost")
    tiers = {row["method"]: row["tier"] for row in rows}
    marks = {name: curve(rows, model, name) for name in names(rows, "method") if name != BEFORE}
    before = next(iter(marks.values()))[0].robust
    drawn = {name: shown for name, found in marks.items() if (shown := [m for m in found if m.cost[metric] > 0])}
    with style():
        figure, axes = plt.subplots(figsize=(5.6, 3.6))
        axes.axhline(before, color=role("control").colour, lw=1, ls=":")
        for name, found in drawn.items():
            how = role(_role(name, tiers[name]))
            costs, shares = [mark.cost[metric] for mark in found], [mark.robust for mark in found]
            axes.plot(costs, shares, color=how.colour, linestyle=how.line, marker=how.marker, ms=5)
        axes.set_xscale("log")
        axes.set(xlabel=WORDS[metric], ylabel="robust accuracy", title=model)
        axes.yaxis.set_major_formatter(lambda share, _: f"{100 * share:.0f} %")
        axes.annotate(
            "before", (0, before), xycoords=("axes fraction", "data"), xytext=(3, 3), textcoords="offset points",
            fontsize=9.5, color=role("control").ink,
        )  # fmt: skip
        _label_ends(axes, drawn, tiers, metric)
    return figure


def _role(name: str, tier: str) -> str:
    if name.startswith(LEARNED):
        return "learned"
    return "reference" if tier == "adversarial" else "rule"


def _label_ends(axes: Axes, drawn: dict[str, list[Mark]], tiers: dict[str, str], metric: str) -> None:
    """Names in a column right of the axes, in the order in which the curves end, each with a thin line to its end."""
    ordered = sorted(drawn.items(), key=lambda item: item[1][-1].robust)
    for i, (name, found) in enumerate(ordered):
        how, end = role(_role(name, tiers[name])), found[-1]
        axes.annotate(
            LABELS.get(name, name), (end.cost[metric], end.robust), xytext=(1.05, (i + 0.5) / len(ordered)),
            textcoords="axes fraction", va="center", fontsize=9.5, color=how.ink,
            fontweight="bold" if name.startswith(LEARNED) else "normal",
            arrowprops={"arrowstyle": "-", "lw": 0.5, "color": how.colour, "relpos": (0, 0.5)},
        )  # fmt: skip
