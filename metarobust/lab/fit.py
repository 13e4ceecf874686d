"""Runs one method on a batch of tasks, counts what it generated, and measures what came out."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import product

import torch
from torch import Tensor

from metarobust.attacks import counting
from metarobust.attacks.criterion import fooled
from metarobust.data import Split
from metarobust.evaluation import quick, survivors
from metarobust.evaluation.ensemble import Attack
from metarobust.lab.baselines import Hyper, Method
from metarobust.objectives import Objective, clean
from metarobust.optimizers import Optimizer
from metarobust.tasks import Tasks
from metarobust.unroll import unroll

Watch = Callable[[int, Tensor, int], None]
AT_ONCE = 64
"""So many models a GPU attacks at once."""


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
    watch: Watch | None = None,
) -> tuple[Tensor, int]:
    """Parameters `[T, N]` after all steps, and how many adversarial examples were generated on the way.

    inner: progress in [0, 1] to the objective of that step. watch: told the number of each step that is done, the
    parameters after it, and the adversarial examples so far.
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
            if watch is not None:
                watch(step + 1, params, tally.examples)
    return params, tally.examples


def fit_learned(
    tasks: Tasks,
    optimizer: Optimizer,
    how: Inner,
    generator: torch.Generator,
    inner: Objective | None = None,
    watch: Watch | None = None,
) -> tuple[Tensor, int]:
    """A learned optimizer: no grid, and on clean data, without any attack, unless another inner objective is given."""
    objective = clean if inner is None else inner
    with torch.no_grad():  # `unroll` takes the gradients that it needs itself
        return fit(tasks, optimizer, lambda progress: objective, how, generator, watch)


def fit_baseline(
    tasks: Tasks, method: Method, hyper: Hyper, how: Inner, generator: torch.Generator, watch: Watch | None = None
) -> tuple[Tensor, int]:
    """A baseline with hyperparameters `[T, 1]`."""
    tasks = method.prepare(tasks, hyper)
    optimizer = method.optimizer(hyper, tasks.layout)
    return fit(tasks, optimizer, lambda progress: method.inner(hyper, progress), how, generator, watch)


def accuracy(
    tasks: Tasks, params: Tensor, test: Split, *, eps: float, steps: int, generator: torch.Generator
) -> dict[str, list[float]]:
    """For each of the T models its accuracy on all test images: `clean`, under each attack alone, and `robust`."""
    return over_models(tasks, params, test, quick(eps=eps, steps=steps), generator)


def over_models(
    tasks: Tasks,
    params: Tensor,
    test: Split,
    attacks: Sequence[Attack],
    generator: torch.Generator,
    *,
    alone: bool = True,
) -> dict[str, list[float]]:
    """The same under any attacks. alone: see `evaluation.survivors`."""
    found: dict[str, list[float]] = {}
    for one in params.detach():  # one model at a time, so that images which are fooled can leave
        right = survivors(tasks.predictor(one), test.images, test.labels, attacks, generator=generator, alone=alone)
        for name, mask in right.items():
            found.setdefault(name, []).append(float(mask.float().mean()))
    return found


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
    """As `over_models` with alone=False, all T models at once: long attacks on small models mostly wait for each other.

    attacks: which let no image leave, made with leave=False. From one attack to the next, each model keeps as many
    images as the one that has most left; those that it had lost before take part, and change nothing. own: test is T
    equal stretches of images, one a model.
    """
    predict, models = tasks.predictor(params.detach()), len(params)
    images = test.images if own else test.images.repeat(models, 1, 1, 1)
    labels = test.labels if own else test.labels.repeat(models)
    first = torch.arange(models, device=labels.device)[:, None] * (len(labels) // models)

    def stands(x: Tensor, y: Tensor) -> Tensor:
        return ~fooled(predict(x), y).view(models, -1)

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
        return over_models(tasks, params, test, quick(**how), generator, alone=False)
    found: dict[str, list[float]] = {}
    for some in params.split(many):
        for name, values in together(tasks, some, test, quick(**how, leave=False), generator).items():
            found.setdefault(name, []).extend(values)
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
