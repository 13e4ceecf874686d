"""The hand-written optimizers against torch.optim, over 20 steps in float64, and a grid as one run."""

from __future__ import annotations

import pytest
import torch
from toy import generator

from metarobust.models import build
from metarobust.optimizers import SGD, Adam, Annealed, ProximalL1, RMSprop
from metarobust.params import ParamSpec

LAYOUT = ParamSpec.of(build("mlp-3-tanh", (1, 2, 2), 3))


def loss(params):
    """Smooth, not convex, with steep and flat directions."""
    scale = torch.logspace(-2, 1, LAYOUT.size, dtype=torch.float64)
    return (scale * (params - 0.3) ** 2 + 0.5 * torch.sin(3 * params)).sum()


def start(tasks=1):
    return torch.randn(tasks, LAYOUT.size, generator=generator(), dtype=torch.float64)


def run(optimizer, params, steps=20):
    state, path = optimizer.init(params, LAYOUT, steps), []
    for _ in range(steps):
        leaf = params.detach().requires_grad_()
        (grads,) = torch.autograd.grad(loss(leaf), leaf)
        step, state = optimizer.update(grads, state, params)
        params = params + step
        path.append(params)
    return torch.stack(path)


PAIRS = {
    "SGD": (SGD(0.02), lambda p: torch.optim.SGD(p, 0.02)),
    "SGD, momentum": (SGD(0.02, 0.9), lambda p: torch.optim.SGD(p, 0.02, momentum=0.9)),
    # Without momentum, decay of the weight and decay through the gradient are the same.
    "SGD, decay": (SGD(0.02, decay=0.3), lambda p: torch.optim.SGD(p, 0.02, weight_decay=0.3)),
    "Adam": (Adam(0.03), lambda p: torch.optim.Adam(p, 0.03)),
    "Adam, other averages": (
        Adam(0.03, beta1=0.5, beta2=0.95, eps=1e-3),
        lambda p: torch.optim.Adam(p, 0.03, betas=(0.5, 0.95), eps=1e-3),
    ),
    "RMSprop": (RMSprop(0.01), lambda p: torch.optim.RMSprop(p, 0.01)),
    "AdamW": (Adam(0.03, decay=0.7), lambda p: torch.optim.AdamW(p, 0.03, weight_decay=0.7)),
}


@pytest.mark.parametrize(("ours", "theirs"), PAIRS.values(), ids=PAIRS)
def test_every_step_is_that_of_torch_optim(ours, theirs):
    params = torch.nn.Parameter(start())
    optimizer, path = theirs([params]), []
    for _ in range(20):
        optimizer.zero_grad()
        loss(params).backward()
        optimizer.step()
        path.append(params.detach().clone())
    torch.testing.assert_close(run(ours, start()), torch.stack(path), rtol=1e-11, atol=1e-13)


def test_sgd_decays_the_weight_and_not_the_momentum():
    params, velocity, path = start(), torch.zeros_like(start()), []
    for _ in range(20):
        leaf = params.clone().requires_grad_()
        velocity = 0.9 * velocity + torch.autograd.grad(loss(leaf), leaf)[0]
        params = params - 0.02 * velocity - 0.02 * 0.3 * params
        path.append(params)
    torch.testing.assert_close(run(SGD(0.02, 0.9, 0.3), start()), torch.stack(path))


GRIDS = {
    "SGD": lambda lr, decay: SGD(lr, 0.9, decay),
    "SGD, momentum too": lambda lr, decay: SGD(lr, decay, 0.1),
    "Adam": Adam,
    "L1": lambda lr, decay: ProximalL1(Adam(lr), decay * torch.ones(LAYOUT.size, dtype=torch.float64) / 50),
}


@pytest.mark.parametrize("make", GRIDS.values(), ids=GRIDS)
def test_a_grid_is_one_run(make):
    lr = torch.tensor([[0.01], [0.02], [0.03]], dtype=torch.float64)
    decay = torch.tensor([[0.0], [0.5], [0.9]], dtype=torch.float64)
    together = run(make(lr, decay), start(3))
    for row in range(3):
        alone = run(make(float(lr[row]), float(decay[row])), start(3)[row : row + 1])
        torch.testing.assert_close(together[:, row], alone[:, 0], rtol=1e-11, atol=1e-13)
    assert not torch.equal(together[-1, 0], together[-1, 1])


@pytest.mark.parametrize(
    ("weight", "step", "strength", "expected"),
    [
        (1.0, -0.2, 0.3, 0.5),
        (1.0, -0.2, 0.0, 0.8),
        (0.4, -0.2, 0.3, 0.0),
        (-1.0, 0.2, 0.3, -0.5),
        (0.1, -0.2, 0.3, 0.0),
        (0.1, -0.9, 0.3, -0.5),
        (0.0, 0.0, 0.3, 0.0),
    ],
)
def test_l1_takes_its_share_after_the_step(weight, step, strength, expected):
    params = torch.tensor([[weight]], dtype=torch.float64)
    optimizer = ProximalL1(SGD(1.0), torch.tensor([[strength]], dtype=torch.float64))
    state = optimizer.init(params, LAYOUT, 1)
    found, _ = optimizer.update(torch.tensor([[-step]], dtype=torch.float64), state, params)
    assert float(params + found) == pytest.approx(expected, abs=1e-12)


def test_l1_only_shrinks_where_it_is_told_to_and_reaches_zero():
    mask = torch.zeros(LAYOUT.size, dtype=torch.float64)
    mask[:12] = 1
    plain, thin = run(Adam(0.03), start())[-1], run(ProximalL1(Adam(0.03), 0.1 * mask), start())[-1]
    torch.testing.assert_close(plain[0, 12:], thin[0, 12:])
    assert int((thin == 0).sum()) > 0
    assert int((plain == 0).sum()) == 0


@pytest.mark.parametrize("share", [1.0, 0.6])
def test_annealed_steps_are_those_of_a_rate_on_a_line(share):
    params = torch.nn.Parameter(start())
    optimizer, path = torch.optim.AdamW([params], 0.03, weight_decay=0.7), []
    line = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1 - share * step / 20)
    for _ in range(20):
        optimizer.zero_grad()
        loss(params).backward()
        optimizer.step()
        line.step()
        path.append(params.detach().clone())
    torch.testing.assert_close(run(Annealed(Adam(0.03, decay=0.7), share), start()), torch.stack(path))
