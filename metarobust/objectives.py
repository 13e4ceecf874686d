"""Objectives: what a training step, or a meta-step, is scored by.

An objective is a function `(predict, images, labels, generator) -> losses [n]`, one loss an image; the caller averages.
The paper's idea is a choice of two of them: the *inner* objective gives the optimizee's gradients, the *meta* objective
scores the model that comes out.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from metarobust.attacks import fgsm, pgd
from metarobust.attacks.counter import count
from metarobust.attacks.criterion import Predict
from metarobust.attacks.inputs import inputs_checked
from metarobust.attacks.losses import cross_entropy
from metarobust.attacks.threat import check_eps
from metarobust.errors import InputError, check_count

Objective = Callable[[Predict, Tensor, Tensor, torch.Generator], Tensor]


def clean(predict: Predict, images: Tensor, labels: Tensor, generator: torch.Generator) -> Tensor:
    """Cross-entropy on the images as they are."""
    return cross_entropy(predict(images), labels)


@dataclass(frozen=True)
class Adversarial:
    """Cross-entropy on adversarial images: FGSM with a random start where steps is 1, else PGD (Madry et al. 2018).

    Attributes:
        eps: radius in pixel units.
        steps: of the attack.
        norm: `linf` or `l2`.
        loss: that a PGD climbs, see `metarobust.attacks.losses`.
    """

    eps: float
    steps: int = 1
    norm: str = "linf"
    loss: str = "ce"

    def __post_init__(self) -> None:
        check_eps(self.eps, self.norm)
        check_count("attack steps", self.steps)

    def __call__(self, predict: Predict, images: Tensor, labels: Tensor, generator: torch.Generator) -> Tensor:
        return cross_entropy(predict(self.move(predict, images, labels, generator)), labels)

    def move(self, predict: Predict, images: Tensor, labels: Tensor, generator: torch.Generator) -> Tensor:
        """The adversarial images, `[n, C, H, W]`."""
        threat = {"eps": self.eps, "norm": self.norm, "generator": generator}
        with inputs_checked():  # by the data set, once for all batches
            if self.steps == 1:
                return fgsm(predict, images, labels, **threat)
            return pgd(predict, images, labels, steps=self.steps, loss=self.loss, keep="last", **threat)

    def at(self, share: float) -> "Adversarial":
        """The same with a share of the radius, from 0 to 1: for a curriculum."""
        return replace(self, eps=share * self.eps)


@dataclass(frozen=True)
class NoisyFGSM:
    """Cross-entropy at one FGSM step from a far random start, not projected back: N-FGSM.

    de Jorge et al. 2022 (arXiv 2202.01181), algorithm 1: noise of twice the radius, and no projection, keep fast
    adversarial training from collapsing.

    Attributes:
        eps: radius in pixel units, and the length of the step.
        noise: reach of the uniform noise, in radii.
    """

    eps: float
    noise: float = 2.0

    def __call__(self, predict: Predict, images: Tensor, labels: Tensor, generator: torch.Generator) -> Tensor:
        count(examples=len(images))
        draws = torch.rand(images.shape, generator=generator, device=images.device, dtype=images.dtype)
        with torch.enable_grad():
            start = (images + self.noise * self.eps * (2 * draws - 1)).requires_grad_()
            (slope,) = torch.autograd.grad(cross_entropy(predict(start), labels).sum(), start)
        return cross_entropy(predict((start.detach() + self.eps * slope.sign()).clamp(0, 1)), labels)


@dataclass(frozen=True)
class Mixed:
    """(1 - weight) * clean + weight * adversarial: the trade-off between accuracy and robustness, said aloud.

    Attributes:
        adversarial: the objective under attack.
        weight: its share.
        calibrated: divides the logits of each model by the temperature that is best for it (Guo et al. 2017, arXiv
            1706.04599), so that a model is scored by what it knows and not by how sure it sounds.
    """

    adversarial: Adversarial
    weight: float = 0.5
    calibrated: bool = False

    def __post_init__(self) -> None:
        if not 0 <= self.weight <= 1:
            raise InputError(f"weight {self.weight} of the adversarial loss: give a share from 0 to 1")

    def __call__(self, predict: Predict, images: Tensor, labels: Tensor, generator: torch.Generator) -> Tensor:
        moved = self.adversarial.move(predict, images, labels, generator)
        attacked, plain = predict(moved), predict(images)
        if self.calibrated:
            params = getattr(predict, "params", None)  # a `Predictor` may stand for several models
            models = len(params) if params is not None and params.ndim == 2 else 1
            scale = _inverse_temperature(plain.detach(), attacked.detach(), labels, self.weight, models)
            attacked, plain = scale * attacked, scale * plain
        return (1 - self.weight) * cross_entropy(plain, labels) + self.weight * cross_entropy(attacked, labels)


def _inverse_temperature(plain: Tensor, attacked: Tensor, labels: Tensor, weight: float, models: int) -> Tensor:
    """What multiplies each model's logits for the least mixed cross-entropy, `[models * n, 1]`: Newton's method on its
    logarithm, of which the loss is close to a parabola. The gradient of the loss needs none through it: it is 0 there.
    """
    with torch.enable_grad():
        log_scale = plain.new_zeros(models, requires_grad=True)
        for _ in range(10):
            scale = log_scale.exp().repeat_interleave(len(labels) // models)[:, None]
            losses = (1 - weight) * cross_entropy(scale * plain, labels)
            losses = losses + weight * cross_entropy(scale * attacked, labels)
            (slope,) = torch.autograd.grad(losses.sum(), log_scale, create_graph=True)
            (bend,) = torch.autograd.grad(slope.sum(), log_scale)
            step = slope.detach() / bend.abs().clamp_min(1e-6)
            log_scale = (log_scale.detach() - step.clamp(-1, 1)).clamp(-5, 5).requires_grad_()
        return log_scale.detach().exp().repeat_interleave(len(labels) // models)[:, None]
