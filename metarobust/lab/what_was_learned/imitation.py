"""The constants of the imitating rule, found in two ways: from what the learned rule does, and from what helps.

`fit_to_steps` looks at the steps that the learned rule took on validation networks. For each threshold and slope of a
grid the two other constants follow by least squares,

    min over lr, strength of   sum (u - lr * train - strength * shrink)^2 / size^2,

with `train` and `shrink` the halves of the imitating step for the same gradients and weights. No accuracy is looked
at. `IMITATION` is tuned as all plain rules are, by accuracy, over a grid as large as that of std-prune.
"""

from collections.abc import Sequence
from itertools import product
from typing import Any

import torch
from torch import Tensor

from metarobust.lab.baselines import Baseline
from metarobust.lab.what_was_learned.column_decay import ColumnDecay
from metarobust.lab.what_was_learned.dissection import Look
from metarobust.params import ParamSpec

THRESHOLDS = (0.05, 0.08, 0.12, 0.16, 0.2, 0.25, 0.3, 0.4, 0.5, 0.7, 1.0)
SLOPES = (0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0)
NAME = "imitation, tuned"
LR, STRENGTH = ((0.005,), (0.015,), (0.05,)), ((0.05, 0.1), (0.2, 0.3), (0.5,))
THRESHOLD, SLOPE = ((0.05,), (0.1, 0.15, 0.25, 0.4, 0.6), (0.8,)), ((), (1.5, 3.0), ())
"""As in `metarobust.lab.baselines`: (below, usual, above), and a quick run tries the usual ones."""


def tuned(*, wide: bool) -> Baseline:
    """The imitating rule as a method whose constants are tuned by accuracy on validation networks."""
    grids = {"lr": LR, "strength": STRENGTH, "threshold": THRESHOLD, "slope": SLOPE}
    grid = {name: sum(parts, ()) if wide else parts[1] for name, parts in grids.items()}
    return Baseline(
        NAME, "0", grid, lambda h, param_spec: ColumnDecay(h["lr"], h["strength"], h["threshold"], h["slope"])
    )


def fit_to_steps(runs: Sequence[tuple[list[Look], ParamSpec]]) -> list[dict[str, Any]]:
    """Each point of the grid with the constants that fit best, and the share of the learned steps that is explained.

    runs: what the learned rule did on each network. Every network counts as much: steps are divided by the root mean
    square of the learned ones of that network.
    """
    found = []
    for threshold, slope in product(THRESHOLDS, SLOPES):
        squares, products = torch.zeros(2, 2, dtype=torch.float64), torch.zeros(2, dtype=torch.float64)
        for looks, param_spec in runs:
            a, b, all_of_it = _normal(ColumnDecay(1.0, 1.0, threshold, slope), looks, param_spec)
            squares, products = squares + a / all_of_it, products + b / all_of_it
        lr, strength = torch.linalg.solve(squares, products).tolist()
        explained = (lr * products[0] + strength * products[1]) / len(runs)
        point = {"lr": lr, "strength": strength, "threshold": threshold, "slope": slope}
        found.append(point | {"explained": float(explained)})
    return found


def _normal(rule: ColumnDecay, looks: list[Look], param_spec: ParamSpec) -> tuple[Tensor, Tensor, Tensor]:
    """The normal equations of the least squares over one network: A `[2, 2]`, b `[2]`, and the sum of squares of u."""
    state = rule.init(looks[0].params, param_spec, len(looks))
    squares, products, all_of_it = [], [], []
    for look in looks:
        train, shrink, state = rule.halves(look.grads, state, look.params)
        over = 1 / sizes(look.params, param_spec)
        halves, step = torch.stack([train * over, shrink * over]).flatten(1), (look.step * over).flatten()
        squares.append(halves @ halves.T)
        products.append(halves @ step)
        all_of_it.append(step @ step)
    return tuple(torch.stack(part).double().sum(0).cpu() for part in (squares, products, all_of_it))


def sizes(params: Tensor, param_spec: ParamSpec) -> Tensor:
    """The root mean square of each coordinate's tensor `[..., N]`."""
    parts = [part.flatten(params.ndim - 1).square().mean(-1) for part in param_spec.split(params).values()]
    return param_spec.broadcast(torch.stack(parts, -1).sqrt()).clamp_min(1e-7)
