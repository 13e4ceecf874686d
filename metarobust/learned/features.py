"""What the feature optimizer sees of each coordinate.

A gradient alone says where to go, not what to give up: a rule that cannot see the weight cannot shrink one whose
gradient is 0. So each coordinate is described by its gradient and its weight, by its row and column (the unit it
feeds, the unit or pixel it comes from), and by its tensor. Everything is a ratio or a logarithm, so that the rule
means the same on a network of another size.

Only ten of the numbers differ from coordinate to coordinate; the others are alike along a row, along a column or in
the whole tensor. A linear layer may use that: with the features in four parts,

    weight @ features  =  A @ coordinates  +  B @ rows  +  C @ columns  +  D @ whole,

where the last three are computed once for each row, column and tensor, and spread by addition.

Source: the kinds of features follow Metz et al. 2020 (arXiv 2009.11243), appendix, and Adafactor (Shazeer and Stern
2018, arXiv 1804.04235) for rows and columns; the selection is ours.
"""

import math
from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor

from metarobust.learned.protocol import ParamInfo, matrices, places
from metarobust.params import ParamSpec

BETAS = (0.5, 0.9, 0.99)
SLOTS: dict[str, tuple[int, ...]] = {"means": (len(BETAS),), "square": ()}
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


class Summary(NamedTuple):
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


