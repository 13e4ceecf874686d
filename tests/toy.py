"""Tiny inner problems in float64 for the tests: small enough for finite differences, and a batch without chance."""

from __future__ import annotations

import torch

from metarobust.models import build, fresh
from metarobust.objectives import Adversarial, Mixed
from metarobust.params import ParamSpec
from metarobust.tasks import Tasks

ADVERSARIAL = Mixed(Adversarial(0.1), 0.5)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


class Whole(Tasks):
    """Tasks whose batch is all of their images in order, whatever size is asked for."""

    def batch(self, rows, size, generator):
        return self.images[rows.flatten()], self.labels[rows.flatten()]


def tasks(count=2, architecture="mlp-3-tanh", *, each=4, shape=(1, 2, 2), kind=Whole, dtype=torch.float64, seed=0):
    """`count` tasks of `each` training and `each` held-out images out of a pool of random ones, in 3 classes."""
    rng = generator(seed)
    model = build(architecture, shape, 3).to(dtype)
    images = torch.rand(2 * each * count, *shape, generator=rng, dtype=dtype)
    labels = torch.randint(3, (2 * each * count,), generator=rng)
    rows = torch.arange(2 * each * count).view(count, 2 * each)
    params = fresh(model, count, rng).to(dtype)
    return kind(model, ParamSpec.of(model), params, images, labels, rows[:, :each], rows[:, each:])


def scatter(module, seed=0, size=0.3):
    """The module with every parameter moved at random: a zero head would hide the gradients below it."""
    rng = generator(seed)
    with torch.no_grad():
        for p in module.parameters():
            p += size * torch.randn(p.shape, generator=rng, dtype=p.dtype)
    return module
