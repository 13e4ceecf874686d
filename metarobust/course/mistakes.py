"""Assignment 4, learning from mistakes, first half: meta_loss and split."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from metarobust.course.question import (
    CLOSE,
    Answer,
    CannotJudge,
    Property,
    Question,
    Record,
    call,
    entry,
    number,
    plain,
    uniform,
    whole,
)
from metarobust.course.toys import Linear, images


class Scored(NamedTuple):
    model: Linear
    x: Tensor
    y: Tensor
    eps: float
    share: float

    def right(self) -> tuple[Tensor, Tensor]:
        """The clean loss, and the loss after one step of FGSM; both with a graph to the model's parameters."""
        leaf = self.x.clone().requires_grad_()
        slope = torch.autograd.grad(F.cross_entropy(self.model(leaf), self.y, reduction="sum"), leaf)[0]
        moved = (self.x + self.eps * slope.sign()).clamp(0, 1)
        return F.cross_entropy(self.model(self.x), self.y), F.cross_entropy(self.model(moved), self.y)


def _scored(g: torch.Generator) -> Scored:
    shape, classes, n = (1, whole(g, 3, 4), whole(g, 3, 4)), whole(g, 3, 5), whole(g, 5, 8)
    model, x = Linear(shape, classes, g), images(g, n, shape)
    x = torch.where(uniform(g, 0, 1, *x.shape) < 0.4, x.round(), x)  # much black and white: there the range bites
    y = torch.randint(0, classes, (n,), generator=g)
    return Scored(model, x, y, float(uniform(g, 0.15, 0.25)), float(uniform(g, 0.2, 0.4)))


def _probe_loss(answer: Answer, case: Scored) -> dict[str, Any]:
    slopes: list[Any] = []

    def at(share: float) -> Any:
        found = answer(case.model, case.x.clone(), case.y, case.eps, share)
        if isinstance(found, Tensor) and found.requires_grad and found.ndim == 0 and share == 1:
            weight = case.model.weight
            slopes.append(torch.autograd.grad(found, weight, allow_unused=True)[0])
        return found

    found = {name: call(at, share) for name, share in (("out", case.share), ("none", 0.0), ("all", 1.0))}
    return {**found, "slope": plain(slopes[0]) if slopes else None,
            "bare": all(p.grad is None for p in case.model.parameters())}  # fmt: skip


def _ends(case: Scored, got: Record) -> tuple[float, float, float, float]:
    """What it says at a share of 0 and of 1, and what is right there."""
    clean, attacked = case.right()
    return number(got, "none"), number(got, "all"), float(clean.detach()), float(attacked.detach())


def _clean(case: Scored, got: Record) -> str | None:
    none, all_, clean, _ = _ends(case, got)
    good = min(abs(none - clean), abs(all_ - clean)) < CLOSE
    return None if good else f"no share gives the loss on clean images, {clean:.3f}: it is {none:.3f} at share 0."


def _attacked(case: Scored, got: Record) -> str | None:
    none, all_, _, attacked = _ends(case, got)
    good = min(abs(none - attacked), abs(all_ - attacked)) < CLOSE
    return None if good else f"no share gives the loss under FGSM, {attacked:.3f}: it is {all_:.3f} at share 1."


def _shares(case: Scored, got: Record) -> str | None:
    none, all_, clean, _ = _ends(case, got)
    if abs(none - clean) > abs(all_ - clean) + CLOSE:
        return "a share of 1 gives the clean loss, and a share of 0 the other."
    mixed = (1 - case.share) * none + case.share * all_
    return None if abs(number(got, "out") - mixed) < CLOSE else "between 0 and 1 it is not the mixture of the two."


def _trains(case: Scored, got: Record) -> str | None:
    slope = got.get("slope")
    if not isinstance(slope, Tensor) or slope.shape != case.model.weight.shape or not bool(slope.abs().max() > 0):
        return "the loss has no gradient with respect to the model's parameters."
    return None if got.get("bare") is True else "gradients are left in the model's parameters."


