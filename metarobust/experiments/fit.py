"""Runs one method on a batch of tasks, counts what it generated, and measures what came out."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import product

import torch
from torch import Tensor

from metarobust.attacks import counting
from metarobust.baselines import Hyper, Method
from metarobust.data import Split
from metarobust.evaluation import quick, survivors
from metarobust.objectives import Objective, clean
from metarobust.optimizers import Optimizer
from metarobust.tasks import Tasks
from metarobust.unroll import unroll


@dataclass(frozen=True)
class Inner:
    """The numbers that are the same for all methods: equal steps, equal batches."""

    steps: int
    batch_size: int


def fit(
    tasks: Tasks,
    optimizer: Optimizer,
    inner: Callable[[float], Objective],
    how: Inner,
    generator: torch.Generator,
) -> tuple[Tensor, int]:
    """Parameters `[T, N]` after all steps, and how many adversarial examples were generated on the way.

    inner: progress in [0, 1] to the objective of that step.
    """
    params, state = tasks.params, optimizer.init(tasks.params, tasks.layout, how.steps)
    # Noise and random starts have a stream of their own: whatever they draw, all methods see the same batches.
    chance = torch.Generator(generator.device).manual_seed(generator.initial_seed() ^ 1)
    with counting() as tally:
        for step in range(how.steps):
            objective = inner(step / how.steps)
            params, state = unroll(
                tasks, optimizer, params, state, steps=1, batch_size=how.batch_size, inner=objective,
                generator=generator, chance=chance,
            )  # fmt: skip
            params = params.detach()
    return params, tally.examples


def fit_learned(tasks: Tasks, optimizer: Optimizer, how: Inner, generator: torch.Generator) -> tuple[Tensor, int]:
    """A learned optimizer on clean data: no grid, no attack."""
    with torch.no_grad():  # `unroll` takes the gradients that it needs itself
        return fit(tasks, optimizer, lambda progress: clean, how, generator)


def fit_baseline(
    tasks: Tasks, method: Method, hyper: Hyper, how: Inner, generator: torch.Generator
) -> tuple[Tensor, int]:
    """A baseline with hyperparameters `[T, 1]`."""
    tasks = method.prepare(tasks, hyper)
    optimizer = method.optimizer(hyper, tasks.layout)
    return fit(tasks, optimizer, lambda progress: method.inner(hyper, progress), how, generator)


def accuracy(
    tasks: Tasks, params: Tensor, test: Split, *, eps: float, steps: int, generator: torch.Generator
) -> dict[str, list[float]]:
    """For each of the T models its accuracy on all test images: `clean`, under each attack alone, and `robust`."""
    found: dict[str, list[float]] = {}
    for one in params.detach():  # one model at a time, so that images which are fooled can leave
        predict, attacks = tasks.predictor(one), quick(eps=eps, steps=steps)
        right = survivors(predict, test.images, test.labels, attacks, generator=generator)
        for name, mask in right.items():
            found.setdefault(name, []).append(float(mask.float().mean()))
    return found


def settings(method: Method) -> Iterator[dict[str, float]]:
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
