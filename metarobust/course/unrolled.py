"""Assignment 3, a learned optimizer from scratch, second part: unroll."""

from __future__ import annotations

from collections.abc import Callable
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
    plain,
    tensor,
    uniform,
    whole,
)


class Run(NamedTuple):
    """A loss with curvature without momentum, and one without curvature with momentum: the two ways apart."""

    w: Tensor
    curvature: Tensor
    centre: Tensor
    slope: Tensor
    curved: Tensor
    carried: Tensor
    steps: int


def _run(g: torch.Generator) -> Run:
    n = whole(g, 3, 6)
    curved = torch.tensor([float(uniform(g, -1.5, -1.0)), float(uniform(g, 0.01, 0.05)), -40.0])
    carried = torch.stack([uniform(g, -2.5, -1.5), uniform(g, 0.01, 0.05), uniform(g, 0.3, 1.2)]).flatten()
    w, centre, slope = uniform(g, -1, 1, n), uniform(g, 2, 3, n), uniform(g, 0.5, 1.5, n)
    return Run(w, uniform(g, 0.8, 1.6, n), centre, slope, curved, carried, whole(g, 3, 6))


def momentum_update(theta: Tensor, g: Tensor, v: Tensor, w: Tensor) -> tuple[Tensor, Tensor]:
    """The optimizer of three numbers that the assignment is about: (step, new velocity), `[N]` each.

    theta: `[3]`, the log of the step size, the share of the weight that is given up, and the logit of the momentum.
    g, v, w: gradient, velocity and weights, `[N]`.
    """
    velocity = theta[2].sigmoid() * v + g
    return -theta[0].exp() * velocity - theta[1] * w, velocity


def _ways(case: Run) -> dict[str, tuple[Callable[[Tensor], Tensor], Callable[[Tensor], Tensor], Tensor]]:
    """Of each of the two runs the loss, its gradient written out, and theta."""

    def bowl(w: Tensor) -> Tensor:
        return (case.curvature * (w - case.centre) ** 2).sum() / 2

    def plane(w: Tensor) -> Tensor:
        return (case.slope * w).sum()

    return {"curved": (bowl, lambda w: case.curvature * (w - case.centre), case.curved),
            "carried": (plane, lambda w: case.slope, case.carried)}  # fmt: skip


def _probe_unroll(answer: Answer, case: Run) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, (loss, _, numbers) in _ways(case).items():
        theta, w = numbers.clone().requires_grad_(), case.w.clone()
        slopes: list[Any] = []

        def differentiate(loss: Any = loss, theta: Tensor = theta, w: Tensor = w, slopes: list[Any] = slopes) -> Any:
            end = answer(loss, momentum_update, w, theta, case.steps)
            if isinstance(end, Tensor) and end.requires_grad:
                slopes.append(torch.autograd.grad(end.sum(), theta, allow_unused=True)[0])
            return end

        found[name] = call(differentiate)
        found[f"{name} slope"] = plain(slopes[0]) if slopes else None
        found[f"{name} same"] = bool(torch.equal(w, case.w))
    return found


def _ends(case: Run, name: str) -> list[tuple[Tensor, Tensor]]:
    """Where the run is after each number of steps, and the derivative of the sum of it with respect to theta."""
    _, gradient, numbers = _ways(case)[name]
    theta = numbers.clone().requires_grad_()
    w, v, ends = case.w, torch.zeros_like(case.w), []
    for _ in range(case.steps + 2):
        step, v = momentum_update(theta, gradient(w), v, w)
        w = w + step
        ends.append((w.detach(), torch.autograd.grad(w.sum(), theta, retain_graph=True)[0]))
    return ends


def _arrives(case: Run, got: Record) -> str | None:
    for name in _ways(case):
        if not close(tensor(got, name, tuple(case.w.shape)), _ends(case, name)[case.steps - 1][0], 1e-3):
            return f"after {case.steps} steps the weights are not where they should be."
    return None


def _derivative(case: Run, got: Record, name: str) -> tuple[Tensor, Tensor]:
    """The derivative that came back, and the right one of the weights that came back, whatever the number of steps."""
    end, slope, ends = tensor(got, name, tuple(case.w.shape)), got.get(f"{name} slope"), _ends(case, name)
    if not isinstance(slope, Tensor) or slope.shape != (3,):
        raise CannotJudge("the last weights have no gradient with respect to theta.")
    nearest = min(ends, key=lambda one: float((one[0] - end).abs().max()))
    return slope, nearest[1]


def _through_state(case: Run, got: Record) -> str | None:
    found, right = _derivative(case, got, "carried")
    if close(found, right, 1e-3):
        return None
    return f"the derivative with respect to theta[2], the momentum, is {found[2]:.3f} and not {right[2]:.3f}."


def _through_gradient(case: Run, got: Record) -> str | None:
    found, right = _derivative(case, got, "curved")
    if close(found[:2], right[:2], 1e-3):
        return None
    return f"the derivative with respect to theta[0] is {found[0]:.3f} and not {right[0]:.3f}: part of it is missing."


def _start_kept(case: Run, got: Record) -> str | None:
    return None if all(got.get(f"{n} same") is True for n in _ways(case)) else "the weights it was given are changed."


UNROLL = Question("q3", "unroll", _run, _probe_unroll, lambda case, got: tensor(got, "curved", tuple(case.w.shape)), (
    Property("weights", 2, "it arrives where so many steps lead",
             "as many updates as steps, each with the gradient at the newest weights; the velocity begins at 0.",
             _arrives),
    Property("state", 2, "the derivative goes through the velocity",
             "hand the velocity from step to step as it is: detached, it forgets that it depends on theta.",
             _through_state),
    Property("second order", 2, "the derivative goes through the gradient",
             "torch.autograd.grad(..., create_graph=True), at weights that are still part of the graph.",
             _through_gradient),
    Property("start", 1, "the weights it was given are left alone", "w = w + step makes new ones; w += step does not.",
             _start_kept),
))  # fmt: skip
