"""The meta-gradient of the coordinate-wise LSTM is that of the library `higher`, of first order, up to rounding.

Both draw the same batches. `higher` goes through the tasks one by one, through a network's tensors one by one, and
calls PyTorch's LSTMCell on each.
"""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from metarobust.data import Split
from metarobust.family import make_tasks
from metarobust.learned.lstm import CoordinateLSTM, log_and_sign
from metarobust.meta.config import MetaTrainConfig
from metarobust.meta.estimators import Backprop
from metarobust.meta.problem import Problem
from metarobust.objectives import clean

higher = pytest.importorskip("higher", reason="pip install -e '.[peers]'", exc_type=ImportError)


def problem(network, tasks, truncation):
    """Inner problems on random images of 28 x 28 pixels; all objectives are clean."""
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(512, 1, 28, 28, generator=generator)
    pool = Split(images, torch.randint(10, (len(images),), generator=generator))
    order = torch.stack([torch.randperm(len(pool), generator=generator) for _ in range(tasks)])
    drawn = make_tasks(network, pool, 10, order[:, :256], order[:, 256:], generator)
    config = MetaTrainConfig(horizons=(truncation,), truncation=truncation, tasks=tasks)
    return Problem(drawn, truncation, config, clean, clean)


class PlainLSTM(nn.Module):
    """Two cells of PyTorch and a read-out, under the names of a CoordinateLSTM and with its numbers."""

    def __init__(self, like):
        super().__init__()
        self.hidden, self.scale = like.hidden, like.scale
        self.lower, self.upper = nn.LSTMCell(2, like.hidden), nn.LSTMCell(like.hidden, like.hidden)
        self.head = nn.Linear(like.hidden, 1, bias=False)
        self.load_state_dict(like.state_dict())

    def start(self, tensor):
        return tuple(tensor.new_zeros(tensor.numel(), self.hidden) for _ in range(4))

    def forward(self, grad, state):
        low, low_memory = self.lower(log_and_sign(grad.flatten()).T, state[:2])
        up, up_memory = self.upper(low, state[2:])
        return self.scale * self.head(up).view_as(grad), (low, low_memory, up, up_memory)


def with_higher(problem, optimizer, seed):
    """A functional model for each task, and a differentiable optimizer with this update. `higher` always computes
    gradients that can be differentiated again; that they count as constants is said afterwards."""
    plan, tasks, rule = problem.config, problem.tasks, PlainLSTM(optimizer)

    class Differentiable(higher.optim.DifferentiableOptimizer):
        def _update(self, grouped_grads, **kwargs):
            for group, grads, states in zip(self.param_groups, grouped_grads, self.state, strict=True):
                for i, (p, grad) in enumerate(zip(group["params"], grads, strict=True)):
                    move, states[i] = rule(grad, states[i] or rule.start(p))
                    group["params"][i] = p + move

    models, optimizers = [], []
    for begin in tasks.params:
        model = copy.deepcopy(tasks.model)
        nn.utils.vector_to_parameters(begin, model.parameters())
        models.append(higher.monkeypatch(model))
        sgd = torch.optim.SGD(model.parameters())
        constant = {"grad_callback": lambda grads: [grad.detach() for grad in grads]}
        optimizers.append(Differentiable(sgd, model.parameters(), models[-1], **constant))

    # Batches in the order of `metarobust.unroll`, and the meta-loss half-way and at the end.
    generator, score = torch.Generator().manual_seed(seed), torch.zeros(())
    half = plan.truncation // 2
    for weight, steps in ((plan.mid_loss_weight, half), (1 - plan.mid_loss_weight, plan.truncation - half)):
        for _ in range(steps):
            images, labels = tasks.batch(tasks.train, plan.batch_size, generator)
            batches = zip(images.split(plan.batch_size), labels.split(plan.batch_size), strict=True)
            for model, inner, (x, y) in zip(models, optimizers, batches, strict=True):
                inner.step(F.cross_entropy(model(x), y))
        images, labels = tasks.batch(tasks.held_out, plan.held_out, generator)
        batches = zip(images.split(plan.held_out), labels.split(plan.held_out), strict=True)
        for model, (x, y) in zip(models, batches, strict=True):
            score = score + weight / len(tasks) * F.cross_entropy(model(x), y)
    return list(torch.autograd.grad(score, list(rule.parameters())))


def ours(where, optimizer, seed):
    estimator = Backprop()
    begin = estimator.begin(optimizer, where)
    return estimator.step(optimizer, where, begin, torch.Generator().manual_seed(seed)).gradient


@pytest.mark.parametrize("network", ["mlp-2-sigmoid", "cnn-2-relu"])
def test_higher_finds_our_meta_gradient(network):
    where = problem(network, tasks=3, truncation=5)
    optimizer = CoordinateLSTM(hidden=4, generator=torch.Generator().manual_seed(0))
    theirs, mine, other = with_higher(where, optimizer, 7), ours(where, optimizer, 7), ours(where, optimizer, 8)
    for a, b, c in zip(theirs, mine, other, strict=True):
        assert a.shape == b.shape
        assert bool(b.any())
        assert float((a - b).abs().max() / b.abs().max()) < 1e-4
        assert float((a - c).abs().max() / c.abs().max()) > 1e-2, "other batches give another gradient"
