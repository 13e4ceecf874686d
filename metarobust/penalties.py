"""Objectives with a penalty: what is added to cross-entropy, or where it is taken.

Hyperparameters are tensors `[T, 1]`, one row a task, so that a whole grid trains as one batch of tasks. Like all
objectives, each is a function `(predict, images, labels, generator) -> losses [n]`.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from metarobust.attacks.counter import count_examples, count_points
from metarobust.attacks.losses import cross_entropy
from metarobust.attacks.pgd import ascend
from metarobust.attacks.threat import random_starts
from metarobust.errors import InputError
from metarobust.evaluation.measure import eval_mode
from metarobust.objectives import Objective, Predict, clean


def _per_image(values: Tensor, images: Tensor) -> Tensor:
    """One value a task `[T, 1]`, or one for all, repeated for each image: `[T * n]`."""
    return values.flatten().repeat_interleave(len(images) // values.numel())


def _noised(images: Tensor, sigma: Tensor, generator: torch.Generator) -> Tensor:
    noise = torch.randn(images.shape, generator=generator, device=images.device, dtype=images.dtype)
    return images + _per_image(sigma, images).view(-1, 1, 1, 1).to(images) * noise


def _slope(predict: Predict, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Cross-entropy `[n]` and its gradient in the images, `[n, ...]`, which can itself be differentiated."""
    leaf = images.detach().requires_grad_()
    losses = cross_entropy(predict(leaf), labels)
    (slope,) = torch.autograd.grad(losses.sum(), leaf, create_graph=True)
    return losses, slope


@dataclass(frozen=True)
class Noise:
    """An objective at x + sigma * N(0, 1): training with noise is Tikhonov regularisation (Bishop 1995).

    Attributes:
        sigma: `[T, 1]`, in pixel units.
        inner: the objective.
    """

    sigma: Tensor
    inner: Objective = clean

    def __call__(self, predict: Predict, images: Tensor, labels: Tensor, generator: torch.Generator) -> Tensor:
        return self.inner(predict, _noised(images, self.sigma, generator), labels, generator)


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
class Penalised:
    """Cross-entropy and all of its penalties at once: what `metarobust.learned.penalties` moves the weights of.

    With x' = x + noise * N(0, 1), the margin m(x) = z_y - log sum_{j != y} exp z_j, so that cross-entropy is
    softplus(-m), its gradient c(x) = grad_x CE(x) and x'' = x' + far * sign c(x'):

        (1 - smooth) * softplus( -m(x') + slack * ||grad_x m(x')||_1 )  -  smooth * mean_k log p_k(x')
        + bend * ||c(x'') - c(x')||_2^2  +  slope * ||c(x')||_1

    One gradient in the input serves three of them, as c = -sigmoid(-m) * grad_x m. slack lowers the margin to its
    linearised worst case in L-infinity (Lyu et al. 2015, arXiv 1511.06385, is the same idea for the loss); slope and
    bend are the penalties of `InputGradient` and `Curvature`; smooth is label smoothing.

    Attributes:
        noise, far: `[T, 1]`, in pixel units.
        slack, slope: `[T, 1]`, comparable to eps.
        bend, smooth: `[T, 1]`, weights.
        at_random: takes the second gradient at x' + far * a random sign instead, a point that knows nothing of an
            attack.
    """

    noise: Tensor
    bend: Tensor
    far: Tensor
    slope: Tensor
    smooth: Tensor
    slack: Tensor
    at_random: bool = False

    def __call__(self, predict: Predict, images: Tensor, labels: Tensor, generator: torch.Generator) -> Tensor:
        count_points(len(images))
        # Not cut off from noise and far: a meta-gradient goes through the points into these.
        here = _noised(images.detach(), self.noise, generator)
        logits, margin, slope, steepness = self._look(predict, here, labels)
        if self.at_random:
            sign = torch.randint(0, 2, images.shape, generator=generator, device=images.device).to(images) * 2 - 1
        else:
            sign = slope.detach().sign()
        away = _per_image(self.far, images).view(-1, 1, 1, 1).to(images) * sign
        *_, moved_slope, _ = self._look(predict, here + away, labels)
        bend, slack, smooth, steep = (
            _per_image(value, images).to(images) for value in (self.bend, self.slack, self.smooth, self.slope)
        )
        worst = F.softplus(slack * steepness.flatten(1).abs().sum(1) - margin)
        return (
            (1 - smooth) * worst
            - smooth * logits.log_softmax(1).mean(1)
            + bend * (moved_slope - slope).flatten(1).square().sum(1)
            + steep * slope.flatten(1).abs().sum(1)
        )

    @staticmethod
    def _look(predict: Predict, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """Logits `[n, classes]`, margins `[n]`, and the gradients of cross-entropy and of the margin in the images."""
        if not images.requires_grad:
            images = images.requires_grad_()
        logits = predict(images)
        right = labels[:, None]
        margin = logits.gather(1, right)[:, 0] - logits.scatter(1, right, -torch.inf).logsumexp(1)
        (steepness,) = torch.autograd.grad(margin.sum(), images, create_graph=True)
        slope = -torch.sigmoid(-margin).view(-1, 1, 1, 1) * steepness
        return logits, margin, slope, steepness


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


def check_second_derivative(model: Callable[[Tensor], Tensor], images: Tensor, params: Sequence[Tensor]) -> None:
    """Finds out, before any step, whether a model has what a penalty on its gradient needs.

    Args:
        model: maps images to logits; it is asked in eval mode.
        images: a few.
        params: those that are trained.

    Raises:
        InputError: it has no gradient in the images, or that has none in the parameters.
    """
    if not images.is_floating_point():
        raise InputError(f"images are {images.dtype}; give floats in [0, 1]")
    with torch.enable_grad(), eval_mode(model if isinstance(model, nn.Module) else None):
        leaf = images.detach().requires_grad_()
        score = model(leaf).logsumexp(1).sum()  # an error of the model's own is not ours to explain
        try:
            (slope,) = torch.autograd.grad(score, leaf, create_graph=True)
            torch.autograd.grad(slope.square().sum(), [p for p in params if p.requires_grad], allow_unused=True)
        except RuntimeError as error:
            raise InputError(
                f"this rule penalises the model's gradient in the images, which has no gradient of its own ({error}); "
                f"take out no_grad, detach and whole numbers, use operations with a double backward, or take a rule of "
                f"tier 0"
            ) from error
