"""Figures of "Learn from mistakes once": what a patch does to a network, and what it costs and buys.

The price reads tables of the experiment `trade-off`, whose parts differ in what robust accuracy counts for in the
meta-loss and where baselines are tuned. The lower of its two panels is of an attacker who may move pixels that say
something, and no others. Values are means over seeds with 95 % intervals.
"""

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import pandas as pd
import torch
from matplotlib.figure import Figure
from torch import Tensor

from metarobust.book.figures.results import frontier, headline, reading, shown
from metarobust.book.figures.style import THIN, as_percent, label_column, name_ends, percent, role, style
from metarobust.errors import InputError, choose
from metarobust.lab.results import BEFORE, LEARNED, REFERENCE, Interval, interval, select
from metarobust.lab.results import accuracy as accuracy_of
from metarobust.params import ParamSpec

__all__ = [
    "accuracy", "frontier", "headline", "kept", "kept_weights", "pixel_spread", "prices", "reading", "shown", "weights",
]  # fmt: skip

CONFINED = "on speaking pixels"
KINDS = {
    "none": ("clean", ""),
    "worst": ("any pixel", "worst case"),
    "standard": ("any pixel, by the standard ensemble", "ensemble"),
    CONFINED: ("speaking pixels only", "single"),
}
"""A kind of attack to what it is called, and to the scope of its rows."""
ROLES = {BEFORE: "control", LEARNED: "learned", "std-prune": "rule", REFERENCE: "reference"}


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


def weights(frame: pd.DataFrame) -> dict[str, float]:
    """Part to weight, the largest first. Raises InputError where no part is of a weight."""
    parts = {f"patch, weight {weight:g}": weight for weight in (0.5, 0.25, 0.1)}
    return {part: parts[part] for part in parts if part in set(select(frame, part=list(parts))["part"])}


def accuracy(frame: pd.DataFrame, part: str, model: str, method: str, kind: str) -> Interval:
    """Mean and half the width of its interval, over seeds. kind: of KINDS. Raises InputError where it is missing."""
    name, scope = KINDS[choose(kind, KINDS, "kind of attack")]
    rows = select(select(frame, part=part), model=model, method=method)
    rows = rows[rows["attack"].str.contains(CONFINED, regex=False) == (kind == CONFINED)]
    values = accuracy_of(rows, "robust" if scope else "clean", scope=scope)
    if values.empty:
        raise InputError(f"no accuracy ({name}) of {method!r} on {model!r} in {part!r}: check what was given")
    return interval(values)


def prices(frame: pd.DataFrame, model: str, methods: Sequence[str] = tuple(ROLES)) -> Figure:
    """Two panels, any pixel above and speaking pixels below: up and to the right is better.

    Points of a method are joined from the largest weight to the smallest, and the learned ones named by their weight.
    Raises InputError where there is no weight, network or method of this name.
    """
    parts = weights(frame)
    with style():
        figure, grid = plt.subplots(2, 1, figsize=(5.2, 5.6), sharex=True)
        for axes, kind in zip(grid, ("worst", CONFINED), strict=True):
            ends = []
            for method in methods:
                how = role(ROLES.get(method, "rule"))
                clean, robust = ([accuracy(frame, p, model, method, of) for p in parts] for of in ("none", kind))
                (x, wide), (y, high) = zip(*clean, strict=True), zip(*robust, strict=True)
                bounds = {"xerr": wide, "yerr": high, "elinewidth": 0.8}
                axes.errorbar(x, y, color=how.colour, marker=how.marker, ls=how.line, lw=1, **bounds)
                ends.append((method, *max(zip(x, y, strict=True)), ROLES.get(method, "rule")))
                for weight, *at in zip(parts.values(), x, y, strict=True) if method == LEARNED else ():
                    where = {"xytext": (-8, -4), "textcoords": "offset points", "ha": "right", "fontsize": 9}
                    axes.annotate(f"{weight:g}", at, **where)
            label_column(axes, ends, 1.04)
            axes.set_title(f"{model}, attacked on {KINDS[kind][0]}")
            axes.margins(0.15)
            axes.yaxis.set_major_formatter(as_percent)
            axes.set_ylabel("robust accuracy")
        grid[-1].xaxis.set_major_formatter(as_percent)
        grid[-1].set_xlabel("clean accuracy")
    return figure
