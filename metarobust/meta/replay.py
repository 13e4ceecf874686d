"""Backpropagation of first order through a rule that sees gradients alone, without a graph of the stretch.

In first order the gradients g_k count as constants, so a rule u_k = rule(g_1, ..., g_k; theta) that looks at nothing
else has

    dL/dtheta  =  sum_k  (dL/du_k)  du_k/dtheta

where dL/du_k is the slope of the meta-loss by the parameters that come after step k. So the stretch is run without a
graph, its gradients are written down, and the rule alone is taken through them once more, a few coordinates at a time.
The result is that of `metarobust.meta.estimators.Backprop` up to rounding; time and memory are much smaller.
"""

from typing import Any

import torch
from torch import Tensor

from metarobust.learned.lstm import CoordinateLSTM
from metarobust.meta.estimators import Backprop, GradientEstimate
from metarobust.meta.problem import Point, Problem
from metarobust.optimizers import Optimizer
from metarobust.params import ParamSpec


class Tape(Optimizer):
    """An optimizer that writes down the gradients it sees and the steps it takes; its own graph is left out.

    The steps are leaves, so that the slope of whatever comes of them can be asked for.
    """

    def __init__(self, inner: Optimizer):
        self.inner = inner
        self.grads: list[Tensor] = []
        self.steps: list[Tensor] = []

    def init(self, params: Tensor, param_spec: ParamSpec, total: int) -> Any:
        return self.inner.init(params, param_spec, total)

    def inputs(self, images: Tensor, state: Any, generator: torch.Generator | None) -> Tensor:
        return self.inner.inputs(images, state, generator)

    def update(self, grads: Tensor, state: Any, params: Tensor) -> tuple[Tensor, Any]:
        with torch.no_grad():
            step, state = self.inner.update(grads, state, params)
        self.grads.append(grads)
        self.steps.append(step.requires_grad_())
        return self.steps[-1], state


class Replay(Backprop):
    """The meta-gradient of a CoordinateLSTM in first order; every other case is left to Backprop."""

    def step(self, optimizer: Any, problem: Problem, carried: Point, generator: torch.Generator) -> GradientEstimate:
        """The meta-gradient of the next stretch."""
        if problem.plan.second_order or not isinstance(optimizer, CoordinateLSTM):
            return super().step(optimizer, problem, carried, generator)
        tape = Tape(optimizer)
        score, after = problem.stretch(tape, carried, generator)
        slopes = torch.autograd.grad(score, tape.steps)
        gradient = optimizer.pull_back(torch.stack(tape.grads), carried.state, torch.stack(slopes))
        return GradientEstimate(score.item(), gradient, after.detach())
