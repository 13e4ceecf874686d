"""Lines that several chapters draw: shares of images or other numbers over anything, and the curve of a report."""

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
from matplotlib.figure import Figure

from metarobust.book.figures.style import THIN, line, name_ends, percent, role, same_length, style, ticks
from metarobust.errors import InputError
from metarobust.evaluation import Report

Curves = Mapping[str, tuple[str, Sequence[float]]]
"""Label to (role, values)."""
LEAST = 1e-12  # what is shorter has no place on a logarithmic axis


def shares(
    xs: Sequence[float],
    curves: Curves,
    *,
    xlabel: str,
    ylabel: str = "test images read correctly",
    log: bool = False,
    zoom: bool = False,
    mark: tuple[float, str] | None = None,
) -> Figure:
    """Lines of shares in [0, 1] over `xs`.

    Args:
        xs: The places, such as steps, queries or images a class.
        curves: Label to (role, shares); a None is a point that was not measured.
        xlabel: What the places are.
        ylabel: What the shares are.
        log: A logarithmic axis, on which each x is a tick.
        zoom: An axis that shows what varies, and not all from 0 to 1.
        mark: A place to point out, and its name.

    Raises:
        InputError: a curve is of another length than xs.
    """
    same_length(xs, ((label, values) for label, (_, values) in curves.items()))
    with style():
        figure, axes = plt.subplots(figsize=(4.6, 2.8))
        if mark is not None:
            axes.axvline(mark[0], **THIN)
            axes.text(mark[0], 1.06, mark[1], ha="center", va="bottom", fontsize=10)
        for name, values in curves.values():
            axes.plot(xs, values, **line(name))
        percent(axes)
        if zoom:
            every = [value for _, values in curves.values() for value in values if value is not None]
            room = max(max(every) - min(every), 0.04)
            axes.set_ylim(min(every) - 0.15 * room, max(every) + 0.15 * room)
            axes.yaxis.set_major_locator(plt.MaxNLocator(5))
        if log:
            axes.set_xscale("log")
            ticks(axes, "x", xs)
        ends = [(values[-1], label, name) for label, (name, values) in curves.items()]
        name_ends(axes, float(xs[-1]), ends, 0.09)
        axes.set(xlabel=xlabel, ylabel=ylabel)
    return figure


def traces(
    x: Sequence[float],
    curves: Sequence[tuple[str, str, Sequence[float]]],
    *,
    xlabel: str,
    ylabel: str,
    logs: str = "",
    level: float | None = None,
) -> Figure:
    """Lines over the same x, each with its name at its end.

    Args:
        x: The places.
        curves: (label, role, values) of each, with an empty label for none.
        xlabel: What the places are.
        ylabel: What the values are.
        logs: The axes that are logarithmic, "", "x", "y" or "xy"; what is below 1e-12 is drawn there.
        level: A height to mark by a thin line.
    """
    same_length(x, ((label, values) for label, _, values in curves))
    with style():
        figure, axes = plt.subplots(figsize=(5, 3.2))
        if "x" in logs:
            axes.set_xscale("log", base=2)
            ticks(axes, "x", x)
        if "y" in logs:
            axes.set_yscale("log")
        if level is not None:
            axes.axhline(level, **THIN)
        ends = []
        for label, name, values in curves:
            how, few = role(name), len(x) <= 12
            shown = [max(value, LEAST) for value in values] if "y" in logs else list(values)
            axes.plot(x, shown, color=how.colour, ls=how.line, marker=how.marker if few else "", lw=2 if few else 1.5)
            ends += [(shown[-1], label, name)] if label else []
        axes.set(xlabel=xlabel, ylabel=ylabel)
        axes.autoscale_view()
        name_ends(axes, x[-1], ends, 0.09 * (1 + max(label.count("\n") for _, label, _ in ends)), fontsize=10)
    return figure


def over_eps(report: Report) -> Figure:
    """The curve of a report's checks over eps, and its own clean and robust accuracy beside it.

    The curve is of a short PGD on the images that the checks looked at; the robust accuracy is the worst case of the
    whole ensemble on all images, so its mark lies near the curve or below it, and its bar is the 95 % interval.
    Raises InputError for a report without checks, which has no curve.
    """
    if not report.curve:
        raise InputError("the report has no curve over eps: evaluate with checks of at least 1 image")
    radii, accuracies = zip(*report.curve, strict=True)
    with style():
        figure, axes = plt.subplots()
        axes.plot(radii, accuracies, label=f"short PGD, {report.checked} images", **line("weaker"))
        for name, eps in (("clean", 0.0), ("robust", report.eps)):
            value, (low, high) = getattr(report, name), getattr(report, f"{name}_interval")
            look = {"fmt": role(name).marker, "color": role(name).colour, "markersize": 8, "capsize": 3, "zorder": 3}
            axes.errorbar([eps], [value], [[value - low], [high - value]], label=f"{name}, {report.n} images", **look)
        if report.eps > 0:  # the last radius is far away from the others, and eps 0 has to be shown
            axes.set_xscale("symlog", linthresh=report.eps, linscale=1)
        ticks(axes, "x", radii, [f"{eps:.3g}" for eps in radii])
        axes.set_xlabel(f"eps, in pixel units ({'L∞' if report.norm == 'linf' else 'L2'})")
        axes.set_title("Share of images classified correctly")
        percent(axes)
        axes.legend()
    return figure
