"""Balls of several norms in the plane of two pixels, and the point of each that a straight border fears most.

    ball of p:   { d : (|d_1|^p + |d_2|^p)^(1/p) <= 1 }
    worst of p:  d_i proportional to sign(w_i) |w_i|^(q - 1),   1/p + 1/q = 1,   where w . d = ||w||_q

Source: Hoelder's inequality and its case of equality; any text on norms.
"""

import math

import matplotlib.pyplot as plt
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from metarobust.book.figures.slider import Drawing
from metarobust.book.figures.style import beside, role, style
from metarobust.errors import InputError

NORMS = 1.0, 1.4, 2.0, 4.0, math.inf
"""What a slider steps through, from the diamond over the circle to the square."""


def worst(w: Tensor, p: float) -> Tensor:
    """The point of the unit ball of the norm p at which `w . d` is largest: `[n]`, for w `[n]`.

    p from 1 to infinity. With p 1 the largest entry of w takes all; where several are largest, the first.
    Raises InputError for a p below 1, which is no norm, and for w without an entry that counts.
    """
    if not p >= 1:
        raise InputError(f"p is {p:g}; below 1 it is no norm: give 1 to infinity")
    if not bool(w.abs().max() > 0):
        raise InputError("w is 0 everywhere and prefers no direction: give one with an entry above or below 0")
    if p == 1:
        found = torch.zeros_like(w)
        found[w.abs().argmax()] = 1
    elif math.isinf(p):
        found = torch.ones_like(w)
    else:
        found = (w.abs() / w.abs().max()) ** (1 / (p - 1))  # q - 1 is 1 / (p - 1)
    return w.sign() * found / torch.linalg.vector_norm(found, p)


def three_balls(w: Tensor) -> Figure:
    """The unit balls of L1, L2 and L-infinity side by side, each with the point that raises w . d most. w: `[2]`."""
    with style():
        figure, grid = plt.subplots(1, 3, figsize=(6, 2.5), sharey=True)
        for axes, p in zip(grid, (1, 2, math.inf), strict=True):
            _ball(axes, w, p)
            axes.set_title(_name(p), loc="center")
            axes.set(xlabel="pixel 1", xticks=[-1, 0, 1], yticks=[-1, 0, 1])
        grid[0].set_ylabel("pixel 2")
    return figure


def ball_of(w: Tensor, p: float) -> Drawing:
    """One frame of the slider over p: the ball, the point that raises w . d most, and by how much. w: `[2]`."""
    best = worst(w, p)
    with style():
        figure, axes = plt.subplots(figsize=(3, 3))
        _ball(axes, w, p)
        beside(axes, float(best[0]), float(best[1]), "δ", "robust", fontsize=13)
        axes.set(xlabel="pixel 1", ylabel="pixel 2", xticks=[-1, 0, 1], yticks=[-1, 0, 1])
        axes.set_title(f"{_name(p)}: score moves by {float(w @ best):.2f}")
    first, second = (f"{float(part):.2f}" for part in best)
    said = f"{_name(p)}: pixel 1 moves by {first}, pixel 2 by {second}, and the score by {float(w @ best):.2f}"
    alt = f"The unit ball of {_name(p)} and the point of it at which the score is highest. {said}"
    return Drawing(figure, said, alt)


def outline(p: float, points: int = 400) -> Tensor:
    """Points around the unit ball of the norm p in the plane: `[points, 2]`."""
    turn = torch.linspace(0, 2 * math.pi, points)
    round_it = torch.stack([turn.cos(), turn.sin()], 1)
    return round_it / torch.linalg.vector_norm(round_it, p, dim=1, keepdim=True)


def _ball(axes: Axes, w: Tensor, p: float) -> None:
    best, around = worst(w, p), outline(p)
    # The line of all d with the same score as the best: it touches the ball there, and nowhere enters it.
    along = torch.tensor([-w[1], w[0]]) / w.norm()
    ends = torch.stack([best - 4 * along, best + 4 * along])
    axes.fill(*around.T, facecolor=role("clean").colour, alpha=0.15)
    axes.plot(*around.T, color=role("clean").colour)
    axes.plot(*ends.T, color=role("reference").colour, linestyle=role("reference").line, lw=1.2)
    axes.annotate("", best.tolist(), (0, 0), arrowprops={"arrowstyle": "->", "lw": 2})
    axes.plot(*best, role("robust").marker, color=role("robust").colour, ms=8)
    axes.plot(0, 0, role("clean").marker, color=role("clean").colour, ms=7)
    axes.set(xlim=(-1.45, 1.45), ylim=(-1.45, 1.45), aspect="equal")
    axes.grid(visible=False)


def _name(p: float) -> str:
    return "L∞" if math.isinf(p) else f"L{p:g}"
