"""What the feature optimizer sees of each coordinate.

A gradient alone says where to go, not what to give up: a rule that cannot see the weight cannot shrink one whose
gradient is 0. So each coordinate is described by its gradient and its weight, by its row and column (the unit it
feeds, the unit or pixel it comes from), and by its tensor. Everything is a ratio or a logarithm, so that the rule
means the same on a network of another size.

Source: the kinds of features follow Metz et al. 2020 (arXiv 2009.11243), appendix, and Adafactor (Shazeer and Stern
2018, arXiv 1804.04235) for rows and columns; the selection is ours.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor

from metarobust.layout import Layout

BETAS = (0.5, 0.9, 0.99)
TINY = 1e-14  # inside every square root of a second moment: the root's slope at 0 is infinite
HUGE = 1e15  # gradients and weights count as no larger: the square of 1e20 is no float any more
NAMES = (
    "gradient", "momentum 0.5", "momentum 0.9", "momentum 0.99", "factored gradient", "factored momentum",
    "log gradient^2 of the row", "log gradient^2 of the column", "log gradient^2",
    "weight over tensor", "weight times root fan-in", "log |weight|",
    "log weight^2 of the row", "log weight^2 of the column", "gradient of the unit's bias",
    "log gradient of the tensor", "log weight of the tensor",
    "log fan-in", "log fan-out", "depth", "first layer", "last layer", "bias", "convolution",
    "progress", "log total steps", "log step",
)  # fmt: skip


class Moments(NamedTuple):
    """Running averages of the inner run. means: `[..., 3, N]`, one for each of BETAS; square: `[..., N]`."""

    step: int
    means: Tensor
    square: Tensor


def start(params: Tensor) -> Moments:
    """The averages before the first step, for params `[..., N]`."""
    return Moments(0, params.new_zeros(*params.shape[:-1], len(BETAS), params.shape[-1]), torch.zeros_like(params))


def accumulate(grads: Tensor, moments: Moments) -> Moments:
    """The averages after one more gradient `[..., N]`."""
    grads = grads.clamp(-HUGE, HUGE)
    betas = grads.new_tensor(BETAS)[:, None]
    means = betas * moments.means + (1 - betas) * grads[..., None, :]
    return Moments(moments.step + 1, means, 0.99 * moments.square + 0.01 * grads * grads)


def statics(layout: Layout, total: int, like: Tensor) -> Tensor:
    """What never changes in a run, for each coordinate: `[N, 7 + 1]`; the last column is log T."""
    layers = layout.layers
    depth = max(layers[-1], 1)
    rows = []
    for shape, (fan_in, fan_out), layer in zip(layout.shapes, layout.fans, layers, strict=True):
        where = [layer / depth, float(layer == 0), float(layer == layers[-1])]
        kind = [float(len(shape) < 2), float(len(shape) > 2)]
        fans = [math.log(fan_in) / 4 - 1, math.log(fan_out) / 4 - 1]
        rows.append([*fans, *where, *kind, math.log(total) / 4 - 1])
    return layout.spread(like.new_tensor(rows).T).T


def root_fan_in(fixed: Tensor) -> Tensor:
    """sqrt(fan-in) of each coordinate `[N]`, out of what `statics` gave: its first column is log(fan-in) / 4 - 1."""
    return ((fixed[:, 0] + 1) * 2).exp()


def features(grads: Tensor, moments: Moments, params: Tensor, layout: Layout, fixed: Tensor, total: int) -> Tensor:
    """One row of numbers in [-5, 5] for each coordinate: `[..., N, len(NAMES)]`, in the order of NAMES."""
    grads, params = grads.clamp(-HUGE, HUGE), params.clamp(-HUGE, HUGE)
    k = moments.step
    corrections = grads.new_tensor([1 - beta**k for beta in BETAS])[:, None]
    square = moments.square / (1 - 0.99**k) + TINY
    means = moments.means / corrections
    weight_square = params * params + TINY

    g_row, g_col, g_all, w_row, w_col, w_all, bias = _matrix_statistics(square, weight_square, means[..., 1, :], layout)
    scale = square.rsqrt()
    factored = g_all.sqrt() * g_row.rsqrt() * g_col.rsqrt()
    root_fan = root_fan_in(fixed)
    scaled = params * root_fan
    columns = [
        grads * scale, *(means * scale[..., None, :]).unbind(-2), grads * factored, means[..., 1, :] * factored,
        (g_row / g_all).log() / 2, (g_col / g_all).log() / 2, (square / g_all).log() / 4,
        params * w_all.rsqrt(), torch.asinh(scaled), (weight_square / w_all).log() / 4,
        (w_row / w_all).log() / 2, (w_col / w_all).log() / 2, bias,
        g_all.log() / 8 + 1, (w_all * root_fan**2).log() / 2,
    ]  # fmt: skip
    # The order of NAMES: seven fixed columns, progress, log of the total steps (fixed), log of this step.
    now = fixed.new_tensor([k / total, math.log(k) / 4 - 1]).expand(len(fixed), 2)
    constant = torch.cat([fixed[:, :7], now[:, :1], fixed[:, 7:], now[:, 1:]], -1)
    constant = constant.expand(*params.shape[:-1], *constant.shape)
    return torch.cat([torch.stack(columns, -1), constant], -1).clamp(-5, 5)


def _matrix_statistics(square: Tensor, weight_square: Tensor, mean: Tensor, layout: Layout) -> tuple[Tensor, ...]:
    """Row, column and tensor averages of both second moments, each spread back over its coordinates `[..., N]`.

    A convolution `[out, in, h, w]` is the matrix `[out, in * h * w]`. The last entry is the momentum of the bias of the
    unit that a weight feeds, over the root mean square of that bias vector; 0 where there is no bias.
    """
    gs, ws, ms = (layout.split(x) for x in (square, weight_square, mean))
    found: list[list[Tensor]] = [[] for _ in range(7)]
    pairs = list(zip(layout.names, layout.shapes, strict=True))
    for i, (name, shape) in enumerate(pairs):
        lead = square.shape[:-1]
        # A vector of another length, as a normalisation's after an embedding, is no bias of these units.
        follows = i + 1 < len(pairs) and len(shape) >= 2 and pairs[i + 1][1] == shape[:1]
        unit = pairs[i + 1][0] if follows else name
        if len(shape) >= 2:
            g, w = gs[name].reshape(*lead, shape[0], -1), ws[name].reshape(*lead, shape[0], -1)
            parts = [g.mean(-1, True), g.mean(-2, True), g.mean((-1, -2), True)]
            parts += [w.mean(-1, True), w.mean(-2, True), w.mean((-1, -2), True)]
            bias = ms[unit][..., None] if follows else torch.zeros_like(parts[0])
            size = g.shape
        else:
            g, w = gs[name].reshape(*lead, -1), ws[name].reshape(*lead, -1)
            parts = [g, g.mean(-1, True), g.mean(-1, True), w, w.mean(-1, True), w.mean(-1, True)]
            bias = ms[name].reshape(*lead, -1)
            size = g.shape
        bias = bias * (bias.square().mean(-2 if len(shape) >= 2 else -1, True) + TINY).rsqrt()
        for column, part in zip(found, [*parts, bias], strict=True):
            column.append(part.expand(size).reshape(*lead, -1))
    return tuple(torch.cat(column, -1) for column in found)
