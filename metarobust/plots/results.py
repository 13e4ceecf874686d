"""Figures redrawn from the rows of a results.csv: of a run that just ended, and of a recorded one, by the same code.

    manifest, rows = load_results(folder)
    headline(rows)              # before and after, for each unseen network
    frontier(rows, "patch", "mlp-20-sigmoid")   # clean against robust accuracy, a point a method

Every value is a mean over seeds with its 95 % t-interval; a learned optimizer's value for a seed is its mean over
meta-seeds. All accuracies are shares in [0, 1].
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from metarobust.errors import InputError, choose
from metarobust.experiments.table import over
from metarobust.plots.style import percent, role, style
from metarobust.stats import over_seeds

Row = dict[str, Any]
BEFORE, ADAM, LEARNED, FROM_DIGITS, PGD = "before", "adam", "learned", "learned on digits", "PGD-7 training"
LABELS = {
    ADAM: "Adam, clean",
    "falling noise + last-layer decay": "falling noise",
    "input-gradient penalty": "slope penalty",
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
        """The mean of clean and robust accuracy: what the baselines were tuned for."""
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
        return LABELS.get(self.method, self.method)


def points(rows: Sequence[Row], part: str = "patch") -> list[Point]:
    """Every method on every network of one part, in the order of the table.

    Raises InputError where the part is not in the rows.
    """
    choose(part, dict.fromkeys(row["part"] for row in rows), "part of these results")
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


def best_rule(found: Sequence[Point], model: str) -> Point:
    """The plain rule without adversarial examples with the best score on a network, picked with hindsight.

    It is picked on the test images, which favours the rules over the learned optimizer.
    """
    rules = [point for point in found if point.model == model and point.tier in ("0", "1", "2")]
    rules = [point for point in rules if not point.method.startswith(LEARNED)]
    if not rules:
        raise InputError(
            f"these results have no plain rule for {model} (a method of tier 0, 1 or 2 that is not learned)"
        )
    return max(rules, key=lambda point: point.score)


def shown(found: Sequence[Point], model: str) -> list[Point]:
    """What the headline shows of a network, from top to bottom.

    Raises InputError when before, adam, learned or PGD-7 training is missing.
    """
    order = [pick(found, model, BEFORE), pick(found, model, ADAM), best_rule(found, model)]
    if any(point.model == model and point.method == FROM_DIGITS for point in found):
        order.append(pick(found, model, FROM_DIGITS))
    order += [pick(found, model, LEARNED), pick(found, model, PGD)]
    return list(dict.fromkeys(order))  # tuned Adam may itself be the best rule


def headline(rows: Sequence[Row], part: str = "patch") -> Figure:
    """For each unseen network, from top to bottom, clean and robust accuracy before and after: a panel a network.

    A filled marker is robust accuracy, a hollow one clean accuracy, a whisker the 95 % interval over seeds.
    Raises InputError when a part or a method is missing.
    """
    found = points(rows, part)
    models = list(dict.fromkeys(point.model for point in found))
    panels = {model: shown(found, model) for model in models}
    heights = [len(panel) + 1.6 for panel in panels.values()]
    with style():
        figure, grid = plt.subplots(
            len(models), 1, figsize=(5, 0.27 * sum(heights) + 0.6), height_ratios=heights, sharex=True, squeeze=False
        )
        for axes, (model, panel) in zip(grid[:, 0], panels.items(), strict=True):
            _panel(axes, model, panel)
        first = grid[0, 0], panels[models[0]][0]
        for name, share in (("under attack", first[1].robust), ("as they are", first[1].clean)):
            where = {"xytext": (0, 8), "textcoords": "offset points", "ha": "center", "fontsize": 10}
            first[0].annotate(name, (share, 0), annotation_clip=False, **where)
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
            axes.errorbar(
                share, y, xerr=width or None, color=how.colour, marker=marker, mfc=face, mec=how.colour, capsize=2.5, lw=1.5
            )  # fmt: skip
            shift = {"xytext": (side * 7, 0), "textcoords": "offset points", "va": "center", "fontsize": 9}
            end = share + side * width
            axes.annotate(f"{100 * share:.0f}", (end, y), ha="right" if side < 0 else "left", color=how.ink, **shift)
    percent(axes, "x")
    axes.set_xlim(-0.03, 1.1)
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
        low, high = (pick_(point.clean for point in mine) for pick_ in (min, max))
        axes.set_xlim(low - 0.01, high + 0.01)
        axes.margins(y=0.1)
        axes.autoscale_view(scalex=False)
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
            arrowprops={"arrowstyle": "-", "lw": 0.5, "color": role(point.role).colour, "alpha": 0.6, "relpos": (0, 0.5)},
        )  # fmt: skip


def difference(
    rows: Sequence[Row], part: str, model: str, one: str, other: str, metric: str = "robust accuracy"
) -> tuple[float, float]:
    """Mean of `one` minus `other` over paired seeds, and half the width of its 95 % interval.

    Raises InputError when a method is missing.
    """
    found = points(rows, part)
    sides = []
    for method in (pick(found, model, one).method, pick(found, model, other).method):
        by_seed: dict[int, list[float]] = {}
        for row in rows:
            same = (row["part"], row["model"], row["method"], row["metric"]) == (part, model, method, metric)
            if same and row["attack"][:5] in ("none", "worst"):
                by_seed.setdefault(row["seed"], []).append(row["value"])
        sides.append({seed: sum(values) / len(values) for seed, values in by_seed.items()})
    return over_seeds([value - sides[1][seed] for seed, value in sides[0].items()])


def reading(rows: Sequence[Row], part: str = "patch") -> str:
    """The headline figure in words, as a Markdown list: for a text under the figure, and for those who cannot see it.

    Raises InputError when a part or a method is missing.
    """
    found = points(rows, part)
    lines = []
    for model in dict.fromkeys(point.model for point in found):
        before, *others = shown(found, model)
        ends = ", ".join(f"{100 * point.robust:.0f} % with {point.label}" for point in others)
        rule = best_rule(found, model)
        parts = []
        for metric in ("robust accuracy", "clean accuracy"):
            mean, half = difference(rows, part, model, LEARNED, rule.method, metric)
            spread = f" ± {100 * half:.1f}" if half < float("inf") else ""
            parts.append(f"{100 * mean:+.1f}{spread} points of {metric}".replace("-", "−"))
        lines.append(
            f"- `{model}`: robust accuracy {100 * before.robust:.0f} % before; {ends}. "
            f"Learned minus {rule.label}: {parts[0]}, {parts[1]}."
        )
    return "\n".join(lines)
