"""Which plain rule a patch resembles: shares of the change of the weights that simple explanations account for.

With w the weights of one layer before the patch and y = what the patch added to them, an explanation is a few vectors
x_1, x_2, ... to be summed with the best factors:

    explained = 1 - ( |y - sum_k b_k x_k|^2 / (n - p) ) / ( |y|^2 / n ),    b = least squares

n weights, p factors: each factor that explains nothing but chance costs as much as it gains. There is no constant term,
since doing nothing is what "explains nothing" means. 1 is everything, 0 is nothing.

decay              w: the same share of every weight of the layer
constant shrink    -sign(w) min(|w|, s), as it is: what proximal L1 does, of all strengths s together
rows, columns      w of one row or column: a share for each unit, or for each input
pixel spread       w of the columns whose pixels vary alike (first layer, where weights belong to pixels): eight groups
sign steps         sum of the signs of the gradients on the way
Adam               sum of Adam's directions on the way
"""

from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import Tensor

from metarobust.lab.what_was_learned.dissection import Look, moved, weights
from metarobust.optimizers import Adam
from metarobust.params import ParamSpec

GROUPS = 8  # of pixels
STRENGTHS = 24  # tried of proximal L1
ALONE = ("decay", "constant shrink", "rows", "columns", "pixel spread", "sign steps", "Adam")
TOGETHER = {
    "decay + Adam": ("decay", "Adam"),
    "columns + Adam": ("columns", "Adam"),
    "all together": ("columns", "constant shrink", "sign steps", "Adam"),
}


def explain(looks: Sequence[Look], param_spec: ParamSpec, spread: Tensor) -> dict[str, dict[str, Tensor]]:
    """For each weight matrix the share that each explanation accounts for, of each of T models: name to `[T]`.

    spread: how much each pixel varies `[C * H * W]`.
    """
    # On the CPU, whose least squares know what to do where two explanations are the same.
    total, start = moved(list(looks)).double().cpu(), looks[0].params.double().cpu()
    signs, spread = sum(look.grads.sign() for look in looks).double().cpu(), spread.cpu()
    adam, state = torch.zeros_like(looks[0].params), Adam(1.0).init(looks[0].params, param_spec, len(looks))
    for look in looks:
        step, state = Adam(1.0).update(look.grads, state, look.params)
        adam += step
    adam = adam.double().cpu()
    found = {}
    for name, where, place in weights(param_spec):
        y, w, sign, direction = (
            x[:, where].unflatten(-1, (place.rows, place.columns)) for x in (total, start, signs, adam)
        )
        pixels = spread if place.layer == 0 and len(place.shape) == 2 else None
        per_task = [
            shares(y[t], w[t], {"sign steps": sign[t], "Adam": direction[t]}, pixels) for t in range(len(total))
        ]
        found[name] = {key: torch.stack([each[key] for each in per_task]) for key in per_task[0]}
    return found


def shares(y: Tensor, w: Tensor, others: Mapping[str, Tensor], spread: Tensor | None) -> dict[str, Tensor]:
    """The shares for one matrix `[rows, columns]`. others: `sign steps` and `Adam`. spread: None without pixels."""
    # Each explanation is a vector, and which of its entries have a factor of their own.
    whole, rows, columns = (
        torch.zeros_like(w, dtype=torch.long), torch.arange(len(w))[:, None].expand_as(w),
        torch.arange(w.shape[1]).expand_as(w),
    )  # fmt: skip
    known = {"decay": (w, whole), "rows": (w, rows), "columns": (w, columns)}
    shrink = soft(y, w)
    known["constant shrink"] = (shrink, whole)
    known |= {name: (x, whole) for name, x in others.items()}
    if spread is not None:
        known["pixel spread"] = (w, grouped(spread).expand_as(w))
    found = {name: share(y, [known[name]]) for name in ALONE if name in known}
    # With a factor it would be more than L1: for an s above all weights it would be decay.
    found["constant shrink"] = as_it_is(y, shrink)
    return found | {name: share(y, [known[part] for part in parts]) for name, parts in TOGETHER.items()}


def soft(y: Tensor, w: Tensor) -> Tensor:
    """-sign(w) min(|w|, s) for the strength s that comes nearest to y."""
    strengths = w.abs().flatten().quantile(torch.linspace(0, 1, STRENGTHS + 1, dtype=w.dtype)[1:])
    return max((-w.sign() * w.abs().clamp_max(float(s)) for s in strengths), key=lambda x: float(as_it_is(y, x)))


def as_it_is(y: Tensor, x: Tensor) -> Tensor:
    """The share that x accounts for without a factor, but with one number that was chosen: its strength."""
    n = y.numel()
    return 1 - ((y - x).square().sum() / max(n - 1, 1)) / (y.square().sum() / n).clamp_min(1e-30)


def share(y: Tensor, explanations: Sequence[tuple[Tensor, Tensor]]) -> Tensor:
    """The explained share of y by vectors, of which only the first may have more than one factor.

    Its factors are taken out of y and of the other vectors one by one (Frisch and Waugh 1933), so that no large matrix
    is ever made.
    """
    (x, group), *rest = explanations
    groups = int(group.max()) + 1

    def without_first(z: Tensor) -> Tensor:
        products, squares = (
            torch.zeros(groups, dtype=y.dtype, device=y.device).scatter_add_(0, group.flatten(), part.flatten())
            for part in (x * z, x * x)
        )
        return (z - x * (products / squares.clamp_min(1e-30))[group]).flatten()

    left, n, p = without_first(y), y.numel(), groups + len(rest)
    if rest:
        others = torch.stack([without_first(z) for z, _ in rest], 1)
        left = left - others @ torch.linalg.lstsq(others, left[:, None], driver="gelsd").solution[:, 0]
    return 1 - (left.square().sum() / max(n - p, 1)) / (y.square().sum() / n).clamp_min(1e-30)


def grouped(spread: Tensor) -> Tensor:
    """The number of each pixel's group: about as many in each, and alike in how much they vary."""
    edges = spread.quantile(torch.linspace(0, 1, GROUPS + 1, device=spread.device)[1:-1])
    return torch.bucketize(spread, edges)


def left(before: Tensor, after: Tensor, spread: Tensor) -> Iterator[tuple[float, Tensor]]:
    """For each group of pixels its mean spread, and what is left of the weights on it, a share of their length `[T]`.

    before, after: a first layer's weights `[T, units * pixels]`.
    """
    group = grouped(spread)
    for number in group.unique().tolist():
        pixels = group == number
        old, new = (x.unflatten(-1, (-1, len(spread)))[..., pixels].flatten(1).norm(dim=1) for x in (before, after))
        yield float(spread[pixels].mean()), new / old
