"""One group of inner problems with all that their meta-loss depends on: `stretch` is what every estimator asks."""

from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from metarobust.meta.config import MetaTrainConfig
from metarobust.objectives import Objective
from metarobust.optimizers import Optimizer
from metarobust.tasks import Tasks
from metarobust.unroll import detach, unroll


class Point(NamedTuple):
    """Where an inner run is: the optimizees' parameters `[T, N]`, and the state of their optimizer."""

    params: Tensor
    state: Any

    def detach(self) -> "Point":
        """The same place, cut off from the computation that led there: where the next stretch begins."""
        return Point(self.params.detach(), detach(self.state))


@dataclass(frozen=True)
class Problem:
    """tasks: the group's optimizees. horizon: steps of the whole inner run. inner, meta: the two objectives."""

    tasks: Tasks
    horizon: int
    plan: MetaTrainConfig
    inner: Objective
    meta: Objective

    def start(self, optimizer: Optimizer) -> Point:
        """Where the inner run begins."""
        return Point(self.tasks.params, optimizer.init(self.tasks.params, self.tasks.param_spec, self.horizon))

    def stretch(self, optimizer: Optimizer, at: Point, generator: torch.Generator) -> tuple[Tensor, Point]:
        """The meta-loss, a number, of the next `truncation` steps, half-way and at their end; and where they lead."""
        plan, tasks = self.plan, self.tasks
        (params, state), score = at, tasks.params.new_zeros(())
        half = plan.truncation // 2
        for weight, steps in ((plan.mid_loss_weight, half), (1 - plan.mid_loss_weight, plan.truncation - half)):
            params, state = unroll(
                tasks, optimizer, params, state, steps=steps, batch_size=plan.batch_size, inner=self.inner,
                generator=generator, second_order=plan.second_order,
            )  # fmt: skip
            images, labels = tasks.batch(tasks.held_out, plan.held_out, generator)
            score = score + weight * self.meta(tasks.predictor(params), images, labels, generator).mean()
        return score, Point(params, state)
