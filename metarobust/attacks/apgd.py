"""APGD: projected gradient descent with momentum that finds its own step size.

    z = Proj( x_k + eta * steepest(grad_x loss(f(x_k), y)) )
    x_{k+1} = Proj( x_k + 0.75 (z - x_k) + 0.25 (x_k - x_{k-1}) ),     eta = 2 eps at first,  x_1 = z

At a few checkpoints each image asks whether it still gets on. If the loss rose in fewer than 0.75 of the steps since
the last checkpoint, or if neither eta nor the highest loss has changed since then, eta is halved and the image goes
back to the best point seen. So a run begins with long steps, which explore, and ends with short ones, which refine.

Source: Croce and Hein 2020 (arXiv 2003.01690), section 3 and algorithm 1.
"""

import math
from collections.abc import Iterator
from dataclasses import replace

import torch
from torch import Tensor

from metarobust.attacks.criterion import Criterion, Predict, first_look, value_and_grad
from metarobust.attacks.inputs import attack
from metarobust.attacks.losses import bounded
from metarobust.attacks.threat import per_image, projection, random_starts, steepest, wide
from metarobust.errors import InputError, is_whole, short_repr

MOMENTUM = 0.75  # the weight of the new step; the rest is the last one's
RISES = 0.75  # the share of steps that should raise the loss


@attack
def apgd(
    predict: Predict,
    images: Tensor,
    labels: Tensor,
    *,
    eps: float,
    steps: int = 100,
    norm: str = "linf",
    loss: str = "ce",
    targets: Tensor | None = None,
    n_targets: int = 0,
    restarts: int = 1,
    generator: torch.Generator | None = None,
    early_exit: bool = True,
) -> Tensor:
    """Steps up the loss, with momentum and a step size that each image halves for itself.

    Args:
        predict: images to logits, each image alone.
        images, labels, eps, steps, norm, loss, targets, restarts, generator: as in `pgd`.
        n_targets: with any class welcome, this many runs, toward each of the likeliest wrong classes in turn, with the
            targeted form of the loss; 0 for one run away from the right one.
        early_exit: an image that is turned takes no part in the runs that follow. If False all stay to the end, and
            come back the same: for many models attacked together, each of which has as many images.

    Returns:
        Adversarial images `[n, ...]`, within eps of `images` and within [0, 1]. An image that is misclassified (with
        targets: as just that class) as it is comes back as it is; one that was turned, as the first point that did it;
        the others, as the point of highest loss. No parameter's `.grad` is touched.

    Raises:
        InputError: for bad input, and for more targets than the model has wrong classes.
    """
    if not is_whole(n_targets) or n_targets < 0:
        raise InputError(f"n_targets is {short_repr(n_targets)}; give 0, or how many likely wrong classes to try")
    if n_targets and targets is not None:
        raise InputError(f"n_targets is {n_targets}, and targets names the classes: give one of the two")
    criterion = Criterion(loss, labels, targets)
    logits, highest, done, rows = first_look(predict, images, criterion, early_exit=early_exit)
    criteria = [criterion]
    if n_targets:
        classes = logits.shape[1]
        if n_targets >= classes:
            raise InputError(f"n_targets is {n_targets}; the model has {classes} outputs, one is right: give fewer")
        likeliest = bounded(logits).scatter(1, labels[:, None], -torch.inf).topk(n_targets, dim=1).indices.T
        criteria = [replace(criterion, targets=wrong, settle=True) for wrong in likeliest]
        highest = torch.stack([each.losses(logits) for each in criteria]).amax(0)
    worst, starts = wide(images).clone(), random_starts(images, eps, norm, generator, restarts * len(criteria))
    for start, each in zip(starts, criteria * restarts, strict=True):
        if not len(rows):
            break
        points, losses, turned = _run(predict, images[rows], start[rows], each.of(rows), eps, norm, steps)
        better = (turned | (losses > highest[rows])) & ~done[rows]
        worst[rows[better]], highest[rows[better]] = points[better], losses[better]
        done[rows] |= turned
        rows = rows[~turned] if early_exit else rows
    return worst


def _run(
    predict: Predict, images: Tensor, start: Tensor, criterion: Criterion, eps: float, norm: str, steps: int
) -> tuple[Tensor, ...]:
    """One run of algorithm 1: for each image the point found, its loss, and whether it turned the image."""
    project, before, x, best = projection(images, eps, norm), start, start, start.clone()
    logits, losses, gradient = value_and_grad(predict, x, criterion)
    turned, best_loss, uphill = criterion.reached(logits), losses, steepest(gradient, norm)
    best_uphill = uphill.clone()
    eta = start.new_full((len(images),), 2 * eps)
    rises, last_best, last_halved = torch.zeros_like(losses), best_loss, torch.zeros_like(turned)
    marks, last = set(checkpoints(steps)), 0
    for k in range(1, steps + 1):
        z = project(torch.addcmul(x, per_image(eta, x), uphill))
        if k > 1:
            z = project(torch.lerp(x, z, MOMENTUM).add_(x - before, alpha=1 - MOMENTUM))
        before, x, old = x, z, losses
        logits, losses, gradient = value_and_grad(predict, x, criterion)
        uphill, now, higher = steepest(gradient, norm), criterion.reached(logits), losses > best_loss
        rises += losses > old
        # The first point that turns an image is its best one for good. A weight of 0 or 1 takes either, exactly, in a
        # third of the time of `where`.
        take = per_image(((now | higher) & ~turned).to(x.dtype), x)
        best.lerp_(x, take)
        best_uphill.lerp_(uphill, take)
        best_loss, turned = torch.where(higher, losses, best_loss), turned | now
        if k in marks:
            if bool(turned.all()):
                break
            halve = (rises < RISES * (k - last)) | (~last_halved & (best_loss <= last_best))
            eta = torch.where(halve, eta / 2, eta)
            x, uphill = (torch.where(per_image(halve, x), b, a) for a, b in ((x, best), (uphill, best_uphill)))
            losses = torch.where(halve, best_loss, losses)
            last, rises, last_best, last_halved = k, torch.zeros_like(rises), best_loss, halve
    return best, best_loss, turned


def checkpoints(steps: int) -> Iterator[int]:
    """The steps at which eta may be halved: at 22 % of the run, then ever closer, down to 6 % of it apart."""
    at, gap = 22, 22
    while at <= 100:
        yield math.ceil(at * steps / 100)
        gap = max(gap - 3, 6)
        at += gap
