"""Images, what was done to them, and what a model says of them.

Every function returns a figure that pyplot knows, so that a notebook cell ends with `plt.show()`.
"""

from collections.abc import Callable, Sequence

import matplotlib.pyplot as plt
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from metarobust.book.figures.slider import Drawing
from metarobust.book.figures.style import PERTURBATION, role, style
from metarobust.errors import InputError

Predict = Callable[[Tensor], Tensor]


def says(predict: Predict, images: Tensor) -> tuple[list[int], list[float]]:
    """The class a model takes each image `[n, C, H, W]` for, and the probability it gives that class."""
    with torch.no_grad():
        best = predict(images).softmax(1).max(1)
    return best.indices.tolist(), best.values.tolist()


def show(axes: Axes, image: Tensor, caption: str = "", *, name: str | None = None) -> None:
    """Draw one image `[C, H, W]` in [0, 1], grey or colour. name: the role whose colour the caption takes."""
    pixels = image.detach().cpu()
    if pixels.ndim != 3 or len(pixels) not in (1, 3):
        raise InputError(
            f"an image has shape {list(pixels.shape)}; give [channels, height, width] with 1 or 3 channels"
        )
    grey = {"cmap": "gray", "vmin": 0, "vmax": 1} if len(pixels) == 1 else {}
    axes.imshow((pixels[0] if grey else pixels.permute(1, 2, 0)).numpy(), **grey)
    _frame(axes, caption, name)


def show_change(axes: Axes, change: Tensor, limit: float, caption: str = "") -> None:
    """Draw what was added to an image: white is 0, orange brighter, purple darker, full colour at ± limit.

    Of a colour image the mean over its channels is drawn.
    """
    axes.imshow(change.detach().cpu().mean(0).numpy(), cmap=PERTURBATION, vmin=-limit, vmax=limit)
    _frame(axes, caption, None)


def row(images: Tensor, captions: Sequence[str], names: Sequence[str | None] | None = None) -> Figure:
    """Images `[n, C, H, W]` side by side, each under its caption; four are as many as a phone can show."""
    names = names or [None] * len(images)
    with style():
        figure, grid = plt.subplots(1, len(images), figsize=(1.25 * len(images), 1.9), squeeze=False)
        for axes, image, caption, name in zip(grid[0], images, captions, names, strict=True):
            show(axes, image, caption, name=name)
    return figure


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
            for axes, image, (found, sure) in ((left, images[i], sides[0][i]), (right, moved[i], sides[1][i])):
                name = "clean" if found == int(labels[i]) else "robust"
                show(axes, image, f"“{found}”,\n{100 * sure:.0f} % sure", name=name)
    return figure


def at_eps(predict: Predict, image: Tensor, label: Tensor, attack: Callable[..., Tensor], eps: float) -> Drawing:
    """One frame of the slider over eps: the attacked image and the probability of every class.

    image, label: a batch of one, `[1, C, H, W]` and `[1]`. attack: one of `metarobust.attacks`, or another that is
    called as `attack(predict, image, label, eps=eps)`.
    """
    moved, right_class = attack(predict, image, label, eps=eps), int(label)
    with torch.no_grad():
        shares = predict(moved).softmax(1)[0].cpu()
    found = int(shares.argmax())
    with style():
        figure, (left, right) = plt.subplots(1, 2, figsize=(4.6, 2.5), width_ratios=(1, 1.1))
        show(left, moved[0], f"eps {eps:.2f}", name="clean" if found == right_class else "robust")
        colours = [
            role("clean" if k == right_class else "robust" if k == found else "control").colour
            for k in range(len(shares))
        ]
        right.barh(range(len(shares)), shares.tolist(), color=colours)
        right.set(yticks=range(len(shares)), xlim=(0, 1), xticks=[0, 0.5, 1], title="how sure of each class")
        right.set_xticklabels(["0 %", "50 %", "100 %"])
        right.grid(visible=False, axis="y")
        right.tick_params(axis="y", labelsize=9)
    text = f"eps {eps:.2f}: the model says {found}, {100 * float(shares[found]):.0f} % sure"
    wrong = "right" if found == right_class else f"wrong, it is {right_class}"
    return Drawing(
        figure, f"{text} ({wrong})", f"The digit {right_class} with every pixel moved by up to {eps:.2f}; {text}"
    )


def _frame(axes: Axes, caption: str, name: str | None) -> None:
    axes.set(xticks=[], yticks=[])
    axes.grid(visible=False)
    axes.spines[:].set_visible(True)
    axes.spines[:].set_color("#B0B0B0")
    axes.set_title(caption, loc="center", color=role(name).ink if name else "black")
