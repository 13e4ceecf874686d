"""What a patch did to a network, and what a learned rule answers: figures that look inside."""

from collections.abc import Mapping

import matplotlib.pyplot as plt
import torch
from matplotlib.figure import Figure
from torch import Tensor

from metarobust.book.figures.style import percent, role, style
from metarobust.errors import InputError
from metarobust.params import ParamSpec


def kept(layout: ParamSpec, before: Tensor, after: Tensor) -> Tensor:
    """What is left of the first layer's weights on each input, as a share of their length: `[inputs]`.

    before, after: parameters `[T, N]` of T models of one architecture whose first weight is a matrix `[units, inputs]`.
    The length is taken over all units and all models together.
    """
    first = next((n for n, shape in zip(layout.names, layout.shapes, strict=True) if len(shape) >= 2), None)
    if first is None or len(dict(zip(layout.names, layout.shapes, strict=True))[first]) != 2:
        raise InputError("the first layer shares its weights between pixels; give a model whose first layer is Linear")
    old, new = (layout.split(params.detach())[first].flatten(0, -2).norm(dim=0) for params in (before, after))
    return new / old


def kept_weights(spread: Tensor, shares: Mapping[str, tuple[str, Tensor]]) -> Figure:
    """What is left of the weights on each pixel, against how much the pixel varies between images.

    spread: standard deviation of each pixel `[inputs]`. shares: label to (role, what `kept` gave).
    """
    with style():
        figure, axes = plt.subplots(figsize=(5, 3.4))
        axes.axhline(1, color="#B0B0B0", lw=1)
        ends = []
        for label, (name, left) in shares.items():
            how = role(name)
            axes.plot(spread, left, linestyle="", color=how.colour, marker=how.marker, ms=5.5, mew=0.6, mec="white")
            top = spread >= spread.quantile(0.8)
            ends.append((float(left[top].mean()), label, how.ink))
        placed = -1.0
        for height, label, ink in sorted(ends):
            placed = max(height, placed + 0.09)
            axes.annotate(label, (1.02, placed), xycoords=("axes fraction", "data"), color=ink, va="center")
        percent(axes)
        axes.set_ylim(-0.03, max(1.15, 1.05 * max(float(left.max()) for _, left in shares.values())))
        axes.set(xlabel="how much a pixel varies (standard deviation)", ylabel="weight that is left")
    return figure


def pixel_spread(images: Tensor) -> Tensor:
    """The standard deviation of each pixel over images `[n, C, H, W]`: `[C * H * W]`."""
    return images.flatten(1).std(0) if len(images) > 1 else torch.zeros(images[0].numel())
