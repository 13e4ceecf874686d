"""The inner loop: an optimizer trains optimizees, and the whole run stays differentiable.

    theta_{t+1} = theta_t + u_t,    u_t, s_{t+1} = update( grad_theta inner(theta_t; batch_t), s_t, theta_t )

`unroll` runs some steps of it. A long run is cut (truncation): the state and parameters that one part ends with,
detached, are where the next begins.

Source: Andrychowicz et al. 2016 (arXiv 1606.04474), section 2; dropping the gradient of the gradient ("first order")
is their section 2.1.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from metarobust.objectives import Objective
from metarobust.optimizers import Optimizer
from metarobust.tasks import Tasks


def gradient(
    tasks: Tasks,
    params: Tensor,
    images: Tensor,
    labels: Tensor,
    objective: Objective,
    generator: torch.Generator,
    *,
    second_order: bool = False,
) -> Tensor:
    """Each task's gradient of its own mean loss.

    Args:
        tasks: T optimizees.
        params: their parameters `[T, N]`.
        images: `[T * n, C, H, W]`, n for each task in turn.
        labels: `[T * n]`.
        objective: whose losses are averaged.
        generator: of an attack's random starts.
        second_order: whether the result can be differentiated again.

    Returns:
        `[T, N]`.
    """
    with torch.enable_grad():
        leaf = params if second_order and params.requires_grad else params.detach().requires_grad_()
        losses = objective(tasks.predictor(leaf), images, labels, generator)
        # The sum over tasks keeps each task's gradient apart; the mean is over its own images.
        total = losses.sum() * (len(leaf) / len(losses))
        return torch.autograd.grad(total, leaf, create_graph=second_order)[0]


def unroll(
    tasks: Tasks,
    optimizer: Optimizer,
    params: Tensor,
    state: Any,
    *,
    steps: int,
    batch_size: int,
    inner: Objective,
    generator: torch.Generator,
    noise_rng: torch.Generator | None = None,
    second_order: bool = False,
) -> tuple[Tensor, Any]:
    """Trains the optimizees on fresh random batches.

    Args:
        tasks: T optimizees.
        optimizer: hand-written or learned.
        params: where they are, `[T, N]`.
        state: of the optimizer.
        steps: how many to take.
        batch_size: images of a step, for each task.
        inner: the objective whose gradients the optimizer sees.
        generator: of the batches.
        noise_rng: of noise and of an attack's random starts; `generator` if None. With a stream of its own, all
            methods see the same batches, whatever else they draw.
        second_order: whether gradients of gradients count, when the result is differentiated.

    Returns:
        Parameters `[T, N]` and state after the steps.
    """
    noise_rng = generator if noise_rng is None else noise_rng
    for _ in range(steps):
        images, labels = tasks.batch(tasks.train, batch_size, generator)
        objective = optimizer.objective(inner, state, tasks.eps)
        grads = gradient(tasks, params, images, labels, objective, noise_rng, second_order=second_order)
        updates, state = optimizer.update(grads, state, params)
        params = params + updates
    return params, state


def map_tensors(function: Callable[[Tensor], Tensor], state: Any) -> Any:
    """The same state, with the function applied to each tensor in it, in order."""
    if isinstance(state, Tensor):
        return function(state)
    if isinstance(state, dict):
        return {name: map_tensors(function, part) for name, part in state.items()}
    if isinstance(state, tuple):
        parts = [map_tensors(function, part) for part in state]
        return tuple(parts) if type(state) is tuple else type(state)(*parts)  # the others are NamedTuples
    return state
