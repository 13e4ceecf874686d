"""The feature LSTM: what the feature optimizer sees, into a network that remembers.

For each coordinate, with features phi, output h and memory m of the same LSTM cell, weight w, and a the bias-corrected
Adam direction of momentum 0.9:

    (h, m)    = cell(phi, (h, m))
    (d, s, c) = head(h)
    update    = -exp(log_lr + s) * rms(W) * (a + d)  -  cap * tanh(c) * w

The features hold averages over 2, 10 and 100 steps; the memory is for what no average of fixed length says. As in
`metarobust.learned.mlp` the head starts at 0: an untrained one *is* Adam, its step in proportion to the tensor's size.

Source: the cell for each coordinate is Andrychowicz et al. 2016 (arXiv 1606.04474), section 2.1; moving averages as
inputs of it, Wichrowska et al. 2017 (arXiv 1703.04813); the features and the residual form are ours.
"""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from metarobust.learned.features import ACCUMULATORS, NAMES
from metarobust.learned.lstm import make_cell, run_cell
from metarobust.learned.mlp import MOMENTUM, FeatureOptimizer, adam_residual
from metarobust.learned.protocol import ParamBlock, StepContext


class FeatureLSTM(FeatureOptimizer):
    """The cell above as a learned optimizer. A coordinate remembers 2 * hidden + 4 numbers.

    Args:
        hidden: units of the cell.
        lr: the step before any training, relative to a tensor's root mean square.
        cap: the largest share of a weight that one step may take away or add.
        generator: of the weights.
    """

    def __init__(self, hidden: int = 20, lr: float = 0.02, cap: float = 0.3, generator: torch.Generator | None = None):
        super().__init__()
        self.hidden, self.cap = hidden, cap
        self.cell = make_cell(len(NAMES), hidden, generator)
        self.head = nn.Linear(hidden, 3)
        self.log_lr = nn.Parameter(torch.tensor(lr).log())
        with torch.no_grad():
            for p in self.head.parameters():
                p.zero_()

    @property
    def accumulators(self) -> dict[str, tuple[int, ...]]:
        return ACCUMULATORS | {"output": (self.hidden,), "memory": (self.hidden,)}

    def first_layer(self) -> tuple[Tensor, Tensor]:
        return self.cell.weight_ih, self.cell.bias_ih

    def compute_update(
        self, block: ParamBlock, stats: Sequence[Tensor], context: StepContext
    ) -> tuple[Tensor, dict[str, Tensor]]:
        features, inputs = self.look(block, stats, context)
        output, memory = (block.accumulators[name].flatten(1) for name in ("output", "memory"))
        output, memory = run_cell(self.cell, inputs.flatten(1), output, memory)
        shape = block.grads.shape
        outputs = torch.addmm(self.head.bias[:, None], self.head.weight, output).view(-1, *shape).unbind(0)
        update = adam_residual(outputs, features[MOMENTUM], block, stats[-1], self.log_lr, self.cap)
        return update, {"output": output.view(-1, *shape), "memory": memory.view(-1, *shape)}
