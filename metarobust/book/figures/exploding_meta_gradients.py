"""What a long inner run does to the meta-loss and its gradient: surfaces, lengths, and where descent leads."""

from collections.abc import Mapping

import matplotlib.pyplot as plt
from matplotlib.figure import Figure
from torch import Tensor

from metarobust.book.figures.lines import LEAST, traces
from metarobust.book.figures.slider import Drawing, live, slider
from metarobust.book.figures.style import THIN, role, style

__all__ = ["at_horizon", "live", "slider", "surfaces", "traces"]


def surfaces(steps: Tensor, losses: Mapping[int, Tensor], mark: float | None = None) -> Figure:
    """The meta-loss over the step size, a panel for each horizon. mark: a step size to point out."""
    with style():
        size = (5, 1.25 * len(losses) + 0.5)
        figure, grid = plt.subplots(len(losses), 1, figsize=size, sharex=True, sharey=True, squeeze=False)
        for axes, (horizon, values) in zip(grid[:, 0], losses.items(), strict=True):
            if mark is not None:
                axes.axvline(mark, **THIN)
            axes.plot(steps, values, color=role("reference").colour, lw=0.9)
            axes.set_title(f"after {horizon} steps", fontsize=10.5)
        grid[-1, 0].set_xlabel("step size α")
        figure.supylabel("meta-loss", fontsize=11)
    return figure


def at_horizon(
    horizon: int,
    steps: Tensor,
    losses: Tensor,
    slopes: Tensor,
    smooth: tuple[Tensor, Tensor],
    ceiling: float,
    longest: float,
) -> Drawing:
    """One frame of the slider over the horizon: the meta-loss with its smoothed version, and below it their slopes.

    steps: the step sizes `[n]`. losses and slopes: the meta-loss and its derivative at each of them. smooth: step sizes
    of its own and the smoothed meta-loss there, `[m]` each; its slope is a finite difference. ceiling and longest: the
    highest meta-loss and the steepest slope that are shown, the same for all frames.
    """
    raw, soft = role("reference"), role("learned")
    places, values = smooth
    soft_slopes = values.diff() / places.diff()
    with style():
        figure, (top, bottom) = plt.subplots(2, 1, figsize=(4.6, 3.9), sharex=True)
        top.plot(steps, losses, color=raw.colour, lw=0.8)
        top.plot(places, values, color=soft.colour, lw=2.2)
        top.set(ylim=(-0.02 * ceiling, ceiling), ylabel="meta-loss", title=f"after {horizon} steps")
        bottom.plot(steps, slopes.abs().clamp(LEAST, longest), color=raw.colour, lw=0.8)
        bottom.plot((places[1:] + places[:-1]) / 2, soft_slopes.abs().clamp(LEAST, longest), color=soft.colour, lw=2.2)
        bottom.set(yscale="log", ylim=(1e-4, longest), ylabel="|slope|", xlabel="step size α")
        top.annotate("unsmoothed", (0.4, 0.86), xycoords="axes fraction", color=raw.ink, fontsize=10)
        top.annotate("smoothed", (0.4, 0.7), xycoords="axes fraction", color=soft.ink, fontsize=10)
    typical, steepest = float(slopes.abs().max()), float(soft_slopes.abs().max())
    return Drawing(
        figure,
        f"{horizon} steps: steepest slope {typical:.1e}; of the smoothed curve {steepest:.1f}",
        f"Meta-loss over the step size after {horizon} steps, unsmoothed and smoothed; below, the size of both slopes. "
        f"The steepest slope is {typical:.0e}, that of the smoothed curve {steepest:.1f}.",
    )
