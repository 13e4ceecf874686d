"""The coordinate-wise LSTM of the literature: it sees the gradient alone, and remembers.

Every coordinate runs the same two-layer LSTM of 20 units with a state of its own. For a gradient g the input is

    ( log|g| / p, sign(g) )     where |g| >= exp(-p)
    ( -1, exp(p) * g )          elsewhere,                 p = 10

and the update is 0.1 times a linear read-out of the upper layer.

Source: Andrychowicz et al. 2016 (arXiv 1606.04474), section 2.1, appendix A. The forget gate's bias of 1 is
Jozefowicz et al. 2015's; the head that starts small, so that an untrained optimizer hardly moves, is ours. To forget
what a step computed and compute it again on the way back is Chen et al. 2016 (arXiv 1604.06174).
"""

import math
from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from metarobust.learned.protocol import Accumulators, LearnedOptimizer, ParamBlock, State, StepContext

P = 10.0


def log_and_sign(grads: Tensor) -> Tensor:
    """Gradients `[...]` as inputs of even size, `[2, ...]`: magnitude on a logarithmic scale, and sign."""
    size = grads.abs()
    large = size >= math.exp(-P)
    magnitude = torch.where(large, size.clamp_min(1e-30).log() / P, -1.0)
    direction = torch.where(large, grads.sign(), grads * math.exp(P))
    return torch.stack([magnitude, direction])


def make_cell(size: int, hidden: int, generator: torch.Generator | None) -> nn.LSTMCell:
    """The weights of a layer, drawn from a generator; its forget gate is open at first."""
    cell = nn.LSTMCell(size, hidden)
    bound = hidden**-0.5
    with torch.no_grad():
        for weight in (cell.weight_ih, cell.weight_hh):
            weight.copy_(torch.rand(weight.shape, generator=generator) * 2 * bound - bound)
        cell.bias_hh.zero_()
        cell.bias_ih.zero_()
        cell.bias_ih[hidden : 2 * hidden] = 1.0  # the second quarter is the forget gate
    return cell


def run_cell(cell: nn.LSTMCell, inputs: Tensor, output: Tensor, memory: Tensor) -> tuple[Tensor, Tensor]:
    """The cell's next output and memory, as `nn.LSTMCell` has them.

    Coordinates are the last axis here, so that each gate is one stretch of memory.

    Args:
        cell: the weights.
        inputs: what its input adds to the gates, with their first bias: `[4 * hidden, n]`.
        output: `[hidden, n]`.
        memory: `[hidden, n]`.
    """
    gates = torch.addmm(inputs + cell.bias_hh[:, None], cell.weight_hh, output)
    enter, forget, new, leave = gates.chunk(4)
    memory = forget.sigmoid() * memory + enter.sigmoid() * new.tanh()
    return leave.sigmoid() * memory.tanh(), memory


class CoordinateLSTM(LearnedOptimizer):
    """The LSTM above as a learned optimizer.

    Args:
        hidden: units of each of the two layers.
        scale: factor of the read-out, the largest part of what keeps it stable.
        generator: of the weights.
    """

    def __init__(self, hidden: int = 20, scale: float = 0.1, generator: torch.Generator | None = None):
        super().__init__()
        self.hidden, self.scale = hidden, scale
        self.lower = make_cell(2, hidden, generator)
        self.upper = make_cell(hidden, hidden, generator)
        self.head = nn.Linear(hidden, 1, bias=False)
        with torch.no_grad():
            self.head.weight.copy_(0.1 * torch.randn(self.head.weight.shape, generator=generator))

    @property
    def accumulators(self) -> dict[str, tuple[int, ...]]:
        return dict.fromkeys(("lower", "lower_memory", "upper", "upper_memory"), (self.hidden,))

    def compute_update(
        self, block: ParamBlock, stats: Sequence[Tensor], context: StepContext
    ) -> tuple[Tensor, dict[str, Tensor]]:
        return self._step(block.grads, block.accumulators)

    def update(self, grads: Tensor, state: State, params: Tensor) -> tuple[Tensor, State]:
        """What is added to params `[..., N]`, and the next state: all tensors at once, for they do not matter."""
        if torch.is_grad_enabled():
            again = checkpoint(self._step, grads, state.accumulators, use_reentrant=False, preserve_rng_state=False)
            step, accumulators = cast(tuple[Tensor, dict[str, Tensor]], again)
        else:
            step, accumulators = self._step(grads, state.accumulators)
        return step, state._replace(step=state.step + 1, accumulators=accumulators)

    def _step(self, grads: Tensor, accumulators: Accumulators) -> tuple[Tensor, dict[str, Tensor]]:
        low, low_memory, up, up_memory = (accumulators[name].flatten(1) for name in self.accumulators)
        inputs = torch.addmm(self.lower.bias_ih[:, None], self.lower.weight_ih, log_and_sign(grads).flatten(1))
        low, low_memory = run_cell(self.lower, inputs, low, low_memory)
        inputs = torch.addmm(self.upper.bias_ih[:, None], self.upper.weight_ih, low)
        up, up_memory = run_cell(self.upper, inputs, up, up_memory)
        step = (self.scale * self.head.weight[0] @ up).view(grads.shape)
        parts = (part.view(-1, *grads.shape) for part in (low, low_memory, up, up_memory))
        return step, dict(zip(self.accumulators, parts, strict=True))
