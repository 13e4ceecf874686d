"""Figures of Part III, redrawn from the table of a run that just ended or of a recorded one, by the same code.

Every value is a mean over seeds with its 95 % t-interval; a learned optimizer's value for a seed is its mean over
meta-seeds. All accuracies are shares in [0, 1].
"""

from collections.abc import Sequence
from dataclasses import dataclass

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from metarobust.book.figures.style import as_percent, finite, label_column, percent, role, rows_of, style
from metarobust.book.figures.style import points as in_points
from metarobust.errors import InputError, choose
from metarobust.lab.results import (
    ADAM,
    ATTACKED,
    BEFORE,
    FROM_DIGITS,
    LEARNED,
    PENALTIES,
    REFERENCE,
    Interval,
    accuracy,
    best_baselines,
    interval,
    intervals,
    names,
    select,
)

PAPER = {"facecolor": "white", "edgecolor": "none", "pad": 0.5}  # behind a number that a line would cross
FIXED_ROLES = {BEFORE: "control", ADAM: "clean", "sgd": "clean"}
LABELS = {
    ADAM: "Adam, clean",
    "sgd": "SGD, clean",
    "falling noise + last-layer decay": "falling noise",
    "input-gradient penalty": "gradient penalty",
}


def label(method: str) -> str:
    """How a method is called in a figure."""
    return LABELS.get(method, method).replace("adam", "Adam")


@dataclass(frozen=True)
class Point:
    """One method on one network: means over seeds, and half the width of their 95 % intervals."""

    model: str
    method: str
    role: str
    clean: float
    robust: float
    clean_half: float
    robust_half: float

    @property
    def score(self) -> float:
        """The mean of clean and robust accuracy: what the plain rules were tuned for."""
        return (self.clean + self.robust) / 2

    @property
    def label(self) -> str:
        return label(self.method)


def roles(frame: pd.DataFrame) -> dict[str, str]:
    """Every method to the role in which it is drawn."""
    known = {}
    for method, tier, learned in frame[["method", "tier", "learned"]].drop_duplicates("method").itertuples(index=False):
        by_tier = "reference" if tier == ATTACKED else "rule"
        known[method] = "learned" if learned else FIXED_ROLES.get(method, by_tier)
    return known


def points(frame: pd.DataFrame, part: str = "patch") -> list[Point]:
    """Every method on every network of one part, in the order of the table.

    Raises InputError where the part is not in the table.
    """
    rows = select(frame, part=part)
    both = intervals(accuracy(rows, "clean")).join(intervals(accuracy(rows)).add_suffix("_robust"))
    drawn = roles(rows)
    return [
        Point(model, method, drawn[method], clean, robust, clean_half, robust_half)
        for (_, model, method), clean, clean_half, robust, robust_half in both.itertuples()
    ]


def pick(every: Sequence[Point], model: str, method: str) -> Point:
    """The point of a method on a network. Raises InputError, naming what is there, when it is missing."""
    here = {point.method: point for point in every if point.model == model}
    if not here:
        choose(model, dict.fromkeys(point.model for point in every), "network in these results")
    return here[choose(method, here, f"method in these results for {model}")]


def by_seed(
    frame: pd.DataFrame, part: str, method: str, metric: str = "robust", models: object = None, split: str = "test"
) -> pd.Series:
    """Accuracy of a method for each seed: the mean over networks (all, if none is named) and meta-seeds.

    Raises InputError where there is none.
    """
    rows = select(select(frame, part=part), method=method, model=models)
    values = accuracy(rows, metric, split=split)
    if values.empty:
        raise InputError(f"the results hold no {metric} accuracy of {method!r} on {split} images: name another method")
    return values.groupby(level="seed", sort=False).mean()


def by_method(frame: pd.DataFrame, metric: str = "robust") -> pd.DataFrame:
    """Accuracy of each method (rows) for each seed (columns): the mean over networks and meta-seeds."""
    return accuracy(frame, metric).groupby(level=["method", "seed"], sort=False).mean().unstack("seed")


def difference(
    frame: pd.DataFrame, part: str, ours: str, theirs: str, metric: str = "robust", models: object = None
) -> Interval:
    """Mean of `ours` minus `theirs` over paired seeds, and half the width of its 95 % interval."""
    one, other = (by_seed(frame, part, method, metric, models) for method in (ours, theirs))
    return interval((one - other).dropna())


def shown(frame: pd.DataFrame, part: str, model: str) -> list[Point]:
    """What the headline shows of a network, from top to bottom; `before` only where there was something to patch.

    The plain rule is the best one, picked on these very results; a run may lack it, and Adam. Raises InputError when
    another method is missing.
    """
    every = points(frame, part)
    measured = {point.method for point in every if point.model == model}
    trained = [BEFORE] if select(frame, part=part)["start"].iloc[0] == "trained" else []
    best = best_baselines(select(frame, part=part, model=model))
    beside = [name for name in (ADAM, *best, FROM_DIGITS) if name in measured]
    wanted = [*trained, *beside, PENALTIES if PENALTIES in measured else LEARNED, REFERENCE]
    return [pick(every, model, method) for method in dict.fromkeys(wanted)]  # Adam may itself be the best rule


