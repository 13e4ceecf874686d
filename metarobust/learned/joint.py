"""The joint optimizer: steering sets the pace of each layer, and a small network corrects every coordinate.

With rate, decay and a as in `metarobust.learned.steering`, and phi the features of `metarobust.learned.features`:

    (d, s, c) = net(phi)
    step      = -rate_l(s) * exp(s) * (a + d)  -  ( decay_l(s) + cap * tanh(c) ) * w
    inputs    = images + noise(s) * N(0, 1)

The head of the net starts at 0: an untrained joint optimizer *is* the steering optimizer, and meta-training goes on
from one that is trained. Gradients at noised inputs put it in tier 1. The combination is ours.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from metarobust.layout import Layout
from metarobust.learned.features import Moments, accumulate, features, start, statics
from metarobust.learned.mlp import correction
from metarobust.learned.steering import Steering, SteeringState
from metarobust.optimizers import Optimizer


class JointState(NamedTuple):
    """steering: its state. moments: running averages for the features. layout, fixed: what stays the same."""

    steering: SteeringState
    moments: Moments
    layout: Layout
    fixed: Tensor


class Joint(nn.Module, Optimizer):
    """A learned optimizer; its parameters are theta. `init`, `update` and `inputs` as in `metarobust.optimizers`.

    hidden: units in each of the two hidden layers. cap: the largest share of a weight that one step may take away or
    add on top of the decay.
    """

    def __init__(self, hidden: int = 16, cap: float = 0.3, generator: torch.Generator | None = None):
        super().__init__()
        self.steering = Steering()
        self.hidden = hidden
        self.net = correction(hidden, generator)
        self.cap = cap

    def begin_from(self, steering: Steering) -> None:
        """Takes up the levers of a trained steering optimizer: where its own meta-training begins."""
        self.steering.load_state_dict(steering.state_dict())

    def init(self, params: Tensor, layout: Layout, total: int) -> JointState:
        """The state before the first of `total` steps, for params `[..., N]`."""
        steering = self.steering.init(params, layout, total)
        return JointState(steering, start(params), layout, statics(layout, total, params))

    def inputs(self, images: Tensor, state: JointState, generator: torch.Generator | None) -> Tensor:
        """The images with as much noise as this step asks for."""
        return self.steering.inputs(images, state.steering, generator)

    def update(self, grads: Tensor, state: JointState, params: Tensor) -> tuple[Tensor, JointState]:
        """The step `[..., N]` to add to params, and the next state."""
        moments = accumulate(grads, state.moments)
        phi = features(grads, moments, params, state.layout, state.fixed, state.steering.total)
        turn, size, give = self.net(phi).unbind(-1)
        direction, levers, steering = self.steering.average(grads, state.steering)
        where = steering.where
        rate, decay = levers[:3][where], levers[3:6][where] * steering.matrix
        step = -rate * size.clamp(-6, 4).exp() * (direction + turn) - (decay + self.cap * torch.tanh(give)) * params
        return step, state._replace(steering=steering, moments=moments)
