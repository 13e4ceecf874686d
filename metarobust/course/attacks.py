"""Assignment 1, attacks from scratch, first half: project and fgsm."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from metarobust.course.question import CLOSE, Answer, Property, Question, Record, call, noted, tensor, uniform, whole
from metarobust.course.toys import Linear, images, losses


class Moved(NamedTuple):
    x: Tensor
    moved: Tensor
    eps: float


def _moved(g: torch.Generator) -> Moved:
    n, shape = whole(g, 3, 5), (whole(g, 1, 3), whole(g, 3, 4), whole(g, 3, 4))
    x, eps = images(g, n, shape), float(uniform(g, 0.05, 0.15))
    # A third of the entries lies inside of everything, a third outside of the ball, and the rest wherever it falls.
    kind = torch.randint(0, 3, x.shape, generator=g)
    inside = (x + eps * uniform(g, -0.9, 0.9, *x.shape)).clamp(0, 1)
    outside = x + eps * uniform(g, -4, 4, *x.shape)
    return Moved(x, torch.where(kind == 0, inside, outside), eps)


def _probe_project(answer: Answer, case: Moved) -> dict[str, Any]:
    x, moved = case.x.clone(), case.moved.clone()
    found = call(answer, moved, x, case.eps)
    return {"out": found, "same": bool(torch.equal(x, case.x) and torch.equal(moved, case.moved))}


def out(case: Any, got: Record) -> Tensor:
    """The images that came back, of the shape of `case.x`. Raises CannotJudge where they are none."""
    return tensor(got, "out", tuple(case.x.shape))


def in_ball(case: Any, got: Record) -> str | None:
    """Fails where a pixel is further than `case.eps` from `case.x`."""
    far = float((out(case, got) - case.x).abs().max())
    return f"a pixel is {far:.3f} away from the image; eps is {case.eps:.3f}." if far > case.eps + CLOSE else None


def _in_range(case: Any, got: Record) -> str | None:
    low, high = float(out(case, got).min()), float(out(case, got).max())
    return f"pixels run from {low:.2f} to {high:.2f}." if low < -CLOSE or high > 1 + CLOSE else None


def _nearest(case: Moved, got: Record) -> str | None:
    inside = ((case.moved - case.x).abs() <= case.eps) & (case.moved >= 0) & (case.moved <= 1)
    shift = float((out(case, got) - case.moved)[inside].abs().max())
    return f"a pixel that was inside is moved by {shift:.3f}." if shift > CLOSE else None


same = noted("same", "the tensors that it was given are changed.")
PROJECT = Question("q1", "project", _moved, _probe_project, out, (
    Property("ball", 2, "no pixel is further than eps from the image",
             "cut off the difference, moved - x, at -eps and at +eps, and add x again.", in_ball),
    Property("range", 2, "every pixel is in [0, 1]", "clamp the image itself to [0, 1] at the end.", _in_range),
    Property("nearest", 1, "what is inside already stays where it is",
             "treat every pixel alone: one that is within eps and in [0, 1] needs no change.", _nearest),
    Property("inputs", 1, "what it was given is left alone", "no in-place operation: those end in _ or are +=, -=.",
             same),
))  # fmt: skip


class Attacked(NamedTuple):
    model: nn.Module
    x: Tensor
    y: Tensor
    eps: float


def attacked(g: torch.Generator) -> Attacked:
    """A linear model in eval mode, images `[n, 1, H, W]` in [0, 1], labels `[n]`, and eps in units of pixels."""
    n, shape, classes = whole(g, 4, 6), (1, whole(g, 3, 4), whole(g, 3, 5)), whole(g, 3, 5)
    model = Linear(shape, classes, g).eval()
    y = torch.randint(0, classes, (n,), generator=g)
    x = images(g, n, shape, 0.05, 0.95)
    return Attacked(model, x, y, float(uniform(g, 0.06, 0.12)))


def _probe_fgsm(answer: Answer, case: Attacked) -> dict[str, Any]:
    x, attached = case.x.clone(), []

    def attack() -> Any:
        found = answer(case.model, x, case.y, case.eps)
        attached.append(isinstance(found, Tensor) and found.requires_grad)
        return found

    moved = call(attack)
    return {"out": moved, "same": bool(torch.equal(x, case.x)) and not x.requires_grad, "graph": any(attached),
            "bare": all(p.grad is None for p in case.model.parameters()),
            "mode": not case.model.training}  # fmt: skip


def _full(case: Attacked, got: Record) -> str | None:
    free = (case.x > case.eps) & (case.x < 1 - case.eps)
    least = float((out(case, got) - case.x).abs()[free].min())
    return f"a pixel with room to move goes {least:.4f}; eps is {case.eps:.3f}." if least < case.eps - CLOSE else None


def climbs(case: Any, got: Record) -> str | None:
    """Fails where the cross-entropy of an image does not rise."""
    falls = int((losses(case.model, out(case, got), case.y) <= losses(case.model, case.x, case.y)).sum())
    return f"for {falls} of {len(case.x)} images the loss does not rise." if falls else None


def _detached(case: Any, got: Record) -> str | None:
    if got.get("graph") is not False:
        return "what it returns still carries its graph."
    return None if got.get("same") is True else "the images that it was given are changed."


def _model_as_it_was(case: Any, got: Record) -> str | None:
    if got.get("bare") is not True:
        return "gradients are left in the model's parameters."
    return None if got.get("mode") is True else "the model came in eval mode, and is left in train mode."


BALL = Property("ball", 1, "no pixel moves by more than eps, in units of [0, 1]",
                "eps is in pixels of [0, 1]; the model normalises by itself. The sign of the gradient, times eps.",
                in_ball)  # fmt: skip
RANGE = Property("range", 1, "every pixel is in [0, 1]", "clamp the image to [0, 1] at the end.", _in_range)
FGSM = Question("q2", "fgsm", attacked, _probe_fgsm, out, (
    BALL, RANGE,
    Property("full", 2, "every pixel with room to move uses all of eps",
             "the largest change for this ball is at a corner: take the sign of the gradient.", _full),
    Property("ascent", 2, "the loss of every image rises",
             "add where training subtracts, and take the loss of the label y.", climbs),
    Property("clean", 1, "the result has no graph, and the images are left alone",
             "work on x.clone().requires_grad_(), and end with .detach().", _detached),
    Property("model", 1, "the model is left as it came",
             "torch.autograd.grad(loss, x) leaves nothing in the parameters; call neither train() nor eval().",
             _model_as_it_was),
))  # fmt: skip
