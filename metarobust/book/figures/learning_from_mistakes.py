"""Figures of "Learn from mistakes once": what a patch does to a network."""

from collections.abc import Mapping

import matplotlib.pyplot as plt
import torch
from matplotlib.figure import Figure
from torch import Tensor

from metarobust.book.figures.results import frontier, headline, reading, shown
from metarobust.book.figures.style import THIN, name_ends, percent, role, style
from metarobust.errors import InputError
from metarobust.params import ParamSpec

__all__ = ["frontier", "headline", "kept", "kept_weights", "pixel_spread", "reading", "shown"]


def kept(layout: ParamSpec, before: Tensor, after: Tensor) -> Tensor:
    """What is left of the first layer's weights on each input, as a share of their length: `[inputs]`.

    before, after: parameters `[T, N]` of T models of one architecture whose first weight is a matrix `[units, inputs]`.
    The length is taken over all units and all models together.
    """
    shapes = dict(zip(layout.names, layout.shapes, strict=True))
    first = next((name for name, shape in shapes.items() if len(shape) >= 2), None)
    if first is None or len(shapes[first]) != 2:
        raise InputError("the first layer shares its weights between pixels; give a model whose first layer is Linear")
    old, new = (layout.split(params.detach())[first].flatten(0, -2).norm(dim=0) for params in (before, after))
    return new / old


def kept_weights(spread: Tensor, shares: Mapping[str, tuple[str, Tensor]]) -> Figure:
    """What is left of the weights on each pixel, against how much the pixel varies between images.

    spread: standard deviation of each pixel `[inputs]`. shares: label to (role, what `kept` gave).
    """
    lively = spread >= spread.quantile(0.8)
    with style():
        figure, axes = plt.subplots(figsize=(5, 3.4))
        axes.axhline(1, **THIN)
        for name, left in shares.values():
            how = role(name)
            axes.plot(spread, left, linestyle="", color=how.colour, marker=how.marker, ms=5.5, mew=0.6, mec="white")
        percent(axes)
        axes.set_ylim(-0.03, max(1.15, 1.05 * max(float(left.max()) for _, left in shares.values())))
        axes.set(xlabel="how much a pixel varies (standard deviation)", ylabel="weight that is left")
        ends = [(float(left[lively].mean()), label, name) for label, (name, left) in shares.items()]
        name_ends(axes, float(spread.max()), ends)
    return figure


def pixel_spread(images: Tensor) -> Tensor:
    """The standard deviation of each pixel over images `[n, C, H, W]`: `[C * H * W]`."""
    return images.flatten(1).std(0) if len(images) > 1 else torch.zeros(images[0].numel())
