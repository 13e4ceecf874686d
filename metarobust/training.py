"""The inner loop as the book teaches it: train many optimizees with one optimizer, count the attacks, measure.

`fit` runs `unroll` for a number of steps and cuts the graph after each, so that a long run takes no more memory than a
short one. Hand-written and learned optimizers go the same way.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from metarobust.attacks import counting
from metarobust.data import Split
from metarobust.evaluation import quick, robust_masks
from metarobust.evaluation.ensemble import Attack
from metarobust.objectives import Objective, clean
from metarobust.optimizers import Optimizer
from metarobust.tasks import Tasks
from metarobust.unroll import unroll

Watch = Callable[[int, Tensor, int], None]


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
    params, state = tasks.params, optimizer.init(tasks.params, tasks.param_spec, how.steps)
    # Noise and random starts have a stream of their own: whatever they draw, all methods see the same batches.
    noise_rng = torch.Generator(generator.device).manual_seed(generator.initial_seed() ^ 1)
    with counting() as tally:
        for step in range(how.steps):
            objective = inner(step / how.steps)
            params, state = unroll(
                tasks, optimizer, params, state, steps=1, batch_size=how.batch_size, inner=objective,
                generator=generator, noise_rng=noise_rng,
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
    independent: bool = True,
) -> dict[str, list[float]]:
    """The same under any attacks. independent: see `evaluation.robust_masks`."""
    found: dict[str, list[float]] = {}
    for one in params.detach():  # one model at a time, so that images which are fooled can leave
        right = robust_masks(
            tasks.predictor(one), test.images, test.labels, attacks, generator=generator, independent=independent
        )
        for name, mask in right.items():
            found.setdefault(name, []).append(float(mask.float().mean()))
    return found
