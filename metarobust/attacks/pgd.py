"""Projected gradient descent: many small steps, each pulled back into the ball.

    x_0 random in the ball,   x_{k+1} = Proj( x_k + alpha * sign(grad_x loss(f(x_k), y)) )

In l2 the step is alpha * g / ||g||_2. Without a generator x_0 is the image itself. The loop is run from
each start, and one of the points on the way is kept.

Source: Madry et al. 2018 (arXiv 1706.06083), section 2.1.
"""

import math

import torch
from torch import Tensor

from metarobust.attacks.criterion import Criterion, Predict, value_and_grad
from metarobust.attacks.inputs import attack
from metarobust.attacks.threat import random_starts, step, wide
from metarobust.errors import InputError, choose, is_number, short_repr

KEEP = ("best", "first", "last")


@attack
def pgd(
    predict: Predict,
    images: Tensor,
    labels: Tensor,
    *,
    eps: float,
    steps: int = 40,
    step_size: float | None = None,
    norm: str = "linf",
    loss: str = "ce",
    targets: Tensor | None = None,
    restarts: int = 1,
    generator: torch.Generator | None = None,
    keep: str = "best",
) -> Tensor:
    """Many small steps up the loss.

    Args:
        predict: images to logits.
        images: floats in [0, 1], `[n, ...]`.
        labels: int64 `[n]`.
        eps: radius in pixel units.
        steps: of each run.
        step_size: alpha; None for 2.5 eps / steps, enough to cross the ball.
        norm: `linf` or `l2`.
        loss: what is climbed; `ce`, `margin` or `dlr`.
        targets: the wrong classes wanted, int64 `[n]`; None for any.
        restarts: how many runs; they need a generator.
        generator: where given, each run begins at a random point of the ball.
        keep: `best`, the point of highest loss, the image itself included; `last`, the end of the one run, as in the
            paper; or `first`, the first point that is misclassified (with targets: as just that class), or the best
            where none is. With `first` an image leaves the batch as soon as it is reached, so that the attack gets
            faster as it goes; predict is then called with fewer and fewer images.

    Returns:
        Adversarial images `[n, ...]`, within eps of `images` and within [0, 1]. No parameter's `.grad` is touched.

    Raises:
        InputError: for bad input, and for classes the model has no output for.
    """
    if step_size is not None and not (is_number(step_size) and 0 < step_size < math.inf):
        raise InputError(f"step_size is {short_repr(step_size)}; give a length above 0, or None for 2.5 eps / steps")
    if choose(keep, KEEP, "point to keep") == "last" and restarts != 1:
        raise InputError(f"{short_repr(restarts)} restarts have no last point; give one, or keep the best or the first")
    criterion = Criterion(loss, labels, targets)
    starts = random_starts(images, eps, norm, generator, restarts)
    size = 2.5 * eps / steps if step_size is None else step_size
    if keep == "last":
        x = next(starts)
        for _ in range(steps):
            x = step(x, value_and_grad(predict, x, criterion)[2], size, images, eps, norm)
        return x
    best = _Best(predict, images, criterion, early_exit=keep == "first")
    for start in starts:
        x = start[best.rows]
        for _ in range(steps):
            x = best.remaining(step(x, best.see(x, gradient=True), size, best.images, eps, norm))
        best.see(x)
        best.remaining(x)
    return best.points


class _Best:
    """Watches the loop: the best point so far of each image, and which images are still attacked."""

    def __init__(self, predict: Predict, images: Tensor, criterion: Criterion, *, early_exit: bool):
        self.predict, self.images, self.criterion, self.early_exit = predict, images, criterion, early_exit
        _, self.losses, _ = value_and_grad(predict, images, criterion, gradient=False)
        self.points = wide(images).clone()
        self.rows = torch.arange(len(images), device=images.device)
        self.reached = torch.zeros_like(self.rows, dtype=torch.bool)

    def see(self, x: Tensor, *, gradient: bool = False) -> Tensor:
        """Remember the points that are better, and with early exit those that are reached, as the best for good."""
        if not len(x):
            return x
        logits, losses, grad = value_and_grad(self.predict, x, self.criterion, gradient=gradient)
        better = losses > self.losses[self.rows]
        if self.early_exit:
            self.reached = self.criterion.reached(logits)
            better |= self.reached
        rows = self.rows[better]
        self.points[rows], self.losses[rows] = x[better], losses[better]
        return grad

    def remaining(self, x: Tensor) -> Tensor:
        """x without the images that are reached; the next points are of the others alone."""
        if self.early_exit and bool(self.reached.any()):
            left = ~self.reached
            self.rows, self.images, x = self.rows[left], self.images[left], x[left]
            self.criterion, self.reached = self.criterion.of(left), self.reached[left]
        return x
