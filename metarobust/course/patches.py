"""Assignment 4, learning from mistakes, second half: patch and paired."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from metarobust.course.mistakes import LOSS, SPLIT
from metarobust.course.question import (
    Answer,
    Assignment,
    CannotJudge,
    Property,
    Question,
    Record,
    call,
    close,
    entry,
    noted,
    number,
    tensor,
    uniform,
    whole,
)
from metarobust.lab.results import interval


class Patch(NamedTuple):
    w: Tensor
    target: Tensor
    x: Tensor
    y: Tensor
    lr: float
    steps: int


class Watched:
    """Plain gradient descent that notes what it is given: how many steps, and which state."""

    def __init__(self, lr: float):
        self.lr, self.totals, self.states = lr, [], []

    def init(self, params: Tensor, total: int) -> int:
        self.totals.append(total)
        return 0

    def update(self, grads: Tensor, state: int, params: Tensor) -> tuple[Tensor, int]:
        self.states.append(state)
        return -self.lr * grads, state + 1


def _patch(g: torch.Generator) -> Patch:
    n = whole(g, 4, 8)
    x = uniform(g, 0.2, 0.8, whole(g, 3, 5), 1, 2, 2)
    y = torch.randint(0, 3, (len(x),), generator=g)
    return Patch(uniform(g, -1, 1, n), uniform(g, 2, 3, n), x, y, float(uniform(g, 0.05, 0.2)), whole(g, 3, 6))


def _probe_patch(answer: Answer, case: Patch) -> dict[str, Any]:
    optimizer, w, images, graph = Watched(case.lr), case.w.clone(), [], []

    def loss(params: Tensor, x: Tensor, y: Tensor) -> Tensor:
        images.append(x.shape == case.x.shape and bool(torch.equal(x, case.x)))
        # The images count for nothing here, whatever somebody does to them: that is another property's business.
        return ((params - case.target) ** 2).sum() / 2 + 1e-6 * x.mean()

    def run() -> Any:
        found = answer(optimizer, w, loss, case.x.clone(), case.y, case.steps)
        graph.append(isinstance(found, Tensor) and found.requires_grad)
        return found

    out = call(run)
    return {"out": out, "same": bool(torch.equal(w, case.w)), "graph": any(graph),
            "clean": bool(images) and all(images), "totals": _numbers(optimizer.totals),
            "states": _numbers(optimizer.states)}  # fmt: skip


def _numbers(noted: list[Any]) -> list[int]:
    """What was noted, and -1 for what is no number; no more than a short run notes."""
    return [int(one) if isinstance(one, int) else -1 for one in noted[:100]]


def _weights(case: Patch, got: Record) -> Tensor:
    return tensor(got, "out", tuple(case.w.shape))


def _arrives(case: Patch, got: Record) -> str | None:
    wanted = case.target + (case.w - case.target) * (1 - case.lr) ** case.steps
    good = close(_weights(case, got), wanted, 1e-3)
    return None if good else f"after {case.steps} steps the weights are not where they should be."


def _state(case: Patch, got: Record) -> str | None:
    states = got.get("states")
    kept = isinstance(states, list) and bool(states) and states == list(range(len(states)))
    return None if kept else "the optimizer does not get back the state that it returned."


def _total(case: Patch, got: Record) -> str | None:
    totals = got.get("totals")
    return None if totals == [case.steps] else f"init is told {totals}; the run has {case.steps} steps."


def _left_alone(case: Patch, got: Record) -> str | None:
    if got.get("graph") is not False:
        return "the weights that it returns still carry a graph."
    return None if got.get("same") is True else "the weights of the victim are changed."


PATCH = Question("q3", "patch", _patch, _probe_patch, _weights, (
    Property("weights", 2, "it takes so many steps, each with a new gradient",
             "the gradient belongs inside the loop; the step that update returns is added.", _arrives),
    Property("clean", 2, "it makes no adversarial example",
             "the loss sees x as it came: attacks are for the school, not for the patch.",
             noted("clean", "the loss was asked about images that are not the ones it was given.")),
    Property("state", 2, "the optimizer's state goes from step to step",
             "step, state = optimizer.update(grads, state, w): begin with init, once, before the loop.", _state),
    Property("total", 1, "the optimizer is told how many steps there are",
             "optimizer.init(w, steps): a learned optimizer behaves otherwise at the end of a run.", _total),
    Property("victim", 1, "the victim's weights are left alone, and the result has no graph",
             "w = w + step, in a new tensor, and detach.", _left_alone),
))  # fmt: skip


class Pairs(NamedTuple):
    before: list[float]
    after: list[float]


def _pairs(g: torch.Generator) -> Pairs:
    n = (4, 5, 9, 10)[whole(g, 0, 3)]  # the root of none of them is near its t
    level = uniform(g, 0.2, 0.6, n)  # the models differ a lot, and the gain hardly
    gain = uniform(g, 0.05, 0.15, n)
    return Pairs(level.tolist(), (level + gain).tolist())


def _probe_paired(answer: Answer, case: Pairs) -> dict[str, Any]:
    return {"out": call(answer, list(case.before), list(case.after))}


def _three(case: Pairs, got: Record) -> tuple[float, float, float]:
    found = entry(got, "out")
    if not isinstance(found, list) or len(found) != 3:
        raise CannotJudge("it does not return three numbers: the mean, and the ends of its interval.")
    numbers = dict(zip(("mean", "low", "high"), found, strict=True))
    return number(numbers, "mean"), number(numbers, "low"), number(numbers, "high")


def _right(case: Pairs) -> tuple[float, float]:
    return interval([b - a for a, b in zip(case.before, case.after, strict=True)])


def _mean(case: Pairs, got: Record) -> str | None:
    found, wanted = _three(case, got)[0], _right(case)[0]
    return None if abs(abs(found) - wanted) < 1e-4 else f"the mean change has size {abs(found):.4f}, not {wanted:.4f}."


def _direction(case: Pairs, got: Record) -> str | None:
    return None if _three(case, got)[0] > 0 else "a model that got better is said to have got worse."


def _width(case: Pairs, got: Record) -> str | None:
    _, low, high = _three(case, got)
    wanted = 2 * _right(case)[1]
    return None if abs(high - low - wanted) < 2e-4 else f"the interval is {high - low:.4f} wide, not {wanted:.4f}."


def _around(case: Pairs, got: Record) -> str | None:
    mean, low, high = _three(case, got)
    good = abs((low + high) / 2 - mean) < 1e-4 and low <= high
    return None if good else "the ends of the interval do not lie around the mean, the lower one first."


PAIRED = Question("q4", "paired", _pairs, _probe_paired, _three, (
    Property("mean", 1, "it finds the mean change", "over the models, each against itself.", _mean),
    Property("direction", 1, "better is above 0", "after minus before.", _direction),
    Property("width", 2, "the interval is that of the paired differences, 95 %, by Student's t",
             "the standard deviation of the differences, over the root of n, times t with n - 1 degrees of freedom.",
             _width),
    Property("centre", 1, "the interval lies around the mean", "mean - half, mean + half.", _around),
))  # fmt: skip

ASSIGNMENT = Assignment(4, "learning-from-mistakes", "Learning from mistakes", ("metarobust.patching",),
                        (LOSS, SPLIT, PATCH, PAIRED))  # fmt: skip
