"""A loss surface that can be seen whole: an image with two knobs, each of which moves a group of pixels of its own.

    x(s, t) = clip( x + s * across + t * up ),       across and up share no pixel

So the slice of an L-infinity ball is exactly a square, and that of an L2 ball an ellipse, and a walk that turns the
knobs stays in the picture. Nothing is projected. (A plane through arbitrary points would cut the ball askew, and a walk
through all pixels would leave it.)
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import matplotlib.pyplot as plt
import torch
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap, TwoSlopeNorm
from matplotlib.figure import Figure
from matplotlib.patches import Ellipse, Rectangle
from torch import Tensor

from metarobust.attacks.losses import margin
from metarobust.book.figures.slider import Drawing
from metarobust.book.figures.style import beside, role, style
from metarobust.errors import InputError

Predict = Callable[[Tensor], Tensor]
HEIGHT = LinearSegmentedColormap.from_list("height", ["#5B9DC6", "#FFFFFF", "#EE9A5C"])
"""Heights of the margin: blue where the image is read correctly, orange where it is not, white at the border."""


@dataclass(frozen=True)
class Slice:
    """image, across, up: `[1, C, H, W]`; a knob at eps moves a pixel of its group by eps times its entry, ±1 mostly."""

    image: Tensor
    across: Tensor
    up: Tensor

    def __post_init__(self) -> None:
        if bool((self.across * self.up).any()):
            raise InputError("across and up move the same pixel, and a ball would be no square: give disjoint groups")

    def at(self, knobs: Tensor) -> Tensor:
        """The images `[n, C, H, W]` at these positions of the knobs `[n, 2]`; differentiable."""
        s, t = (knobs[:, k].view(-1, 1, 1, 1) for k in (0, 1))
        return (self.image + s * self.across + t * self.up).clamp(0, 1)


def between(image: Tensor, one: Tensor, other: Tensor, eps: float) -> Slice:
    """The slice that holds `one` at (eps, eps), and at (eps, -eps) what comes nearest to `other`.

    image, one, other: `[1, C, H, W]`. The first knob moves the pixels on whose direction the two agree, the second
    those on which they do not. Raises InputError where they agree on all of them, or on none.
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
    predict: Predict,
    label: Tensor,
    cut: Slice,
    *,
    eps: float,
    l2: float | None = None,
    paths: Mapping[str, tuple[str, Tensor]] | None = None,
) -> Figure:
    """The margin over both knobs, the border, the balls, and walks. label: `[1]`. eps: of the square. l2: of the
    ellipse, None for none. paths: label to (role, knob positions `[k, 2]`).
    """
    with style():
        figure, axes = plt.subplots(figsize=(4.4, 3.7))
        _ground(axes, predict, label, cut, eps, l2)
        for name, (how, walk) in (paths or {}).items():
            _walk(axes, walk, how)
            beside(axes, *walk[-1].tolist(), name, how, bbox=PAPER)
    return figure


def at_step(
    predict: Predict, label: Tensor, cut: Slice, paths: Mapping[str, tuple[str, Tensor]], step: int, *, eps: float
) -> Drawing:
    """One frame of the slider over steps: each walk up to this step, and what the model says where it stands."""
    told = []
    with style():
        figure, axes = plt.subplots(figsize=(3.2, 2.9))
        _ground(axes, predict, label, cut, eps, None)
        for name, (how, walk) in paths.items():
            here = walk[min(step, len(walk) - 1)][None]
            with torch.no_grad():
                logits = predict(cut.at(here))
            _walk(axes, walk[: step + 1], how)
            told.append(f"{name}: margin {float(margin(logits, label)):+.1f}, read as {int(logits.argmax())}")
        axes.set_title(f"step {step}")
    said = f"step {step}; " + "; ".join(told)
    return Drawing(figure, said, f"Two walks on the surface of the margin after {step} steps. {said}")


PAPER = {"facecolor": "white", "edgecolor": "none", "pad": 1, "alpha": 0.85}


def _ground(axes: Axes, predict: Predict, label: Tensor, cut: Slice, eps: float, l2: float | None) -> None:
    knob, height = heights(predict, label, cut, 1.6 * eps)
    low, high = min(float(height.min()), -1e-6), max(float(height.max()), 1e-6)
    axes.contourf(knob, knob, height, levels=10, cmap=HEIGHT, norm=TwoSlopeNorm(0, low, high))
    if low < 0 < high:
        axes.contour(knob, knob, height, levels=[0], colors=role("reference").colour, linewidths=1.6)
    axes.add_patch(Rectangle((-eps, -eps), 2 * eps, 2 * eps, fill=False, lw=2, ec=role("clean").ink))
    if l2 is not None:
        wide, tall = (2 * l2 / float(group.norm()) for group in (cut.across, cut.up))
        axes.add_patch(Ellipse((0, 0), wide, tall, fill=False, lw=2, ls=":", ec=role("clean").ink))
        axes.text(0, tall / 2 + 0.03 * eps, f"L2, radius {l2:g}", ha="center", va="bottom", fontsize=9)
    axes.text(-eps, 1.04 * eps, f"L∞, eps {eps:g}", ha="left", va="bottom", fontsize=9)
    axes.plot(0, 0, role("clean").marker, color=role("clean").ink, ms=7)
    axes.set(
        xlabel="knob of the first group of pixels", ylabel="knob of the second group", aspect="equal",
        xticks=[-eps, 0, eps], yticks=[-eps, 0, eps],
    )  # fmt: skip
    axes.grid(visible=False)


def _walk(axes: Axes, walk: Tensor, how: str) -> None:
    look = role(how)
    axes.plot(*walk.T, color=look.ink, linestyle=look.line, marker=look.marker, ms=4, lw=1.5)
    axes.plot(*walk[-1], look.marker, color=look.colour, mec="white", ms=9)
