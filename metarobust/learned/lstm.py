"""The coordinate-wise LSTM of the literature: it sees the gradient alone, and remembers.

Every coordinate runs the same two-layer LSTM of 20 units with a state of its own. For a gradient g the input is

    ( log|g| / p, sign(g) )     where |g| >= exp(-p)
    ( -1, exp(p) * g )          elsewhere,                 p = 10

and the step is 0.1 times a linear read-out of the upper layer.

The arithmetic is that of two `torch.nn.LSTMCell`, in `metarobust.learned.lstm_steps`.

Source: Andrychowicz et al. 2016 (arXiv 1606.04474), section 2.1, appendix A. The forget gate's bias of 1 is
Jozefowicz et al. 2015's; the head that starts small, so that an untrained optimizer hardly moves, is ours.
"""

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from metarobust.learned.lstm_steps import Step, Weights, backward, pack
from metarobust.learned.protocol import LearnedOptimizer, ParamInfo, State, StepContext

P = 10.0


def log_and_sign(grads: Tensor) -> Tensor:
    """Gradients `[...]` as inputs of even size, `[2, ...]`: magnitude on a logarithmic scale, and sign."""
    size = grads.abs()
    large = size >= math.exp(-P)
    magnitude = torch.where(large, size.clamp_min(1e-30).log() / P, -1.0)
    direction = torch.where(large, grads.sign(), grads * math.exp(P))
    return torch.stack([magnitude, direction])


def cell(size: int, hidden: int, generator: torch.Generator | None) -> nn.LSTMCell:
    """The weights of a layer, drawn from a generator; its forget gate is open at first."""
    found = nn.LSTMCell(size, hidden)
    bound = hidden**-0.5
    with torch.no_grad():
        for weight in (found.weight_ih, found.weight_hh):
            weight.copy_(torch.rand(weight.shape, generator=generator) * 2 * bound - bound)
        found.bias_hh.zero_()
        found.bias_ih.zero_()
        found.bias_ih[hidden : 2 * hidden] = 1.0  # the second quarter is the forget gate
    return found


def advance(of: nn.LSTMCell, inner: Tensor, output: Tensor, memory: Tensor) -> tuple[Tensor, Tensor]:
    """The cell's next output and memory, `[hidden, n]` each, as `nn.LSTMCell` has them.

    inner: what its input adds to the gates, with their first bias: `[4 * hidden, n]`. Coordinates are the last axis
    here, so that each gate is one stretch of memory.
    """
    gates = torch.addmm(inner + of.bias_hh[:, None], of.weight_hh, output)
    enter, forget, new, leave = gates.chunk(4)
    memory = forget.sigmoid() * memory + enter.sigmoid() * new.tanh()
    return leave.sigmoid() * memory.tanh(), memory


class CoordinateLSTM(LearnedOptimizer):
    """A learned optimizer; its parameters are theta. `init` and `update` as in `metarobust.optimizers`.

    hidden: units of each of the two layers. scale: factor of the read-out, the largest part of what keeps it stable.
    """

    def __init__(self, hidden: int = 20, scale: float = 0.1, generator: torch.Generator | None = None):
        super().__init__()
        self.hidden, self.scale = hidden, scale
        self.lower = cell(2, hidden, generator)
        self.upper = cell(hidden, hidden, generator)
        self.head = nn.Linear(hidden, 1, bias=False)
        with torch.no_grad():
            self.head.weight.copy_(0.1 * torch.randn(self.head.weight.shape, generator=generator))

    @property
    def slots(self) -> dict[str, tuple[int, ...]]:
        return dict.fromkeys(("lower", "lower_memory", "upper", "upper_memory"), (self.hidden,))

    def write(
        self,
        grads: Tensor,
        slots: Mapping[str, Tensor],
        params: Tensor,
        summary: Any,
        place: ParamInfo,
        now: StepContext,
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """The step and the next outputs and memories. The parameters are not looked at."""
        return self._step(grads, slots)

    def update(self, grads: Tensor, state: State, params: Tensor) -> tuple[Tensor, State]:
        """The step `[..., N]` to add to params, and the next state: all matrices at once, for they do not matter."""
        step, slots = self._step(grads, state.slots)
        return step, state._replace(step=state.step + 1, slots=slots)

    def _step(self, grads: Tensor, slots: Mapping[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        read, *after = Step.apply(log_and_sign(grads).flatten(1), *self._columns(slots), *self._weights())
        parts = (part.view(-1, *grads.shape) for part in after)
        return read.view(grads.shape), dict(zip(self.slots, parts, strict=True))

    @torch.no_grad()
    def pull_back(self, grads: Tensor, state: State, slopes: Tensor) -> list[Tensor]:
        """The slopes by theta of  sum_k slopes_k * step_k,  where step_k are K updates that begin at `state`.

        grads, slopes: `[K, ..., N]`; what the gradients depend on does not count. The result is for each parameter of
        theta in turn. It is what backpropagation through K updates gives, with memory for a chunk of coordinates only.
        """
        inputs = log_and_sign(grads).flatten(2).movedim(0, 1)
        with torch.enable_grad():
            weights = self._weights()
        found, _, _ = backward(inputs, self._columns(state.slots), weights, slopes.flatten(1))
        return list(torch.autograd.grad(weights, list(self.parameters()), found))

    def _weights(self) -> Weights:
        return pack(self.lower, self.upper, self.scale * self.head.weight[0])

    def _columns(self, slots: Mapping[str, Tensor]) -> tuple[Tensor, ...]:
        """The memory, `[hidden, ...]` each, as `[hidden, M]`."""
        return tuple(slots[name].flatten(1) for name in self.slots)
