"""Assignment 2, an honest evaluation, second half: report and diagnose."""

from __future__ import annotations

from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from metarobust.course.evaluation import ACCURACY, WORST, Shown, off, show
from metarobust.course.question import (
    CLOSE,
    Answer,
    Assignment,
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
from metarobust.course.toys import BatchMates, Linear, Softmax, Table
from metarobust.evaluation.intervals import wilson
from metarobust.evaluation.masked_defences import HugeLogits, NoisyOutput, RoundedInputs


class Splits(NamedTuple):
    train: Shown
    test: Shown
    turned: dict[str, Tensor]

    def shares(self, part: str) -> tuple[float, float]:
        """Clean and robust accuracy on a part."""
        shown, turned = getattr(self, part), self.turned[part]
        return float(shown.right.float().mean()), float((shown.right & ~turned).float().mean())


def _splits(g: torch.Generator) -> Splits:
    train, test = show(g, whole(g, 20, 24), 1), show(g, whole(g, 10, 14), 3)
    turned = {}
    for name, shown, many in (("train", train, 3), ("test", test, 4)):
        turned[name] = torch.zeros(len(shown.y), dtype=torch.bool)
        turned[name][shown.right.nonzero()[:many, 0]] = True
    return Splits(train, test, turned)


def _probe_report(answer: Answer, case: Splits) -> dict[str, Any]:
    x = torch.cat([case.train.x, case.test.x])
    moved = torch.where(torch.cat([case.turned["train"], case.turned["test"]]).view(-1, 1, 1, 1), 1 - x, x)

    def attack(model: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
        rows = [int((image - x).flatten(1).abs().sum(1).argmin()) for image in images]
        return moved[rows]

    data = {"train": (case.train.x.clone(), case.train.y), "test": (case.test.x.clone(), case.test.y)}
    return {"out": call(answer, Table().eval(), data, attack)}


def _fields(case: Splits, got: Record) -> dict[str, float]:
    found = entry(got, "out")
    if not isinstance(found, dict) or not {"clean", "robust", "n", "low", "high"} <= set(found):
        raise CannotJudge('it does not return a dictionary with "clean", "robust", "n", "low" and "high".')
    return {name: number(found, name) for name in ("clean", "robust", "n", "low", "high")}


def _anywhere(case: Splits, which: int) -> list[float]:
    """Where a figure could come from: test, train, both together."""
    (test, train), sizes = (case.shares(p)[which] for p in ("test", "train")), (len(case.test.y), len(case.train.y))
    return [test, train, (test * sizes[0] + train * sizes[1]) / sum(sizes)]


def _held_out(case: Splits, got: Record) -> str | None:
    n = _fields(case, got)["n"]
    return None if n == len(case.test.y) else f"it measures {n:g} images; {len(case.test.y)} are held out."


def _figure(case: Splits, got: Record, which: int) -> str | None:
    found, places = _fields(case, got)[("clean", "robust")[which]], _anywhere(case, which)
    return off(found, places[0]) if min(abs(found - one) for one in places) > CLOSE else None


def _interval(case: Splits, got: Record) -> str | None:
    fields = _fields(case, got)
    n = int(fields["n"])
    if not 0 <= fields["robust"] <= 1 or n < 1:
        return "there is no share to put an interval around."
    low, high = wilson(round(fields["robust"] * n), n)
    if abs(fields["low"] - low) < 2e-3 and abs(fields["high"] - high) < 2e-3:
        return None
    return f"for {fields['robust']:.3f} of {n} images it is {fields['low']:.3f} to {fields['high']:.3f}, " \
           f"not {low:.3f} to {high:.3f}."  # fmt: skip


REPORT = Question("q3", "report", _splits, _probe_report, _fields, (
    Property("held out", 2, "it measures the held-out images, and no others",
             'training images flatter a model: use data["test"] alone.', _held_out),
    Property("clean", 1, "clean accuracy is right", "the share of images that are right as they are.",
             partial(_figure, which=0)),
    Property("robust", 1, "robust accuracy is right", "your robust_accuracy, on the same images.",
             partial(_figure, which=1)),
    Property("interval", 2, "the interval is Wilson's, 95 %, around the robust accuracy",
             "z = 1.96; the centre is pulled to one half, and the formula stands above.", _interval),
))  # fmt: skip

SYMPTOMS = ("rounded", "saturated", "random", "probabilities", "batch", "honest")
"""What `diagnose` may say of a model."""


class Suspects(NamedTuple):
    models: dict[str, nn.Module]
    x: Tensor
    y: Tensor


def _suspects(g: torch.Generator) -> Suspects:
    shape, classes, n = (1, whole(g, 4, 5), whole(g, 4, 5)), whole(g, 3, 5), whole(g, 6, 9)
    base = Linear(shape, classes, g)
    x = uniform(g, 0.05, 0.95, n, *shape)
    models = disguised(base, g)
    return Suspects(models, x, base(x).argmax(1))


def disguised(model: nn.Module, generator: torch.Generator) -> dict[str, nn.Module]:
    """The model behind each of five bad defences, of a strength that is drawn, and as it is: by symptom."""
    noise = torch.Generator().manual_seed(whole(generator, 0, 10**6))
    found = {
        "rounded": RoundedInputs(model, whole(generator, 4, 9)),
        "saturated": HugeLogits(model, float(uniform(generator, 1e6, 5e6))),
        "random": NoisyOutput(model, float(uniform(generator, 0.05, 0.2)), noise),
        "probabilities": Softmax(model), "batch": BatchMates(model), "honest": model,
    }  # fmt: skip
    return {name: suspect.eval() for name, suspect in found.items()}


def suspects(model: nn.Module, seed: int) -> dict[str, nn.Module]:
    """Six models that are right as often as `model`, called A to F: five hide something, one is `model` itself.

    Which is which depends on the seed.
    """
    g = torch.Generator().manual_seed(seed)
    models = list(disguised(model, g).values())
    order = torch.randperm(len(models), generator=g).tolist()
    return {letter: models[i] for letter, i in zip("ABCDEF", order, strict=True)}


def _probe_diagnose(answer: Answer, case: Suspects) -> dict[str, Any]:
    x = case.x.clone()
    return {name: call(answer, model, x, case.y) for name, model in case.models.items()}


def _recognises(case: Suspects, got: Record, name: str) -> str | None:
    found = entry(got, name)
    return None if found == name else f'a model that is "{name}" is called {plain(found)!r:.40}.'


def _some_answer(case: Suspects, got: Record) -> None:
    found = [entry(got, name) for name in SYMPTOMS]
    if len(set(map(str, found))) == 1:
        raise CannotJudge("it says the same of every model.")


HINTS = {
    "rounded": "where inputs are rounded, the gradient is exactly 0 although the logits are of ordinary size.",
    "saturated": "look at the gap between the two largest logits before you look at the gradient: beyond 30 the "
                 "cross-entropy is flat.",
    "random": "ask twice about the same images.",
    "probabilities": "do the outputs lie in [0, 1], and each row sum to 1?",
    "batch": "ask about every image alone, one after the other, and compare with its row in the batch.",
    "honest": "every suspicion needs its symptom; leave room for rounding errors of a float.",
}  # fmt: skip
DIAGNOSE = Question("q4", "diagnose", _suspects, _probe_diagnose, _some_answer, tuple(
    Property(name, 2, f'it tells a model that is "{name}"', hint, partial(_recognises, name=name))
    for name, hint in HINTS.items()
))  # fmt: skip

ASSIGNMENT = Assignment(
    2, "an-honest-evaluation", "An honest evaluation",
    ("metarobust.evaluation", "metarobust.lab.results", "torchattacks"),
    (ACCURACY, WORST, REPORT, DIAGNOSE),
)  # fmt: skip
