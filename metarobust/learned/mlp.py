"""The feature optimizer: one small network, shared by all coordinates, that writes a correction to Adam.

For each coordinate, with features phi, weight w, and a the bias-corrected Adam direction of momentum 0.9:

    (d, s, c) = net(phi)
    step = -exp(log_lr + s) * rms(W) * (a + d)  -  cap * tanh(c) * w

The head of the net starts at 0, so that an untrained optimizer *is* Adam with a step in proportion to the tensor's
size; what it learns is the direction d, the step s, and the share c of the weight that it gives up.

Source: the residual form and the outputs are ours; per-coordinate networks as optimizers: Andrychowicz et al. 2016
(arXiv 1606.04474), Metz et al. 2020 (arXiv 2009.11243).
"""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from metarobust.layout import Layout
from metarobust.learned.features import NAMES, Moments, accumulate, features, root_fan_in, start, statics
from metarobust.optimizers import Optimizer

MOMENTUM = NAMES.index("momentum 0.9")
TENSOR_SIZE = NAMES.index("log weight of the tensor")


class MLPState(NamedTuple):
    """moments: running averages. layout, total, fixed: what stays the same all through the inner run."""

    moments: Moments
    layout: Layout
    total: int
    fixed: Tensor
    floor: Tensor


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


class FeatureMLP(nn.Module, Optimizer):
    """A learned optimizer; its parameters are theta. `init` and `update` as in `metarobust.optimizers`.

    hidden: units in each of the two hidden layers. lr: the step before any training, relative to a tensor's root mean
    square. cap: the largest share of a weight that one step may take away or add.
    """

    def __init__(self, hidden: int = 16, lr: float = 0.02, cap: float = 0.3, generator: torch.Generator | None = None):
        super().__init__()
        self.hidden = hidden
        self.net = correction(hidden, generator)
        self.log_lr = nn.Parameter(torch.tensor(lr).log())
        self.cap = cap

    def init(self, params: Tensor, layout: Layout, total: int) -> MLPState:
        """The state before the first of `total` steps, for params `[..., N]`."""
        fixed = statics(layout, total, params)
        fans = params.new_tensor([fan_in for fan_in, _ in layout.fans])
        # A tensor near 0 (a bias, say) could never grow again if its step were in proportion to it alone.
        return MLPState(start(params), layout, total, fixed, layout.spread(0.1 / fans.sqrt()))

    def update(self, grads: Tensor, state: MLPState, params: Tensor) -> tuple[Tensor, MLPState]:
        """The step `[..., N]` to add to params, and the next state."""
        moments = accumulate(grads, state.moments)
        phi = features(grads, moments, params, state.layout, state.fixed, state.total)
        direction, size, decay = self.net(phi).unbind(-1)
        adam = phi[..., MOMENTUM]
        spread = phi[..., TENSOR_SIZE].exp() / root_fan_in(state.fixed)  # back to the root mean square of the tensor
        lr = (self.log_lr + size.clamp(-6, 4)).exp() * torch.maximum(spread, state.floor)
        step = -lr * (adam + direction) - self.cap * torch.tanh(decay) * params
        return step, state._replace(moments=moments)
