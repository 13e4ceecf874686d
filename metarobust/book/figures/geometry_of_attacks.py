"""Figures of the geometry of attacks: balls of several norms, and the surface of the margin around an image.

    ball of p:   { d : (|d_1|^p + |d_2|^p)^(1/p) <= 1 }
    worst of p:  d_i proportional to sign(w_i) |w_i|^(q - 1),   1/p + 1/q = 1,   where w . d = ||w||_q
    surface:     x(s, t) = clip( x + s * across + t * up ),     across and up share no pixel

In the plane of two pixels a straight border meets a ball in its worst point (Hoelder's inequality and its case of
equality). The surface is of an image with two knobs, each of which moves a group of pixels of its own: the slice of an
L-infinity ball is then exactly a square, that of an L2 ball an ellipse, and a walk that turns the knobs stays in the
picture. Nothing is projected.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass

import matplotlib.pyplot as plt
import torch
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap, TwoSlopeNorm
from matplotlib.figure import Figure
from matplotlib.patches import Ellipse, Rectangle
from torch import Tensor

from metarobust.attacks.losses import margin
from metarobust.book.figures.images import Predict
from metarobust.book.figures.lines import shares, traces
from metarobust.book.figures.slider import Drawing, live, slider
from metarobust.book.figures.style import beside, role, style
from metarobust.errors import InputError

__all__ = [
    "NORMS", "at_step", "ball_of", "between", "live", "shares", "slider", "surface", "three_balls", "traces",
    "turned_into",
]  # fmt: skip

NORMS = 1.0, 1.4, 2.0, 4.0, math.inf
"""What a slider steps through, from the diamond over the circle to the square."""
HEIGHT = LinearSegmentedColormap.from_list("height", ["#5B9DC6", "#FFFFFF", "#EE9A5C"])
"""Heights of the margin: blue where the image is read correctly, orange where it is not, white at the border."""
PAPER = {"facecolor": "white", "edgecolor": "none", "pad": 1, "alpha": 0.85}
Walks = Mapping[str, tuple[str, Tensor]]
"""Label to (role, positions of the two knobs `[k, 2]`)."""


def worst(w: Tensor, p: float) -> Tensor:
    """The point of the unit ball of the norm p at which `w . d` is largest: `[n]`, for w `[n]`.

    With p 1 the largest entry of w takes all; where several are largest, the first.

    Raises:
        InputError: p is below 1, which is no norm, or w has no entry that counts.
    """
    if not p >= 1:
        raise InputError(f"p is {p:g}; below 1 it is no norm: give 1 to infinity")
    if not bool(w.abs().max() > 0):
        raise InputError("w is 0 everywhere and prefers no direction: give one with an entry above or below 0")
    if p == 1:
        sizes = torch.zeros_like(w)
        sizes[w.abs().argmax()] = 1
    else:
        sizes = torch.ones_like(w) if math.isinf(p) else (w.abs() / w.abs().max()) ** (1 / (p - 1))  # q - 1
    return w.sign() * sizes / torch.linalg.vector_norm(sizes, p)


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
    first, second = worst(w, p).tolist()
    gain = float(w @ worst(w, p))
    with style():
        figure, axes = plt.subplots(figsize=(3, 3))
        _ball(axes, w, p)
        beside(axes, first, second, "δ", "robust", fontsize=13)
        axes.set(xlabel="pixel 1", ylabel="pixel 2", xticks=[-1, 0, 1], yticks=[-1, 0, 1])
        axes.set_title(f"{_name(p)}: score moves by {gain:.2f}")
    says = f"{_name(p)}: pixel 1 moves by {first:.2f}, pixel 2 by {second:.2f}, and the score by {gain:.2f}"
    return Drawing(
        figure, says, f"The unit ball of {_name(p)} and the point of it at which the score is highest. {says}"
    )


def outline(p: float, points: int = 400) -> Tensor:
    """Points around the unit ball of the norm p in the plane: `[points, 2]`."""
    turn = torch.linspace(0, 2 * math.pi, points)
    circle = torch.stack([turn.cos(), turn.sin()], 1)
    return circle / torch.linalg.vector_norm(circle, p, dim=1, keepdim=True)


def _ball(axes: Axes, w: Tensor, p: float) -> None:
    best, around = worst(w, p), outline(p)
    # The line of all d with the same score as the best: it touches the ball there, and nowhere enters it.
    along = torch.tensor([-w[1], w[0]]) / w.norm()
    ends = torch.stack([best - 4 * along, best + 4 * along])
    clean, robust, reference = role("clean"), role("robust"), role("reference")
    axes.fill(*around.T, facecolor=clean.colour, alpha=0.15)
    axes.plot(*around.T, color=clean.colour)
    axes.plot(*ends.T, color=reference.colour, linestyle=reference.line, lw=1.2)
    axes.annotate("", best.tolist(), (0, 0), arrowprops={"arrowstyle": "->", "lw": 2})
    axes.plot(*best, robust.marker, color=robust.colour, ms=8)
    axes.plot(0, 0, clean.marker, color=clean.colour, ms=7)
    axes.set(xlim=(-1.45, 1.45), ylim=(-1.45, 1.45), aspect="equal")
    axes.grid(visible=False)


def _name(p: float) -> str:
    return "L∞" if math.isinf(p) else f"L{p:g}"


def turned_into(share: Tensor) -> Figure:
    """Which digit can be turned into which. share: `[classes, classes]`, from row to column, of 1; NaN for no pair.

    Cells from a tenth up have their number; the others are told by their colour.
    """
    with style():
        figure, axes = plt.subplots(figsize=(3.9, 3.7))
        axes.imshow(share.numpy(), cmap="Oranges", vmin=0, vmax=1)
        for i, row in enumerate(share.tolist()):
            for j, value in enumerate(row):
                text = "·" if math.isnan(value) else f"{100 * value:.0f}" if value >= 0.1 else ""
                axes.text(j, i, text, ha="center", va="center", fontsize=8, color="white" if value > 0.6 else "black")
        axes.set(xticks=range(len(share)), yticks=range(len(share)), title="per cent of images turned, from 10 up")
        axes.set(xlabel="the attack wants", ylabel="the image shows")
        axes.grid(visible=False)
        axes.tick_params(length=0)
        axes.spines[:].set_visible(False)
    return figure


@dataclass(frozen=True)
class Slice:
    """image, across, up: `[1, C, H, W]`; a knob at eps moves a pixel of its group by eps times its entry, ±1 mostly."""

    image: Tensor
    across: Tensor
    up: Tensor

    def at(self, knobs: Tensor) -> Tensor:
        """The images `[n, C, H, W]` at these positions of the knobs `[n, 2]`; differentiable."""
        s, t = (knobs[:, k].view(-1, 1, 1, 1) for k in (0, 1))
        return (self.image + s * self.across + t * self.up).clamp(0, 1)


def between(image: Tensor, one: Tensor, other: Tensor, eps: float) -> Slice:
    """The slice that holds `one` at (eps, eps), and at (eps, -eps) what comes nearest to `other`.

    The first knob moves the pixels on whose direction the two agree, the second those on which they do not.

    Args:
        image: `[1, C, H, W]`, as are `one` and `other`, two changes of it.
        one: The change that the slice holds.
        other: The change that it comes near to.
        eps: How far either moves a pixel.

    Raises:
        InputError: they agree on all pixels, or on none.
    """
    first, second = (one - image) / eps, (other - image) / eps
    agree = (first * second > 0).to(image.dtype)
    across, up = first * agree, first * (1 - agree)
    if not bool(across.any()) or not bool(up.any()):
        raise InputError("the two changes agree on every pixel or on none, so one knob moves nothing: give two others")
    return Slice(image, across, up)


@torch.no_grad()
def heights(predict: Predict, label: Tensor, cut: Slice, half: float, points: int = 61) -> tuple[Tensor, Tensor]:
    """Knob positions `[points]` from -half to half, and the margin at each pair `[points, points]`, rows going up."""
    knob = torch.linspace(-half, half, points)
    s, t = torch.meshgrid(knob, knob, indexing="xy")
    logits = predict(cut.at(torch.stack([s.flatten(), t.flatten()], 1)))
    return knob, margin(logits, label.expand(len(logits))).view(points, points)


def surface(
    predict: Predict, label: Tensor, cut: Slice, *, eps: float, l2: float | None = None, paths: Walks | None = None
) -> Figure:
    """The margin over both knobs, the border, the balls, and walks.

    Args:
        predict: Images `[n, C, H, W]` to logits.
        label: `[1]`.
        cut: The slice.
        eps: Of the square.
        l2: Radius of the ellipse; None for none.
        paths: The walks.
    """
    with style():
        figure, axes = plt.subplots(figsize=(4.4, 3.7))
        ground(axes, predict, label, cut, eps, l2)
        for label_of, (name, walk) in (paths or {}).items():
            _walk(axes, walk, name)
            beside(axes, *walk[-1].tolist(), label_of, name, bbox=PAPER)
    return figure


def at_step(predict: Predict, label: Tensor, cut: Slice, paths: Walks, step: int, *, eps: float) -> Drawing:
    """One frame of the slider over steps: each walk up to this step, and what the model says where it stands."""
    says = [f"step {step}"]
    with style():
        figure, axes = plt.subplots(figsize=(3.2, 2.9))
        ground(axes, predict, label, cut, eps, None)
        for label_of, (name, walk) in paths.items():
            with torch.no_grad():
                logits = predict(cut.at(walk[min(step, len(walk) - 1)][None]))
            _walk(axes, walk[: step + 1], name)
            says.append(f"{label_of}: margin {float(margin(logits, label)):+.1f}, read as {int(logits.argmax())}")
        axes.set_title(f"step {step}")
    text = "; ".join(says)
    return Drawing(figure, text, f"Two walks on the surface of the margin after {step} steps. {text}")


def ground(axes: Axes, predict: Predict, label: Tensor, cut: Slice, eps: float, l2: float | None) -> None:
    """The margin, the border and the balls of one panel; the arguments are those of `surface`."""
    knob, height = heights(predict, label, cut, 1.6 * eps)
    low, high = min(float(height.min()), -1e-6), max(float(height.max()), 1e-6)
    axes.contourf(knob, knob, height, levels=10, cmap=HEIGHT, norm=TwoSlopeNorm(0, low, high))
    if low < 0 < high:
        axes.contour(knob, knob, height, levels=[0], colors=role("reference").colour, linewidths=1.6)
    clean = role("clean")
    axes.add_patch(Rectangle((-eps, -eps), 2 * eps, 2 * eps, fill=False, lw=2, ec=clean.ink))
    if l2 is not None:
        wide, tall = (2 * l2 / float(group.norm()) for group in (cut.across, cut.up))
        axes.add_patch(Ellipse((0, 0), wide, tall, fill=False, lw=2, ls=":", ec=clean.ink))
        axes.text(0, tall / 2 + 0.03 * eps, f"L2, radius {l2:g}", ha="center", va="bottom", fontsize=9)
    axes.text(-eps, 1.04 * eps, f"L∞, eps {eps:g}", ha="left", va="bottom", fontsize=9)
    axes.plot(0, 0, clean.marker, color=clean.ink, ms=7)
    axes.set(xlabel="knob of the first group of pixels", ylabel="knob of the second group", aspect="equal")
    axes.set(xticks=[-eps, 0, eps], yticks=[-eps, 0, eps])
    axes.grid(visible=False)


def _walk(axes: Axes, walk: Tensor, name: str) -> None:
    look = role(name)
    axes.plot(*walk.T, color=look.ink, linestyle=look.line, marker=look.marker, ms=4, lw=1.5)
    axes.plot(*walk[-1], look.marker, color=look.colour, mec="white", ms=9)
