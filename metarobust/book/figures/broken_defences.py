"""Figures of broken defences: the loss that an attacker sees, and what is left of each claim."""

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
from matplotlib.figure import Figure

from metarobust.book.figures.style import percent, role, rows_of, style
from metarobust.errors import InputError


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
        for below, left in zip(grid[-1], grid[:, 0], strict=True):
            below.set_xlabel("how far every pixel moves")
            left.set_ylabel("loss")
    return figure


def rounding(eps: float) -> Figure:
    """A pixel on its way through rounding: above, what goes forward and what comes back; below, grey levels in a line.

    eps: how far an attacker may move the pixel, in grey levels, between 1.5 and 2.
    """
    levels, over, (clean, robust, learned) = range(-2, 3), 1.52, map(role, ("clean", "robust", "learned"))
    with style():
        figure, (above, below) = plt.subplots(2, 1, figsize=(5.2, 4.2), sharex=True, height_ratios=(3, 1))
        above.hlines(levels, [-2.4, -1.5, -0.5, 0.5, 1.5], [-1.5, -0.5, 0.5, 1.5, 2.4], color=clean.colour, lw=2.5)
        above.plot([-2.4, 2.4], [-2.4, 2.4], color=learned.colour, linestyle="--", lw=1.6)
        above.plot(over, 2, robust.marker, color=robust.colour, ms=8)
        above.text(-0.55, 0.25, "backward, as if:\nslope 1", ha="right", color=learned.ink)
        above.text(0.65, -1.35, "forward: a staircase,\nslope 0 on every step", color=clean.ink)
        above.set(ylabel="what the network sees", yticks=levels)
        below.axvspan(-eps, eps, color=clean.colour, alpha=0.12)
        below.plot(levels, [0] * 5, "|", color=role("control").colour, ms=14, mew=1.5)
        below.text(-eps, 1.08, f"may move by {eps:g} levels", fontsize=10, color=clean.ink)
        for start, end, y, text, how in ((0, over, 0.5, "the attack ", robust), (over, 2, -0.5, "rounding ", clean)):
            below.annotate("", (end, y), (start, y), arrowprops={"arrowstyle": "->", "lw": 2, "color": how.colour})
            below.text(start, y, text, ha="right", va="center", color=how.ink)
        below.set(ylim=(-1, 1), yticks=[], xlabel="a pixel, in grey levels from where it was", xticks=levels)
        below.grid(visible=False)
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
        claimed, left = next(iter(rows.values()))
        for name, value, text in (("robust", left, "found"), ("control", claimed, "claimed")):
            axes.text(value, -0.45, text, ha="center", va="bottom", color=role(name).ink)
        if honest is not None:
            axes.axvline(honest, color=role("reference").colour, linestyle=role("reference").line, lw=1.2, zorder=0)
            axes.text(honest, len(rows) - 0.5, " no defence", va="top", fontsize=9.5)
        percent(axes, "x")
        rows_of(axes, list(rows))
        axes.set_ylim(len(rows) + 0.1, -0.95)
        axes.set_xlabel("robust accuracy")
    return figure
