"""Response curves: what a learned rule does as one of its inputs moves and the others stay as they are in real runs.

The features of a coordinate belong together: a larger weight is larger over its tensor's size and on the logarithmic
scale. So what moves is the quantity, and with it all features that are made of it alone:

    gradient   of this step, in units of its own running root mean square
    momentum   all three averages of the gradient, in the same units; Adam's direction among them
    weight     in units of its tensor's root mean square
    row        log of the row's gradient over the tensor's, its own gradient with it
    column     the same of the column
    progress   share of the run that is over

A curve is the mean over coordinates that were drawn from real runs. What it does not show is how inputs act together.
"""

import math
from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from metarobust.errors import choose
from metarobust.learned.features import LIMIT, NAMES, TINY
from metarobust.learned.mlp import MOMENTUM, FeatureMLP

AT = {name: number for number, name in enumerate(NAMES)}
SPANS = {
    "gradient": (-3.0, 3.0),
    "momentum": (-3.0, 3.0),
    "weight": (-3.0, 3.0),
    "row": (-4.0, 1.0),
    "column": (-4.0, 1.0),
    "progress": (0.05, 1.0),
}
"""The inputs that can be moved, and from where to where: about as far as they go in real runs."""


class Answer(NamedTuple):
    """What a rule says of coordinates: each of these `[...]`.

    step: what it adds to the weight, in units of the tensor's root mean square. rate: the factor of the direction in
    it, in the same units. share: of the weight that is taken away. turn: what is added to Adam's direction.
    """

    step: Tensor
    rate: Tensor
    share: Tensor
    turn: Tensor


@torch.no_grad()
def answer(rule: FeatureMLP, seen: Tensor) -> Answer:
    """The rule's answer to features `[..., len(NAMES)]`."""
    turn, pace, give = rule.net(seen * rule.mask).unbind(-1)
    rate, share = (rule.log_lr + pace.clamp(-6, 4)).exp(), rule.cap * torch.tanh(give)
    step = -rate * (seen[..., MOMENTUM] + turn) - share * seen[..., AT["weight over tensor"]]
    return Answer(step, rate, share, turn)


def values(name: str, count: int = 13) -> list[float]:
    """Where the input of this name is moved to."""
    low, high = SPANS[choose(name, SPANS, "input of a response curve")]
    return torch.linspace(low, high, count).tolist()


def curve(rule: FeatureMLP, seen: Tensor, name: str, count: int = 13) -> Iterator[tuple[float, Answer]]:
    """Values of the input, and the mean answer over the coordinates whose features `[n, len(NAMES)]` are given.

    Raises InputError for an input that is not in SPANS.
    """
    for value in values(name, count):
        found = answer(rule, moved(seen, name, value))
        yield value, Answer(*(part.mean() for part in found))


def moved(seen: Tensor, name: str, value: float) -> Tensor:
    """Features with one input at another value, in the units above. Raises InputError for a name not in SPANS."""
    choose(name, SPANS, "input of a response curve")
    own, row, column = (seen[..., AT[f"log gradient^2{of}"]] for of in ("", " of the row", " of the column"))
    # A coordinate's own root mean square over what its row and column make likely: the units of the factored features.
    factor = (2 * own - row - column).exp()
    if name == "gradient":
        new = {"gradient": value, "factored gradient": value * factor}
    elif name == "momentum":
        new = dict.fromkeys(("momentum 0.5", "momentum 0.9", "momentum 0.99"), value)
        new["factored momentum"] = value * factor
    elif name == "weight":
        root = seen[..., AT["log weight of the tensor"]].exp()
        new = {
            "weight over tensor": value, "weight times root fan-in": torch.asinh(value * root),
            "log |weight|": math.log(value * value + TINY) / 4,
        }  # fmt: skip
    elif name == "progress":
        total = (4 * (seen[..., AT["log total steps"]] + 1)).exp()
        new = {"progress": value, "log step": (value * total).clamp_min(1).log() / 4 - 1}
    else:
        line = f"log gradient^2 of the {name}"
        new = {line: value, "log gradient^2": own + (value - seen[..., AT[line]]) / 2}
    found = seen.clone()
    for feature, to in new.items():
        found[..., AT[feature]] = to
    return found.clamp_(-LIMIT, LIMIT)
