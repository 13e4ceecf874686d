"""Assignment 1, attacks from scratch: project, fgsm, pgd and margin."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from metarobust.book.properties import CLOSE, Holds, begun, in_ball, in_range, near
from metarobust.course.question import Ask, Judged
from metarobust.course.toys import Bowl, Linear, uniform, whole

BLIND = "another model leads to the same images: the gradient of its loss is not used."
CHANGED = "the tensors that it was given are changed."
USED = "the gradients in the model's parameters, or its mode, are not as before."


def linear(g: torch.Generator, shape: tuple[int, ...], classes: int, shift: float = 0.0) -> Linear:
    """A model whose gradients are all below 1, so that no sign is missed, and nowhere 0. shift: of its last logit."""
    pixels = int(torch.tensor(shape).prod())
    signs = torch.randint(0, 2, (classes, pixels), generator=g) * 2.0 - 1
    bias = uniform(g, -0.1, 0.1, classes) + shift * (torch.arange(classes) == classes - 1)
    return Linear(weight=signs * uniform(g, 0.05, 0.15, classes, pixels), bias=bias).eval()


def opposite(model: Linear) -> Linear:
    """The model whose gradients point the other way."""
    return Linear(weight=-model.weight, bias=model.bias).eval()


def images(g: torch.Generator, n: int, shape: tuple[int, ...], low: float = 0.0, high: float = 1.0) -> Tensor:
    """Random images in [low, high], `[n, C, H, W]`; the first pixel of each is black and the last one white."""
    x = uniform(g, low, high, n, *shape)
    x.view(n, -1)[:, 0], x.view(n, -1)[:, -1] = 0.0, 1.0
    return x


def climbs(model: nn.Module, out: Tensor, x: Tensor, y: Tensor) -> Holds:
    """The property that the cross-entropy of every image rises."""
    with torch.no_grad():
        before, after = (F.cross_entropy(model(one), y, reduction="none") for one in (x, out))
    falls = int((after <= before).sum())
    return Holds(not falls, f"for {falls} of {len(x)} images the loss does not rise.")


def project(g: torch.Generator, ask: Ask) -> Judged:
    x = images(g, whole(g, 3, 5), (whole(g, 1, 3), whole(g, 3, 4), whole(g, 3, 4)))
    eps = float(uniform(g, 0.05, 0.15))
    # A third of the entries lies inside of everything, a third outside of the ball, and the rest wherever it falls.
    inside = (x + eps * uniform(g, -0.9, 0.9, *x.shape)).clamp(0, 1)
    outside = x + eps * uniform(g, -4, 4, *x.shape)
    moved = torch.where(torch.randint(0, 3, x.shape, generator=g) == 0, inside, outside)
    reply = ask(moved, x, eps)
    out = reply.tensor(*x.shape)
    begun(not near(out, x), "it gives back the images as they were before they were moved.")
    begun(not near(out, moved), "it gives back the images as they were moved.")
    begun(out.std() > CLOSE, "every pixel of what it returns is the same.")
    yield *in_ball(out, x, eps), "ball"
    yield *in_range(out), "range"
    fine = ((moved - x).abs() <= eps) & (moved >= 0) & (moved <= 1)
    shift = float((out - moved)[fine].abs().max())
    yield shift <= CLOSE, f"a pixel that was inside is moved by {shift:.3f}.", "nearest"
    yield reply.kept(0, 1), CHANGED, "inputs"


def fgsm(g: torch.Generator, ask: Ask) -> Judged:
    shape, classes = (1, whole(g, 3, 4), whole(g, 3, 5)), whole(g, 3, 5)
    model, x = linear(g, shape, classes), images(g, whole(g, 4, 6), shape, 0.05, 0.95)
    y, eps = torch.randint(0, classes, (len(x),), generator=g), float(uniform(g, 0.06, 0.12))
    reply, other = ask(model, x, y, eps, used=True), ask(opposite(model), x, y, eps)
    out = reply.tensor(*x.shape)
    begun(not near(out, other.tensor(*x.shape)), BLIND)
    yield *in_ball(out, x, eps), "ball"
    yield *in_range(out), "range"
    least = float((out - x).abs()[(x > eps) & (x < 1 - eps)].min())
    yield least >= eps - CLOSE, f"a pixel with room to move goes {least:.4f}; eps is {eps:.3f}.", "full"
    yield *climbs(model, out, x, y), "ascent"
    graph = "what it returns still carries its graph."
    yield reply.kept(1) and not reply.graph(), graph if reply.graph() else CHANGED, "clean"
    learning = ask(model.train(), x, y, eps, used=True)
    yield reply.kept(0) and learning.kept(0), USED, "model"


def pgd(g: torch.Generator, ask: Ask) -> Judged:
    # Of two classes, so that no gradient turns on a long walk; and so sure of one that no walk leads to the other.
    # The first image is wrong from the start, and the others stay right.
    shape, steps = (1, whole(g, 3, 4), whole(g, 3, 5)), 18
    model, x = linear(g, shape, 2, shift=4.0), images(g, whole(g, 4, 6), shape, 0.05, 0.95)
    y, eps, seed = (torch.arange(len(x)) > 0).long(), float(uniform(g, 0.06, 0.12)), whole(g, 0, 10**6)
    alpha = eps / 6

    def walk(model: nn.Module, x: Tensor, y: Tensor, steps: int, seed: int = seed, alpha: float = alpha) -> Tensor:
        return ask(model, x, y, eps, steps, alpha, torch.Generator().manual_seed(seed)).tensor(*x.shape)

    out = walk(model, x, y, steps)
    begun(not near(out, walk(opposite(model), x, y, steps)), BLIND)
    yield *in_ball(out, x, eps), "ball"
    yield *in_range(out), "range"
    middle = uniform(g, 0.3, 0.7, 1, *shape)
    top = middle + 0.3 * eps * (torch.randint(0, 2, middle.shape, generator=g) * 2 - 1)
    hill = torch.arange(middle.numel()).view(shape) % 2 == 0

    def again() -> Holds:
        bowl = Bowl(top=top, hill=hill * 2.0 - 1)
        away = (walk(bowl, middle.repeat(len(x), 1, 1, 1), torch.ones_like(y), steps) - top).abs()
        # Whoever climbs ends on the hills, and whoever descends in the pits; the other half runs to the edge.
        turned = min(float(away[:, hill].max()), float(away[:, ~hill].max()))
        far = f"it walks past a peak of the loss and ends {turned / alpha:.1f} steps away from it."
        return Holds(turned <= 1.5 * alpha + CLOSE, far)

    yield again, "again"
    yield *climbs(model, out, x, y), "ascent"

    def random() -> Holds:
        first, second, other = (walk(model, x, y, 1, one) for one in (seed, seed, seed + 1))
        begun(torch.equal(first, second), "two generators with one seed lead to different images.")
        # A start that is drawn once and for all images would do; one that is not drawn at all would not.
        begun(not torch.equal(first, other), "two generators with different seeds lead to the same images.")
        grey = torch.full((1, 1, 8, 10), 0.5)
        start = (walk(linear(g, (1, 8, 10), 2), grey, y[1:2], 1, alpha=eps / 100) - grey) / eps
        low, high = float(start.min()), float(start.max())
        return Holds(low < -0.6 and high > 0.6, f"it starts from {low:.2f} to {high:.2f} eps: the ball is wider.")

    yield random, "random"

    def alone() -> Holds:
        each = torch.cat([walk(model, x[i : i + 1], y[i : i + 1], steps) for i in range(len(x))])
        short = [(one - x).abs() < eps - CLOSE for one in (each, out)]
        lost = (short[0] != short[1]) & (x > eps) & (x < 1 - eps)
        which = int(lost.flatten(1).any(1).int().argmax())
        return Holds(not lost.any(), f"image {which} is moved otherwise when it comes alone than in the batch.")

    yield alone, "alone"


def margin(g: torch.Generator, ask: Ask) -> Judged:
    n, classes = whole(g, 6, 9), whole(g, 3, 6)
    logits = uniform(g, -3, 3, n, classes)
    order = logits.argsort(1, descending=True)
    y = torch.where(torch.arange(n) % 2 == 0, order[:, 0], order[:, 1])  # right, wrong, right, ...
    wanted = logits.scatter(1, y[:, None], -torch.inf).amax(1) - logits.gather(1, y[:, None])[:, 0]
    right, reply = wanted < 0, ask(logits, y)
    out = reply.tensor(n)
    idle = bool((out[right].abs() < CLOSE).all())  # 0 wherever the model is right
    rows = ~right if idle else right | ~right
    size = near(out[rows].abs(), wanted[rows].abs())
    sign = bool((out[~right] > 0).all() and (out[right] <= CLOSE).all())
    begun(size or sign, "it has neither the size nor the sign of a margin.")
    yield not idle, "it is 0 for images that are classified right.", "runner-up"
    yield size, "its size is not the distance between two logits.", "size"
    yield sign, "it is not above 0 exactly where the logits are wrong.", "sign"
    yield reply.kept(0), CHANGED, "inputs"
