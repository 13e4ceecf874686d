"""Images, what was done to them, and what a model says of them.

Every function returns a figure that pyplot knows, so that a notebook cell ends with `plt.show()`.
"""

from collections.abc import Callable, Sequence

import matplotlib.pyplot as plt
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

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
        shape = list(pixels.shape)
        raise InputError(f"an image has shape {shape}; give [channels, height, width] with 1 or 3 channels")
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


def _frame(axes: Axes, caption: str, name: str | None) -> None:
    axes.set(xticks=[], yticks=[])
    axes.grid(visible=False)
    axes.spines[:].set_visible(True)
    axes.spines[:].set_color("#B0B0B0")
    axes.set_title(caption, loc="center", color=role(name).ink if name else "black")
