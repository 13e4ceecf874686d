"""A learned rule with a part of it switched off: whether what looks important is what works.

turn      d = 0: the direction is Adam's own
decay     c = 0: no weight is given up
columns   the share of a weight that is given up is the same in the whole matrix, the mean of what the rule wanted
"""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from metarobust.errors import choose
from metarobust.learned.features import Summary, of_coordinates
from metarobust.learned.mlp import MOMENTUM, FeatureMLP, around_adam, correct
from metarobust.learned.protocol import ParamInfo, StepContext

PARTS = ("turn", "decay", "columns")


class Knockout(FeatureMLP):
    """The rule without this part. Raises InputError for a part that is not in PARTS."""

    def __init__(self, rule: FeatureMLP, without: str):
        choose(without, PARTS, "part of the learned rule")
        with torch.random.fork_rng(devices=[]):  # PyTorch's layers draw first values, which are replaced
            super().__init__(rule.hidden, cap=rule.cap, blind=rule.blind)
        self.without = without
        self.load_state_dict(rule.state_dict())
        self.to(rule.log_lr)

    def move(
        self,
        grads: Tensor,
        slots: Mapping[str, Tensor],
        params: Tensor,
        bias: Mapping[str, Tensor] | None,
        place: ParamInfo,
        now: StepContext,
    ) -> tuple[Tensor, dict[str, Tensor]]:
        # All rows at once: a mean over the matrix needs them.
        return self.write(grads, slots, params, self.survey(slots, params, bias, place, now), place, now)

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
        turn, pace, give = correct(self.net, now.levers, seen, rows, columns)
        if self.without == "turn":
            turn = torch.zeros_like(turn)
        elif self.without == "decay":
            give = torch.zeros_like(give)
        else:
            give = torch.tanh(give).mean((-2, -1), True).clamp(-0.999, 0.999).atanh()
        return around_adam((turn, pace, give), seen[MOMENTUM], params, size, place, self.log_lr, self.cap), {}
