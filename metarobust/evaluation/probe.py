"""Measures what the checks ask about, on a few of the images: outputs, gradients, a curve over eps, longer attacks."""

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from metarobust.attacks import square
from metarobust.attacks.criterion import misclassified
from metarobust.attacks.losses import cross_entropy
from metarobust.evaluation import checks
from metarobust.evaluation.checks import Flag
from metarobust.evaluation.ensemble import Attack, quick, robust_masks

Predict = Callable[[Tensor], Tensor]
STEPS = 20  # of the PGD behind the curve over eps
LONGER = 8  # times as many, for an attack that should not do worse
QUERIES = 500  # of a look without gradients, where the ensemble has none


def outputs(predict: Predict, images: Tensor, labels: Tensor) -> list[Flag | None]:
    """What the outputs and the gradients alone give away."""
    leaf = images.clone().requires_grad_()
    with torch.enable_grad():
        logits = predict(leaf)
        (gradient,) = torch.autograd.grad(cross_entropy(logits, labels).sum(), leaf)
    logits = logits.detach()
    with torch.no_grad():
        again = predict(images)
    flat = gradient.flatten(1).abs().amax(1) == 0
    first, second = logits.topk(2, dim=1).values.T
    return [
        checks.probabilities(logits),
        checks.deterministic(logits, again),
        checks.zero_gradients(share(flat), len(images)),
        checks.saturated(first - second),
    ]


def curve(
    predict: Predict, images: Tensor, labels: Tensor, *, eps: float, norm: str, generator: torch.Generator
) -> list[tuple[float, float]]:
    """(eps, accuracy) from eps 0 to where an image may become any other; under PGD on cross-entropy and margin."""
    top = 1.0 if norm == "linf" else math.sqrt(images[0].numel())
    radii = sorted({0.0, *(min(eps * share, top) for share in (0.25, 0.5, 1, 2)), top})
    points = []
    for radius in radii:
        attacks = quick(eps=radius, norm=norm, steps=STEPS)
        right = robust_masks(predict, images, labels, attacks, generator=generator, independent=False)
        points.append((radius, share(right["robust"])))
    return points


def over_eps(points: Sequence[tuple[float, float]], clean: float, n: int) -> list[Flag | None]:
    """What the curve says."""
    (_, at_zero), (top, at_top) = points[0], points[-1]
    return [
        checks.eps_zero(clean, at_zero),
        checks.falls_with_eps(points, n),
        checks.ends_at_zero(top, at_top, n),
    ]


def longer(
    predict: Predict, images: Tensor, labels: Tensor, few: float, *, eps: float, norm: str, generator: torch.Generator
) -> Flag | None:
    """few: accuracy under the PGD of the curve. Does it rise when the attack works longer?"""
    attacks = quick(eps=eps, norm=norm, steps=LONGER * STEPS)
    right = robust_masks(predict, images, labels, attacks, generator=generator, independent=False)
    return checks.more_steps(few, share(right["robust"]), (STEPS, LONGER * STEPS), len(images))


def beyond(
    predict: Predict,
    images: Tensor,
    labels: Tensor,
    standing: Tensor,
    *,
    attack: Attack,
    steps: int,
    generator: torch.Generator,
) -> Flag | None:
    """standing: which images were counted as robust, `[n]`. How many fall to a longer attack of the same kind?"""
    fell = _falls(predict, images[standing], labels[standing], attack.move, generator)
    return checks.settled(fell / len(images), steps, len(images))


def without_gradients(
    predict: Predict,
    images: Tensor,
    labels: Tensor,
    standing: Tensor,
    *,
    eps: float,
    norm: str,
    generator: torch.Generator,
) -> Flag | None:
    """A short look without gradients at the images that stood, where the ensemble took none."""

    def move(predict: Predict, images: Tensor, labels: Tensor, generator: torch.Generator) -> Tensor:
        return square(predict, images, labels, eps=eps, norm=norm, queries=QUERIES, generator=generator)

    fell = _falls(predict, images[standing], labels[standing], move, generator)
    return checks.black_box(fell / len(images), len(images))


def share(mask: Tensor) -> float:
    """The share of True in a mask, to the last bit what a count divided by n is."""
    return int(mask.sum()) / len(mask)


def _falls(
    predict: Predict, images: Tensor, labels: Tensor, move: Callable[..., Tensor], generator: torch.Generator
) -> int:
    """How many of the images the attack turns."""
    moved = move(predict, images, labels, generator=generator)
    with torch.no_grad():
        return int(misclassified(predict(moved), labels).sum())
