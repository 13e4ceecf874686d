"""A learned rule with a part of it switched off: whether what looks important is what works.

turn      d = 0: the direction is Adam's own
decay     c = 0: no weight is given up
columns   the share of a weight that is given up is the same in the whole matrix, the mean of what the rule wanted
"""

import sys
from collections.abc import Sequence

import torch
from torch import Tensor

from metarobust.errors import choose
from metarobust.learned.mlp import MOMENTUM, FeatureMLP, adam_residual, run_mlp
from metarobust.learned.protocol import ParamBlock, StepContext

PARTS = ("turn", "decay", "columns")


class Knockout(FeatureMLP):
    """The rule without this part. Raises InputError for a part that is not in PARTS."""

    chunk = sys.maxsize  # all rows at once: a mean over the matrix needs them

    def __init__(self, rule: FeatureMLP, without: str):
        choose(without, PARTS, "part of the learned rule")
        with torch.random.fork_rng(devices=[]):  # PyTorch's layers draw first values, which are replaced
            super().__init__(rule.hidden, cap=rule.cap, masked_features=rule.masked_features)
        self.without = without
        self.load_state_dict(rule.state_dict())
        self.to(rule.log_lr)

    def compute_update(
        self, block: ParamBlock, stats: Sequence[Tensor], context: StepContext
    ) -> tuple[Tensor, dict[str, Tensor]]:
        features, hidden = self.look(block, stats, context)
        turn, scale, decay = run_mlp(self.net, hidden)
        if self.without == "turn":
            turn = torch.zeros_like(turn)
        elif self.without == "decay":
            decay = torch.zeros_like(decay)
        else:
            decay = torch.tanh(decay).mean((-2, -1), True).clamp(-0.999, 0.999).atanh()
        return adam_residual((turn, scale, decay), features[MOMENTUM], block, stats[-1], self.log_lr, self.cap), {}
