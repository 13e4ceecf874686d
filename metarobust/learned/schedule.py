"""The learned schedule: it does not write steps, it moves the hyperparameters of a known optimizer while that trains.

With a the bias-corrected Adam direction, s = t / T in [0, 1) how much of the run is over, and l the layer of a weight w
(first, middle or last), every hyperparameter is a line on a logarithmic scale:

    value(s) = exp( start + (end - start) * s )
    update   = -rate_l(s) * a  -  decay_l(s) * w
    images   = images + noise(s) * N(0, 1)          where it wants the gradient: `objective`

Two sets of sixteen numbers are all that is learned: one for networks with convolutions, one for those without. They
mean the same at any size, and set the pace of convolutions too, where a rule per coordinate learned less. Gradients at
noised inputs put it in tier 1.

Sources: Gaussian noise on the inputs as a regulariser is Bishop 1995; a learned optimizer that sets hyperparameters of
a known rule: Daniel et al. 2016, Xu et al. 2019 (arXiv 1909.09712). These hyperparameters, and that their schedules are
found by evolution strategies on an adversarial meta-loss, are ours.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from metarobust.learned.features import HUGE
from metarobust.learned.protocol import Accumulators, LearnedOptimizer, ParamBlock, ParamInfo, State, StepContext
from metarobust.objectives import Objective
from metarobust.params import ParamSpec
from metarobust.penalties import Noise

LAYERS = ("first", "middle", "last")
HYPERPARAMETERS = (*(f"rate {layer}" for layer in LAYERS), *(f"decay {layer}" for layer in LAYERS), "noise", "forget")
"""rate: step of a coordinate. decay: share of a weight lost in a step. noise: standard deviation in pixel units.
forget: 1 - beta1, how fast the averaged gradient forgets."""
NOISE, FORGET = HYPERPARAMETERS.index("noise"), HYPERPARAMETERS.index("forget")
START = (0.01, 0.01, 0.01, 0.002, 0.002, 0.01, 0.2, 0.1)
BOUNDS = (*([(1e-5, 0.3)] * 3), *([(1e-6, 0.5)] * 3), (1e-4, 2.0), (0.01, 1.0))
SCALE = 4.0  # theta moves in units of a quarter: the meta-learning rates of networks suit hyperparameters too


class Hyperparameters(NamedTuple):
    """Those of one step.

    Attributes:
        values: in the order of HYPERPARAMETERS.
        weight: what the weights of the averaged gradient add up to.
    """

    values: Tensor
    weight: Tensor


class LearnedSchedule(LearnedOptimizer):
    """The schedules above as a learned optimizer."""

    chunk = 131072  # a few numbers for each coordinate

    def __init__(self, generator: torch.Generator | None = None):
        super().__init__()
        start = torch.tensor(START).log() / SCALE
        # [without or with convolutions, hyperparameters, start and end]; stored weights have it by this name.
        self.levers = nn.Parameter(start[None, :, None].repeat(2, 1, 2))

    @property
    def accumulators(self) -> dict[str, tuple[int, ...]]:
        return {"mean": (), "square": ()}

    def at(self, progress: float, kind: int) -> Tensor:
        """Every hyperparameter when this share of the run is over, `[8]` in the order of HYPERPARAMETERS.

        Args:
            progress: from 0 to 1.
            kind: of the network, as `network_kind` says.
        """
        low, high = self.levers.new_tensor(BOUNDS).log().unbind(1)
        start, end = self.levers[kind].unbind(1)
        line = SCALE * torch.lerp(start, end, progress)
        return line.clamp(low, high).exp()

    def values(self, state: State) -> Tensor:
        """Every hyperparameter of the coming step, `[..., H]`; axes in front are tasks, where each has its own."""
        return self.at(state.step / state.total, network_kind(state.param_spec))

    def objective(self, inner: Objective, state: State, eps: float) -> Objective:
        """The inner objective at images with as much noise as this step asks for."""
        return Noise(self.values(state)[..., NOISE], inner)

    def prepare(self, state: State) -> tuple[Hyperparameters, dict[str, Tensor]]:
        values = self.values(state)
        forget = values[..., FORGET]
        weight = state.shared["weight"] if state.step else torch.zeros_like(forget)
        weight = torch.lerp(weight, torch.ones_like(forget), forget)
        return Hyperparameters(values, weight), {"weight": weight}

    def update_accumulators(self, grads: Tensor, accumulators: Accumulators, context: StepContext) -> None:
        grads = grads.clamp(-HUGE, HUGE)
        accumulators["mean"].lerp_(grads, per_task(context.prepared.values[..., FORGET], grads))
        accumulators["square"].mul_(0.99).addcmul_(grads, grads, value=0.01)

    def tensor_stats(self, block: ParamBlock, bias: Accumulators | None, context: StepContext) -> tuple[Tensor, ...]:
        return tuple(per_task(x, block.params) for x in of_layer(context.prepared, block.info))

    def compute_update(
        self, block: ParamBlock, stats: Sequence[Tensor], context: StepContext
    ) -> tuple[Tensor, dict[str, Tensor]]:
        rate, decay = stats
        direction = adam_direction(block.accumulators, context.prepared, context.step)
        return direction.mul_(-rate).addcmul_(block.params, decay, value=-1), {}


def network_kind(param_spec: ParamSpec) -> int:
    """1 if the network has convolutions, else 0: which set of schedules it gets."""
    return int(any(len(shape) > 2 for shape in param_spec.shapes))


def adam_direction(accumulators: Accumulators, hyperparameters: Hyperparameters, step: int) -> Tensor:
    """The bias-corrected Adam direction, for the mean as it was weighted."""
    square_weight = 1 - 0.99**step
    # 1e-14 inside the root, for its slope at 0 is infinite.
    scale = (accumulators["square"] + 1e-14 * square_weight).rsqrt_()
    factor = math.sqrt(square_weight) / hyperparameters.weight
    return (accumulators["mean"] * per_task(factor, scale)).mul_(scale)


def per_task(value: Tensor, like: Tensor) -> Tensor:
    """A value for all, or one for each task `[T]`, in a shape that broadcasts to `[T, ...]`."""
    return value.view(*value.shape, *[1] * (like.ndim - value.ndim))


def of_layer(hyperparameters: Hyperparameters, info: ParamInfo) -> tuple[Tensor, Tensor]:
    """Rate and decay of a tensor by the position of its layer; nothing but weights decays."""
    place = 2 if info.layer == info.last_layer else 0 if info.layer == 0 else 1
    values = hyperparameters.values
    return values[..., place], values[..., 3 + place] * float(len(info.shape) >= 2)
