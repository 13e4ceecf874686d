"""The steering optimizer: it does not write steps, it moves the levers of a known rule while that rule trains.

With a the bias-corrected Adam direction, s = t / T in [0, 1) how much of the run is over, and l the layer of a weight w
(first, middle or last), every lever is a line on a logarithmic scale:

    lever(s) = exp( start + (end - start) * s )
    step     = -rate_l(s) * a  -  decay_l(s) * w
    inputs   = images + noise(s) * N(0, 1)          what the training loop has to do for it: `inputs`

Two sets of sixteen numbers are all that is learned: one for networks with convolutions, one for those without. They
mean the same at any size, and steer convolutions too, where a rule per coordinate learned less. Gradients at noised
inputs put it in tier 1.

Sources: Gaussian noise on the inputs as a regulariser is Bishop 1995; a learned optimizer that sets hyperparameters of
a known rule: Daniel et al. 2016, Xu et al. 2019 (arXiv 1909.09712). These levers, and that their schedules are found
by evolution strategies on an adversarial meta-loss, are ours.
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from metarobust.layout import Layout
from metarobust.optimizers import Optimizer

WHERE = ("first", "middle", "last")
LEVERS = (*(f"rate {w}" for w in WHERE), *(f"decay {w}" for w in WHERE), "noise", "forget")
"""rate: step of a coordinate. decay: share of a weight lost in a step. noise: standard deviation in pixel units.
forget: 1 - beta1, how fast the averaged gradient forgets."""
START = (0.01, 0.01, 0.01, 0.002, 0.002, 0.01, 0.2, 0.1)
BOUNDS = (*([(1e-5, 0.3)] * 3), *([(1e-6, 0.5)] * 3), (1e-4, 2.0), (0.01, 1.0))
SCALE = 4.0  # theta moves in units of a quarter: the meta-learning rates of networks suit levers too


class SteeringState(NamedTuple):
    """step: updates so far. kind: 1 if the network has convolutions, else 0: which set of levers steers it. mean,
    square: averages of the gradient and of its square. weight: what the mean's weights
    add up to. where: index into WHERE of each coordinate `[N]`. matrix: 1 for weights, 0 for biases `[N]`."""

    step: int
    total: int
    kind: int
    mean: Tensor
    square: Tensor
    weight: Tensor
    where: Tensor
    matrix: Tensor


class Steering(nn.Module, Optimizer):
    """A learned optimizer; its parameters are theta. `init`, `update` and `inputs` as in `metarobust.optimizers`."""

    def __init__(self, generator: torch.Generator | None = None):
        super().__init__()
        begin = torch.tensor(START).log() / SCALE
        self.levers = nn.Parameter(begin[None, :, None].repeat(2, 1, 2))  # [dense or with convolutions, levers, ends]

    def at(self, progress: float, kind: int) -> Tensor:
        """Every lever when this share of the run is over, in the order of LEVERS. kind: as in SteeringState."""
        low, high = self.levers.new_tensor(BOUNDS).log().unbind(1)
        line = SCALE * torch.lerp(*self.levers[kind].unbind(1), progress)
        return line.clamp(low, high).exp()

    def init(self, params: Tensor, layout: Layout, total: int) -> SteeringState:
        """The state before the first of `total` steps, for params `[..., N]`."""
        zero = torch.zeros_like(params)
        matrix = layout.spread(params.new_tensor([float(len(shape) >= 2) for shape in layout.shapes]))
        where, kind = positions(layout, params.device), int(any(len(shape) > 2 for shape in layout.shapes))
        return SteeringState(0, total, kind, zero, zero, params.new_zeros(()), where, matrix)

    def inputs(self, images: Tensor, state: SteeringState, generator: torch.Generator | None) -> Tensor:
        """The images with as much noise as this step asks for."""
        sigma = self.at(state.step / state.total, state.kind)[LEVERS.index("noise")]
        noise = torch.randn(images.shape, generator=generator, device=images.device, dtype=images.dtype)
        return images + sigma.to(images) * noise

    def average(self, grads: Tensor, state: SteeringState) -> tuple[Tensor, Tensor, SteeringState]:
        """The Adam direction `[..., N]`, the levers of this step, and the next state."""
        levers, k = self.at(state.step / state.total, state.kind), state.step + 1
        forget = levers[LEVERS.index("forget")]
        mean, weight = torch.lerp(state.mean, grads, forget), torch.lerp(state.weight, forget.new_ones(()), forget)
        square = 0.99 * state.square + 0.01 * grads * grads
        # 1e-14 inside the root, for its slope at 0 is infinite.
        direction = (mean / weight) * (square / (1 - 0.99**k) + 1e-14).rsqrt()
        return direction, levers, state._replace(step=k, mean=mean, square=square, weight=weight)

    def update(self, grads: Tensor, state: SteeringState, params: Tensor) -> tuple[Tensor, SteeringState]:
        """The step `[..., N]` to add to params, and the next state."""
        direction, levers, state = self.average(grads, state)
        rate, decay = levers[:3][state.where], levers[3:6][state.where] * state.matrix
        return -rate * direction - decay * params, state


def positions(layout: Layout, device: torch.device) -> Tensor:
    """For each coordinate `[N]` whether its layer is the first, the last or between: an index into WHERE."""
    last = layout.layers[-1]
    kinds = [2 if layer == last else 0 if layer == 0 else 1 for layer in layout.layers]
    return layout.spread(torch.tensor(kinds, device=device))
