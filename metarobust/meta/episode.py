"""One episode of a meta-training: inner runs of every group, side by side, from start to horizon."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from metarobust.meta.config import MetaTrainConfig, generator_of
from metarobust.meta.estimators import ESTIMATORS
from metarobust.meta.problem import Problem
from metarobust.meta.replay import Replay
from metarobust.meta.sharing import ALONE, Share
from metarobust.objectives import Objective
from metarobust.tasks import Tasks

# Replay is backpropagation too, with less memory where a rule sees gradients alone.
WAYS = ESTIMATORS | {"backprop": Replay}


class Episode:
    """The groups' inner problems and how far they are. numbers: seed and episode; all chance follows from them.

    optimizer, sample, plan, inner, meta and share are as in `meta_train`. stretches: how many make up the horizon.
    """

    def __init__(
        self,
        optimizer: Any,
        sample: Callable[[int, torch.Generator], Tasks],
        plan: MetaTrainConfig,
        *,
        inner: Objective,
        meta: Objective,
        device: torch.device | str,
        numbers: tuple[int, int],
        share: Share = ALONE,
    ):
        horizons = plan.unlocked(numbers[1])
        draw = generator_of(device, *numbers)
        horizon = horizons[int(torch.randint(len(horizons), (1,), generator=draw, device=device))]
        self.optimizer, self.plan, self.number, self._share = optimizer, plan, numbers[1], share
        self.stretches = horizon // plan.truncation
        self._estimator = WAYS[plan.estimator]()
        self._problems, self._streams, self._carried = [], [], []
        for group in share.groups(plan.groups):
            # A stream of its own: whoever computes the group, and in whichever order, finds the same.
            stream = generator_of(device, *numbers, group)
            problem = Problem(sample(plan.tasks, stream), horizon, plan, inner, meta)
            self._problems.append(problem)
            self._streams.append(stream)
            self._carried.append(self._estimator.begin(optimizer, problem))

    def stretch(self) -> tuple[float, list[Tensor]]:
        """The meta-loss of the next stretch, and its gradient in each parameter of theta: means over all groups."""
        loss, gradient = 0.0, [torch.zeros_like(p) for p in self.optimizer.parameters()]
        for place, problem in enumerate(self._problems):
            found = self._estimator.step(self.optimizer, problem, self._carried[place], self._streams[place])
            self._carried[place] = found.carried
            loss += found.loss / self.plan.groups
            gradient = [whole + part / self.plan.groups for whole, part in zip(gradient, found.gradient, strict=True)]
        gradient, loss = self._share.sum(gradient, loss)
        return loss, gradient