LOSS = Question("q1", "meta_loss", _scored, _probe_loss, lambda case, got: number(got, "out"), (
    Property("clean", 2, "its clean part is the mean cross-entropy on the images as they are",
             "F.cross_entropy(model(x), y) takes the mean.", _clean),
    Property("attacked", 2, "its other part is the mean cross-entropy after FGSM, inside of [0, 1]",
             "x + eps * sign, then clamp(0, 1), and the loss of the label y.", _attacked),
    Property("shares", 1, "it is (1 - share) * clean + share * attacked", "share is that of the attacked part.",
             _shares),
    Property("graph", 2, "it can be differentiated, and leaves nothing in the model",
             "no torch.no_grad() around it; take the attack's gradient with torch.autograd.grad.", _trains),
))  # fmt: skip


class Cut(NamedTuple):
    n: int
    sizes: list[int]
    seed: int


def _cut(g: torch.Generator) -> Cut:
    sizes = [whole(g, 20, 40), whole(g, 10, 20), whole(g, 10, 20)]
    return Cut(sum(sizes) + whole(g, 5, 15), sizes, whole(g, 0, 10**6))


def _probe_split(answer: Answer, case: Cut) -> dict[str, Any]:
    def at(seed: int) -> Any:
        found = call(answer, case.n, list(case.sizes), torch.Generator().manual_seed(seed))
        listed = found if isinstance(found, list) else []
        return [part.tolist() if isinstance(part, Tensor) else part for part in listed] or found

    return {"out": at(case.seed), "again": at(case.seed), "other": at(case.seed + 1)}


def _parts(case: Cut, got: Record, name: str = "out") -> list[list[int]]:
    found = entry(got, name)
    lists = isinstance(found, list) and len(found) == 3 and all(isinstance(part, list) for part in found)
    if not lists or not all(isinstance(i, int) for part in found for i in part):
        raise CannotJudge("it does not return three tensors of whole numbers.")
    if not all(0 <= i < case.n for part in found for i in part):
        raise CannotJudge(f"it returns indices outside of 0 to {case.n - 1}.")
    return found


def _sizes(case: Cut, got: Record) -> str | None:
    found = [len(part) for part in _parts(case, got)]
    return None if found == case.sizes else f"the parts have {found} images; {case.sizes} were asked for."


def _disjoint(case: Cut, got: Record) -> str | None:
    every = [i for part in _parts(case, got) for i in part]
    twice = len(every) - len(set(every))
    return f"{twice} images are in two places." if twice else None


def _mixed(case: Cut, got: Record) -> str | None:
    parts = _parts(case, got)
    runs = [part for part in parts if sorted(part) == list(range(min(part), max(part) + 1))]
    return "a part is a stretch of neighbours: data that is sorted stays sorted." if runs else None


def _repeats(case: Cut, got: Record) -> str | None:
    first, again, other = (_parts(case, got, name) for name in ("out", "again", "other"))
    if first != again:
        return "two generators with one seed lead to different parts."
    one_order = [i for part in first for i in part] == [i for part in other for i in part]
    unmixed = [i for part in first for i in part] == sorted(i for part in first for i in part)
    return "two generators with different seeds lead to the same parts." if one_order and not unmixed else None


SPLIT = Question("q2", "split", _cut, _probe_split, _parts, (
    Property("sizes", 1, "the parts have the sizes that were asked for", "what is left over stays out.", _sizes),
    Property("disjoint", 2, "no image is in two parts, or twice in one",
             "one permutation of all indices, cut in pieces: parts that are drawn apart overlap.", _disjoint),
    Property("mixed", 1, "the parts are mixed", "torch.randperm(n, generator=generator) before you cut.", _mixed),
    Property("repeats", 1, "the generator alone decides",
             "hand the generator on: torch.randperm without it draws from the state that all the program shares.",
             _repeats),
))  # fmt: skip
