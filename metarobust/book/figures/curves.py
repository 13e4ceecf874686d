"""Lines and pictures that explain an attack: the ball in the plane, what adds up, accuracy against eps."""

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from torch import Tensor

from metarobust.book.figures.style import beside, line, percent, role, style


def ball_in_the_plane(eps: float = 0.1, points: int = 40, seed: int = 0) -> Figure:
    """An image of two pixels, all images within eps of it, a border between two classes, and the corner that crosses.

    The border is w . x = t with w = (1, 1), placed so that only the corner beyond it is misread.
    """
    centre = torch.tensor([0.42, 0.45])
    border = float(centre.sum()) + 1.6 * eps
    noise = torch.rand(points, 2, generator=torch.Generator().manual_seed(seed)) * 2 - 1
    noise = noise[noise.sum(1) < 1.5]  # a border that random points do not cross
    corner = centre + eps
    paper = {"facecolor": "white", "edgecolor": "none", "pad": 1, "alpha": 0.85}
    with style():
        figure, axes = plt.subplots(figsize=(4.6, 3.9))
        low, high = float(centre.min()) - 2.6 * eps, float(centre.max()) + 2.6 * eps
        axes.fill_between(
            [low, high], [border - low, border - high], high, color=role("robust").colour, alpha=0.12, lw=0
        )
        axes.plot([low, high], [border - low, border - high], color=role("reference").colour)
        axes.add_patch(
            Rectangle(tuple((centre - eps).tolist()), 2 * eps, 2 * eps, fill=False, lw=2, ec=role("clean").colour)
        )
        axes.plot(*(centre + eps * noise).T, linestyle="", marker="x", color=role("control").colour)
        axes.annotate("", corner.tolist(), centre.tolist(), arrowprops={"arrowstyle": "->", "lw": 2})
        axes.plot(*centre, "o", color=role("clean").colour, ms=9)
        axes.plot(*corner, "s", color=role("robust").colour, ms=9)
        beside(axes, *centre.tolist(), "the image x", "clean", xytext=(-8, 4), ha="right", bbox=paper)
        beside(axes, float(corner[0]), float(corner[1]), "x + δ", "robust")
        ball = (float(centre[0] - eps), float(centre[1] - eps))
        beside(axes, *ball, "the ball: no pixel moves\nby more than eps", "clean", xytext=(0, -5), va="top")
        axes.text(high, high - 0.1 * eps, "read as another class ", ha="right", va="top", color=role("robust").ink)
        axes.text(low, low + 0.1 * eps, " read correctly", va="bottom", color=role("clean").ink)
        axes.set(xlim=(low, high), ylim=(low, high), xlabel="pixel 1", ylabel="pixel 2", aspect="equal")
        axes.grid(visible=False)
    return figure


def random_against_aimed(random: Tensor, aimed: float) -> Figure:
    """How far changes of one size move a score: a histogram of random ones, and the one that was aimed."""
    with style():
        figure, axes = plt.subplots(figsize=(5, 2.8))
        axes.hist(random.tolist(), bins=25, color=role("control").colour)
        axes.axvline(aimed, color=role("robust").colour, lw=3)
        top = axes.get_ylim()[1]
        axes.text(float(random.mean()), 1.03 * top, "random", ha="center", color=role("control").ink)
        axes.text(aimed, 1.03 * top, "aimed", ha="center", color=role("robust").ink)
        axes.set(xlabel="how far the score moves, w · δ", ylabel="random changes")
        axes.grid(visible=False, axis="x")
    return figure


def accuracy_against_eps(
    eps: Sequence[float], curves: Mapping[str, tuple[str, Sequence[float]]], *, mark: float | None = None
) -> Figure:
    """Accuracy against the size of the change. curves: label to (role, shares in [0, 1]). mark: an eps to point out."""
    with style():
        figure, axes = plt.subplots(figsize=(5.2, 3.4))
        if mark is not None:
            axes.axvline(mark, color="#B0B0B0", lw=1)
            axes.text(mark, 1.06, f"eps {mark:g}", ha="center", va="bottom", fontsize=10)
        for name, shares in curves.values():
            axes.plot(eps, shares, **line(name))
        _labels_at_the_end(axes, float(eps[-1]), curves)
        axes.set(xlabel="eps: how far every pixel may move", ylabel="test images read correctly")
        percent(axes)
    return figure


def _labels_at_the_end(axes: Axes, x: float, curves: Mapping[str, tuple[str, Sequence[float]]]) -> None:
    """Labels right of the lines, pushed apart where lines end close together, in the order of the lines."""
    placed = -1.0
    for label, (name, shares) in sorted(curves.items(), key=lambda item: (item[1][1][-1], sum(item[1][1]))):
        placed = max(shares[-1], placed + 0.085)
        beside(axes, x, placed, label, name)
