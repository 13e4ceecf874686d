"""What a learned rule answers as one of its inputs moves, and which plain rules account for what it did."""

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
from matplotlib.figure import Figure

from metarobust.book.figures.learning_from_mistakes import pixel_spread
from metarobust.book.figures.slider import Drawing, live, slider
from metarobust.book.figures.style import THIN, as_percent, line, name_ends, percent, role, style, ticks
from metarobust.errors import InputError

__all__ = ["explained", "live", "pixel_spread", "share_given_up", "slider", "step_by_weight"]


def share_given_up(curves: Sequence[tuple[str, str, Sequence[float], Sequence[float]]]) -> Figure:
    """Response curves: the share of a weight that one step takes away, by how much gradient its column sees.

    Args:
        curves: (label, role, ratios, shares) of each. ratios: the root mean square gradient of a column over that of
            its matrix, above 0. A share below 0 is added to the weight.

    Raises:
        InputError: curves without places.
    """
    if not curves or any(not len(ratios) for _, _, ratios, _ in curves):
        raise InputError("a response curve without places: give at least one ratio and its share")
    with style():
        figure, axes = plt.subplots(figsize=(5, 3.2))
        axes.axhline(0, **THIN)
        for _, name, ratios, shares in curves:
            axes.plot(ratios, shares, **line(name), ms=4.5)
        axes.set_xscale("log")
        ticks(axes, "x", [0.02, 0.1, 0.5, 1, 3])
        axes.yaxis.set_major_formatter(as_percent)
        axes.set(xlabel="gradient of the column, over that of its matrix", ylabel="share of a weight taken away")
        name_ends(axes, curves[0][2][-1], [(shares[-1], label, name) for label, name, _, shares in curves])
    return figure


def step_by_weight(
    ratio: float, weights: Sequence[float], steps: Mapping[str, tuple[str, Sequence[float]]], top: float
) -> Drawing:
    """One frame of the slider over a column's gradient: the step a rule takes, against the weight that it is for.

    ratio: as in `share_given_up`. weights, and steps of each rule (label to role and values), in units of the
    tensor's root mean square. top: where the vertical axis ends, the same for all frames.
    """
    with style():
        figure, axes = plt.subplots(figsize=(4.6, 3))
        axes.axhline(0, **THIN)
        takes = []
        for i, (label, (name, values)) in enumerate(steps.items()):
            how = role(name)
            axes.plot(weights, values, color=how.colour, ls=how.line, lw=2.2)
            axes.annotate(label, (0.97, 0.92 - 0.1 * i), xycoords="axes fraction", ha="right", color=how.ink)
            share = 100 * (values[0] - values[-1]) / (weights[-1] - weights[0])
            takes.append(f"{label} takes {share:.0f} % of a large weight")
        axes.set(xlabel="weight", ylabel="step", ylim=(-top, top))
        axes.set_title(f"column's gradient {ratio:.2g} of the usual")
    words = ", ".join(takes)
    alt = f"The step against the weight where the column sees {ratio:.2g} of the usual gradient: {words}."
    return Drawing(figure, f"{ratio:.2g} of the usual gradient: {words}", alt)


def explained(layers: Mapping[str, Mapping[str, float]], mark: str = "") -> Figure:
    """Which share of the change of the weights each plain rule accounts for: a panel per layer, a bar per rule.

    layers: layer to name to share, at most 1. A share under 0, worse than nothing, is drawn as 0. mark: the rule whose
    bars stand out.
    """
    names = list(dict.fromkeys(name for shares in layers.values() for name in shares))
    with style():
        size = 5.4, 0.29 * len(names) + 0.9
        figure, grid = plt.subplots(1, len(layers), figsize=size, sharey=True, squeeze=False)
        for axes, (layer, shares) in zip(grid[0], layers.items(), strict=True):
            for place, name in enumerate(names):
                if name not in shares:
                    axes.text(0.02, place, "no pixels here", va="center", fontsize=8.5, color=role("control").ink)
                    continue
                length, weight = max(shares[name], 0.0), "bold" if name == mark else "normal"
                axes.barh(place, length, color=role("learned" if name == mark else "control").colour)
                shift, side, ink = (-0.02, "right", "white") if length > 0.75 else (0.02, "left", "black")
                look = {"va": "center", "ha": side, "fontsize": 9, "color": ink, "fontweight": weight}
                axes.text(length + shift, place, f"{100 * shares[name]:.0f}", **look)
            percent(axes, "x")
            axes.set_xticks([0, 0.5, 1])
            axes.set_title(layer, fontsize=10.5)
            axes.grid(visible=False, axis="y")
        grid[0, 0].set_yticks(range(len(names)), names, fontsize=9.5)
        grid[0, 0].invert_yaxis()
    return figure
