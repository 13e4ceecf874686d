"""Assignment 2, an honest evaluation, first half: robust_accuracy and worst_case."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from metarobust.course.question import (
    CLOSE,
    Answer,
    CannotJudge,
    Property,
    Question,
    Record,
    call,
    noted,
    number,
    uniform,
    whole,
)
from metarobust.course.toys import Table


class Shown(NamedTuple):
    """Images whose mean says what `Table` answers, and labels; `right` are those that it gets right."""

    x: Tensor
    y: Tensor
    right: Tensor


def show(g: torch.Generator, n: int, wrong: int) -> Shown:
    """n images `[n, 1, 2, 2]` and their labels `[n]`, 0 or 1; Table gets `wrong` of them wrong."""
    y = torch.randint(0, 2, (n,), generator=g)
    right = torch.randperm(n, generator=g) >= wrong
    side = torch.where(right, y, 1 - y).float().view(-1, 1, 1, 1)  # the class that Table says
    return Shown(0.3 + 0.4 * side + uniform(g, -0.05, 0.05, n, 1, 2, 2), y, right)


def turning(which: Tensor, original: Tensor, seen: list[Any] | None = None) -> Callable[..., Tensor]:
    """An attack that mirrors the images `which` at one half, so that Table says the other class, and no others.

    seen: gets whether the model was in train mode, and whether the images were the original ones.
    """
    shift = torch.where(which.view(-1, 1, 1, 1), 1 - 2 * original, torch.zeros_like(original))

    def attack(model: nn.Module, x: Tensor, y: Tensor) -> Tensor:
        if seen is not None:
            seen.append([model.training, bool(torch.equal(x, original))])
        return (x + shift).clone()

    return attack


class Accuracy(NamedTuple):
    plain: Shown
    turned: Tensor
    moody: Shown
    moody_turned: Tensor


def _accuracy(g: torch.Generator) -> Accuracy:
    # A prime number of images: a product of two shares cannot happen to be the share that is right.
    n, wrong = (13, 17)[whole(g, 0, 1)], whole(g, 3, 4)
    first = show(g, n, wrong)
    # Of the wrong ones it turns two, to the right class; of the right ones some.
    turned = torch.zeros(n, dtype=torch.bool)
    turned[(~first.right).nonzero()[:2, 0]] = True
    turned[first.right.nonzero()[: whole(g, 3, 5), 0]] = True
    second = show(g, n, 0)
    moody_turned = torch.arange(n) < whole(g, 3, 5)
    return Accuracy(first, turned, second, moody_turned)


def _probe_accuracy(answer: Answer, case: Accuracy) -> dict[str, Any]:
    seen: list[Any] = []
    first, second = case.plain, case.moody
    moody = Table(moody=True).train()
    return {
        "out": call(answer, Table().eval(), first.x, first.y, turning(case.turned, first.x)),
        "moody": call(answer, moody, second.x, second.y, turning(case.moody_turned, second.x, seen)),
        "restored": moody.training, "attacked in train mode": any(mode for mode, _ in seen),
    }  # fmt: skip


def _share(case: Any, got: Record) -> float:
    value = number(got, "out")
    if not 0 <= value <= 1:
        raise CannotJudge(f"it returns {value:g}; a share runs from 0 to 1.")
    return value


def _counts(case: Accuracy, got: Record) -> str | None:
    wanted = float((case.plain.right & ~case.turned).float().mean())
    return off(_share(case, got), wanted)


def off(found: float, wanted: float) -> str | None:
    """What is wrong with a share, or None where it is right."""
    return None if abs(found - wanted) < CLOSE else f"it says {found:.3f} where {wanted:.3f} is right."


def _eval_mode(case: Accuracy, got: Record) -> str | None:
    if got.get("attacked in train mode") is not False:
        return "the attack looks at a model in train mode."
    return off(number(got, "moody"), float((~case.moody_turned).float().mean()))


ACCURACY = Question("q1", "robust_accuracy", _accuracy, _probe_accuracy, _share, (
    Property("share", 2, "it is the share of all images that are right before and after the attack",
             "an image that is wrong as it is counts as wrong, even where the attack turns it right; divide by all n.",
             _counts),
    Property("eval mode", 2, "the model is attacked and asked in eval mode",
             "call model.eval() before anything else: dropout and batch normalisation behave otherwise in training.",
             _eval_mode),
    Property("restored", 1, "the model is left in the mode it came in",
             "keep model.training at the start, and call model.train(kept) at the end.",
             noted("restored", "a model that came in train mode is left in eval mode.")),
))  # fmt: skip


class Worst(NamedTuple):
    shown: Shown
    turned: list[Tensor]
    flawed: Shown
    repaired: Tensor


def _worst(g: torch.Generator) -> Worst:
    n = whole(g, 12, 18)
    parts = torch.randperm(n, generator=g)
    ends = [0]
    for _ in range(3):
        ends.append(ends[-1] + whole(g, 1, 3))
    turned = [torch.zeros(n, dtype=torch.bool).scatter(0, parts[a:b], True) for a, b in itertools.pairwise(ends)]
    flawed = show(g, n, 3)
    return Worst(show(g, n, 0), turned, flawed, ~flawed.right)


def _probe_worst(answer: Answer, case: Worst) -> dict[str, Any]:
    seen: list[Any] = []
    attacks = [turning(which, case.shown.x, seen) for which in case.turned]
    repair = [turning(case.repaired, case.flawed.x)] * 2
    return {"out": call(answer, Table().eval(), case.shown.x, case.shown.y, attacks),
            "repaired": call(answer, Table().eval(), case.flawed.x, case.flawed.y, repair),
            "original": all(same for _, same in seen)}  # fmt: skip


def _each_image(case: Worst, got: Record) -> str | None:
    return off(_share(case, got), 1 - float(torch.stack(case.turned).any(0).float().mean()))


def _clean_too(case: Worst, got: Record) -> str | None:
    return off(number(got, "repaired"), float(case.flawed.right.float().mean()))


WORST = Question("q2", "worst_case", _worst, _probe_worst, _share, (
    Property("each image", 3, "an image counts where no attack turns it",
             "keep one True or False for each image and join them with &; do not compare accuracies.", _each_image),
    Property("clean", 2, "an image that is wrong as it is does not count",
             "ask the model about the images themselves, too.", _clean_too),
    Property("original", 1, "every attack starts from the images themselves",
             "attack x, and keep x: two attacks one after the other may go further than eps.",
             noted("original", "an attack is given what another one has moved.")),
))  # fmt: skip
