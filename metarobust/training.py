"""The inner loop as the book teaches it: train many optimizees with one optimizer, count the attacks, measure.

`fit` runs `unroll` for a number of steps and cuts the graph after each, so that a long run takes no more memory than a
short one. Hand-written and learned optimizers go the same way.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

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
    """The numbers of an inner run, the same for all methods: steps, and images of a step."""

    steps: int
    batch_size: int


def fit(
    tasks: Tasks,
    optimizer: Optimizer,
    inner: Callable[[float], Objective],
    numbers: Inner,
    generator: torch.Generator,
    watch: Watch | None = None,
) -> tuple[Tensor, int]:
    """Trains the optimizees from their start.

    Args:
        tasks: T optimizees.
        optimizer: hand-written or learned.
        inner: progress in [0, 1] to the objective of that step.
        numbers: of the run.
        generator: of the batches; noise and random starts have a stream that follows from its seed.
        watch: told the number of each step that is done, the parameters after it, and the adversarial examples so far.

    Returns:
        Parameters `[T, N]` after all steps, and how many adversarial examples were generated on the way.
    """
    params, state = tasks.params, optimizer.init(tasks.params, tasks.param_spec, numbers.steps)
    # Noise and random starts have a stream of their own: whatever they draw, all methods see the same batches.
    noise_rng = torch.Generator(generator.device).manual_seed(generator.initial_seed() ^ 1)
    go = partial(unroll, tasks, optimizer, batch_size=numbers.batch_size, generator=generator, noise_rng=noise_rng)
    with counting() as tally:
        for step in range(numbers.steps):
            params, state = go(params, state, steps=1, inner=inner(step / numbers.steps))
            params = params.detach()
            if watch is not None:
                watch(step + 1, params, tally.examples)
    return params, tally.examples


def fit_learned(
    tasks: Tasks,
    optimizer: Optimizer,
    numbers: Inner,
    generator: torch.Generator,
    inner: Objective | None = None,
    watch: Watch | None = None,
) -> tuple[Tensor, int]:
    """`fit` with a learned optimizer: on clean data, without any attack, unless another inner objective is given."""
    objective = clean if inner is None else inner
    with torch.no_grad():  # `unroll` takes the gradients that it needs itself
        return fit(tasks, optimizer, lambda progress: objective, numbers, generator, watch)


def accuracy(
    tasks: Tasks, params: Tensor, test: Split, *, eps: float, steps: int, generator: torch.Generator
) -> dict[str, list[float]]:
    """Accuracy of each of the T models on all test images, under the quick attacks.

    Args:
        tasks: T optimizees.
        params: `[T, N]`, where they are now.
        test: images and labels.
        eps: radius in pixel units.
        steps: of PGD.
        generator: of random starts.

    Returns:
        T accuracies by name: `clean`, each attack alone, and `robust`, under all of them.
    """
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
    """As `accuracy`, under any attacks. independent: see `evaluation.robust_masks`."""
    accuracies: dict[str, list[float]] = {}
    for one in params.detach():  # one model at a time, so that images which are misclassified can leave
        right = robust_masks(
            tasks.predictor(one), test.images, test.labels, attacks, generator=generator, independent=independent
        )
        for name, mask in right.items():
            accuracies.setdefault(name, []).append(float(mask.float().mean()))
    return accuracies
