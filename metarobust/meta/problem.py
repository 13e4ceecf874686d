"""One group of inner problems with all that their meta-loss depends on: what an estimator asks for."""

from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from metarobust.meta.config import MetaTrainConfig
from metarobust.objectives import Objective
from metarobust.optimizers import Optimizer
from metarobust.tasks import Tasks
from metarobust.unroll import map_tensors, unroll


class Point(NamedTuple):
    """Where an inner run is: the optimizees' parameters `[T, N]`, and the state of their optimizer."""

    params: Tensor
    state: Any

    def detach(self) -> "Point":
        """The same point, cut off from the computation that led there: where the next truncation begins."""
        return map_tensors(Tensor.detach, self)


@dataclass(frozen=True)
class Problem:
    """An inner problem: a group of optimizees, the length of their run in steps, and the two objectives."""

    tasks: Tasks
    horizon: int
    config: MetaTrainConfig
    inner: Objective
    meta: Objective

    def start(self, optimizer: Optimizer) -> Point:
        """Where the inner run begins."""
        return Point(self.tasks.params, optimizer.init(self.tasks.params, self.tasks.param_spec, self.horizon))

    def truncation_loss(self, optimizer: Optimizer, at: Point, generator: torch.Generator) -> tuple[Tensor, Point]:
        """Runs the next `truncation` steps.

        Args:
            optimizer: takes the steps.
            at: where they begin.
            generator: the stream of batches, noise and starts of attacks.

        Returns:
            The meta-loss, a scalar: a weighted mean of that half-way and that at the end; and where the steps lead.
        """
        config = self.config
        point, meta_loss = at, self.tasks.params.new_zeros(())
        half = config.truncation // 2
        for weight, steps in ((config.mid_loss_weight, half), (1 - config.mid_loss_weight, config.truncation - half)):
            point = self.run(optimizer, point, steps, generator, second_order=config.second_order)
            meta_loss = meta_loss + weight * self.meta_losses(point, generator).mean()
        return meta_loss, point

    def run(
        self, optimizer: Optimizer, at: Point, steps: int, generator: torch.Generator, *, second_order: bool = False
    ) -> Point:
        """Where some steps lead."""
        how = {"steps": steps, "batch_size": self.config.batch_size, "inner": self.inner, "generator": generator}
        return Point(*unroll(self.tasks, optimizer, *at, **how, second_order=second_order))

    def meta_losses(self, at: Point, generator: torch.Generator) -> Tensor:
        """The meta-loss of each task at a point, `[T]`, on images that are held out."""
        images, labels = self.tasks.batch(self.tasks.held_out, self.config.held_out, generator)
        return self.meta(self.tasks.predictor(at.params), images, labels, generator).view(len(self.tasks), -1).mean(1)
