"""The feature optimizer: one small network, shared by all coordinates, that writes a correction to Adam.

For each coordinate, with features phi, weight w, and a the bias-corrected Adam direction of momentum 0.9:

    (d, s, c) = net(phi)
    step = -exp(log_lr + s) * rms(W) * (a + d)  -  cap * tanh(c) * w

The head of the net starts at 0, so that an untrained optimizer *is* Adam with a step in proportion to the tensor's
size; what it learns is the direction d, the step s, and the share c of the weight that it gives up.

Source: the residual form and the outputs are ours; per-coordinate networks as optimizers: Andrychowicz et al. 2016
(arXiv 1606.04474), Metz et al. 2020 (arXiv 2009.11243).
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from metarobust.errors import choose
from metarobust.learned.features import (
    GROUPS,
    NAMES,
    SLOTS,
    Summary,
    accumulate,
    blocks,
    of_coordinates,
    of_surroundings,
    offsets,
    summarise,
    times,
)
from metarobust.learned.protocol import LearnedOptimizer, ParamInfo, State, StepContext

MOMENTUM = NAMES.index("momentum 0.9")  # of the coordinates' features too: those come first


def correction(hidden: int, generator: torch.Generator | None) -> nn.Sequential:
    """The network from features to (d, s, c): two hidden layers, and a head that starts at 0."""
    net = nn.Sequential(
        nn.Linear(len(NAMES), hidden), nn.ReLU(), nn.Linear(hidden, hidden), nn.ReLU(), nn.Linear(hidden, 3)
    )
    with torch.no_grad():
        for layer in (net[0], net[2]):
            bound = layer.in_features**-0.5
            for p in layer.parameters():
                p.copy_(torch.rand(p.shape, generator=generator) * 2 * bound - bound)
        for p in net[4].parameters():
            p.zero_()
    return net


def surroundings(weights: list[Tensor], bias: Tensor, summary: Summary, place: ParamInfo, now: StepContext) -> tuple:
    """What a matrix has for all of its coordinates, computed once: the summary, and `offsets` of the first layer.

    The last is the tensor's size, log(rms(W) * sqrt(fan-in)), `[..., 1, 1]`.
    """
    parts = of_surroundings(summary, place, now.step, now.total)
    return *summary, *offsets(weights, bias, parts), parts[2][1]


def around_adam(
    outputs: Sequence[Tensor], adam: Tensor, params: Tensor, size: Tensor, place: ParamInfo, log_lr: Tensor, cap: float
) -> Tensor:
    """The step in the formula above. outputs: (d, s, c). adam: the direction a. size: as in `surroundings`."""
    turn, pace, give = outputs
    root_fan_in = place.fan_in**0.5
    # A tensor near 0 (a bias, say) could never grow again if its step were in proportion to it alone.
    spread = (size.exp() / root_fan_in).clamp_min(0.1 / root_fan_in)
    lr = (log_lr + pace.clamp(-6, 4)).exp() * spread
    return -lr * (adam + turn) - cap * torch.tanh(give) * params


def correct(net: nn.Sequential, weights: list[Tensor], seen: Tensor, rows: Tensor, columns: Tensor) -> tuple:
    """What the net says of each coordinate, (d, s, c). seen: features of coordinates. rows, columns: `offsets`."""
    hidden = (times(weights[0], seen) + rows + columns).relu_()
    shape = hidden.shape[1:]
    hidden = torch.addmm(net[2].bias[:, None], net[2].weight, hidden.flatten(1)).relu_()
    return torch.addmm(net[4].bias[:, None], net[4].weight, hidden).view(-1, *shape).unbind(0)


class FeatureMLP(LearnedOptimizer):
    """A learned optimizer; its parameters are theta. `init` and `update` as in `metarobust.optimizers`.

    hidden: units in each of the two hidden layers. lr: the step before any training, relative to a tensor's root mean
    square. cap: the largest share of a weight that one step may take away or add. blind: groups of features that it
    does not see, for ablations. Raises InputError for an unknown group.
    """

    def __init__(
        self,
        hidden: int = 16,
        lr: float = 0.02,
        cap: float = 0.3,
        blind: Sequence[str] = (),
        generator: torch.Generator | None = None,
    ):
        super().__init__()
        self.hidden = hidden
        self.blind = tuple(blind)
        unseen = {name for group in blind for name in GROUPS[choose(group, GROUPS, "group of features")]}
        sees = torch.tensor([float(name not in unseen) for name in NAMES])
        self.register_buffer("sees", sees, persistent=False)  # follows from `blind`
        self.net = correction(hidden, generator)
        self.log_lr = nn.Parameter(torch.tensor(lr).log())
        self.cap = cap

    @property
    def slots(self) -> dict[str, tuple[int, ...]]:
        return SLOTS

    def begin(self, state: State) -> tuple[Any, dict[str, Tensor]]:
        return blocks(self.net[0].weight * self.sees), {}

    def watch(self, grads: Tensor, slots: dict[str, Tensor], now: StepContext) -> dict[str, Tensor]:
        return accumulate(grads, slots)

    def survey(
        self,
        slots: Mapping[str, Tensor],
        params: Tensor,
        bias: Mapping[str, Tensor] | None,
        place: ParamInfo,
        now: StepContext,
    ) -> tuple[Tensor, ...]:
        summary = summarise(slots, params, bias, place, now.step)
        return surroundings(now.levers, self.net[0].bias, summary, place, now)

    def write(
        self,
        grads: Tensor,
        slots: Mapping[str, Tensor],
        params: Tensor,
        summary: Any,
        place: ParamInfo,
        now: StepContext,
    ) -> tuple[Tensor, dict[str, Tensor]]:
        *averages, rows, columns, size = summary
        seen = of_coordinates(grads, slots, params, Summary(*averages), place, now.step)
        outputs = correct(self.net, now.levers, seen, rows, columns)
        return around_adam(outputs, seen[MOMENTUM], params, size, place, self.log_lr, self.cap), {}
