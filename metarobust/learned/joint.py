"""The joint optimizer: steering sets the pace of each layer, and a small network corrects every coordinate.

With rate, decay and a as in `metarobust.learned.schedule`, and phi the features of `metarobust.learned.features`:

    (d, s, c) = net(phi)
    step      = -rate_l(s) * exp(s) * (a + d)  -  ( decay_l(s) + cap * tanh(c) ) * w
    inputs    = images + noise(s) * N(0, 1)

The head of the net starts at 0: an untrained joint optimizer *is* the steering optimizer, and meta-training goes on
from one that is trained. Gradients at noised inputs put it in tier 1. The combination is ours.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

from metarobust.learned.features import SLOTS, Summary, accumulate, blocks, of_coordinates, summarise
from metarobust.learned.mlp import correct, correction, surroundings
from metarobust.learned.protocol import LearnedOptimizer, ParamInfo, State, StepContext
from metarobust.learned.schedule import LearnedSchedule, direction, of_layer


class JointLevers(NamedTuple):
    """As `Levers`, and the first layer's `blocks`."""

    each: Tensor
    weight: Tensor
    blocks: list[Tensor]


class Joint(LearnedOptimizer):
    """A learned optimizer; its parameters are theta. `init`, `update` and `inputs` as in `metarobust.optimizers`.

    hidden: units in each of the two hidden layers. cap: the largest share of a weight that one step may take away or
    add on top of the decay.
    """

    def __init__(self, hidden: int = 16, cap: float = 0.3, generator: torch.Generator | None = None):
        super().__init__()
        self.steering = LearnedSchedule()
        self.hidden = hidden
        self.net = correction(hidden, generator)
        self.cap = cap

    def begin_from(self, steering: LearnedSchedule) -> None:
        """Takes up the levers of a trained steering optimizer: where its own meta-training begins."""
        self.steering.load_state_dict(steering.state_dict())

    @property
    def slots(self) -> dict[str, tuple[int, ...]]:
        return SLOTS | self.steering.slots  # both average the square alike

    def inputs(self, images: Tensor, state: State, generator: torch.Generator | None) -> Tensor:
        """The images with as much noise as this step asks for."""
        return self.steering.inputs(images, state, generator)

    def begin(self, state: State) -> tuple[JointLevers, dict[str, Tensor]]:
        levers, shared = self.steering.begin(state)
        return JointLevers(*levers, blocks(self.net[0].weight)), shared

    def watch(self, grads: Tensor, slots: dict[str, Tensor], now: StepContext) -> dict[str, Tensor]:
        return accumulate(grads, slots) | self.steering.watch(grads, slots, now)

    def survey(
        self,
        slots: Mapping[str, Tensor],
        params: Tensor,
        bias: Mapping[str, Tensor] | None,
        place: ParamInfo,
        now: StepContext,
    ) -> tuple[Tensor, ...]:
        summary = summarise(slots, params, bias, place, now.step)
        return surroundings(now.levers.blocks, self.net[0].bias, summary, place, now)

    def write(
        self,
        grads: Tensor,
        slots: Mapping[str, Tensor],
        params: Tensor,
        summary: Any,
        place: ParamInfo,
        now: StepContext,
    ) -> tuple[Tensor, dict[str, Tensor]]:
        *averages, rows, columns, _ = summary
        seen = of_coordinates(grads, slots, params, Summary(*averages), place, now.step)
        turn, pace, give = correct(self.net, now.levers.blocks, seen, rows, columns)
        rate, decay = of_layer(now.levers, place)
        step = -rate * pace.clamp(-6, 4).exp() * (direction(slots, now) + turn)
        return step - (decay + self.cap * torch.tanh(give)) * params, {}
