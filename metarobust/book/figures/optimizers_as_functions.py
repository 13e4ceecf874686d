"""Figures of hand-written rules: what a step size does, how a rule walks down a valley, what it remembers."""

from collections.abc import Mapping

import matplotlib.pyplot as plt
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from metarobust.book.figures.style import THIN, beside, line, role, same_length, style, ticks
from metarobust.errors import InputError

Curves = Mapping[str, tuple[str, Tensor]]
"""Label to (role, numbers)."""


def over_step_sizes(
    sizes: Tensor, curves: Curves, *, top: float = 10.0, guess: float | None = None, what: str = "loss after the run"
) -> Figure:
    """What comes out of a run against its step size, both on a logarithmic scale.

    Args:
        sizes: Step sizes `[n]`.
        curves: Losses `[n]`, each by its label; the best of each is a large marker.
        top: Where losses are drawn that are higher, or not finite.
        guess: The loss of one who guesses, as a line.
        what: The vertical axis.
    """
    same_length(sizes, ((label, losses) for label, (_, losses) in curves.items()))
    with style():
        figure, axes = plt.subplots(figsize=(5.2, 3.6))
        if guess is not None:
            axes.axhline(guess, **THIN)
            above = {"xytext": (0, 5), "va": "bottom"}  # clear of the curves' markers
            beside(axes, float(sizes[0]), guess, "guessing", "control", fontsize=10, **above)
        low = min(float(losses.detach().nan_to_num(top).min()) for _, losses in curves.values())
        valleys = []
        for label, (name, losses) in curves.items():
            drawn = losses.detach().nan_to_num(top).clamp_max(top)
            axes.plot(sizes, drawn, markersize=3.5, **line(name))
            best = int(drawn.argmin())
            valleys.append((float(sizes[best]), float(drawn[best]), label, name))
        for place, (x, y, label, name) in enumerate(sorted(valleys)):
            how = role(name)
            axes.plot(x, y, how.marker, color=how.colour, ms=9, mew=2.5 if how.marker == "x" else 1)
            # Valleys lie side by side: the first label goes to the left, the others to the right, a single one below.
            side = 0 if len(valleys) == 1 else 1 if place else -1
            where = {"ha": ("left", "center", "right")[1 - side], "va": "center" if side else "top"}
            beside(axes, x, y, label, name, xytext=(9 * side, 0 if side else -9), **where)
        axes.set(xscale="log", yscale="log", xlabel="step size", ylabel=what, ylim=(low / 1.7, 1.15 * top))
        plain_numbers(axes)
    return figure


def plain_numbers(axes: Axes) -> None:
    """Logarithmic axes are read in numbers such as 0.1 and 3, not in powers of ten."""
    low, high = axes.get_ylim()
    ticks(axes, "y", [t for e in range(-6, 4) for t in (10.0**e, 3 * 10.0**e) if low <= t <= high])
    low, high = axes.get_xlim()
    ticks(axes, "x", [10.0**e for e in range(-8, 6) if low <= 10.0**e <= high])


def valley(curvature: tuple[float, float], paths: Curves) -> Figure:
    """Paths `[K, 2]` of several rules on f(w) = (a w1^2 + b w2^2) / 2, over its level lines; (a, b) is `curvature`."""
    reach = 1.15 * torch.cat([path for _, path in paths.values()]).abs().amax(0)
    xs, ys = (torch.linspace(-float(r), float(r), 120) for r in reach)
    height = 0.5 * (curvature[0] * xs[None, :] ** 2 + curvature[1] * ys[:, None] ** 2)
    levels = float(height.max()) * torch.linspace(0.15, 1, 7) ** 2
    with style():
        figure, grid = plt.subplots(len(paths), 1, figsize=(5, 1.75 * len(paths)), sharex=True, squeeze=False)
        for axes, (label, (name, path)) in zip(grid[:, 0], paths.items(), strict=True):
            axes.contour(xs, ys, height, levels=levels.tolist(), colors="#C8C8C8", linewidths=0.8)
            axes.plot(*path.T, markersize=4, **line(name))
            axes.plot(0, 0, "*", color="black", ms=11)
            axes.set_title(label, color=role(name).ink)
            axes.set(ylabel="w₂")
            axes.grid(visible=False)
        grid[-1, 0].set(xlabel="w₁")
    return figure


def answers(gradients: Mapping[str, Tensor], steps: Mapping[str, Curves]) -> Figure:
    """What rules answer to a given sequence of gradients: a column of panels for each sequence.

    Args:
        gradients: Title to gradients `[K]`, drawn on top.
        steps: The same titles to label to (role, steps `[K]`), each drawn in a panel of its own.

    Raises:
        InputError: other titles, or other rules from title to title.
    """
    labels = {tuple(each) for each in steps.values()}
    if list(gradients) != list(steps) or len(labels) != 1:
        raise InputError(f"steps are for {list(steps)}; give those of the same rules for each of {list(gradients)}")
    rows = 1 + len(labels.pop())
    with style():
        figure, grid = plt.subplots(rows, len(gradients), figsize=(5.4, 1.15 * rows), sharex=True, squeeze=False)
        for column, (title, given) in enumerate(gradients.items()):
            _stems(grid[0, column], given, "#1A1A1A", "gradient" if column == 0 else "")
            grid[0, column].set_title(title)
            for axes, (label, (name, values)) in zip(grid[1:, column], steps[title].items(), strict=True):
                _stems(axes, values, role(name).colour, label if column == 0 else "", marker=role(name).marker)
            grid[-1, column].set_xlabel("step")
    return figure


def _stems(axes: Axes, values: Tensor, colour: str, label: str, marker: str = "o") -> None:
    places = range(1, len(values) + 1)
    axes.axhline(0, **THIN)
    axes.vlines(places, 0, values.tolist(), color=colour, lw=1.5)
    axes.plot(places, values.tolist(), linestyle="", marker=marker, color=colour, ms=3.5)
    axes.set(ylabel=label, yticks=[])
    axes.margins(y=0.2)
    axes.grid(visible=False)
