"""The feature LSTM: what the feature optimizer sees, into a network that remembers.

For each coordinate, with features phi, output h and memory m of the same LSTM cell, weight w, and a the bias-corrected
Adam direction of momentum 0.9:

    (h, m)    = cell(phi, (h, m))
    (d, s, c) = head(h)
    step      = -exp(log_lr + s) * rms(W) * (a + d)  -  cap * tanh(c) * w

The features hold averages over 2, 10 and 100 steps; the memory is for what no average of fixed length says. As in
`metarobust.learned.mlp` the head starts at 0: an untrained one *is* Adam, its step in proportion to the tensor's size.

Source: the cell for each coordinate is Andrychowicz et al. 2016 (arXiv 1606.04474), section 2.1; moving averages as
inputs of it, Wichrowska et al. 2017 (arXiv 1703.04813); the features and the residual form are ours.
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from metarobust.learned.features import (
    NAMES,
    SLOTS,
    Summary,
    accumulate,
    blocks,
    of_coordinates,
    summarise,
    times,
)
from metarobust.learned.lstm import advance, cell
from metarobust.learned.mlp import MOMENTUM, around_adam, surroundings
from metarobust.learned.protocol import LearnedOptimizer, ParamInfo, State, StepContext


class FeatureLSTM(LearnedOptimizer):
    """A learned optimizer; its parameters are theta. `init` and `update` as in `metarobust.optimizers`.

    hidden: units of the cell. lr: the step before any training, relative to a tensor's root mean square. cap: the
    largest share of a weight that one step may take away or add. A coordinate remembers 2 * hidden + 4 numbers.
    """

    def __init__(self, hidden: int = 20, lr: float = 0.02, cap: float = 0.3, generator: torch.Generator | None = None):
        super().__init__()
        self.hidden = hidden
        self.cell = cell(len(NAMES), hidden, generator)
        self.head = nn.Linear(hidden, 3)
        self.log_lr = nn.Parameter(torch.tensor(lr).log())
        self.cap = cap
        with torch.no_grad():
            for p in self.head.parameters():
                p.zero_()

    @property
    def slots(self) -> dict[str, tuple[int, ...]]:
        return SLOTS | {"output": (self.hidden,), "memory": (self.hidden,)}

    def begin(self, state: State) -> tuple[Any, dict[str, Tensor]]:
        return blocks(self.cell.weight_ih), {}

    def watch(self, grads: Tensor, slots: dict[str, Tensor], now: StepContext) -> dict[str, Tensor]:
        return slots | accumulate(grads, slots)

    def survey(
        self,
        slots: Mapping[str, Tensor],
        params: Tensor,
        bias: Mapping[str, Tensor] | None,
        place: ParamInfo,
        now: StepContext,
    ) -> tuple[Tensor, ...]:
        summary = summarise(slots, params, bias, place, now.step)
        return surroundings(now.levers, self.cell.bias_ih, summary, place, now)

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
        inner = (times(now.levers[0], seen) + rows + columns).flatten(1)
        output, memory = advance(self.cell, inner, slots["output"].flatten(1), slots["memory"].flatten(1))
        outputs = torch.addmm(self.head.bias[:, None], self.head.weight, output).view(-1, *grads.shape).unbind(0)
        step = around_adam(outputs, seen[MOMENTUM], params, size, place, self.log_lr, self.cap)
        return step, {"output": output.view(-1, *grads.shape), "memory": memory.view(-1, *grads.shape)}
