"""Objectives with a penalty: what is added to cross-entropy, or where it is taken.

Hyperparameters are tensors `[T, 1]`, one row a task, so that a whole grid trains as one batch of tasks. Like all
objectives, each is a function `(predict, images, labels, generator) -> losses [n]`.
"""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from metarobust.attacks.counter import count_examples
from metarobust.attacks.losses import cross_entropy
from metarobust.attacks.pgd import ascend
from metarobust.attacks.threat import random_starts
from metarobust.objectives import Predict


def _per_image(values: Tensor, images: Tensor) -> Tensor:
    """One value a task `[T, 1]`, repeated for each of its images: `[T * n]`."""
    return values.flatten().repeat_interleave(len(images) // len(values))


def _slope(predict: Predict, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Cross-entropy `[n]` and its gradient in the images, `[n, ...]`, which can itself be differentiated."""
    leaf = images.detach().requires_grad_()
    losses = cross_entropy(predict(leaf), labels)
    (slope,) = torch.autograd.grad(losses.sum(), leaf, create_graph=True)
    return losses, slope


@dataclass(frozen=True)
class Noise:
    """Cross-entropy at x + sigma * N(0, 1): training with noise is Tikhonov regularisation (Bishop 1995).

    Attributes:
        sigma: `[T, 1]`, in pixel units.
    """

    sigma: Tensor

    def __call__(self, predict: Predict, images: Tensor, labels: Tensor, generator: torch.Generator) -> Tensor:
        noise = torch.randn(images.shape, generator=generator, device=images.device)
        return cross_entropy(predict(images + _per_image(self.sigma, images).view(-1, 1, 1, 1) * noise), labels)


@dataclass(frozen=True)
class InputGradient:
    """Cross-entropy + weight * ||grad_x loss||_1, the first-order cost of an L-infinity attack (arXiv 1711.09404).

    Attributes:
        weight: `[T, 1]`, comparable to eps.
    """

    weight: Tensor

    def __call__(self, predict: Predict, images: Tensor, labels: Tensor, generator: torch.Generator) -> Tensor:
        losses, slope = _slope(predict, images, labels)
        return losses + _per_image(self.weight, images) * slope.flatten(1).abs().sum(1)


@dataclass(frozen=True)
class Curvature:
    """Cross-entropy + weight * ||grad_x loss(x + z) - grad_x loss(x)||_2^2, with z = far * sign(grad_x loss(x)).

    A loss that bends little along the direction of an attack: CURE, Moosavi-Dezfooli et al. 2019 (arXiv 1811.09716),
    section 4.

    Attributes:
        weight: `[T, 1]`.
        far: `[T, 1]`, in pixel units, so that it means the same on images of every size; theirs is a length in l2.
    """

    weight: Tensor
    far: Tensor

    def __call__(self, predict: Predict, images: Tensor, labels: Tensor, generator: torch.Generator) -> Tensor:
        losses, slope = _slope(predict, images, labels)
        away = _per_image(self.far, images).view(-1, 1, 1, 1) * slope.detach().sign()
        _, moved_slope = _slope(predict, images + away, labels)
        return losses + _per_image(self.weight, images) * (moved_slope - slope).flatten(1).square().sum(1)


@dataclass(frozen=True)
class Trades:
    """Cross-entropy + beta * max over the ball of KL( f(x) || f(x') ): what an attack may change of the answer.

    Zhang et al. 2019 (arXiv 1901.08573), equation 5. The maximum is sought as `pgd` does, in L-infinity from a
    random start.

    Attributes:
        beta: `[T, 1]`; theirs is 1 to 6.
        eps: radius in pixel units.
        steps: of the search.
    """

    beta: Tensor
    eps: float
    steps: int = 7

    def __call__(self, predict: Predict, images: Tensor, labels: Tensor, generator: torch.Generator) -> Tensor:
        logits = predict(images)
        answer = logits.detach().log_softmax(1)
        count_examples(len(images))

        def gradient(x: Tensor) -> Tensor:
            with torch.enable_grad():
                leaf = x.detach().requires_grad_()
                divergence = self._divergence(answer, predict(leaf)).sum()
            return torch.autograd.grad(divergence, leaf)[0]

        (start,) = random_starts(images, self.eps, "linf", generator)
        step_size = 2.5 * self.eps / self.steps
        moved = ascend(gradient, start, images, eps=self.eps, norm="linf", steps=self.steps, step_size=step_size)
        divergence = self._divergence(logits.log_softmax(1), predict(moved.detach()))
        return cross_entropy(logits, labels) + _per_image(self.beta, images) * divergence

    @staticmethod
    def _divergence(answer: Tensor, logits: Tensor) -> Tensor:
        """KL divergence of each image's two answers, the first as log-probabilities: `[n]`."""
        return F.kl_div(logits.log_softmax(1), answer, reduction="none", log_target=True).sum(1)
