"""Assignment 3, a learned optimizer from scratch, first part: features and update."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from metarobust.course.question import (
    Answer,
    CannotJudge,
    Property,
    Question,
    Record,
    call,
    close,
    entry,
    plain,
    tensor,
    uniform,
    whole,
)


class Seen(NamedTuple):
    g: Tensor
    m: Tensor
    w: Tensor
    factor: float
    order: Tensor


def _seen(g: torch.Generator) -> Seen:
    n = whole(g, 7, 12)
    one, two, three = (uniform(g, 0.2, 1.5, n) * (torch.randint(0, 2, (n,), generator=g) * 2 - 1) for _ in range(3))
    return Seen(one, two, 0.3 * three, float(uniform(g, 300, 3000)), torch.arange(n).roll(whole(g, 1, n - 1)))


def _probe_features(answer: Answer, case: Seen) -> dict[str, Any]:
    g, m, w, factor, order = case
    return {"out": call(answer, g.clone(), m.clone(), w.clone()),
            "louder": call(answer, factor * g, factor * m, w.clone()),
            "zero": call(answer, torch.zeros_like(g), torch.zeros_like(m), torch.zeros_like(w)),
            "mixed": call(answer, g[order], m[order], w[order])}  # fmt: skip


def _table(case: Seen, got: Record, name: str = "out", finite: bool = True) -> Tensor:
    return tensor(got, name, (len(case.g), 3), finite)


def _scale_free(case: Seen, got: Record) -> str | None:
    before, after = _table(case, got)[:, :2], _table(case, got, "louder")[:, :2]
    if close(before, after, 1e-2):
        return None
    return f"gradients {case.factor:.0f} times as large give other features."


def _sees_weight(case: Seen, got: Record) -> str | None:
    wanted = case.w / case.w.square().mean().sqrt()
    good = close(_table(case, got)[:, 2], wanted, 1e-2)
    return None if good else "the third column is not the weight over its own root mean square."


def _finite(case: Seen, got: Record) -> str | None:
    good = bool(_table(case, got, "zero", finite=False).isfinite().all())
    return None if good else "gradients of 0 give features that are not finite."


def _keeps_ratios(case: Seen, got: Record) -> str | None:
    for name, column, given in (("gradient", 0, case.g), ("momentum", 1, case.m)):
        found = _table(case, got)[:, column]
        ratio = found / given
        if not bool((ratio - ratio[0]).abs().max() <= 1e-2 * ratio.abs().max()) or bool((found == 0).all()):
            return f"the sizes of the {name}'s entries are lost."
    return None


def _equivariant(case: Seen, got: Record) -> str | None:
    good = close(_table(case, got, "mixed"), _table(case, got)[case.order], 1e-3)
    return None if good else "coordinates in another order get other features."


FEATURES = Question("q1", "features", _seen, _probe_features, _table, (
    Property("scale", 2, "gradients in other units give the same features",
             "divide the gradient and the momentum by their own root mean squares.", _scale_free),
    Property("weight", 2, "the third column is the weight, over its own root mean square",
             "a rule that cannot see the weight cannot shrink one whose gradient is 0.", _sees_weight),
    Property("finite", 1, "gradients of 0 give finite features", "add a tiny number to what you divide by.", _finite),
    Property("sizes", 1, "a gradient twice as large has a feature twice as large",
             "the sign alone loses the size: divide the whole vector by one number.", _keeps_ratios),
    Property("order", 1, "coordinates in another order get the same features, in that order",
             "no coordinate has a place of honour: divide by a mean over all of them.", _equivariant),
))  # fmt: skip


class Turn(NamedTuple):
    theta: Tensor
    g: Tensor
    v: Tensor
    w: Tensor


def _turn(g: torch.Generator) -> Turn:
    n = whole(g, 4, 8)
    theta = torch.stack([uniform(g, -2.5, -1.5), uniform(g, 0.02, 0.1), uniform(g, 0.3, 1.2)]).flatten()
    return Turn(theta, *(uniform(g, 0.3, 1.5, n) for _ in range(3)))


def _probe_update(answer: Answer, case: Turn) -> dict[str, Any]:
    theta, g, v, w = case
    leaf, none = theta.clone().requires_grad_(), torch.zeros_like(g)
    slopes: list[Any] = []

    def differentiate() -> Any:
        step, velocity = answer(leaf, g.clone(), v.clone(), w.clone())
        # The momentum shows at the latest in the step after.
        total = (step + answer(leaf, g.clone(), velocity, w.clone())[0]).sum()
        slopes.append(torch.autograd.grad(total, leaf, allow_unused=True)[0] if total.requires_grad else None)

    call(differentiate)
    return {"out": call(answer, theta.clone(), g.clone(), v.clone(), w.clone()),
            "light": call(answer, theta.clone(), g.clone(), v.clone(), none),
            "still": call(answer, theta.clone(), none, none, w.clone()),
            "slope": plain(slopes[0]) if slopes else None}  # fmt: skip


def _pair(case: Turn, got: Record, name: str = "out") -> tuple[Tensor, Tensor]:
    found = entry(got, name)
    if not isinstance(found, list) or len(found) != 2:
        raise CannotJudge("it does not return a pair, the step and the new velocity.")
    both = {"step": found[0], "velocity": found[1]}
    return tensor(both, "step", tuple(case.w.shape)), tensor(both, "velocity", tuple(case.w.shape))


def _velocity(case: Turn, got: Record) -> str | None:
    good = close(_pair(case, got)[1], case.theta[2].sigmoid() * case.v + case.g)
    return None if good else "the new velocity is not sigmoid(theta[2]) * v + g."


def _pace(case: Turn, got: Record) -> str | None:
    step, velocity = _pair(case, got, "light")  # of weights that are 0, so that nothing is given up
    good = close(step, -case.theta[0].exp() * velocity)
    return None if good else "of weights at 0, the step is not -exp(theta[0]) times the new velocity."


def _decay(case: Turn, got: Record) -> str | None:
    good = close(_pair(case, got, "still")[0], -case.theta[1] * case.w)
    return None if good else "where gradient and velocity are 0, the step is not -theta[1] * w."


def _learnable(case: Turn, got: Record) -> str | None:
    slope = got.get("slope")
    if not isinstance(slope, Tensor) or slope.shape != (3,):
        return "the step has no gradient with respect to theta."
    missing = [i for i in range(3) if float(slope[i]) == 0]
    return f"the step has no gradient with respect to theta[{missing[0]}]." if missing else None


UPDATE = Question("q2", "update", _turn, _probe_update, _pair, (
    Property("velocity", 2, "the new velocity is sigmoid(theta[2]) * v + g", "g counts in full.", _velocity),
    Property("pace", 2, "the step goes down the new velocity, exp(theta[0]) times",
             "a minus sign, the exponential, and the velocity that you have just made.", _pace),
    Property("decay", 1, "the step gives up theta[1] of the weight", "- theta[1] * w, without the exponential.",
             _decay),
    Property("graph", 2, "the step has a gradient with respect to all of theta",
             "no float(), .item() or .detach() of theta.", _learnable),
))  # fmt: skip
