"""The coordinate-wise LSTM of the literature: it sees the gradient alone, and remembers.

Every coordinate runs the same two-layer LSTM of 20 units with a state of its own. For a gradient g the input is

    ( log|g| / p, sign(g) )     where |g| >= exp(-p)
    ( -1, exp(p) * g )          elsewhere,                 p = 10

and the step is 0.1 times a linear read-out of the upper layer.

Source: Andrychowicz et al. 2016 (arXiv 1606.04474), section 2.1, appendix A. The forget gate's bias of 1 is
Jozefowicz et al. 2015's; the head that starts small, so that an untrained optimizer hardly moves, is ours.
"""

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn

from metarobust.layout import Layout
from metarobust.optimizers import Optimizer

P = 10.0


class LSTMState(NamedTuple):
    """Output and memory of the lower and the upper layer, for every coordinate: `[..., N, hidden]` each."""

    lower: Tensor
    lower_memory: Tensor
    upper: Tensor
    upper_memory: Tensor


def log_and_sign(grads: Tensor) -> Tensor:
    """Gradients `[..., N]` as inputs of even size, `[..., N, 2]`: magnitude on a logarithmic scale, and sign."""
    size = grads.abs()
    large = size >= math.exp(-P)
    magnitude = torch.where(large, size.clamp_min(1e-30).log() / P, -1.0)
    direction = torch.where(large, grads.sign(), grads * math.exp(P))
    return torch.stack([magnitude, direction], -1)


class CoordinateLSTM(nn.Module, Optimizer):
    """A learned optimizer; its parameters are theta. `init` and `update` as in `metarobust.optimizers`.

    hidden: units of each of the two layers. scale: factor of the read-out, the largest part of what keeps it stable.
    """

    def __init__(self, hidden: int = 20, scale: float = 0.1, generator: torch.Generator | None = None):
        super().__init__()
        self.hidden, self.scale = hidden, scale
        self.lower = nn.LSTMCell(2, hidden)
        self.upper = nn.LSTMCell(hidden, hidden)
        self.head = nn.Linear(hidden, 1, bias=False)
        with torch.no_grad():
            for cell in (self.lower, self.upper):
                for weight in (cell.weight_ih, cell.weight_hh):
                    bound = hidden**-0.5
                    weight.copy_(torch.rand(weight.shape, generator=generator) * 2 * bound - bound)
                cell.bias_hh.zero_()
                cell.bias_ih.zero_()
                cell.bias_ih[hidden : 2 * hidden] = 1.0  # the second quarter is the forget gate
            self.head.weight.copy_(0.1 * torch.randn(self.head.weight.shape, generator=generator))

    def init(self, params: Tensor, layout: Layout, total: int) -> LSTMState:
        """The state before the first step, for params `[..., N]`."""
        return LSTMState(*(params.new_zeros(*params.shape, self.hidden) for _ in range(4)))

    def update(self, grads: Tensor, state: LSTMState, params: Tensor) -> tuple[Tensor, LSTMState]:
        """The step `[..., N]` to add to params, and the next state. The parameters are not looked at."""
        flat = [part.flatten(0, -2) for part in state]
        lower, lower_memory = self.lower(log_and_sign(grads).flatten(0, -2), (flat[0], flat[1]))
        upper, upper_memory = self.upper(lower, (flat[2], flat[3]))
        step = self.scale * self.head(upper)[..., 0].view(grads.shape)
        parts = (lower, lower_memory, upper, upper_memory)
        return step, LSTMState(*(part.view(*grads.shape, self.hidden) for part in parts))
