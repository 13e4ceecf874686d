"""Measures what the checks ask about, on a few of the images: outputs, gradients, a curve over eps, longer attacks."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from metarobust.attacks import square
from metarobust.attacks.criterion import Criterion, Predict, checked, value_and_grad
from metarobust.attacks.losses import bounded
from metarobust.evaluation import checks
from metarobust.evaluation.checks import Flag
from metarobust.evaluation.ensemble import Attack, correct, quick, robust_masks

STEPS = 20  # of the PGD behind the curve over eps
LONGER = 8  # times as many, for an attack that should not do worse
QUERIES = 500  # of a look without gradients, where the ensemble has none

Curve = list[tuple[float, float]]


@dataclass(frozen=True)
class Probe:
    """The images that the checks look at, `[n, ...]`, and the threat. predict: the model, in eval mode."""

    predict: Predict
    images: Tensor
    labels: Tensor
    eps: float
    norm: str
    generator: torch.Generator

    def run(
        self, masks: dict[str, Tensor], ensemble: Sequence[Attack], longer: Attack, alone: Tensor
    ) -> tuple[Curve, list]:
        """The curve over eps, and the flags of the checks that ask the model again.

        Args:
            masks: which of these images were right, `clean`, and stood all attacks, `robust`; `[n]` each.
            ensemble: those attacks.
            longer: one of them, with more steps.
            alone: the logits of the first image by itself, `[1, classes]`.
        """
        curve, n = self.curve(), len(self.images)
        (_, at_zero), (top, at_top) = curve[0], curve[-1]
        few, steps = dict(curve)[self.eps], longer.move.keywords["steps"]
        flags = [
            *self.outputs(alone),
            checks.eps_zero(share(masks["clean"]), at_zero),
            checks.falls_with_eps(curve, n),
            checks.ends_at_zero(top, at_top, n),
            checks.more_steps(few, self.under_pgd(self.eps, LONGER * STEPS), (STEPS, LONGER * STEPS), n),
            checks.settled(self.falls(masks["robust"], longer), steps, n),
        ]
        if all(attack.kind != "black" for attack in ensemble):
            blind = partial(self.blind, eps=self.eps, norm=self.norm, queries=QUERIES)
            flags.append(checks.black_box(self.falls(masks["robust"], Attack("square", "black", blind)), n))
        return curve, flags

    def blind(self, predict: Predict, images: Tensor, labels: Tensor, **how: Any) -> Tensor:
        """The square attack; what is no picture, it takes for one of a single row."""
        shape = images.shape
        picture = images if images.ndim == 4 else images.flatten(1)[:, None, None]
        return square(lambda x: predict(x.view(-1, *shape[1:])), picture, labels, **how).view(shape)

    def outputs(self, alone: Tensor) -> list[Flag | None]:
        """What the outputs and the gradients alone give away."""
        predict, criterion = checked(self.predict, self.images), Criterion("ce", self.labels)
        logits, _, gradient = value_and_grad(predict, self.images, criterion)
        again, _, _ = value_and_grad(predict, self.images, criterion, gradient=False)
        nan = logits.isnan().any(1)
        logits, again, alone = (bounded(outputs) for outputs in (logits, again, alone))
        flat = (gradient.flatten(1).abs().amax(1) == 0) & ~nan
        first, second = logits.topk(2, dim=1).values.T
        return [
            checks.probabilities(logits),
            checks.deterministic(logits, again) or checks.alone(logits[:1], alone),
            checks.zero_gradients(share(flat), len(flat)),
            checks.not_a_number(share(nan), len(nan)),
            checks.saturated(first - second),
        ]

    def curve(self) -> Curve:
        """(eps, accuracy) from eps 0 to where an image may become any other."""
        top = 1.0 if self.norm == "linf" else math.sqrt(self.images[0].numel())
        radii = sorted({0.0, *(min(self.eps * times, top) for times in (0.25, 0.5, 1, 2)), top})
        return [(eps, self.under_pgd(eps, STEPS)) for eps in radii]

    def under_pgd(self, eps: float, steps: int) -> float:
        """Accuracy under PGD on cross-entropy and on the margin."""
        attacks = quick(eps=eps, norm=self.norm, steps=steps)
        masks = robust_masks(
            self.predict, self.images, self.labels, attacks, generator=self.generator, independent=False
        )
        return share(masks["robust"])

    def falls(self, robust: Tensor, attack: Attack) -> float:
        """The share of all images that counted as robust, `[n]`, and fall to this attack."""
        images, labels = self.images[robust], self.labels[robust]
        moved = attack.move(self.predict, images, labels, generator=self.generator)
        return int((~correct(self.predict, moved, labels)).sum()) / len(robust)


def share(mask: Tensor) -> float:
    """The share of True in a mask, to the last bit what a count divided by n is."""
    return int(mask.sum()) / len(mask)
