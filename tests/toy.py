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


def path(param_spec, steps=4, lead=(), dtype=torch.float64, seed=0):
    """Parameters and the gradients of some steps; sizes differ from coordinate to coordinate."""
    rng = generator(seed)
    size = torch.randn(param_spec.size, generator=rng, dtype=dtype).exp()
    draws = torch.randn(steps + 1, *lead, param_spec.size, generator=rng, dtype=dtype)
    return 0.3 * draws[0], list(draws[1:] * size)


def steps_of(optimizer, param_spec, params, grads, total=10):
    """The updates that the optimizer writes for these gradients."""
    state, found = optimizer.init(params, param_spec, total), []
    with torch.no_grad():
        for g in grads:
            step, state = optimizer.update(g, state, params)
            params = params + step
            found.append(step)
    return torch.stack(found)
