"""Held-out tasks: how good the optimizer is, in the middle of its meta-training, on tasks it never learns from.

The meta-loss says little of that: every episode has other tasks, of other horizons. Here tasks, batches and starts of
attacks are the same each time, so that two validations differ only in theta.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from metarobust.attacks.threat import check_eps
from metarobust.errors import InputError, check_count
from metarobust.evaluation import correct, quick
from metarobust.meta.config import generator_of
from metarobust.objectives import Objective
from metarobust.optimizers import Optimizer
from metarobust.tasks import Tasks
from metarobust.unroll import unroll

TASKS, BATCHES = (0, 0), (0, 1)
"""These set the streams apart from those of meta-training, which has the same seed perhaps, and from each other."""


@dataclass(frozen=True)
class Validation:
    """Tasks and a way to measure on them; called with an optimizer, it returns clean and robust accuracy in [0, 1].

    An image is robust if it stands PGD twice, on cross-entropy and on the margin.

    Attributes:
        groups: the held-out tasks, each group of one architecture.
        inner: the objective of the inner runs.
        horizon: steps of an inner run.
        batch_size: images of a step.
        images: how many of its held-out images each task is measured on.
        eps: radius of the attack, in pixel units.
        steps: of PGD.
        norm: of the attack.
        seed: of batches and attacks.
    """

    groups: tuple[Tasks, ...]
    inner: Objective
    horizon: int
    batch_size: int = 64
    images: int = 128
    eps: float = 0.1
    steps: int = 10
    norm: str = "linf"
    seed: int = 0

    def __post_init__(self) -> None:
        if not self.groups:
            raise InputError("a validation has no tasks; give at least one group of them")
        for name in ("horizon", "batch_size", "images", "steps"):
            check_count(f"{name} of a validation", getattr(self, name))
        check_eps(self.eps, self.norm)

    @torch.no_grad()
    def __call__(self, optimizer: Optimizer) -> tuple[float, float]:
        """Means over all tasks, each of which counts as much, after `horizon` steps."""
        shares = []
        for number, tasks in enumerate(self.groups):
            generator = generator_of(tasks.params.device, self.seed, number, *BATCHES)
            state = optimizer.init(tasks.params, tasks.param_spec, self.horizon)
            params, _ = unroll(
                tasks, optimizer, tasks.params, state, steps=self.horizon, batch_size=self.batch_size,
                inner=self.inner, generator=generator,
            )  # fmt: skip
            shares.append(self._accuracy(tasks, params, generator))
        clean, robust = torch.cat(shares, 1).double().mean(1).tolist()
        return clean, robust

    def _accuracy(self, tasks: Tasks, params: Tensor, generator: torch.Generator) -> Tensor:
        """Each task's share of images that are right, and that stand the attacks: `[2, T]`."""
        predict, index = tasks.predictor(params), tasks.held_out[:, : self.images].flatten()
        images, labels = tasks.images[index], tasks.labels[index]
        clean = robust = correct(predict, images, labels, batch_size=len(images))
        for attack in quick(eps=self.eps, norm=self.norm, steps=self.steps, early_exit=False):
            moved = attack.move(predict, images, labels, generator=generator)
            robust = robust & correct(predict, moved, labels, batch_size=len(images))
        return torch.stack([clean, robust]).view(2, len(tasks), -1).float().mean(2)


def hold_out(
    sample: Callable[[int, torch.Generator], Tasks],
    groups: int = 4,
    tasks: int = 4,
    *,
    seed: int = 0,
    device: torch.device | str = "cpu",
) -> tuple[Tasks, ...]:
    """Draws the tasks of a `Validation`, once.

    Args:
        sample: as in `meta_train`, but of members that are kept for validation: `Family.sample` of such a family.
        groups: how many groups, each of one architecture.
        tasks: how many tasks in a group.
        seed: of what is drawn.
        device: of the generator, and so of the tasks.

    Raises:
        InputError: for numbers below 1.
    """
    check_count("groups of a validation", groups)
    check_count("tasks of a validation", tasks)
    return tuple(sample(tasks, generator_of(device, seed, number, *TASKS)) for number in range(groups))
