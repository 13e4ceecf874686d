"""What the feature optimizer sees of each coordinate.

A gradient alone says where to go, not what to give up: a rule that cannot see the weight cannot shrink one whose
gradient is 0. So each coordinate is described by its gradient and its weight, by its row and column (the unit it
feeds, the unit or pixel it comes from), and by its tensor. Everything is a ratio or a logarithm, so that the rule
means the same on a network of another size.

Only ten of the numbers differ from coordinate to coordinate; the others are alike along a row, along a column or in
the whole tensor. A linear layer may use that: with the features in four parts,

    weight @ features  =  A @ coordinates  +  B @ rows  +  C @ columns  +  D @ whole,

where the last three are computed once for each row, column and tensor, and broadcast by addition.

Source: the kinds of features follow Metz et al. 2020 (arXiv 2009.11243), appendix, and Adafactor (Shazeer and Stern
2018, arXiv 1804.04235) for rows and columns; the selection is ours.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from metarobust.learned.protocol import Accumulators, ParamBlock, ParamInfo, matrices, param_infos
from metarobust.params import ParamSpec

BETAS = (0.5, 0.9, 0.99)
ACCUMULATORS: dict[str, tuple[int, ...]] = {"means": (len(BETAS),), "square": ()}
"""Running averages of the gradient, one for each of BETAS, and of its square."""
TINY = 1e-14  # inside every square root of a second moment: the root's slope at 0 is infinite
HUGE = 1e15  # gradients and weights count as no larger: the square of 1e20 is no float any more
LIMIT = 5.0  # every feature is cut off there
NAMES = (
    "gradient", "momentum 0.5", "momentum 0.9", "momentum 0.99", "factored gradient", "factored momentum",
    "log gradient^2 of the row", "log gradient^2 of the column", "log gradient^2",
    "weight over tensor", "weight times root fan-in", "log |weight|",
    "log weight^2 of the row", "log weight^2 of the column", "gradient of the unit's bias",
    "log gradient of the tensor", "log weight of the tensor",
    "log fan-in", "log fan-out", "depth", "first layer", "last layer", "bias", "convolution",
    "progress", "log total steps", "log step",
)  # fmt: skip
PARTS = ((0, 1, 2, 3, 4, 5, 8, 9, 10, 11), (6, 12, 14), (7, 13), tuple(range(15, 27)))
"""Which of NAMES are of coordinates, of rows, of columns and of the whole tensor."""


GROUPS = {
    "weight": ("weight over tensor", "weight times root fan-in", "log |weight|", "log weight^2 of the row",
               "log weight^2 of the column", "log weight of the tensor"),
    "rows and columns": ("factored gradient", "factored momentum", "log gradient^2 of the row",
                         "log gradient^2 of the column", "log weight^2 of the row", "log weight^2 of the column",
                         "gradient of the unit's bias"),
    "time": ("progress", "log total steps", "log step"),
}  # fmt: skip
"""Features that can be taken away together, to see what they are worth."""


class TensorStats(NamedTuple):
    """Averages of second moments, of gradients and of weights: `[..., rows, 1]`, `[..., 1, columns]`, `[..., 1, 1]`.

    unit: the momentum of the bias of the unit that a row feeds, over the root mean square of that bias vector; 0 where
    there is no bias. A vector, which is a column, stands for its own bias.
    """

    g_row: Tensor
    w_row: Tensor
    unit: Tensor
    g_column: Tensor
    w_column: Tensor
    g_all: Tensor
    w_all: Tensor


def accumulate(grads: Tensor, accumulators: Accumulators) -> None:
    """Takes one more gradient, of any shape, into the running averages, in place."""
    grads = grads.clamp(-HUGE, HUGE)
    for i, beta in enumerate(BETAS):
        accumulators["means"][i].lerp_(grads, 1 - beta)
    accumulators["square"].mul_(0.99).addcmul_(grads, grads, value=0.01)


def tensor_stats(block: ParamBlock, bias: Accumulators | None, step: int) -> TensorStats:
    """Averages over a whole tensor after this many steps. bias: the accumulators of its bias, where it has one."""
    weight_square, square = block.params.clamp(-HUGE, HUGE).square(), block.accumulators["square"]
    row, column = square.mean(-1, True), square.mean(-2, True)
    g_row, g_column, g_all = (x / (1 - 0.99**step) + TINY for x in (row, column, row.mean(-2, True)))
    w_row, w_column = weight_square.mean(-1, True) + TINY, weight_square.mean(-2, True) + TINY
    own = block.accumulators if len(block.info.shape) < 2 else bias
    unit = torch.zeros_like(g_row) if own is None else own["means"][1] / (1 - BETAS[1] ** step)
    unit = unit * (unit.square().mean(-2, True) + TINY).rsqrt()
    return TensorStats(g_row, w_row, unit, g_column, w_column, g_all, w_row.mean(-2, True))


def coordinate_features(block: ParamBlock, stats: TensorStats, step: int) -> Tensor:
    """The features that differ from coordinate to coordinate, `[10, ..., rows, columns]`.

    Args:
        block: a tensor, or some of its rows.
        stats: of the whole tensor, for these rows.
        step: the number of this gradient, the first of which is 1.
    """
    grads, params = block.grads.clamp(-HUGE, HUGE), block.params.clamp(-HUGE, HUGE)
    square = block.accumulators["square"] / (1 - 0.99**step) + TINY
    corrections = grads.new_tensor([1 / (1 - beta**step) for beta in BETAS]).view(-1, *[1] * grads.ndim)
    means = block.accumulators["means"] * corrections
    scale = square.rsqrt()
    factored = (stats.g_all.sqrt() * stats.g_row.rsqrt()) * stats.g_column.rsqrt()
    features = [
        grads * scale, *(means * scale).unbind(0), grads * factored, means[1] * factored,
        (square / stats.g_all).log() / 4, params * stats.w_all.rsqrt(),
        asinh(params * math.sqrt(block.info.fan_in)), ((params * params + TINY) / stats.w_all).log() / 4,
    ]  # fmt: skip
    return torch.stack(features).clamp_(-LIMIT, LIMIT)


def shared_features(stats: TensorStats, info: ParamInfo, step: int, total: int) -> list[Tensor]:
    """The features that are alike along a row, along a column, and in the whole tensor.

    Returns:
        `[3, ..., rows, 1]`, `[2, ..., 1, columns]` and `[12, ..., 1, 1]`.
    """
    g_row, w_row, unit, g_column, w_column, g_all, w_all = stats
    rows = [(g_row / g_all).log() / 2, (w_row / w_all).log() / 2, unit]
    columns = [(g_column / g_all).log() / 2, (w_column / w_all).log() / 2]
    sizes = torch.stack([g_all.log() / 8 + 1, (w_all * info.fan_in).log() / 2])
    numbers = sizes.new_tensor(known_features(info, step, total)).view(-1, *[1] * g_all.ndim)
    whole = torch.cat([sizes, numbers.expand(-1, *sizes.shape[1:])])
    return [part.clamp(-LIMIT, LIMIT) for part in (torch.stack(rows), torch.stack(columns), whole)]


def known_features(info: ParamInfo, step: int, total: int) -> list[float]:
    """What is known without looking at any number of the network: the last ten of NAMES."""
    fans = [math.log(info.fan_in) / 4 - 1, math.log(info.fan_out) / 4 - 1]
    place = [info.layer / max(info.last_layer, 1), float(info.layer == 0), float(info.layer == info.last_layer)]
    kind = [float(len(info.shape) < 2), float(len(info.shape) > 2)]
    return [*fans, *place, *kind, step / total, math.log(total) / 4 - 1, math.log(step) / 4 - 1]


def asinh(x: Tensor) -> Tensor:
    """asinh(x) up to 100, by way of the inverse tangent, which PyTorch computes ten times as fast on a CPU."""
    x = x.clamp(-100, 100)
    return 2 * torch.atanh(x / (1 + (1 + x * x).sqrt()))


def features(
    grads: Tensor, accumulators: Accumulators, params: Tensor, param_spec: ParamSpec, step: int, total: int
) -> Tensor:
    """One row of numbers for each coordinate, in the order of NAMES: `[..., N, len(NAMES)]`.

    An optimizer computes the same in parts, which takes less memory; this is for a look at the features.

    Args:
        grads: `[..., N]`, the last of `step` gradients.
        accumulators: after them.
        params: `[..., N]`.
        param_spec: the network.
        step: the number of the gradient, from 1.
        total: how many there will be.
    """
    infos, table = param_infos(param_spec), []
    order = sorted(range(len(NAMES)), key=[number for part in PARTS for number in part].__getitem__)
    split = {name: matrices(x, infos) for name, x in accumulators.items()}
    each = [{name: parts[i] for name, parts in split.items()} for i in range(len(infos))]
    for i, block in enumerate(map(ParamBlock, matrices(grads, infos), matrices(params, infos), each, infos)):
        stats = tensor_stats(block, each[i + 1] if block.info.has_bias else None, step)
        parts = [coordinate_features(block, stats, step), *shared_features(stats, block.info, step, total)]
        broadcast = torch.cat([part.expand(-1, *block.params.shape) for part in parts])
        table.append(broadcast[order].flatten(-2).movedim(0, -1))
    return torch.cat(table, -2)


def weight_parts(weight: Tensor) -> list[Tensor]:
    """The columns of a layer's weight `[units, len(NAMES)]` that belong to each of PARTS."""
    return [weight[:, list(part)] for part in PARTS]


def apply_part(weight: Tensor, features: Tensor) -> Tensor:
    """Some columns of a layer's weight times the features that they are for: `[units, ..., rows, columns]`."""
    return (weight @ features.flatten(1)).view(-1, *features.shape[1:])


def offsets(weights: Sequence[Tensor], bias: Tensor, shared: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """What a layer adds for a row, `[units, ..., rows, 1]`, and for a column, `[units, ..., 1, columns]`.

    With `apply_part(weights[0], coordinate_features)` they add up to what the layer makes of `features`.

    Args:
        weights: the layer's `weight_parts`.
        bias: the layer's bias.
        shared: the features that coordinates share, `shared_features`.
    """
    rows, columns, whole = (apply_part(weight, part) for weight, part in zip(weights[1:], shared, strict=True))
    return rows + (whole + bias.view(-1, *[1] * (whole.ndim - 1))), columns
