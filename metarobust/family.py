"""A family of inner problems to sample from: many small architectures, many starts, many subsets of one pool of images.

A rule that is meta-trained on one network learns that network. Widths, depths and activations are mixed, so that what
is learned can carry over to a network that is not in the family.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from metarobust.data import Split
from metarobust.errors import InputError
from metarobust.models import build, fresh
from metarobust.objectives import clean
from metarobust.optimizers import Adam
from metarobust.params import ParamSpec
from metarobust.tasks import Tasks
from metarobust.unroll import unroll


@dataclass(frozen=True)
class Training:
    """How vulnerable models are trained, before anyone patches them: Adam on clean images."""

    steps: int = 200
    batch_size: int = 64
    lr: float = 0.01


def make_tasks(
    architecture: str, pool: Split, classes: int, train: Tensor, held_out: Tensor, generator: torch.Generator
) -> Tasks:
    """Tasks with fresh parameters, one for each row of the indices `[T, n]` into the pool."""
    model = build(architecture, tuple(pool.images.shape[1:]), classes).to(pool.images.device)
    params = fresh(model, len(train), generator).to(pool.images.device)
    return Tasks(model, ParamSpec.of(model), params, pool.images, pool.labels, train, held_out)


def train_clean(tasks: Tasks, how: Training, generator: torch.Generator) -> Tensor:
    """Parameters `[T, N]` of the tasks' models after ordinary training: the vulnerable models."""
    adam = Adam(how.lr)
    state = adam.init(tasks.params, tasks.param_spec, how.steps)
    batch = {"steps": how.steps, "batch_size": how.batch_size, "inner": clean, "generator": generator}
    return unroll(tasks, adam, tasks.params, state, **batch)[0].detach()


@dataclass(frozen=True)
class Family:
    """What `sample` draws from.

    pool: the images of all tasks. images: how many of them one task trains on; the others are its held-out images.
    starts: for each architecture trained models `[V, N]` to patch, or None to start from fresh parameters.
    """

    architectures: Sequence[str]
    pool: Split
    classes: int
    images: int
    starts: dict[str, Tensor] | None = None

    def __post_init__(self) -> None:
        if not 0 < self.images < len(self.pool):
            raise InputError(
                f"a task trains on {self.images} of {len(self.pool)} images: "
                f"give at least 1 and leave some to be held out"
            )

    def sample(self, tasks: int, generator: torch.Generator) -> Tasks:
        """`tasks` inner problems of one random architecture, with random starts and random images."""
        device = self.pool.images.device
        pick = int(torch.randint(len(self.architectures), (1,), generator=generator, device=device))
        name = self.architectures[pick]
        order = torch.stack([torch.randperm(len(self.pool), generator=generator, device=device) for _ in range(tasks)])
        train, held_out = order[:, : self.images], order[:, self.images :]
        found = make_tasks(name, self.pool, self.classes, train, held_out, generator)
        if self.starts is None:
            return found
        trained = self.starts[name]
        chosen = torch.randint(len(trained), (tasks,), generator=generator, device=device)
        return Tasks(found.model, found.param_spec, trained[chosen], found.images, found.labels, train, held_out)


def vulnerable(
    architectures: Sequence[str],
    pool: Split,
    classes: int,
    each: int,
    how: Training,
    generator: torch.Generator,
) -> dict[str, Tensor]:
    """`each` trained, vulnerable models of every architecture: `[each, N]` by name."""
    device = pool.images.device
    rows = torch.arange(len(pool), device=device).expand(each, -1)
    found = {}
    for name in architectures:
        tasks = make_tasks(name, pool, classes, rows, rows, generator)
        found[name] = train_clean(tasks, how, generator)
    return found
