"""The arithmetic of the LSTM beside PyTorch's cells, and a replayed stretch beside backpropagation."""

from __future__ import annotations

import pytest
import torch
from toy import generator, scatter, tasks

from metarobust.learned import lstm_steps
from metarobust.learned.lstm import CoordinateLSTM, log_and_sign
from metarobust.learned.mlp import FeatureMLP
from metarobust.learned.protocol import State
from metarobust.meta import MetaTrainConfig
from metarobust.meta.estimators import Backprop
from metarobust.meta.problem import Problem
from metarobust.meta.replay import Replay
from metarobust.objectives import clean
from metarobust.params import ParamSpec
from metarobust.unroll import detach


def lstm(hidden=3):
    """One whose numbers are all other than 0."""
    return scatter(CoordinateLSTM(hidden=hidden, generator=generator()).double(), size=0.1)


@pytest.mark.parametrize("chunk", [2, 7, 1000])
def test_the_lstm_has_the_slopes_of_torchs_cells(chunk, monkeypatch):
    """Three steps, with slopes by steps and last state: by theta, state and gradients, chunk by chunk."""
    monkeypatch.setattr(lstm_steps, "CHUNK", chunk)
    optimizer = lstm()
    hidden, shape = optimizer.hidden, (2, 9)

    def draw(*size):
        return torch.randn(size, generator=random, dtype=torch.float64)

    random = generator()
    grads = [draw(*shape).requires_grad_() for _ in range(3)]
    slots = {name: draw(hidden, *shape).requires_grad_() for name in optimizer.slots}
    state = State(0, 3, ParamSpec(("weight",), ((9,),)), slots, {})
    slopes, last = [draw(*shape) for _ in grads], [draw(hidden, *shape) for _ in slots]

    def ours():
        steps, at = [], state
        for g in grads:
            step, at = optimizer.update(g, at, torch.zeros(shape))
            steps.append(step)
        return steps, list(at.slots.values())

    def theirs():
        steps, at = [], [part.flatten(1).T for part in slots.values()]
        for g in grads:
            at[:2] = optimizer.lower(log_and_sign(g).flatten(1).T, tuple(at[:2]))
            at[2:] = optimizer.upper(at[0], tuple(at[2:]))
            steps.append(optimizer.scale * optimizer.head(at[2]).view(shape))
        return steps, [part.T.view(hidden, *shape) for part in at]

    found = []
    for way in (ours, theirs):
        steps, at = way()
        loss = sum((a * b).sum() for a, b in zip([*steps, *at], [*slopes, *last], strict=True))
        found.append([*steps, *at, *torch.autograd.grad(loss, [*optimizer.parameters(), *slots.values(), *grads])])
    torch.testing.assert_close(*found, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("chunk", [5, 1000])
def test_the_lstm_pulled_back_is_backpropagation(chunk, monkeypatch):
    optimizer, random = lstm(), generator()
    grads, slopes = (torch.randn(4, 3, 6, generator=random, dtype=torch.float64) for _ in range(2))
    state = optimizer.init(grads[0], ParamSpec(("weight",), ((6,),)), 6)
    for g in grads[:2]:
        state = detach(optimizer.update(g, state, g)[1])
    steps, at = [], state
    for g in grads:
        step, at = optimizer.update(g, at, g)
        steps.append(step)
    exact = torch.autograd.grad((torch.stack(steps) * slopes).sum(), list(optimizer.parameters()))
    monkeypatch.setattr(lstm_steps, "CHUNK", chunk)
    torch.testing.assert_close(optimizer.pull_back(grads, state, slopes), list(exact), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("architecture", ["mlp-3-sigmoid", "cnn-2-relu"])
def test_a_replayed_stretch_has_the_meta_gradient_of_backpropagation(architecture):
    """Two stretches one after the other: same loss, same meta-gradient, same place to go on from."""
    where, optimizer = tasks(2, architecture, shape=(1, 4, 4)), lstm()
    plan = MetaTrainConfig(horizons=(10,), truncation=5, tasks=2, batch_size=4, held_out=4)
    problem = Problem(where, 10, plan, clean, clean)
    points, streams = [Backprop().begin(optimizer, problem) for _ in range(2)], [generator(3), generator(3)]
    for _ in range(2):
        exact = Backprop().step(optimizer, problem, points[0], streams[0])
        found = Replay().step(optimizer, problem, points[1], streams[1])
        points = [exact.carried, found.carried]
        assert found.loss == pytest.approx(exact.loss, rel=1e-12)
        torch.testing.assert_close(found.gradient, exact.gradient, rtol=1e-8, atol=1e-12)
        torch.testing.assert_close(points[1].params, points[0].params, rtol=1e-12, atol=1e-12)
        torch.testing.assert_close(points[1].state.slots, points[0].state.slots, rtol=1e-12, atol=1e-12)
        assert not any(part.requires_grad for part in (found.carried.params, *found.carried.state.slots.values()))


@pytest.mark.parametrize(("make", "second"), [(FeatureMLP, False), (CoordinateLSTM, True)])
def test_what_cannot_be_replayed_is_backpropagated(make, second):
    where, optimizer = tasks(2, dtype=torch.float32), make(generator=generator())
    plan = MetaTrainConfig(horizons=(4,), truncation=4, tasks=2, batch_size=4, held_out=4, second_order=second)
    problem = Problem(where, 4, plan, clean, clean)
    exact, found = (
        way.step(optimizer, problem, way.begin(optimizer, problem), generator(3)) for way in (Backprop(), Replay())
    )
    assert found.loss == exact.loss
    assert all(torch.equal(a, b) for a, b in zip(found.gradient, exact.gradient, strict=True))
