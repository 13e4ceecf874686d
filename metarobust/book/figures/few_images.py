"""Figures of few images: methods over steps or over images a class, and the gap between training images and others."""

from collections.abc import Callable, Mapping, Sequence

import matplotlib.pyplot as plt
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.transforms import ScaledTranslation

from metarobust.book.figures.lines import shares
from metarobust.book.figures.results import by_seed, difference, label, pair
from metarobust.book.figures.style import as_percent, finite, name_ends, percent, points, role, rows_of, style, ticks
from metarobust.errors import InputError, choose
from metarobust.lab.results import BEFORE, Interval, accuracy, interval, names, select

__all__ = ["against", "best", "by_seed", "gap", "learning_curves", "numbers", "over_images", "shares"]

SHOWN = {"robust": "under attack", "clean": "on clean images"}
MORE_LINES = ("-", (0, (1, 1.2)), (0, (4, 1.5)), (0, (3, 1, 1, 1, 1, 1)))
"""Line styles for the second, third and fourth method of a role."""
Roles = Mapping[str, str]
"""Methods to the roles in which they are drawn."""


def numbers(frame: pd.DataFrame) -> dict[int, str]:
    """Images a class to the name of the part that has so many, the fewest first.

    Raises InputError where no part has a number of its own.
    """
    parts = frame[["images_per_class", "part"]].dropna().drop_duplicates()
    if parts.empty:
        raise InputError("no part of these results is of a number of images a class: give those of low-data")
    return {int(count): part for count, part in sorted(parts.itertuples(index=False))}


def learning_curves(frame: pd.DataFrame, part: str, model: str, methods: Roles) -> Figure:
    """Accuracy after each number of steps that was measured, under attack (above) and on clean images (below).

    Whiskers are 95 % intervals over seeds. Raises InputError where the part or a method is not in the table.
    """
    rows = select(frame, part=part, model=model)

    def measured(method: str, metric: str) -> dict[float, Interval]:
        choose(method, names(rows, "method"), "method in these results")
        mine = rows[rows["method"].isin((BEFORE, method))]  # a run begins where it is measured before the first step
        each = {step: accuracy(mine, metric, step=step) for step in sorted(mine["step"].dropna().unique())}
        return {step: interval(values) for step, values in each.items() if len(values)}

    return _two_panels(methods, measured, xlabel="steps", title=model)


def over_images(frame: pd.DataFrame, model: str, methods: Roles) -> Figure:
    """Accuracy over the number of training images of each class, under attack (above) and on clean images (below).

    Whiskers are 95 % intervals over seeds. Raises InputError where a method is not in the table.
    """
    parts = numbers(frame)

    def measured(method: str, metric: str) -> dict[float, Interval]:
        return {each: interval(by_seed(frame, part, method, metric, model)) for each, part in parts.items()}

    figure = _two_panels(methods, measured, xlabel="training images of each class", title=model)
    for axes in figure.axes:
        axes.set_xscale("log")
        ticks(axes, "x", parts)
    return figure


def _two_panels(
    methods: Roles, measured: Callable[[str, str], Mapping[float, Interval]], *, xlabel: str, title: str
) -> Figure:
    looks = _looks(methods)
    with style():
        figure, grid = plt.subplots(2, 1, figsize=(5.2, 5.2), sharex=True)
        for axes, metric in zip(grid, SHOWN, strict=True):
            ends = []
            for number, method in enumerate(methods):
                values = measured(method, metric)
                middle, halves = zip(*values.values(), strict=True)
                halves = [finite(half) for half in halves]
                # Beside each other, by three points of print each, so that whiskers can be told apart.
                aside = ScaledTranslation((number - (len(methods) - 1) / 2) * 3 / 72, 0, figure.dpi_scale_trans)
                place = axes.transData + aside
                axes.errorbar(list(values), middle, halves, elinewidth=0.8, transform=place, **looks[method])
                for sign in (-1, 1):  # what is drawn aside does not count for the limits
                    reach = [m + sign * half for m, half in zip(middle, halves, strict=True)]
                    axes.update_datalim(list(zip(values, reach, strict=True)))
                ends.append((middle[-1], label(method), methods[method]))
            axes.autoscale_view()
            axes.yaxis.set_major_locator(plt.MaxNLocator(5, steps=[1, 2, 5, 10]))
            axes.yaxis.set_major_formatter(as_percent)
            name_ends(axes, max(values), ends, 0.095, xytext=(14, 0), fontsize=10)
            axes.set_title(f"{title}, {SHOWN[metric]}")
        grid[-1].set_xlabel(xlabel)
    return figure


def _looks(methods: Roles) -> dict[str, dict]:
    """Keywords for a line of each method: by its role; hollow, and with another line, where it shares its role."""
    looks: dict[str, dict] = {}
    seen = dict.fromkeys(methods.values(), 0)
    for method, name in methods.items():
        how, again = role(name), seen[name]
        dashes, face = (MORE_LINES[again % 4], "white") if again else (how.line, how.colour)
        looks[method] = {"color": how.colour, "ls": dashes, "marker": how.marker, "mfc": face, "ms": 5}
        seen[name] += 1
    return looks


def gap(frame: pd.DataFrame, model: str, methods: Roles) -> Figure:
    """Robust accuracy on the images that a model was trained on (hollow) and on others (filled): a panel a method.

    Between them lies what is lost from the one to the other: overfitting. Lines are numbers of images a class.
    Raises InputError where a method was not measured on its training images.
    """
    parts = numbers(frame)
    with style():
        size = 4.6, 0.22 * len(methods) * (len(parts) + 1.6) + 0.6
        figure, grid = plt.subplots(len(methods), 1, figsize=size, sharex=True, squeeze=False)
        for axes, (method, name) in zip(grid[:, 0], methods.items(), strict=True):
            for y, part in enumerate(parts.values()):
                sides = (interval(by_seed(frame, part, method, "robust", model, split)) for split in ("test", "train"))
                pair(axes, y, role(name), *sides)
            percent(axes, "x")
            axes.set_xlim(-0.05, 1.12)
            axes.set(ylim=(len(parts) - 0.4, -0.6), title=label(method))
            rows_of(axes, [str(each) for each in parts])
        grid[-1, 0].set_xlabel("images read correctly under attack")
        figure.supylabel("training images of each class", fontsize=11)
    return figure


def best(frame: pd.DataFrame, parts: Sequence[str], models: Sequence[str], among: Sequence[str]) -> str:
    """The method with the best mean of clean and robust accuracy over these parts and networks.

    Picked on the very results that it is shown in, so it flatters the one that is picked. Raises InputError where one
    of them is missing.
    """

    def score(method: str) -> float:
        return sum(by_seed(frame, part, method, metric, list(models)).mean() for part in parts for metric in SHOWN)

    return max(among, key=score)


def against(frame: pd.DataFrame, part: str, model: str, ours: str, rival: str) -> str:
    """`ours` minus `rival` in words, paired over seeds: points under attack, and on clean images."""
    (robust, half), clean = (difference(frame, part, ours, rival, metric, model) for metric in SHOWN)
    verdict = "within the noise" if abs(robust) <= half else ("ahead" if robust > 0 else "behind")
    return f"{points(robust, half)} points under attack ({verdict}), {points(*clean)} on clean images"
