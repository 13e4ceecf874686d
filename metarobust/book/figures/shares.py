"""Shares of images, against anything: steps, queries, epochs, images a class; and which digit becomes which."""

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from metarobust.book.figures.style import beside, line, percent, role, style
from metarobust.errors import InputError

Curves = Mapping[str, tuple[str, Sequence[float]]]
APART = 0.085  # two labels closer than that would overlap


def shares(
    xs: Sequence[float],
    curves: Curves,
    *,
    xlabel: str,
    ylabel: str = "test images read correctly",
    log: bool = False,
    zoom: bool = False,
) -> Figure:
    """Lines of shares in [0, 1] over `xs`. curves: label to (role, shares); a None is a point that was not measured.

    log: a logarithmic axis, on which each x is a tick. zoom: an axis that shows what varies, and not all from 0 to 1.
    Raises InputError for a curve of another length than xs.
    """
    for label, (_, values) in curves.items():
        if len(values) != len(xs):
            raise InputError(f"curve {label!r} has {len(values)} shares for {len(xs)} places: give one for each")
    with style():
        figure, axes = plt.subplots(figsize=(4.6, 2.8))
        for name, values in curves.values():
            axes.plot(xs, values, **line(name))
        percent(axes)
        gap = APART
        if zoom:
            every = [value for _, values in curves.values() for value in values if value is not None]
            room = max(max(every) - min(every), 0.04)
            axes.set_ylim(min(every) - 0.15 * room, max(every) + 0.15 * room)
            axes.yaxis.set_major_locator(plt.MaxNLocator(5))
            gap *= 1.3 * room
        if log:
            axes.set_xscale("log")
            axes.set_xticks(xs, [f"{x:g}" for x in xs])
            axes.minorticks_off()
        _label(axes, float(xs[-1]), curves, gap)
        axes.set(xlabel=xlabel, ylabel=ylabel)
    return figure


def _label(axes: Axes, x: float, curves: Curves, gap: float) -> None:
    """Labels right of the lines, pushed apart where lines end close together, in the order of the lines."""
    placed = float("-inf")
    for label, (name, values) in sorted(curves.items(), key=lambda item: item[1][1][-1]):
        placed = max(values[-1], placed + gap)
        beside(axes, x, placed, label, name)


def straight_or_bent(reach: Sequence[float], foretold: Sequence[float], found: Sequence[float]) -> Figure:
    """How far the margin moves along a straight line: what the gradient foretold, and what came."""
    with style():
        figure, axes = plt.subplots(figsize=(4.6, 2.7))
        axes.plot(reach, foretold, **line("control") | {"marker": ""})
        axes.plot(reach, found, **line("robust") | {"marker": ""})
        beside(axes, reach[-1], foretold[-1], "foretold by\nthe gradient", "control")
        beside(axes, reach[-1], found[-1], "what came", "robust")
        axes.set(xlabel="eps: how far every pixel moves", ylabel="how far the margin moves")
    return figure


def turned_into(share: Tensor) -> Figure:
    """Which digit can be turned into which. share: `[classes, classes]`, from row to column, of 1; NaN for no pair.

    Cells from a tenth up have their number; the others are told by their colour.
    """
    classes = len(share)
    with style():
        figure, axes = plt.subplots(figsize=(3.9, 3.7))
        axes.imshow(share.numpy(), cmap="Oranges", vmin=0, vmax=1)
        for i in range(classes):
            for j in range(classes):
                value = float(share[i, j])
                text = "·" if value != value else f"{100 * value:.0f}" if value >= 0.1 else ""
                axes.text(j, i, text, ha="center", va="center", fontsize=8, color="white" if value > 0.6 else "black")
        axes.set(
            xticks=range(classes), yticks=range(classes), xlabel="the attack wants", ylabel="the image shows",
            title="per cent of images turned, from 10 up",
        )  # fmt: skip
        axes.grid(visible=False)
        axes.tick_params(length=0)
        axes.spines[:].set_visible(False)
    return figure


def claimed_and_found(rows: Mapping[str, tuple[float, float]], honest: float | None = None) -> Figure:
    """For each defence the robust accuracy that was claimed, and what is left of it. rows: label to (claimed, found).

    honest: robust accuracy of the network without a defence, as a line; None for none.
    """
    with style():
        figure, axes = plt.subplots(figsize=(5.6, 0.5 * len(rows) + 1.4))
        for i, (before, after) in enumerate(rows.values()):
            axes.annotate("", (after, i), (before, i), arrowprops={"arrowstyle": "->", "lw": 1.5, "color": "#808080"})
            for name, value in (("control", before), ("robust", after)):
                axes.plot(value, i, role(name).marker, color=role(name).colour, ms=8, mew=2)
        top = next(iter(rows.values()))
        for name, value, text in (("robust", top[1], "found"), ("control", top[0], "claimed")):
            axes.text(value, -0.45, text, ha="center", va="bottom", color=role(name).ink)
        if honest is not None:
            axes.axvline(honest, color=role("reference").colour, linestyle=role("reference").line, lw=1.2, zorder=0)
            axes.text(honest, len(rows) - 0.5, " no defence", va="top", fontsize=9.5)
        percent(axes, "x")
        axes.set_yticks(range(len(rows)), rows)
        axes.set_ylim(len(rows) + 0.1, -0.95)
        axes.set_xlabel("robust accuracy")
        axes.tick_params(axis="y", length=0)
        axes.grid(visible=False, axis="y")
    return figure


def along_a_line(reach: Sequence[float], panels: Mapping[str, Sequence[float]], *, mark: float = 0.0) -> Figure:
    """What an attacker sees: the loss on a straight walk through an image, four panels. mark: where the image is.

    Raises InputError for another number of panels.
    """
    if len(panels) != 4:
        raise InputError(f"{len(panels)} panels in a figure that has room for 4: give four")
    with style():
        figure, grid = plt.subplots(2, 2, figsize=(6, 4.4), sharex=True)
        for axes, (label, losses) in zip(grid.flat, panels.items(), strict=True):
            axes.plot(reach, losses, color=role("robust").colour, lw=1.6)
            axes.axvline(mark, color=role("clean").colour, lw=1)
            axes.set_title(label)
            axes.set_ylim(bottom=min(0.0, min(losses)))
        for axes in grid[-1]:
            axes.set_xlabel("how far every pixel moves")
        for axes in grid[:, 0]:
            axes.set_ylabel("loss")
    return figure
