"""A rule at work, step by step: what it saw and what it did on each, for those who look into it afterwards."""

from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor

from metarobust.learned.protocol import ParamInfo, param_infos
from metarobust.objectives import clean
from metarobust.optimizers import Optimizer
from metarobust.params import ParamSpec
from metarobust.tasks import Tasks
from metarobust.training import Inner
from metarobust.unroll import gradient


class Look(NamedTuple):
    """One step of T models: its number, from 1, their parameters before it and gradients, and what it added.

    params, grads, step: `[T, N]`. state: of the optimizer, after the step.
    """

    number: int
    params: Tensor
    grads: Tensor
    step: Tensor
    state: Any


@torch.no_grad()
def watch(tasks: Tasks, optimizer: Optimizer, how: Inner, generator: torch.Generator) -> list[Look]:
    """The steps that an optimizer takes on clean images, as `metarobust.training.fit_learned` takes them.

    For rules that take their gradients at the images as they are.
    """
    params, state, looks = tasks.params, optimizer.init(tasks.params, tasks.param_spec, how.steps), []
    for number in range(1, how.steps + 1):
        images, labels = tasks.batch(tasks.train, how.batch_size, generator)
        grads = gradient(tasks, params, images, labels, clean, generator)
        step, state = optimizer.update(grads, state, params)
        looks.append(Look(number, params, grads, step, state))
        params = params + step
    return looks


def moved(looks: list[Look]) -> Tensor:
    """What all steps together added to the parameters `[T, N]`."""
    return looks[-1].params + looks[-1].step - looks[0].params


def weights(param_spec: ParamSpec) -> Iterator[tuple[str, slice, ParamInfo]]:
    """The weight matrices of a network (no biases): a name, their stretch of the vector, their place.

    The names: `first layer`, `layer 2` and so on, `last layer`.
    """
    start = 0
    for place, size in zip(param_infos(param_spec), param_spec.sizes, strict=True):
        if len(place.shape) >= 2:
            names = {0: "first layer", place.last_layer: "last layer"}
            yield names.get(place.layer, f"layer {place.layer + 1}"), slice(start, start + size), place
        start += size
