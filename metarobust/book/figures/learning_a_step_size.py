"""Figures of unrolled runs: the run as a graph, descent on a step size, the meta-loss over step size and horizon."""

from collections.abc import Callable, Sequence

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from metarobust.book.figures.optimizers_as_functions import plain_numbers
from metarobust.book.figures.slider import Drawing, live, slider
from metarobust.book.figures.style import arrow, node, role, style, ticks
from metarobust.errors import InputError

__all__ = ["at_horizon", "descent", "live", "over_horizons", "slider", "unroll_graph"]

SUBSCRIPTS = str.maketrans("0123456789", "₀₁₂₃₄₅₆₇₈₉")


def unroll_graph(steps: int = 3, cut: int | None = None) -> Figure:
    """A run of `steps` steps as a graph: weights from left to right to the meta-loss, the optimizer's theta below.

    Solid arrows are what a first-order meta-gradient goes back along; the dashed ones, from weights to gradients, are
    left out there. cut: after which step the run is cut, or None. Raises InputError for a cut outside of the run.
    """
    if cut is not None and not 0 < cut < steps:
        raise InputError(f"a cut after step {cut} of {steps}; give 1 to {steps - 1}, or None")
    with style():
        figure, axes = plt.subplots(figsize=(5.6, 3.1))
        right = steps + 0.75
        for k in range(steps + 1):
            number = str(k).translate(SUBSCRIPTS)
            node(axes, k, 2, f"w{number}", "clean")
            if k == steps:
                break
            node(axes, k + 0.5, 1, f"u{number}", "learned")
            node(axes, k + 0.12, 1.35, f"g{number}", "control", size=8)
            lost = "#C4C4C4" if cut is not None and k < cut else None  # no slope comes back along these
            arrow(axes, (k, 2), (k + 1, 2), lost or role("clean").colour)
            arrow(axes, (k, 2), (k + 0.12, 1.35), lost or role("robust").colour, dashed=True)
            arrow(axes, (k + 0.12, 1.35), (k + 0.5, 1), lost or role("robust").colour, dashed=True)
            arrow(axes, (k + 0.5, 1), (k + 1, 2), lost or role("learned").colour)
            arrow(axes, (steps / 2, 0), (k + 0.5, 1), lost or role("learned").colour)
        node(axes, steps / 2, 0, "θ", "learned", size=13)
        node(axes, right, 2, "L", "reference")
        arrow(axes, (steps, 2), (right, 2), "#1A1A1A")
        if cut is not None:
            axes.plot([cut - 0.25] * 2, [0.55, 2.45], color="#1A1A1A", lw=1.5, linestyle=(0, (2, 2)))
            axes.text(cut - 0.25, 2.5, "cut here", ha="center", va="bottom")
        axes.text(steps / 2 - 0.3, 0, "the optimizer's numbers", va="center", ha="right", color=role("learned").ink)
        back = {"arrowstyle": "->", "color": "black", "connectionstyle": "arc3,rad=-0.35", "shrinkA": 12, "shrinkB": 16}
        axes.annotate("", (steps / 2, 0), (right, 2), arrowprops=back)
        axes.text(right + 0.2, 0.25, "outer loop", ha="right")
        axes.text(-0.2, 2.42, "inner loop →")
        axes.text(right + 0.2, 2.28, "meta-loss", ha="right")
        axes.set(xlim=(-0.3, right + 0.25), ylim=(-0.35, 2.8))
        axes.axis("off")
    return figure


