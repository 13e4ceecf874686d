"""Figures redrawn from the rows of a results.csv: of a run that just ended, and of a recorded one, by the same code.

    manifest, rows = load_results(folder)
    headline(rows)              # before and after, for each unseen network
    frontier(rows, "patch", "mlp-64-sigmoid")   # clean against robust accuracy, a point a method

Every value is a mean over seeds with its 95 % t-interval; a learned optimizer's value for a seed is its mean over
meta-seeds. All accuracies are shares in [0, 1].
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from metarobust.book.figures.style import percent, role, style
from metarobust.errors import choose
from metarobust.lab.stats import over_seeds
from metarobust.lab.table import ADAM, BEFORE, LEARNED, REFERENCE, best_plain, by_seed, measured, names, over
from metarobust.lab.table import pick as rows_of

Row = dict[str, Any]
FROM_DIGITS = "learned on digits"
PAPER = {"facecolor": "white", "edgecolor": "none", "pad": 0.5}  # behind a number that a line would cross
LABELS = {
    ADAM: "Adam, clean",
    "sgd": "SGD, clean",
    "falling noise + last-layer decay": "falling noise",
    "input-gradient penalty": "gradient penalty",
}


@dataclass(frozen=True)
class Point:
    """One method on one network. halves: half the width of the 95 % interval over seeds. made: adversarial examples."""

    model: str
    method: str
    tier: str
    clean: float
    robust: float
    clean_half: float
    robust_half: float
    made: int

    @property
    def score(self) -> float:
        """The mean of clean and robust accuracy: what the plain rules were tuned for."""
        return (self.clean + self.robust) / 2

    @property
    def role(self) -> str:
        """How it is drawn."""
        if self.method.startswith(LEARNED):
            return "learned"
        fixed = {BEFORE: "control", ADAM: "clean", "sgd": "clean"}
        return fixed.get(self.method, "reference" if self.tier == "adversarial" else "rule")

    @property
    def label(self) -> str:
        return LABELS.get(self.method, self.method).replace("adam", "Adam")


def points(rows: Sequence[Row], part: str = "patch") -> list[Point]:
    """Every method on every network of one part, in the order of the table.

    Raises InputError where the part is not in the rows.
    """
    choose(part, names(rows, "part"), "part of these results")
    groups: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        if row["part"] == part:
            groups.setdefault((row["model"], row["method"]), []).append(row)
    found = []
    for (model, method), mine in groups.items():
        (clean, clean_half), (robust, robust_half) = (over(mine, f"{kind} accuracy") for kind in ("clean", "robust"))
        made = max((row["value"] for row in mine if row["metric"] == "adversarial examples"), default=0)
        halves = clean_half, robust_half
        found.append(Point(model, method, mine[0]["tier"], clean, robust, *halves, int(made)))
    return found


def pick(found: Sequence[Point], model: str, method: str) -> Point:
    """The point of a method on a network. Raises InputError, naming what is there, when it is missing."""
    here = {point.method: point for point in found if point.model == model}
    if not here:
        choose(model, dict.fromkeys(point.model for point in found), "network in these results")
    return here[choose(method, here, f"method in these results for {model}")]


def shown(rows: Sequence[Row], part: str, model: str) -> list[Point]:
    """What the headline shows of a network, from top to bottom; `before` only where there was something to patch.

    The plain rule is the best one, picked on these very results. Raises InputError when a method is missing.
    """
    found = points(rows, part)
    for needed in (ADAM, LEARNED, REFERENCE):
        pick(found, model, needed)
    wanted = [BEFORE] * (part == "patch") + [ADAM, best_plain(rows, part, model)]
    if any(point.model == model and point.method == FROM_DIGITS for point in found):
        wanted.append(FROM_DIGITS)
    wanted += [LEARNED, REFERENCE]
    return [pick(found, model, method) for method in dict.fromkeys(wanted)]  # Adam may itself be the best rule


def headline(rows: Sequence[Row], part: str = "patch") -> Figure:
    """For each unseen network, from top to bottom, clean and robust accuracy before and after: a panel a network.

    A filled marker is robust accuracy, a hollow one clean accuracy, a whisker the 95 % interval over seeds.
    Raises InputError when a part or a method is missing.
    """
    models = list(dict.fromkeys(point.model for point in points(rows, part)))
    panels = {model: shown(rows, part, model) for model in models}
    heights = [len(panel) + 1.6 for panel in panels.values()]
    with style():
        figure, grid = plt.subplots(
            len(models), 1, figsize=(5, 0.27 * sum(heights) + 0.6), height_ratios=heights, sharex=True, squeeze=False
        )
        for axes, (model, panel) in zip(grid[:, 0], panels.items(), strict=True):
            _panel(axes, model, panel)
        top = panels[models[0]][0]
        for name, share in (("under attack", top.robust), ("as they are", top.clean)):
            where = {"xytext": (0, 8), "textcoords": "offset points", "ha": "center", "fontsize": 10}
            grid[0, 0].annotate(name, (share, 0), annotation_clip=False, **where)
        grid[-1, 0].set_xlabel("test images read correctly")
    return figure


def _panel(axes: Axes, model: str, panel: Sequence[Point]) -> None:
    """One network: a row a method, from robust (filled) to clean accuracy (hollow)."""
    axes.axvline(panel[0].robust, color=role("control").colour, lw=1, ls=":", zorder=0)
    for y, point in enumerate(panel):
        how = role(point.role)
        axes.plot([point.robust, point.clean], [y, y], color=how.colour, lw=1, alpha=0.5)
        for share, half, face, side in (
            (point.robust, point.robust_half, how.colour, -1),
            (point.clean, point.clean_half, "white", 1),
        ):
            width = half if half < float("inf") else 0.0
            marker = "o" if how.marker == "x" else how.marker  # a cross cannot be hollow
            bounds = {"xerr": width or None, "capsize": 2.5, "lw": 1.5}
            axes.errorbar(share, y, color=how.colour, marker=marker, mfc=face, **bounds)
            axes.annotate(
                f"{100 * share:.0f}", (share + side * width, y), xytext=(side * 7, 0), textcoords="offset points",
                ha="right" if side < 0 else "left", va="center", fontsize=9, color=how.ink, bbox=PAPER,
            )  # fmt: skip
    percent(axes, "x")
    axes.set_xlim(-0.12, 1.1)  # room for the labels of what is near 0
    axes.set(yticks=range(len(panel)), ylim=(len(panel) - 0.4, -1.1), title=model)
    axes.set_yticklabels([point.label for point in panel], fontsize=10)
    for tick, point in zip(axes.get_yticklabels(), panel, strict=True):
        tick.set_color(role(point.role).ink)
        tick.set_fontweight("bold" if point.role == "learned" else "normal")
    axes.tick_params(axis="y", length=0)
    axes.grid(visible=False, axis="y")


def frontier(rows: Sequence[Row], part: str, model: str) -> Figure:
    """Clean against robust accuracy of every method on one network: up and to the right is better.

    Raises InputError when the part or the network is not in the rows.
    """
    found = points(rows, part)
    mine = [point for point in found if point.model == model]
    if not mine:
        choose(model, dict.fromkeys(point.model for point in found), "network in these results")
    mine = [point for point in mine if not (part == "train" and point.method == BEFORE)]  # chance, far off the scale
    with style():
        figure, axes = plt.subplots(figsize=(5.2, 0.26 * len(mine) + 1.1))
        for point in mine:
            how = role(point.role)
            finite = [half if half < float("inf") else 0.0 for half in (point.clean_half, point.robust_half)]
            size = 9 if point.role == "learned" else 6
            axes.errorbar(
                point.clean, point.robust, xerr=finite[0], yerr=finite[1],
                color=how.colour, marker=how.marker, ms=size, elinewidth=0.8, lw=0,
            )  # fmt: skip
        axes.margins(0.1)
        _label_column(axes, mine)
        axes.set(xlabel="clean accuracy", ylabel="robust accuracy", title=model)
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_locator(plt.MaxNLocator(4, steps=[1, 2, 5, 10]))
            axis.set_major_formatter(lambda share, _: f"{100 * share:.0f} %")
    return figure


def _label_column(axes: Axes, mine: Sequence[Point]) -> None:
    """Names in a column right of the axes, in the order of the points' heights, each with a thin line to its point."""
    ordered = sorted(mine, key=lambda point: point.robust)
    for i, point in enumerate(ordered):
        height = (i + 0.5) / len(ordered)
        axes.annotate(
            point.label, (point.clean, point.robust), xytext=(1.06, height), textcoords="axes fraction", va="center",
            fontsize=9.5, color=role(point.role).ink, fontweight="bold" if point.role == "learned" else "normal",
            arrowprops={"arrowstyle": "-", "lw": 0.5, "color": role(point.role).colour, "relpos": (0, 0.5)},
        )  # fmt: skip