def accumulate(grads: Tensor, slots: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The averages after one more gradient."""
    grads = grads.clamp(-HUGE, HUGE)
    share = grads.new_tensor([1 - beta for beta in BETAS]).view(-1, *[1] * grads.ndim)
    square = torch.addcmul(0.99 * slots["square"], grads, grads, value=0.01)
    return {"means": torch.lerp(slots["means"], grads, share), "square": square}


def summarise(
    slots: Mapping[str, Tensor], params: Tensor, bias: Mapping[str, Tensor] | None, place: ParamInfo, step: int
) -> Summary:
    """The averages over a whole matrix `[..., rows, columns]` after this many steps. bias: the slots of its bias."""
    weight_square = params.clamp(-HUGE, HUGE).square()
    row, column = slots["square"].mean(-1, True), slots["square"].mean(-2, True)
    g_row, g_column, g_all = (x / (1 - 0.99**step) + TINY for x in (row, column, row.mean(-2, True)))
    w_row, w_column = weight_square.mean(-1, True) + TINY, weight_square.mean(-2, True) + TINY
    own = slots if len(place.shape) < 2 else bias
    unit = torch.zeros_like(g_row) if own is None else own["means"][1] / (1 - BETAS[1] ** step)
    unit = unit * (unit.square().mean(-2, True) + TINY).rsqrt()
    return Summary(g_row, w_row, unit, g_column, w_column, g_all, w_row.mean(-2, True))


def of_coordinates(
    grads: Tensor, slots: Mapping[str, Tensor], params: Tensor, seen: Summary, place: ParamInfo, step: int
) -> Tensor:
    """The features that differ from coordinate to coordinate, of some rows of a matrix: `[10, ..., rows, columns]`.

    step: the number of this gradient, the first of which is 1."""
    grads, params = grads.clamp(-HUGE, HUGE), params.clamp(-HUGE, HUGE)
    square = slots["square"] / (1 - 0.99**step) + TINY
    corrections = grads.new_tensor([1 / (1 - beta**step) for beta in BETAS]).view(-1, *[1] * grads.ndim)
    means = slots["means"] * corrections
    scale = square.rsqrt()
    factored = (seen.g_all.sqrt() * seen.g_row.rsqrt()) * seen.g_column.rsqrt()
    found = [
        grads * scale, *(means * scale).unbind(0), grads * factored, means[1] * factored,
        (square / seen.g_all).log() / 4, params * seen.w_all.rsqrt(),
        asinh(params * math.sqrt(place.fan_in)), ((params * params + TINY) / seen.w_all).log() / 4,
    ]  # fmt: skip
    return torch.stack(found).clamp_(-LIMIT, LIMIT)


def of_surroundings(seen: Summary, place: ParamInfo, step: int, total: int) -> list[Tensor]:
    """The features that are alike along a row, along a column, and in the whole matrix.

    They are `[3, ..., rows, 1]`, `[2, ..., 1, columns]` and `[12, ..., 1, 1]`."""
    g_row, w_row, unit, g_column, w_column, g_all, w_all = seen
    rows = [(g_row / g_all).log() / 2, (w_row / w_all).log() / 2, unit]
    columns = [(g_column / g_all).log() / 2, (w_column / w_all).log() / 2]
    sizes = torch.stack([g_all.log() / 8 + 1, (w_all * place.fan_in).log() / 2])
    numbers = sizes.new_tensor(constants(place, step, total)).view(-1, *[1] * g_all.ndim)
    whole = torch.cat([sizes, numbers.expand(-1, *sizes.shape[1:])])
    return [part.clamp(-LIMIT, LIMIT) for part in (torch.stack(rows), torch.stack(columns), whole)]


def constants(place: ParamInfo, step: int, total: int) -> list[float]:
    """What is known without looking: the last ten of NAMES."""
    fans = [math.log(place.fan_in) / 4 - 1, math.log(place.fan_out) / 4 - 1]
    where = [place.layer / max(place.last, 1), float(place.layer == 0), float(place.layer == place.last)]
    kind = [float(len(place.shape) < 2), float(len(place.shape) > 2)]
    return [*fans, *where, *kind, step / total, math.log(total) / 4 - 1, math.log(step) / 4 - 1]


def asinh(x: Tensor) -> Tensor:
    """asinh(x) up to 100, by way of the inverse tangent, which PyTorch computes ten times as fast on a CPU."""
    x = x.clamp(-100, 100)
    return 2 * torch.atanh(x / (1 + (1 + x * x).sqrt()))


def features(
    grads: Tensor, slots: Mapping[str, Tensor], params: Tensor, param_spec: ParamSpec, step: int, total: int
) -> Tensor:
    """One row of numbers for each coordinate: `[..., N, len(NAMES)]`, in the order of NAMES.

    The two functions above give the same and take less memory; this is for a look at the features, and for tests.
    """
    where, table = places(param_spec), []
    order = sorted(range(len(NAMES)), key=[number for part in PARTS for number in part].__getitem__)
    split = {name: matrices(slot, where) for name, slot in slots.items()}
    each = [{name: parts[i] for name, parts in split.items()} for i in range(len(where))]
    for i, (g, w, place) in enumerate(zip(matrices(grads, where), matrices(params, where), where, strict=True)):
        summary = summarise(each[i], w, each[i + 1] if place.biased else None, place, step)
        parts = [of_coordinates(g, each[i], w, summary, place, step), *of_surroundings(summary, place, step, total)]
        spread = torch.cat([part.expand(-1, *w.shape) for part in parts])
        table.append(spread[order].flatten(-2).movedim(0, -1))
    return torch.cat(table, -2)


def blocks(weight: Tensor) -> list[Tensor]:
    """The columns of a layer's weight `[units, len(NAMES)]` that belong to each of PARTS."""
    return [weight[:, list(part)] for part in PARTS]


def times(weight: Tensor, part: Tensor) -> Tensor:
    """A block of a layer's weights times the features that it is for: `[units, ..., rows, columns]`."""
    return (weight @ part.flatten(1)).view(-1, *part.shape[1:])


def offsets(weights: list[Tensor], bias: Tensor, surroundings: list[Tensor]) -> tuple[Tensor, Tensor]:
    """What a layer adds for a row, `[units, ..., rows, 1]`, and for a column, `[units, ..., 1, columns]`.

    weights, bias: the layer's `blocks` and bias. With `times(weights[0], coordinates)` they add up to what the layer
    makes of `features`."""
    rows, columns, whole = (times(weight, part) for weight, part in zip(weights[1:], surroundings, strict=True))
    return rows + (whole + bias.view(-1, *[1] * (whole.ndim - 1))), columns
