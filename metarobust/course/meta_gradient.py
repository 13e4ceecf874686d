"""Assignment 3, a learned optimizer from scratch, third part: finite_difference and meta_step."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from metarobust.course.optimizer import FEATURES, UPDATE
from metarobust.course.question import (
    CLOSE,
    Answer,
    Assignment,
    Property,
    Question,
    Record,
    call,
    close,
    noted,
    tensor,
    uniform,
    whole,
)
from metarobust.course.unrolled import UNROLL


class Slope(NamedTuple):
    theta: Tensor
    slope: Tensor
    curvature: Tensor
    h: float


def _slope(g: torch.Generator) -> Slope:
    n = whole(g, 3, 6)
    sign = float(whole(g, 0, 1) * 2 - 1)
    # No two alike, so that one number for all entries cannot be right for two of them.
    slope = sign * (torch.arange(n) + uniform(g, 0.6, 1.2, n))
    return Slope(
        uniform(g, -1, 1, n).double(), slope.double(), uniform(g, 1, 2, n).double(), float(uniform(g, 0.05, 0.1))
    )


def _probe_difference(answer: Answer, case: Slope) -> dict[str, Any]:
    given = case.theta.clone()

    def line(theta: Tensor) -> Tensor:
        return (case.slope * theta).sum()

    def valley(theta: Tensor) -> Tensor:  # whose lowest point is where we ask
        return (case.curvature * (theta - case.theta) ** 2).sum()

    found = {"out": call(answer, line, given, case.h), "same": bool(torch.equal(given, case.theta))}
    return {**found, "valley": call(answer, valley, case.theta.clone(), case.h)}


def _out(case: Slope, got: Record) -> Tensor:
    return tensor(got, "out", tuple(case.theta.shape))


def _right_size(case: Slope, got: Record) -> str | None:
    good = close(_out(case, got).abs(), case.slope.float().abs(), 1e-3)
    return None if good else "of a function that is a plane, the slopes have the wrong size."


def _right_sign(case: Slope, got: Record) -> str | None:
    return None if bool((_out(case, got) * case.slope > 0).all()) else "it points down where the function rises."


def _central(case: Slope, got: Record) -> str | None:
    found = float(tensor(got, "valley", tuple(case.theta.shape)).abs().max())
    return f"at the lowest point of a valley it says {found:.3f}, not 0." if found > 1e-3 else None


DIFFERENCE = Question("q4", "finite_difference", _slope, _probe_difference, _out, (
    Property("size", 2, "of a plane it gives the slope of every coordinate",
             "one coordinate at a time, and divide by the distance between the two points.", _right_size),
    Property("sign", 1, "it points to where the function rises", "the value after +h minus the value after -h.",
             _right_sign),
    Property("central", 2, "at the lowest point of a valley it gives 0",
             "look both ways, at theta + h and at theta - h: one-sided, an error of the order of h is left.", _central),
    Property("theta", 1, "the theta that it was given is left alone", "work on a clone for each coordinate.",
             noted("same", "the theta that it was given is changed.")),
))  # fmt: skip


class Downhill(NamedTuple):
    theta: Tensor
    centre: Tensor
    lr: float


def _downhill(g: torch.Generator) -> Downhill:
    n = whole(g, 3, 6)
    return Downhill(uniform(g, -1, 1, n), uniform(g, 2, 4, n), float(uniform(g, 0.01, 0.1)))


def _probe_step(answer: Answer, case: Downhill) -> dict[str, Any]:
    theta, graph = case.theta.clone().requires_grad_(), []

    def meta_loss(given: Tensor) -> Tensor:
        return ((given - case.centre) ** 2).sum() / 2

    def step() -> Any:
        found = answer(meta_loss, theta, case.lr)
        graph.append(isinstance(found, Tensor) and found.grad_fn is not None)
        return found

    out = call(step)
    same = bool(torch.equal(theta, case.theta)) and theta.grad is None
    return {"out": out, "same": same, "graph": any(graph)}


def _theta(case: Downhill, got: Record) -> Tensor:
    return tensor(got, "out", tuple(case.theta.shape))


def _descends(case: Downhill, got: Record) -> str | None:
    move = _theta(case, got) - case.theta
    return None if bool((move * (case.centre - case.theta) > 0).all()) else "the meta-loss rises along this step."


def _length(case: Downhill, got: Record) -> str | None:
    move, wanted = (_theta(case, got) - case.theta).abs(), case.lr * (case.theta - case.centre).abs()
    return None if close(move, wanted, CLOSE) else "its size is not lr times the meta-gradient."


STEP = Question("q5", "meta_step", _downhill, _probe_step, _theta, (
    Property("descent", 2, "the meta-loss falls along the step", "theta minus lr times the meta-gradient.", _descends),
    Property("size", 1, "the step is lr times the meta-gradient", "no sign, and no division by the norm.", _length),
    Property("cut", 1, "the new theta has no graph",
             ".detach() it: otherwise every episode is kept in memory, and differentiated again by the next.",
             noted("graph", "the new theta still carries the graph of the old one.", wanted=False)),
    Property("theta", 1, "the theta that it was given is left alone",
             "torch.autograd.grad leaves no .grad; and no in-place operation.",
             noted("same", "the theta that it was given is changed, or has a .grad left on it.")),
))  # fmt: skip

ASSIGNMENT = Assignment(
    3, "a-learned-optimizer", "A learned optimizer from scratch",
    ("metarobust.learned", "metarobust.unroll", "metarobust.meta", "metarobust.optim", "higher"),
    (FEATURES, UPDATE, UNROLL, DIFFERENCE, STEP),
)  # fmt: skip
