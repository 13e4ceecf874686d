"""Optimizers as functions: `init(params, ...) -> state`, `update(grads, state, params) -> (updates, state)`.

All parameters of a model are one vector `[N]`, or `[T, N]` for T models. The caller adds the updates to the parameters
and keeps the state, so a run of training is a pure function that can be differentiated. Hyperparameters may be
numbers, or tensors `[T, 1]` with another value for each of T models: a whole grid is one run. A third function,
`objective`, is for those that say what their gradients are taken of, such as the loss at noised images.

Source: Kingma and Ba 2015 (arXiv 1412.6980), algorithm 1; Loshchilov and Hutter 2019 (arXiv 1711.05101) for decay that
is applied to the weight and not to the gradient. Checked against torch.optim in the tests.
"""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor

from metarobust.objectives import Objective
from metarobust.params import ParamSpec


class Optimizer(ABC):
    """What `unroll` needs of an optimizer, hand-written or learned."""

    @abstractmethod
    def init(self, params: Tensor, param_spec: ParamSpec, total: int) -> Any:
        """The state before the first step.

        Args:
            params: `[..., N]`.
            param_spec: which part of them is which tensor.
            total: how many steps there will be.
        """

    @abstractmethod
    def update(self, grads: Tensor, state: Any, params: Tensor) -> tuple[Tensor, Any]:
        """The updates `[..., N]` to add to params, and the next state.

        Args:
            grads: `[..., N]`.
            state: of `init` or of the last update.
            params: `[..., N]`.
        """

    def objective(self, inner: Objective, state: Any, eps: float) -> Objective:
        """What it wants the next gradient of: the inner objective itself, if it does not say otherwise.

        Args:
            inner: the objective of the run.
            state: before the step.
            eps: radius of the attack that the model is to stand, in pixel units.
        """
        return inner


@dataclass(frozen=True)
class SGD(Optimizer):
    """v <- momentum * v + g;  update = -lr * (v + decay * w)."""

    lr: float | Tensor
    momentum: float | Tensor = 0.0
    decay: float | Tensor = 0.0

    def init(self, params: Tensor, param_spec: ParamSpec, total: int) -> Tensor:
        return torch.zeros_like(params)

    def update(self, grads: Tensor, state: Tensor, params: Tensor) -> tuple[Tensor, Tensor]:
        velocity = self.momentum * state + grads
        return -self.lr * (velocity + self.decay * params), velocity


class AdamState(NamedTuple):
    """step: updates so far. mean, square: running averages of the gradient and of its square."""

    step: int
    mean: Tensor
    square: Tensor


@dataclass(frozen=True)
class Adam(Optimizer):
    """m, v <- running averages of g and g^2;  update = -lr * (m / (sqrt(v) + eps) + decay * w), bias-corrected."""

    lr: float | Tensor
    decay: float | Tensor = 0.0
    beta1: float = 0.9
    beta2: float = 0.999
    eps: float = 1e-8

    def init(self, params: Tensor, param_spec: ParamSpec, total: int) -> AdamState:
        return AdamState(0, torch.zeros_like(params), torch.zeros_like(params))

    def update(self, grads: Tensor, state: AdamState, params: Tensor) -> tuple[Tensor, AdamState]:
        k = state.step + 1
        mean = torch.lerp(grads, state.mean, self.beta1)
        square = torch.lerp(grads * grads, state.square, self.beta2)
        direction = (mean / (1 - self.beta1**k)) / ((square / (1 - self.beta2**k)).sqrt() + self.eps)
        return -self.lr * (direction + self.decay * params), AdamState(k, mean, square)


@dataclass(frozen=True)
class RMSprop(Optimizer):
    """v <- running average of g^2;  update = -lr * g / (sqrt(v) + eps): Hinton's lecture 6e of 2012, as in torch."""

    lr: float | Tensor
    decay: float = 0.99
    eps: float = 1e-8

    def init(self, params: Tensor, param_spec: ParamSpec, total: int) -> Tensor:
        return torch.zeros_like(params)

    def update(self, grads: Tensor, state: Tensor, params: Tensor) -> tuple[Tensor, Tensor]:
        square = torch.lerp(grads * grads, state, self.decay)
        return -self.lr * grads / (square.sqrt() + self.eps), square


@dataclass(frozen=True)
class ProximalL1(Optimizer):
    """An optimizer followed by soft-thresholding: w <- sign(w) * max(abs(w) - strength, 0).

    Attributes:
        inner: the optimizer.
        strength: what each step takes off: broadcasts to `[..., N]`, 0 where nothing is to shrink.
    """

    inner: Optimizer
    strength: Tensor

    def init(self, params: Tensor, param_spec: ParamSpec, total: int) -> Any:
        return self.inner.init(params, param_spec, total)

    def update(self, grads: Tensor, state: Any, params: Tensor) -> tuple[Tensor, Any]:
        updates, state = self.inner.update(grads, state, params)
        moved = params + updates
        return moved.sign() * (moved.abs() - self.strength).clamp_min(0) - params, state

    def objective(self, inner: Objective, state: Any, eps: float) -> Objective:
        return self.inner.objective(inner, state, eps)


@dataclass(frozen=True)
class Annealed(Optimizer):
    """An optimizer whose steps shrink on a line: times 1 - share * t / T. With a share of 1 the last is next to 0.

    A line to 0 is the schedule that held up best over many tasks (Defazio et al. 2023, arXiv 2310.07831).

    Attributes:
        inner: the optimizer; its step has to be in proportion to its rate.
        share: how much of the rate is gone in the end, from 0 to 1.
    """

    inner: Optimizer
    share: float | Tensor = 1.0

    def init(self, params: Tensor, param_spec: ParamSpec, total: int) -> tuple[Any, int, int]:
        return self.inner.init(params, param_spec, total), 0, total

    def update(self, grads: Tensor, state: tuple[Any, int, int], params: Tensor) -> tuple[Tensor, Any]:
        inner, step, total = state
        updates, inner = self.inner.update(grads, inner, params)
        return updates * (1 - self.share * step / total), (inner, step + 1, total)
