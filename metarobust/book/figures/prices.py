"""What a patch costs, and what it buys: clean against robust accuracy, for each weight of the judge.

Reads tables of the experiment `trade-off`, whose parts differ in what robust accuracy counts for where rules are judged
and baselines are tuned. The lower of two panels is of an attacker who may move pixels that say something, and no others
(see `metarobust.lab.stages.evaluate`). Values are means over seeds with 95 % intervals, as in the tables.
"""

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from metarobust.book.figures.style import role, style
from metarobust.errors import InputError, choose
from metarobust.lab.stats import over_seeds
from metarobust.lab.table import BEFORE, LEARNED, REFERENCE, Row, by_seed, names

WEIGHT = "patch, weight "
CONFINED = "on speaking pixels"
KINDS = {
    "none": "as they are",
    "worst": "any pixel",
    "standard": "any pixel, by the standard ensemble",
    CONFINED: "speaking pixels only",
}
"""How the attack of a row begins, or for CONFINED ends, and what it is called."""
ROLES = {BEFORE: "control", LEARNED: "learned", "std-prune": "rule", REFERENCE: "reference"}


def weights(rows: Sequence[Row]) -> dict[str, float]:
    """Part to weight, the largest first. Raises InputError where no part is of a weight."""
    found = {part: float(part.removeprefix(WEIGHT)) for part in names(rows, "part") if part.startswith(WEIGHT)}
    if not found:
        raise InputError("these results weigh nothing; give the rows of a run of the experiment trade-off")
    return dict(sorted(found.items(), key=lambda each: -each[1]))


def accuracy(rows: Sequence[Row], part: str, model: str, method: str, kind: str) -> tuple[float, float]:
    """Mean and half the width of its interval, over seeds. kind: of KINDS. Raises InputError where it is missing."""
    choose(kind, KINDS, "kind of attack")
    mine = [
        row
        for row in rows
        if (row["part"], row["model"], row["method"]) == (part, model, method)
        and (row["attack"].endswith(kind) if kind == CONFINED else row["attack"].startswith(kind))
    ]
    if not mine:
        raise InputError(f"no accuracy {KINDS[kind]} of {method!r} on {model!r} in {part!r}: check what was given")
    return over_seeds(list(by_seed(mine).values()))


def prices(rows: Sequence[Row], model: str, methods: Sequence[str] = tuple(ROLES)) -> Figure:
    """Two panels, any pixel above and speaking pixels below: up and to the right is better.

    Points of a method are joined from the largest weight to the smallest, and the learned ones named by their weight.
    Raises InputError where there is no weight, network or method of this name.
    """
    parts = weights(rows)
    choose(model, names(rows, "model"), "network in these results")
    with style():
        figure, grid = plt.subplots(2, 1, figsize=(5.2, 5.6), sharex=True)
        for axes, kind in zip(grid, ("worst", CONFINED), strict=True):
            ends = {}
            for method in methods:
                how = role(ROLES.get(method, "rule"))
                clean, robust = ([accuracy(rows, p, model, method, of) for p in parts] for of in ("none", kind))
                (x, wide), (y, high) = zip(*clean, strict=True), zip(*robust, strict=True)
                bounds = {"xerr": wide, "yerr": high, "elinewidth": 0.8}
                axes.errorbar(x, y, color=how.colour, marker=how.marker, ls=how.line, lw=1, **bounds)
                ends[method] = max(zip(x, y, strict=True))
                for weight, *at in zip(parts.values(), x, y, strict=True) if method == LEARNED else ():
                    axes.annotate(
                        f"{weight:g}", at, xytext=(-8, -4), textcoords="offset points", ha="right", fontsize=9
                    )
            _names(axes, ends)
            axes.set_title(f"{model}, attacked on {KINDS[kind]}")
            axes.margins(0.15)
            axes.yaxis.set_major_formatter(lambda share, _: f"{100 * share:.0f} %")
            axes.set_ylabel("robust accuracy")
        grid[-1].xaxis.set_major_formatter(lambda share, _: f"{100 * share:.0f} %")
        grid[-1].set_xlabel("clean accuracy")
    return figure


def _names(axes: Axes, ends: Mapping[str, tuple[float, float]]) -> None:
    """Names in a column right of the axes, as high as the ends of their lines are, each with a thin line to its end."""
    for i, method in enumerate(sorted(ends, key=lambda each: ends[each][1])):
        how = role(ROLES.get(method, "rule"))
        axes.annotate(
            method, ends[method], xytext=(1.04, (i + 0.5) / len(ends)), textcoords="axes fraction", va="center",
            fontsize=9.5, color=how.ink,
            arrowprops={"arrowstyle": "-", "lw": 0.5, "color": how.colour, "relpos": (0, 0.5)},
        )  # fmt: skip
