"""A rule written by hand that imitates the learned patcher: Adam that gives up columns of little gradient.

A column of a weight matrix holds the weights on one input, a pixel or a unit; of a convolution, those on one place in
one channel of its window. With a Adam's direction, v its running average of the squared gradient, w a weight of the
matrix W in column j:

    r_j  = sqrt( mean of v over column j / mean of v over W )          how much gradient the column sees
    q_j  = 1 / (1 + (r_j / threshold) ^ slope)                         whether to give it up: near 1 yes, near 0 no
    step = -lr * (1 - q_j) * size * a  -  strength * q_j * w           train it, or shrink it

where size is the root mean square of W. The gradient of a weight is in proportion to the input that it multiplies, so
a column of little gradient belongs to a pixel that is seldom lit, or a unit that is seldom active. A first-order attack
moves such inputs as far as any other (Goodfellow et al. 2015, arXiv 1412.6572), and the network hardly needs them.

Source: ours, read off the response curves of the learned rule (`metarobust run what-was-learned`).
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from metarobust.optimizers import Adam, AdamState, Optimizer
from metarobust.params import ParamSpec

TINY = 1e-14  # a matrix without gradient has r = 1 everywhere, not 0/0


@dataclass(frozen=True)
class ColumnDecay(Optimizer):
    """Numbers, or tensors `[T, 1]` with another value for each of T models.

    lr: the step, relative to the root mean square of the tensor. strength: the largest share of a weight that a step
    takes away. threshold: the share of the matrix' typical gradient at which a column is half given up. slope: how
    sharp the line between the two is.
    """

    lr: float | Tensor
    strength: float | Tensor
    threshold: float | Tensor
    slope: float | Tensor

    def init(self, params: Tensor, param_spec: ParamSpec, total: int) -> tuple[AdamState, ParamSpec]:
        return self._adam.init(params, param_spec, total), param_spec

    @property
    def _adam(self) -> Adam:
        # It remembers as many gradients as the learned rule. Adam's default, 1000, is the same in a run of 20 steps.
        return Adam(1.0, beta2=0.99, eps=TINY**0.5)

    def update(
        self, grads: Tensor, state: tuple[AdamState, ParamSpec], params: Tensor
    ) -> tuple[Tensor, tuple[AdamState, ParamSpec]]:
        train, shrink, state = self.halves(grads, state, params)
        return self.lr * train + self.strength * shrink, state

    def halves(
        self, grads: Tensor, state: tuple[AdamState, ParamSpec], params: Tensor
    ) -> tuple[Tensor, Tensor, tuple[AdamState, ParamSpec]]:
        """The two halves of the step, each `[..., N]`, without `lr` and `strength`; and the next state."""
        adam, param_spec = state
        direction, adam = self._adam.update(grads, adam, params)
        sizes = torch.stack(
            [part.flatten(params.ndim - 1).square().mean(-1) for part in param_spec.split(params).values()]
        )
        # A tensor near 0 (a bias, say) could never grow again if its step were in proportion to it alone.
        least = params.new_tensor([0.1 * fan_in**-0.5 for fan_in, _ in param_spec.fans])
        size = param_spec.broadcast(sizes.movedim(0, -1).sqrt().maximum(least))
        gone = self.given_up(adam.square, param_spec)
        return size * (1 - gone) * direction, -gone * params, (adam, param_spec)

    def given_up(self, square: Tensor, param_spec: ParamSpec) -> Tensor:
        """q of each coordinate `[..., N]`, from the averages of the squared gradient. A vector is one column."""
        found = []
        for part, shape in zip(param_spec.split(square).values(), param_spec.shapes, strict=True):
            front = square.shape[:-1]
            matrix = part.reshape(*front, shape[0], -1)
            log_ratio = ((matrix.mean(-2, True) + TINY) / (matrix.mean((-2, -1), True) + TINY)).log() / 2
            q = self.gate(log_ratio)
            found.append(q.expand_as(matrix).reshape(*front, -1))
        return torch.cat(found, -1)

    def gate(self, log_ratio: Tensor) -> Tensor:
        """q of columns, from the logarithm of r `[..., 1, columns]`."""
        slope, threshold = _like(self.slope, log_ratio), _like(self.threshold, log_ratio)
        return torch.sigmoid(slope * (threshold.log() - log_ratio))


def _like(constant: float | Tensor, matrix: Tensor) -> Tensor:
    """A constant, or one for each of T models `[T, 1]`, so that it broadcasts with `[T, rows, columns]`."""
    return torch.as_tensor(constant, dtype=matrix.dtype, device=matrix.device)[..., None]
