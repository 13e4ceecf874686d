"""The coordinate-wise LSTM's meta-gradient, as one would write it down, and by the library `higher`.

Both go through the tasks one by one, through a network's tensors one by one, and call PyTorch's LSTMCell on each. They
draw the same batches as `metarobust.meta` and find the same meta-gradient as `metarobust.learned.CoordinateLSTM`, of
first order, up to rounding: the work is the same, and the floor that a library should not fall below.
"""

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F

from metarobust.data import Split
from metarobust.family import make_tasks
from metarobust.learned.lstm import CoordinateLSTM, log_and_sign
from metarobust.meta.config import MetaTrainConfig
from metarobust.meta.problem import Problem
from metarobust.objectives import clean

Step = Callable[[int, Tensor, Tensor], None]


def problem(network: str, tasks: int, truncation: int) -> Problem:
    """Inner problems on random images; all objectives are clean."""
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(512, 1, 28, 28, generator=generator)
    pool = Split(images, torch.randint(10, (len(images),), generator=generator))
    order = torch.stack([torch.randperm(len(pool), generator=generator) for _ in range(tasks)])
    found = make_tasks(network, pool, 10, order[:, :256], order[:, 256:], generator)
    plan = MetaTrainConfig(horizons=(truncation,), truncation=truncation, tasks=tasks)
    return Problem(found, truncation, plan, clean, clean)


class PlainLSTM(nn.Module):
    """Two cells and a read-out, under the names of a CoordinateLSTM and with its numbers."""

    def __init__(self, like: CoordinateLSTM):
        super().__init__()
        self.hidden, self.scale = like.hidden, like.scale
        self.lower, self.upper = nn.LSTMCell(2, like.hidden), nn.LSTMCell(like.hidden, like.hidden)
        self.head = nn.Linear(like.hidden, 1, bias=False)
        self.load_state_dict(like.state_dict())

    def start(self, tensor: Tensor) -> tuple[Tensor, ...]:
        """The state of a tensor's coordinates before the first step, `[n, hidden]` each."""
        return tuple(tensor.new_zeros(tensor.numel(), self.hidden) for _ in range(4))

    def forward(self, grad: Tensor, state: tuple[Tensor, ...]) -> tuple[Tensor, tuple[Tensor, ...]]:
        """The step for one tensor, and its next state."""
        low, low_memory = self.lower(log_and_sign(grad.flatten()).T, state[:2])
        up, up_memory = self.upper(low, state[2:])
        return self.scale * self.head(up).view_as(grad), (low, low_memory, up, up_memory)


def plain(problem: Problem, optimizer: CoordinateLSTM, seed: int) -> list[Tensor]:
    """The meta-gradient of the first stretch, for each parameter in turn, in a loop over tasks and tensors."""
    tasks, rule = problem.tasks, PlainLSTM(optimizer)
    params = [dict(tasks.param_spec.split(one)) for one in tasks.params]
    states = [{name: rule.start(p) for name, p in one.items()} for one in params]

    def predict(task: int) -> Callable[[Tensor], Tensor]:
        return lambda images: functional_call(tasks.model, params[task], (images,))

    def step(task: int, images: Tensor, labels: Tensor) -> None:
        leaves = {name: p.detach().requires_grad_() for name, p in params[task].items()}
        loss = F.cross_entropy(functional_call(tasks.model, leaves, (images,)), labels)
        for name, grad in zip(leaves, torch.autograd.grad(loss, list(leaves.values())), strict=True):
            move, states[task][name] = rule(grad, states[task][name])
            params[task][name] = params[task][name] + move

    return _meta_gradient(problem, rule, seed, predict, step)


def with_higher(problem: Problem, optimizer: CoordinateLSTM, seed: int) -> list[Tensor]:
    """The same with `higher`: a functional model for each task, and a differentiable optimizer with this rule.

    It always computes gradients that can be differentiated again; that they count as constants is said afterwards.
    """
    import higher

    tasks, rule = problem.tasks, PlainLSTM(optimizer)

    class Differentiable(higher.optim.DifferentiableOptimizer):
        def _update(self, grouped_grads: list[list[Tensor]], **kwargs: Any) -> None:
            for group, grads, states in zip(self.param_groups, grouped_grads, self.state, strict=True):
                for i, (p, grad) in enumerate(zip(group["params"], grads, strict=True)):
                    move, states[i] = rule(grad, states[i] or rule.start(p))
                    group["params"][i] = p + move

    models, optimizers = [], []
    for begin in tasks.params:
        model = copy.deepcopy(tasks.model)
        nn.utils.vector_to_parameters(begin, model.parameters())
        models.append(higher.monkeypatch(model))
        optimizers.append(
            Differentiable(
                torch.optim.SGD(model.parameters()), model.parameters(), models[-1],
                grad_callback=lambda grads: [grad.detach() for grad in grads],
            )
        )  # fmt: skip

    def step(task: int, images: Tensor, labels: Tensor) -> None:
        optimizers[task].step(F.cross_entropy(models[task](images), labels))

    return _meta_gradient(problem, rule, seed, models.__getitem__, step)


def _meta_gradient(
    problem: Problem, rule: nn.Module, seed: int, predict: Callable[[int], Callable[[Tensor], Tensor]], step: Step
) -> list[Tensor]:
    """What both share: the batches in the order of `metarobust.unroll`, and the meta-loss half-way and at the end."""
    plan, tasks = problem.plan, problem.tasks
    generator, score = torch.Generator().manual_seed(seed), torch.zeros(())
    half = plan.truncation // 2
    for weight, steps in ((plan.mid_loss_weight, half), (1 - plan.mid_loss_weight, plan.truncation - half)):
        for _ in range(steps):
            images, labels = tasks.batch(tasks.train, plan.batch_size, generator)
            batches = zip(images.split(plan.batch_size), labels.split(plan.batch_size), strict=True)
            for task, (x, y) in enumerate(batches):
                step(task, x, y)
        images, labels = tasks.batch(tasks.held_out, plan.held_out, generator)
        for task, (x, y) in enumerate(zip(images.split(plan.held_out), labels.split(plan.held_out), strict=True)):
            score = score + weight / len(tasks) * F.cross_entropy(predict(task)(x), y)
    return list(torch.autograd.grad(score, list(rule.parameters())))
