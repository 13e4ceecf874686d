"""Runs one method on a batch of tasks, counts what it generated, and measures what came out."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import product

import torch
from torch import Tensor

from metarobust.attacks.criterion import misclassified
from metarobust.data import Split
from metarobust.evaluation import quick
from metarobust.evaluation.ensemble import Attack
from metarobust.lab.baselines import Baseline, Hyper
from metarobust.tasks import Tasks
from metarobust.training import Inner, Watch, fit, over_models

AT_ONCE = 64
"""So many models a GPU attacks at once."""


def fit_baseline(
    tasks: Tasks, method: Baseline, hyper: Hyper, how: Inner, generator: torch.Generator, watch: Watch | None = None
) -> tuple[Tensor, int]:
    """A baseline with hyperparameters `[T, 1]`."""
    tasks = method.prepare(tasks, hyper)
    optimizer = method.optimizer(hyper, tasks.param_spec)
    return fit(tasks, optimizer, lambda progress: method.inner(hyper, progress), how, generator, watch)


@torch.no_grad()
def together(
    tasks: Tasks,
    params: Tensor,
    test: Split,
    attacks: Sequence[Attack],
    generator: torch.Generator,
    *,
    own: bool = False,
) -> dict[str, list[float]]:
    """As `over_models` with independent=False, all T models at once: long attacks on small models mostly wait.

    attacks: which let no image leave, made with early_exit=False. From one attack to the next, each model keeps as many
    images as the one that has most left; those that it had lost before take part, and change nothing. own: test is T
    equal stretches of images, one a model.
    """
    predict, models = tasks.predictor(params.detach()), len(params)
    images = test.images if own else test.images.repeat(models, 1, 1, 1)
    labels = test.labels if own else test.labels.repeat(models)
    first = torch.arange(models, device=labels.device)[:, None] * (len(labels) // models)

    def stands(x: Tensor, y: Tensor) -> Tensor:
        return ~misclassified(predict(x), y).view(models, -1)

    right = stands(images, labels)
    masks = {"clean": right}
    for attack in attacks:
        most = int(right.sum(1).max())
        if most:
            picked = right.int().argsort(dim=1, descending=True, stable=True)[:, :most]
            at = (first + picked).flatten()
            x, y = images[at], labels[at]
            held = stands(attack.move(predict, x, y, generator=generator), y)
            right = right.scatter(1, picked, right.gather(1, picked) & held)
        masks[attack.name] = right
    return {name: mask.float().mean(1).tolist() for name, mask in (masks | {"robust": right}).items()}


def under_quick(
    tasks: Tasks,
    params: Tensor,
    test: Split,
    *,
    eps: float,
    steps: int,
    generator: torch.Generator,
    at_once: int | None = None,
) -> dict[str, list[float]]:
    """For each of the T models its `clean` and `robust` accuracy, under two PGDs.

    at_once: how many models are attacked together; None for AT_ONCE on a GPU, where a small model mostly waits, and for
    one after the other on a processor, where images that are fooled can leave.
    """
    many, how = at_once or (AT_ONCE if params.is_cuda else 1), {"eps": eps, "steps": steps}
    if many == 1:
        return over_models(tasks, params, test, quick(**how), generator, independent=False)
    found: dict[str, list[float]] = {}
    for some in params.split(many):
        for name, values in together(tasks, some, test, quick(**how, early_exit=False), generator).items():
            found.setdefault(name, []).extend(values)
    return found


def settings(method: Baseline) -> Iterator[dict[str, float]]:
    """Every sound point of a method's grid."""
    for values in product(*method.grid.values()):
        point = dict(zip(method.grid, values, strict=True))
        if method.sound(point):
            yield point


def repeat(tasks: Tasks, times: int) -> Tasks:
    """The same T tasks, `times` over: `[times * T, ...]`."""
    rows = {name: getattr(tasks, name).repeat(times, 1) for name in ("params", "train", "held_out")}
    return replace(tasks, **rows)


def as_hyper(points: list[dict[str, float]], each: int, like: Tensor) -> dict[str, Tensor]:
    """Points of a grid as tensors `[len(points) * each, 1]`, one row a task."""
    names = points[0]
    return {n: like.new_tensor([p[n] for p in points]).repeat_interleave(each)[:, None] for n in names}
