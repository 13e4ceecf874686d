"""APGD: projected gradient descent with momentum that finds its own step size.

    z = Proj( x_k + eta * steepest(grad_x loss(f(x_k), y)) )
    x_{k+1} = Proj( x_k + 0.75 (z - x_k) + 0.25 (x_k - x_{k-1}) ),     eta = 2 eps at first,  x_1 = z

At a few checkpoints each image asks whether it still gets on. If the loss rose in fewer than 0.75 of the steps since
the last checkpoint, or if neither eta nor the highest loss has changed since then, eta is halved and the image goes
back to the best point seen. So a run begins with long steps, which explore, and ends with short ones, which refine.

Source: Croce and Hein 2020 (arXiv 2003.01690), section 3 and algorithm 1.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import replace

import torch
from torch import Tensor
from torch.nn import functional as F

from metarobust.attacks.counter import made
from metarobust.attacks.criterion import Criterion, first_value, look
from metarobust.attacks.threat import (
    Ball,
    check,
    check_answer,
    check_count,
    check_generator,
    is_whole,
    random_starts,
    said,
    steepest,
)
from metarobust.errors import InputError

MOMENTUM = 0.75  # the weight of the new step; the rest is the last one's
RISES = 0.75  # the share of steps that should raise the loss


def apgd(
    predict: Callable[[Tensor], Tensor],
    images: Tensor,
    labels: Tensor,
    *,
    eps: float,
    steps: int = 100,
    norm: str = "linf",
    loss: str = "ce",
    toward: Tensor | None = None,
    targets: int = 0,
    restarts: int = 1,
    generator: torch.Generator | None = None,
    leave: bool = True,
) -> Tensor:
    """Adversarial images `[n, ...]`, within eps of `images` and within [0, 1].

    predict: images to logits, each image alone. images: floats in [0, 1]. labels: int64 `[n]`. eps: radius in pixel
    units. norm: `linf` or `l2`. loss: what is climbed; `ce`, `margin` or `dlr`. steps: of each run. restarts: how often
    all runs are made again. toward: the wrong classes that the model shall say, int64 `[n]`; None for any. targets:
    with any class welcome, k runs toward each of the k likeliest wrong classes in turn, with the targeted form of the
    loss; 0 just leaves the right one. generator: where given, each run begins at a random point. leave: an image that
    is turned takes no part in the runs that follow. If False, all stay to the end, and come back the same: for many
    models attacked together, which need equal stretches.
    An image that is wrong (with `toward`: said to be that very class) as it is comes back as it is. Any other that
    could be turned comes back as the first point that turned it; the rest come back as the point of highest loss.
    Raises InputError for input that `threat.check` refuses, and for more targets than the model has wrong classes. No
    parameter's `.grad` is touched.
    """
    check(images, labels, eps, norm, toward)
    check_count("steps", steps)
    check_generator(generator, restarts)
    check_answer("leave", leave)
    goal = Criterion(loss, labels, toward)
    if not is_whole(targets) or targets < 0:
        raise InputError(f"targets is {said(targets)}; give 0, or how many of the likeliest wrong classes to try")
    if targets and toward is not None:
        raise InputError(f"targets is {targets}, and toward names the classes: give one of the two")
    made(len(images))
    images = images.detach()
    logits, highest, left = first_value(predict, images, goal, alone=leave)
    done = torch.ones(len(images), dtype=torch.bool, device=images.device).index_fill(0, left, False)
    left = left if leave else torch.arange(len(images), device=images.device)
    goals = [goal]
    if targets:
        goals = [replace(goal, toward=aim, settle=True) for aim in _likeliest(logits, labels, targets)]
        highest = torch.stack([goal.losses(logits) for goal in goals]).amax(0)
    worst, starts = images.clone(), random_starts(images, eps, norm, generator, restarts * len(goals))
    for start, goal in zip(starts, goals * restarts, strict=True):
        if not len(left):
            break
        found, losses, turned = _run(predict, images[left], start[left], goal.of(left), eps, norm, steps)
        better = (turned | (losses > highest[left])) & ~done[left]
        worst[left[better]], highest[left[better]] = found[better], losses[better]
        done[left] |= turned
        left = left[~turned] if leave else left
    return worst


def _likeliest(logits: Tensor, labels: Tensor, count: int) -> Tensor:
    """The wrong classes with the largest logits, in order: `[count, n]`."""
    classes = logits.shape[1]
    if count >= classes:
        raise InputError(
            f"APGD was given targets={count}; the model has {classes} outputs, {classes - 1} of them wrong: "
            f"give at most that"
        )
    right = F.one_hot(labels, classes).bool()
    return logits.masked_fill(right, -torch.inf).topk(count, dim=1).indices.T


def _run(
    predict: Callable, images: Tensor, start: Tensor, goal: Criterion, eps: float, norm: str, steps: int
) -> tuple[Tensor, ...]:
    """One run of algorithm 1: for each image the point found, its loss, and whether it turned the image."""
    each = (-1, *[1] * (images.ndim - 1))
    ball, before, x, best = Ball(images, eps, norm), start, start, start.clone()
    logits, losses, gradient = look(predict, x, goal)
    turned, best_loss, uphill = goal.reached(logits), losses, steepest(gradient, norm)
    best_uphill = uphill.clone()
    eta = images.new_full((len(images),), 2 * eps)
    rises, last_best, last_halved = torch.zeros_like(losses), best_loss, torch.zeros_like(turned)
    marks, last = set(checkpoints(steps)), 0
    for k in range(1, steps + 1):
        z = ball.project_(torch.addcmul(x, eta.view(each), uphill))
        if k > 1:
            z = ball.project_(torch.lerp(x, z, MOMENTUM).add_(x - before, alpha=1 - MOMENTUM))
        before, x, old = x, z, losses
        logits, losses, gradient = look(predict, x, goal)
        uphill, now, higher = steepest(gradient, norm), goal.reached(logits), losses > best_loss
        rises += losses > old
        # The first point that turns an image is its best one for good. A weight of 0 or 1 takes either, exactly, in a
        # third of the time of `where`.
        take = ((now | higher) & ~turned).to(x.dtype).view(each)
        best.lerp_(x, take)
        best_uphill.lerp_(uphill, take)
        best_loss, turned = torch.where(higher, losses, best_loss), turned | now
        if k in marks:
            if bool(turned.all()):
                break
            halve = (rises < RISES * (k - last)) | (~last_halved & (best_loss <= last_best))
            eta = torch.where(halve, eta / 2, eta)
            x, uphill = (torch.where(halve.view(each), b, a) for a, b in ((x, best), (uphill, best_uphill)))
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
