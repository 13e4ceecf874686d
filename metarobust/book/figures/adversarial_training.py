"""Figures of adversarial training: shares of images, of runs on the page and of recorded ones, and borders."""

from collections.abc import Mapping

import matplotlib.pyplot as plt
from matplotlib.figure import Figure
from torch import Tensor

from metarobust.book.figures.geometry_of_attacks import Slice, between, ground
from metarobust.book.figures.images import Predict
from metarobust.book.figures.lines import shares
from metarobust.book.figures.results import pick, points
from metarobust.book.figures.style import style

__all__ = ["between", "borders", "pick", "points", "shares"]


def borders(networks: Mapping[str, Predict], label: Tensor, cut: Slice, *, eps: float) -> Figure:
    """The margin around one image, side by side for several networks: white, and a line, where the answer turns.

    Args:
        networks: Title to network.
        label: Of the image, `[1]`.
        cut: The slice, the same for all.
        eps: Of the square.
    """
    with style():
        figure, grid = plt.subplots(1, len(networks), figsize=(6, 3.3), sharey=True)
        for axes, (title, predict) in zip(grid, networks.items(), strict=True):
            ground(axes, predict, label, cut, eps, None)
            axes.set(title=title, ylabel="", xlabel="")
        grid[0].set_ylabel("knob of the second group")
        figure.supxlabel("knob of the first group of pixels", fontsize=11)
    return figure