def headline(frame: pd.DataFrame, part: str = "patch") -> Figure:
    """For each unseen network, from top to bottom, clean and robust accuracy before and after: a panel a network.

    A filled marker is robust accuracy, a hollow one clean accuracy, a whisker the 95 % interval over seeds.
    Raises InputError when a part or a method is missing.
    """
    models = names(select(frame, part=part), "model")
    panels = {model: shown(frame, part, model) for model in models}
    heights = [len(panel) + 1.6 for panel in panels.values()]
    with style():
        size, ratios = (5, 0.27 * sum(heights) + 0.6), {"height_ratios": heights}
        figure, grid = plt.subplots(len(models), 1, figsize=size, sharex=True, squeeze=False, gridspec_kw=ratios)
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
        pair(axes, y, role(point.role), (point.robust, point.robust_half), (point.clean, point.clean_half), PAPER)
    percent(axes, "x")
    axes.set_xlim(-0.12, 1.1)  # room for the labels of what is near 0
    axes.set(ylim=(len(panel) - 0.4, -1.1), title=model)
    rows_of(axes, [point.label for point in panel], fontsize=10)
    for tick, point in zip(axes.get_yticklabels(), panel, strict=True):
        tick.set_color(role(point.role).ink)
        tick.set_fontweight("bold" if point.role == "learned" else "normal")


def pair(axes: Axes, y: float, how, filled: tuple[float, float], hollow: tuple[float, float], paper=None) -> None:
    """Two shares in a line, (mean, half) each: a filled marker left, a hollow one right, each with its number."""
    axes.plot([filled[0], hollow[0]], [y, y], color=how.colour, lw=1, alpha=0.5)
    for (share, half), face, side in ((filled, how.colour, -1), (hollow, "white", 1)):
        width = finite(half)
        look = {"color": how.colour, "marker": how.hollow, "mfc": face, "capsize": 2.5, "lw": 1.5}
        axes.errorbar(share, y, xerr=width or None, **look)
        place = {"xytext": (side * 7, 0), "textcoords": "offset points", "ha": "right" if side < 0 else "left"}
        text = {"va": "center", "fontsize": 9, "color": how.ink} | ({"bbox": paper} if paper else {})
        axes.annotate(f"{100 * share:.0f}", (share + side * width, y), **place, **text)


def frontier(frame: pd.DataFrame, part: str, model: str) -> Figure:
    """Clean against robust accuracy of every method on one network: up and to the right is better.

    Raises InputError when the part or the network is not in the table.
    """
    mine = points(select(frame, part=part, model=model), part)
    fresh = select(frame, part=part)["start"].iloc[0] == "fresh"
    mine = [point for point in mine if not (fresh and point.method == BEFORE)]  # chance, far off the scale
    with style():
        figure, axes = plt.subplots(figsize=(5.2, 0.26 * len(mine) + 1.1))
        for point in mine:
            how, size = role(point.role), 9 if point.role == "learned" else 6
            bounds = {"xerr": finite(point.clean_half), "yerr": finite(point.robust_half), "elinewidth": 0.8, "lw": 0}
            axes.errorbar(point.clean, point.robust, color=how.colour, marker=how.marker, ms=size, **bounds)
        axes.margins(0.1)
        label_column(axes, [(p.label, p.clean, p.robust, p.role) for p in mine], 1.06, bold="learned")
        axes.set(xlabel="clean accuracy", ylabel="robust accuracy", title=model)
        for axis in (axes.xaxis, axes.yaxis):
            axis.set_major_locator(plt.MaxNLocator(4, steps=[1, 2, 5, 10]))
            axis.set_major_formatter(as_percent)
    return figure


def reading(frame: pd.DataFrame, part: str = "patch") -> str:
    """The headline figure in words, as a Markdown list: for a text under the figure, and for those who cannot see it.

    Raises InputError when a part or a method is missing.
    """
    lines = []
    for model in names(select(frame, part=part), "model"):
        start, *others = shown(frame, part, model)
        ends = ", ".join(f"{100 * point.robust:.0f} % after {_name(point)}" for point in others)
        first = "before" if start.method == BEFORE else f"after {_name(start)}"
        rule = best_baselines(select(frame, part=part, model=model)).item()
        robust, clean = (in_points(*difference(frame, part, LEARNED, rule, m, model)) for m in ("robust", "clean"))
        lines.append(
            f"- `{model}`: under attack {100 * start.robust:.0f} % {first}, {ends}. The learned optimizer against "
            f"{LABELS.get(rule, rule)}: {robust} points under attack, {clean} points on clean images."
        )
    return "\n".join(lines)


def _name(point: Point) -> str:
    """A method within a sentence."""
    if point.role == "learned":
        return point.method.replace(LEARNED, "the learned optimizer", 1)
    return point.label.removesuffix(", clean")
