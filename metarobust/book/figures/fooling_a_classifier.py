"""Figures of "Fool a classifier": the ball in the plane, what adds up, an image at each eps."""

from collections.abc import Callable

import matplotlib.pyplot as plt
import torch
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from torch import Tensor

from metarobust.book.figures.images import Predict, row, says, show, show_change
from metarobust.book.figures.lines import shares
from metarobust.book.figures.slider import Drawing, live, slider
from metarobust.book.figures.style import beside, role, style

__all__ = [
    "at_eps", "ball_in_the_plane", "before_and_after", "live", "random_against_aimed", "row", "says", "shares",
    "slider",
]  # fmt: skip


def before_and_after(
    images: Tensor, moved: Tensor, labels: Tensor, predict: Predict, *, limit: float | None = None
) -> Figure:
    """For each image `[n, C, H, W]` a row: the image, the change, the changed image, and what the model says of them.

    limit: the change at which the colour is full; the largest change if None.
    """
    change = moved - images
    limit = limit or float(change.abs().max()) or 1.0
    sides = [list(zip(*says(predict, x), strict=True)) for x in (images, moved)]
    with style():
        figure, grid = plt.subplots(len(images), 3, figsize=(5, 2.15 * len(images)), squeeze=False)
        for i, (left, middle, right) in enumerate(grid):
            show_change(middle, change[i], limit, f"change,\nat most {float(change[i].abs().max()):.2f}")
            for axes, image, (answer, sure) in ((left, images[i], sides[0][i]), (right, moved[i], sides[1][i])):
                name = "clean" if answer == int(labels[i]) else "robust"
                show(axes, image, f"“{answer}”,\n{100 * sure:.0f} % sure", name=name)
    return figure


def ball_in_the_plane(eps: float = 0.1, points: int = 40, seed: int = 0) -> Figure:
    """An image of two pixels, all images within eps of it, a border between two classes, and the corner that crosses.

    The border is w . x = t with w = (1, 1), placed so that only the corner beyond it is misread.
    """
    centre = torch.tensor([0.42, 0.45])
    border, corner = float(centre.sum()) + 1.6 * eps, centre + eps
    noise = torch.rand(points, 2, generator=torch.Generator().manual_seed(seed)) * 2 - 1
    noise = noise[noise.sum(1) < 1.5]  # a border that random points do not cross
    paper = {"facecolor": "white", "edgecolor": "none", "pad": 1, "alpha": 0.85}
    clean, robust = role("clean"), role("robust")
    with style():
        figure, axes = plt.subplots(figsize=(4.6, 3.9))
        low, high = float(centre.min()) - 2.6 * eps, float(centre.max()) + 2.6 * eps
        axes.fill_between([low, high], [border - low, border - high], high, color=robust.colour, alpha=0.12, lw=0)
        axes.plot([low, high], [border - low, border - high], color=role("reference").colour)
        least = (float(centre[0] - eps), float(centre[1] - eps))
        axes.add_patch(Rectangle(least, 2 * eps, 2 * eps, fill=False, lw=2, ec=clean.colour))
        axes.plot(*(centre + eps * noise).T, linestyle="", marker="x", color=role("control").colour)
        axes.annotate("", corner.tolist(), centre.tolist(), arrowprops={"arrowstyle": "->", "lw": 2})
        axes.plot(*centre, "o", color=clean.colour, ms=9)
        axes.plot(*corner, "s", color=robust.colour, ms=9)
        beside(axes, *centre.tolist(), "the image x", "clean", xytext=(-8, 4), ha="right", bbox=paper)
        beside(axes, float(corner[0]), float(corner[1]), "x + δ", "robust")
        beside(axes, *least, "the ball: no pixel moves\nby more than eps", "clean", xytext=(0, -5), va="top")
        axes.text(high, high - 0.1 * eps, "read as another class ", ha="right", va="top", color=robust.ink)
        axes.text(low, low + 0.1 * eps, " read correctly", va="bottom", color=clean.ink)
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


def at_eps(predict: Predict, image: Tensor, label: Tensor, attack: Callable[..., Tensor], eps: float) -> Drawing:
    """One frame of the slider over eps: the attacked image and the probability of every class.

    image, label: a batch of one, `[1, C, H, W]` and `[1]`. attack: one of `metarobust.attacks`, or another that is
    called as `attack(predict, image, label, eps=eps)`.
    """
    moved, right_class = attack(predict, image, label, eps=eps), int(label)
    with torch.no_grad():
        sure = predict(moved).softmax(1)[0].cpu()
    answer = int(sure.argmax())
    names = ["clean" if k == right_class else "robust" if k == answer else "control" for k in range(len(sure))]
    with style():
        figure, (left, right) = plt.subplots(1, 2, figsize=(4.6, 2.5), width_ratios=(1, 1.1))
        show(left, moved[0], f"eps {eps:.2f}", name="clean" if answer == right_class else "robust")
        right.barh(range(len(sure)), sure.tolist(), color=[role(name).colour for name in names])
        right.set(yticks=range(len(sure)), xlim=(0, 1), xticks=[0, 0.5, 1], title="how sure of each class")
        right.set_xticklabels(["0 %", "50 %", "100 %"])
        right.grid(visible=False, axis="y")
        right.tick_params(axis="y", labelsize=9)
    text = f"eps {eps:.2f}: the model says {answer}, {100 * float(sure[answer]):.0f} % sure"
    wrong = "right" if answer == right_class else f"wrong, it is {right_class}"
    alt = f"The digit {right_class} with every pixel moved by up to {eps:.2f}; {text}"
    return Drawing(figure, f"{text} ({wrong})", alt)
