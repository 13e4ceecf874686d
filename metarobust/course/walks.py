"""Assignment 1, attacks from scratch, second half: pgd and margin."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from metarobust.course.attacks import BALL, FGSM, PROJECT, RANGE, attacked, climbs, in_ball, out, same
from metarobust.course.question import (
    CLOSE,
    Answer,
    Assignment,
    Property,
    Question,
    Record,
    call,
    close,
    entry,
    tensor,
    uniform,
    whole,
)
from metarobust.course.toys import Bowl, Linear


class Walk(NamedTuple):
    model: nn.Module
    x: Tensor
    y: Tensor
    eps: float
    steps: int
    alpha: float
    bowl: Bowl
    middle: Tensor
    seed: int


def _walk(g: torch.Generator) -> Walk:
    # Of two classes, so that no gradient turns on a long walk; and so sure of one that no walk leads to the other.
    # The first image is wrong from the start, and the others stay right.
    _, x, _, eps = attacked(g)
    model = Linear(tuple(x.shape[1:]), 2, g).eval()
    with torch.no_grad():
        model.bias += torch.tensor([0.0, 4.0])
    y = (torch.arange(len(x)) > 0).long()
    middle = uniform(g, 0.3, 0.7, *x.shape)
    top = middle + 0.3 * eps * (torch.randint(0, 2, x.shape, generator=g) * 2 - 1)
    hill = torch.arange(x[0].numel()).view(x.shape[1:]) % 2 == 0
    return Walk(model, x, y, eps, 18, eps / 6, Bowl(top, hill), middle, whole(g, 0, 10**6))


def _probe_pgd(answer: Answer, case: Walk) -> dict[str, Any]:
    def at(model: nn.Module, x: Tensor, y: Tensor, steps: int, seed: int) -> Any:
        start = torch.Generator().manual_seed(seed)
        return call(answer, model, x.clone(), y, case.eps, steps, case.alpha, start)

    given, ones = (case.model, case.x, case.y), torch.ones(len(case.x), dtype=torch.int64)
    alone = [at(case.model, case.x[i : i + 1], case.y[i : i + 1], case.steps, case.seed) for i in range(len(case.x))]
    return {"out": at(*given, case.steps, case.seed), "bowl": at(case.bowl, case.middle, ones, case.steps, case.seed),
            "first": at(*given, 1, case.seed), "again": at(*given, 1, case.seed), "other": at(*given, 1, case.seed + 1),
            "alone": alone}  # fmt: skip


def _looks_again(case: Walk, got: Record) -> str | None:
    away = (tensor(got, "bowl", tuple(case.x.shape)) - case.bowl.top).abs()
    hill = (case.bowl.signs > 0).expand_as(away)
    # Whoever climbs ends on the hills, and whoever descends in the pits; the other half runs to the edge.
    turned = min(float(away[hill].max()), float(away[~hill].max()))
    if turned <= 1.5 * case.alpha + CLOSE:
        return None
    return f"it walks past a peak of the loss and ends {turned / case.alpha:.1f} steps away from it."


def _random(case: Walk, got: Record) -> str | None:
    first, again, other = (tensor(got, name, tuple(case.x.shape)) for name in ("first", "again", "other"))
    if not torch.equal(first, again):
        return "two generators with one seed lead to different images."
    # A start that is drawn once and for all images would do; one that is not drawn at all would not.
    if torch.equal(first, other):
        return "two generators with different seeds lead to the same images."
    # One step is alpha long: whoever draws from all of the ball has pixels that begin further down.
    down = float((first - case.x).min())
    return "no pixel starts below the image: that is half of the ball." if down > -1.5 * case.alpha else None


def _alone(case: Walk, got: Record) -> str | None:
    free = (case.x > case.eps) & (case.x < 1 - case.eps)
    together, alone = out(case, got), entry(got, "alone")
    for i in range(len(case.x)):
        one = tensor(dict(enumerate(alone)), i, (1, *case.x.shape[1:]))[0]
        short = case.eps - CLOSE
        lost = ((one - case.x[i]).abs() < short) != ((together[i] - case.x[i]).abs() < short)
        if bool(lost[free[i]].any()):
            return f"image {i} is moved otherwise when it comes alone than in the batch."
    return None


PGD = Question("q3", "pgd", _walk, _probe_pgd, out, (
    Property("ball", 2, BALL.asks, "after every step go back into the ball around x, and not around the last point.",
             in_ball),
    RANGE,
    Property("again", 2, "every step asks for a new gradient",
             "compute the gradient inside the loop, at the point where the last step led.", _looks_again),
    Property("ascent", 2, "the loss of every image rises", FGSM.property_named("ascent").hint, climbs),
    Property("random", 1, "it starts at a random point, drawn from the generator",
             "torch.rand(x.shape, generator=generator) gives numbers from 0 to 1; spread them over -eps to eps.",
             _random),
    Property("alone", 1, "an image is attacked alike, alone and in a batch",
             "take all the steps, whatever the other images do; no mean, maximum or stop over the batch.", _alone),
))  # fmt: skip


class Logits(NamedTuple):
    logits: Tensor
    y: Tensor


def _logits(g: torch.Generator) -> Logits:
    n, classes = whole(g, 6, 9), whole(g, 3, 6)
    logits = uniform(g, -3, 3, n, classes)
    order = logits.argsort(1, descending=True)
    return Logits(logits, torch.where(torch.arange(n) % 2 == 0, order[:, 0], order[:, 1]))  # right, wrong, right, ...


def _probe_margin(answer: Answer, case: Logits) -> dict[str, Any]:
    logits = case.logits.clone()
    return {"out": call(answer, logits, case.y), "same": bool(torch.equal(logits, case.logits))}


def _margins(case: Logits, got: Record) -> tuple[Tensor, Tensor, Tensor]:
    """What was returned, what is right, and which images the logits get right."""
    own = case.logits.gather(1, case.y[:, None])[:, 0]
    rest = case.logits.scatter(1, case.y[:, None], -torch.inf).amax(1)
    return tensor(got, "out", (len(case.y),)), rest - own, rest < own


def _runner_up(case: Logits, got: Record) -> str | None:
    found, _, right = _margins(case, got)
    return "it is 0 for images that are classified right." if bool((found[right].abs() < CLOSE).all()) else None


def _size(case: Logits, got: Record) -> str | None:
    found, wanted, right = _margins(case, got)
    good = close(found[~right].abs(), wanted[~right].abs())
    return None if good else "its size is not the distance between two logits."


def _sign(case: Logits, got: Record) -> str | None:
    found, _, right = _margins(case, got)
    good = bool((found[~right] > 0).all() and (found[right] <= CLOSE).all())
    return None if good else "it is not above 0 exactly where the logits are wrong."


MARGIN = Question("q4", "margin", _logits, _probe_margin, lambda case, got: tensor(got, "out", (len(case.y),)), (
    Property("runner-up", 2, "the right class is no rival of itself",
             "leave the right class out before you take the largest of the others.", _runner_up),
    Property("size", 2, "it is a difference of logits", "no softmax: it is what flattens the loss out.", _size),
    Property("sign", 2, "it is above 0 where the model is wrong",
             "the largest wrong logit minus the right one, so that an attack climbs it.", _sign),
    Property("inputs", 1, "the logits are left alone", "clone them before you write into them, or use scatter.", same),
))  # fmt: skip

ASSIGNMENT = Assignment(
    1, "attacks-from-scratch", "Attacks from scratch",
    ("metarobust.attacks", "metarobust.evaluation", "metarobust.objectives", "torchattacks", "foolbox", "art"),
    (PROJECT, FGSM, PGD, MARGIN),
)  # fmt: skip