def descent(sizes: Tensor, losses: Tensor, visited: Sequence[float], met: Sequence[float]) -> Figure:
    """Gradient descent on a step size: the landscape `losses` over `sizes`, and the places that were visited, in order.

    visited: step sizes. met: the meta-loss at each of them.
    """
    learned = role("learned")
    with style():
        figure, axes = plt.subplots(figsize=(5.2, 3.4))
        axes.plot(sizes, losses, color=role("control").colour, lw=1.5)
        axes.plot(visited, met, linestyle="", marker="D", color=learned.colour, ms=5, mec="white", mew=0.6)
        begin, end = {"xytext": (4, 10)}, {"xytext": (-8, -4), "ha": "right", "va": "top"}
        axes.annotate("begins here", (visited[0], met[0]), textcoords="offset points", color=learned.ink, **begin)
        axes.annotate("ends here", (visited[-1], met[-1]), textcoords="offset points", color=learned.ink, **end)
        low, high = float(losses[losses.isfinite()].min()), float(max(losses[0], *met))
        axes.set(xscale="log", yscale="log", xlabel="step size", ylabel="meta-loss", ylim=(low / 1.5, 1.6 * high))
        plain_numbers(axes)
    return figure


def over_horizons(sizes: Tensor, horizons: Sequence[int], losses: Tensor) -> Figure:
    """The meta-loss over step size and horizon as a map, and the best step size of each horizon as a line.

    sizes: `[n]`. losses: `[len(horizons), n]`. Each row is drawn from its own best, which is dark, to what its shortest
    step reaches, so that short and long runs can be compared.
    """
    if losses.shape != (len(horizons), len(sizes)):
        raise InputError(f"losses are {list(losses.shape)}; give [{len(horizons)}, {len(sizes)}]")
    best = losses.nan_to_num(float("inf")).min(1, keepdim=True)
    reach = (losses[:, :1] - best.values).clamp_min(1e-12)
    worse = ((losses - best.values) / reach).nan_to_num(1.0).clamp(0, 1).numpy()
    rows = range(len(horizons))
    with style():
        figure, axes = plt.subplots(figsize=(5.2, 3.6))
        drawn = axes.pcolormesh(sizes.numpy(), rows, worse, cmap="cividis", shading="nearest", vmin=0, vmax=1)
        figure.colorbar(drawn, ax=axes, ticks=[0, 1]).ax.set_yticklabels(["best", "shortest\nstep,\nor worse"])
        axes.plot(sizes[best.indices[:, 0]].numpy(), rows, color="white", marker="D", mec="black", lw=1.5)
        axes.set(xscale="log", xlabel="step size", ylabel="horizon, in steps", title="◇ best step size of each horizon")
        axes.set_yticks(rows, [str(k) for k in horizons])
        _step_sizes(axes, sizes)
        axes.grid(visible=False)
    return figure


def at_horizon(sizes: Tensor, meta_loss: Callable[[int], Tensor], horizon: int, long: float) -> Drawing:
    """One frame of the slider over the horizon: the meta-loss over step sizes, its best, and that of a long run.

    meta_loss: horizon to losses `[n]`. long: the best step size of the long run, as a line to compare with.
    """
    losses = meta_loss(horizon).nan_to_num(float("inf"))
    size, least, start = float(sizes[int(losses.argmin())]), float(losses.min()), float(losses[0])
    with style():
        figure, axes = plt.subplots(figsize=(4.6, 2.9))
        axes.axvline(long, color=role("clean").colour, lw=1.5, linestyle="--")
        axes.plot(sizes, losses, color=role("control").colour)
        axes.plot(size, least, "D", color=role("learned").colour, ms=9, mec="white")
        drop = max(start - least, 1e-9)
        axes.set(xscale="log", xlabel="step size", ylabel="meta-loss", title=f"horizon {horizon}")
        axes.set_ylim(least - 0.15 * drop, start + 0.5 * drop)
        _step_sizes(axes, sizes)
    text = f"horizon {horizon}: best step size {size:.2g}, {size / long:.1f} times that of the long run"
    return Drawing(figure, text, f"Meta-loss against step size, with the best one marked; {text}")


def _step_sizes(axes: Axes, sizes: Tensor) -> None:
    ticks(axes, "x", [t for t in (0.001, 0.01, 0.1, 1) if sizes[0] <= t <= sizes[-1]])
