"""Figures of learned rules at work: what one sees of a gradient, and the loss of many rules step by step."""

import math
from collections.abc import Mapping

import matplotlib.pyplot as plt
from matplotlib.figure import Figure
from torch import Tensor

from metarobust.book.figures.style import THIN, arrow, beside, line, name_ends, node, role, style, ticks
from metarobust.errors import InputError


def two_inputs(gradients: Tensor, inputs: Tensor) -> Figure:
    """What a rule is shown of gradients of many sizes. gradients: positive ones `[n]`; inputs: `[2, n]`."""
    if inputs.shape != (2, len(gradients)):
        raise InputError(f"inputs are {list(inputs.shape)}; give [2, {len(gradients)}], two for each gradient")
    with style():
        figure, axes = plt.subplots(figsize=(5, 2.9))
        axes.axvline(math.exp(-10), **THIN)
        for label, name, values, shift in (("size", "clean", inputs[0], -12), ("sign", "robust", inputs[1], 8)):
            axes.plot(gradients, values, color=role(name).colour, linestyle="-" if name == "clean" else "--")
            at = len(gradients) * 3 // 4
            where = {"xytext": (0, shift), "ha": "center", "va": "bottom" if shift > 0 else "top"}
            beside(axes, float(gradients[at]), float(values[at]), label, name, **where)
        axes.set(xscale="log", xlabel="gradient", ylabel="what the LSTM sees", ylim=(-1.3, 1.35))
        low, high = axes.get_xlim()
        axes.set_xticks([10.0**e for e in range(-12, 4, 2) if low <= 10.0**e <= high])
        axes.minorticks_off()
    return figure


def one_for_every_weight() -> Figure:
    """A learned optimizer at work: the same theta for every weight, and for each a memory of its own."""
    theta, colour = (2.8, 2.6), role("learned").colour
    with style():
        figure, axes = plt.subplots(figsize=(5.6, 3))
        for x, number in zip((0.5, 1.9, 3.3, 5.2), "₁₂₃ₙ", strict=True):
            arrow(axes, theta, (x, 1.5), colour, dashed=True)
            arrow(axes, (x - 0.35, 0.4), (x, 1.3), role("control").colour)
            arrow(axes, (x, 1.3), (x + 0.35, 0.4), colour)
            loop = {"arrowstyle": "->", "color": role("rule").colour, "connectionstyle": "arc3,rad=-1.6", "lw": 1.3}
            axes.annotate("", (x + 0.3, 1.2), (x + 0.3, 1.45), arrowprops=loop)
            axes.text(x + 0.68, 1.32, f"h{number}", ha="center", va="center", color=role("rule").ink)
            node(axes, x, 1.3, "LSTM", "learned", size=8)
            node(axes, x - 0.35, 0.4, f"g{number}", "control", size=8)
            node(axes, x + 0.35, 0.4, f"u{number}", "learned", size=8)
        node(axes, *theta, "θ", "learned", size=13)
        axes.text(4.3, 1.3, "…", ha="center", fontsize=14)
        beside(axes, *theta, "the same numbers\nfor every weight", "learned", xytext=(16, 4))
        axes.text(0, -0.3, "g: gradient", color=role("control").ink)
        axes.text(1.9, -0.3, "u: step", color=role("learned").ink)
        axes.text(3.3, -0.3, "h: memory, one for each", color=role("rule").ink)
        axes.set(xlim=(-0.2, 6.1), ylim=(-0.4, 3))
        axes.axis("off")
    return figure


def runs(curves: Mapping[str, tuple[str, Tensor]], *, mark: int | None = None, top: float = 4.0) -> Figure:
    """The loss on unseen images after each step, a curve per rule; what is above `top`, or no number, is drawn there.

    curves: label to (role, losses `[K]`). mark: the horizon of meta-training, drawn as a line.
    """
    drawn = {label: (name, losses.nan_to_num(top).clamp_max(top)) for label, (name, losses) in curves.items()}
    low = min(float(losses.min()) for _, losses in drawn.values()) / 1.3
    longest = max(len(losses) for _, losses in drawn.values())
    with style():
        figure, axes = plt.subplots(figsize=(5.4, 3.5))
        if mark is not None:
            axes.axvline(mark, **THIN)
            axes.text(mark, 1.03 * top, "meta-training horizon", va="bottom", ha="center", fontsize=10, color="#555555")
        for name, losses in drawn.values():
            how = line(name) | {"markevery": max(1, len(losses) // 8), "markersize": 5}
            axes.plot(range(1, len(losses) + 1), losses, **how)
        axes.set(yscale="log", xlabel="step", ylabel="loss on unseen images", ylim=(low, 1.02 * top))
        axes.set_xlim(0, longest)
        ticks(axes, "y", [t for t in (0.1, 0.2, 0.5, 1, 2, 5, 10) if low <= t <= top])
        name_ends(axes, longest, [(float(losses[-1]), label, name) for label, (name, losses) in drawn.items()])
    return figure
