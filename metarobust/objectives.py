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
    """

    eps: float
    steps: int = 1
    norm: str = "linf"

    def __post_init__(self) -> None:
        check_eps(self.eps, self.norm)
        check_count("attack steps", self.steps)

    def __call__(self, predict: Predict, images: Tensor, labels: Tensor, generator: torch.Generator) -> Tensor:
        threat = {"eps": self.eps, "norm": self.norm, "generator": generator}
        with inputs_checked():  # by the data set, once for all batches
            if self.steps == 1:
                moved = fgsm(predict, images, labels, **threat)
            else:
                moved = pgd(predict, images, labels, steps=self.steps, keep="last", **threat)
        return cross_entropy(predict(moved), labels)

    def at(self, share: float) -> "Adversarial":
        """The same with a share of the radius, from 0 to 1: for a curriculum."""
        return replace(self, eps=share * self.eps)


@dataclass(frozen=True)
class Mixed:
    """(1 - weight) * clean + weight * adversarial: the trade-off between accuracy and robustness, said aloud."""

    adversarial: Adversarial
    weight: float = 0.5

    def __post_init__(self) -> None:
        if not 0 <= self.weight <= 1:
            raise InputError(f"weight {self.weight} of the adversarial loss: give a share from 0 to 1")

    def __call__(self, predict: Predict, images: Tensor, labels: Tensor, generator: torch.Generator) -> Tensor:
        robust = self.adversarial(predict, images, labels, generator)
        return (1 - self.weight) * clean(predict, images, labels, generator) + self.weight * robust