def difference(
    rows: Sequence[Row], part: str, model: str, one: str, other: str, metric: str = "robust accuracy"
) -> tuple[float, float]:
    """Mean of `one` minus `other` over paired seeds, and half the width of its 95 % interval.

    On test images after the last step, as everywhere here.
    Raises InputError when a method is missing.
    """
    found = points(rows, part)
    named = (pick(found, model, method).method for method in (one, other))
    ours, theirs = (by_seed(measured(rows_of(rows, part, model, method), metric)) for method in named)
    return over_seeds([value - theirs[seed] for seed, value in ours.items() if seed in theirs])


def reading(rows: Sequence[Row], part: str = "patch") -> str:
    """The headline figure in words, as a Markdown list: for a text under the figure, and for those who cannot see it.

    Raises InputError when a part or a method is missing.
    """
    lines = []
    for model in dict.fromkeys(point.model for point in points(rows, part)):
        start, *others = shown(rows, part, model)
        first = "before" if start.method == BEFORE else f"after {_name(start)}"
        ends = ", ".join(f"{100 * point.robust:.0f} % after {_name(point)}" for point in others)
        rule = best_plain(rows, part, model)
        gaps = []
        for kind in ("robust", "clean"):
            mean, half = difference(rows, part, model, LEARNED, rule, f"{kind} accuracy")
            spread = f" ± {100 * half:.1f}" if half < float("inf") else ""
            gaps.append(f"{100 * mean:+.1f}{spread}".replace("-", "−"))
        lines.append(
            f"- `{model}`: under attack {100 * start.robust:.0f} % {first}, {ends}. The learned optimizer against "
            f"{LABELS.get(rule, rule)}: {gaps[0]} points under attack, {gaps[1]} points as they are."
        )
    return "\n".join(lines)


def _name(point: Point) -> str:
    """A method within a sentence."""
    if point.role == "learned":
        return point.method.replace(LEARNED, "the learned optimizer", 1)
    return point.label.removesuffix(", clean")
