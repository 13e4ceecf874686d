"""A family of inner problems to sample from: many small architectures, many starts, many subsets of one pool of images.

An optimizer that is meta-trained on one network learns that network. Widths, depths and activations are mixed, so that
what is learned can carry over to a network that is not in the family.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

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
    """T tasks of one architecture with fresh parameters. train, held_out: indices into the pool, `[T, n]`, `[T, m]`."""
    model = build(architecture, pool.shape, classes).to(pool.images.device)
    params = fresh(model, len(train), generator).to(pool.images.device)
    return Tasks(model, ParamSpec.of(model), params, pool.images, pool.labels, train, held_out)


def train_clean(tasks: Tasks, training: Training, generator: torch.Generator) -> Tensor:
    """Parameters `[T, N]` of the tasks' models after ordinary training: the vulnerable models."""
    adam = Adam(training.lr)
    state = adam.init(tasks.params, tasks.param_spec, training.steps)
    batches = {"steps": training.steps, "batch_size": training.batch_size, "generator": generator}
    return unroll(tasks, adam, tasks.params, state, inner=clean, **batches)[0].detach()


def vulnerable(
    architectures: Sequence[str], pool: Split, classes: int, each: int, training: Training, generator: torch.Generator
) -> dict[str, Tensor]:
    """`each` trained, vulnerable models of every architecture: `[each, N]` by name."""
    rows = torch.arange(len(pool), device=pool.images.device).expand(each, -1)
    return {
        name: train_clean(make_tasks(name, pool, classes, rows, rows, generator), training, generator)
        for name in dict.fromkeys(architectures)
    }


@dataclass(frozen=True)
class Family:
    """What `sample` draws from.

    architectures: drawn evenly; one that stands twice is drawn twice as often. images: how many of the pool one task
    trains on; the others are its held-out images. starts: trained models `[V, N]` to patch, by architecture; None to
    start from fresh parameters. eps: radius that they are to stand.
    """

    architectures: Sequence[str]
    pool: Split
    classes: int
    images: int
    starts: dict[str, Tensor] | None = None
    eps: float = 0.1

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
        drawn = replace(make_tasks(name, self.pool, self.classes, train, held_out, generator), eps=self.eps)
        if self.starts is None:
            return drawn
        trained = self.starts[name]
        return replace(drawn, params=trained[torch.randint(len(trained), (tasks,), generator=generator, device=device)])
