"""The estimators of the meta-gradient: against closed forms, backpropagation, finite differences and each other.

The problem of most tests is linear, so that all is known: a parameter phi slides toward 0, and theta pushes it,

    phi <- phi - RATE h phi + theta,      meta-loss  h/2 (phi - goal)^2  at the end of each truncation.

The meta-loss is quadratic in theta, so the smoothing of evolution strategies changes nothing in its slope.
"""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.nn.utils import parameters_to_vector
from toy import ADVERSARIAL, generator, scatter, tasks

from metarobust import learned
from metarobust.meta import MetaTrainConfig, estimators
from metarobust.meta.estimators import ESTIMATORS
from metarobust.meta.problem import Point, Problem
from metarobust.objectives import clean
from metarobust.optimizers import Optimizer
from metarobust.tasks import Tasks

TRUNCATED = ("backprop", "es", "pes")  # `exact` takes whole runs: see test_learned_penalties
RATE, CURVE, GOAL = 0.1, 0.7, 4.0
SHRINK = 1 - RATE * CURVE


class Push(nn.Module, Optimizer):
    """step = theta - RATE * gradient: one number a parameter of the optimizee."""

    def __init__(self, count):
        super().__init__()
        self.theta = nn.Parameter(torch.linspace(-0.5, 0.5, count, dtype=torch.float64))

    def init(self, params, param_spec, total):
        return ()

    def update(self, grads, state, params):
        return self.theta - RATE * grads, state


def slide(predict, images, labels, rng):
    return CURVE / 2 * predict.params.square().sum(-1)


def miss(predict, images, labels, rng):
    return CURVE / 2 * (predict.params - GOAL).square().sum(-1)


class Short(Problem):
    """The linear problem without a network in between: the same numbers, ten times as fast."""

    def truncation_loss(self, optimizer, at, generator):
        phi = at.params
        for _ in range(self.config.truncation):
            phi = SHRINK * phi + optimizer.theta
        return CURVE / 2 * (phi - GOAL).square().sum(-1).mean(), Point(phi, ())


def linear(horizon, truncation, estimator="backprop", kind=Problem, **numbers):
    """The linear problem, with two tasks, and its optimizer."""
    plan = MetaTrainConfig(
        1, (horizon,), truncation, mid_loss_weight=0.0, estimator=estimator, divergence_threshold=1e9, **numbers
    )
    problem = kind(tasks(2, "mlp-1-tanh", shape=(1, 1, 1)), horizon, plan, slide, miss)
    return problem, Push(problem.tasks.params.shape[1])


def through(problem, optimizer, seed=0):
    """The meta-gradients of all truncations, with theta held still: `[truncations, N]`; and their meta-losses."""
    estimator, stream = ESTIMATORS[problem.config.estimator](), generator(seed)
    carried, found = estimator.begin(optimizer, problem), []
    for _ in range(problem.horizon // problem.config.truncation):
        found.append(estimator.step(optimizer, problem, carried, stream))
        carried = found[-1].carried
    return torch.stack([parameters_to_vector(each.gradient) for each in found]), [each.loss for each in found]


def series(count, ratio=SHRINK):
    return sum(ratio**k for k in range(count))


def expected(problem, optimizer, blind=False, ratio=SHRINK):
    """The closed form of each truncation's meta-gradient; blind: of what its own steps do alone, as truncation has it.

    ratio: how much of a nudge is left after a step; 1 where gradients of gradients are left out.
    """
    theta, start, found = optimizer.theta.detach(), problem.tasks.params, []
    for end in range(problem.config.truncation, problem.horizon + 1, problem.config.truncation):
        phi = SHRINK**end * start + series(end) * theta
        reach = series(problem.config.truncation if blind else end, ratio)
        found.append(CURVE * reach * (phi - GOAL).mean(0))
    return torch.stack(found)


@pytest.mark.parametrize(("horizon", "truncation"), [(6, 6), (6, 3), (6, 2)])
def test_backpropagation_is_the_closed_form_of_its_truncation(horizon, truncation):
    problem, optimizer = linear(horizon, truncation, second_order=True)
    found, losses = through(problem, optimizer)
    torch.testing.assert_close(found, expected(problem, optimizer, blind=True))
    ends = [SHRINK**k * problem.tasks.params + series(k) * optimizer.theta.detach() for k in (truncation, horizon)]
    exact = [float(CURVE / 2 * (phi - GOAL).square().sum(-1).mean()) for phi in ends]
    assert [losses[0], losses[-1]] == pytest.approx(exact)
    first, optimizer = linear(horizon, truncation, second_order=False)
    torch.testing.assert_close(through(first, optimizer)[0], expected(first, optimizer, blind=True, ratio=1.0))


def test_truncation_blinds_backpropagation():
    problem, optimizer = linear(6, 2, second_order=True)
    short, whole = through(problem, optimizer)[0], expected(problem, optimizer)
    torch.testing.assert_close(short[0], whole[0])  # nothing came before the first truncation
    assert float(short[2].norm() / whole[2].norm()) == pytest.approx(series(2) / series(6))
    assert float((short.sum(0) - whole.sum(0)).norm() / whole.sum(0).norm()) > 0.2


@pytest.mark.parametrize("estimator", ["es", "pes"])
@pytest.mark.parametrize("sigma", [1e-3, 0.1, 3.0])
def test_over_directions_that_fill_space_it_is_exact(monkeypatch, estimator, sigma):
    """With sqrt(n) times each axis as the directions, the mean of (g . e) e is g: no chance, no factor of sigma."""
    problem, optimizer = linear(6, 6, estimator, sigma=sigma, pairs=len(parameters_to_vector(linear(6, 6)[1].theta)))
    count = len(optimizer.theta)
    axes = iter(count**0.5 * torch.eye(count, dtype=torch.float64))
    monkeypatch.setattr(estimators, "normal", lambda like, rng: next(axes))
    found, _ = through(problem, optimizer)
    torch.testing.assert_close(found, expected(problem, optimizer), rtol=1e-5, atol=1e-5)


def sampled(truncation, estimator):
    """Mean over 60 seeds of the meta-gradient, summed over truncations, and its standard error: `[N]` each."""
    problem, optimizer = linear(4, truncation, estimator, Short, sigma=0.3, pairs=32)
    runs = torch.stack([through(problem, optimizer, seed)[0].sum(0) for seed in range(60)])
    return runs.mean(0), runs.std(0) / len(runs) ** 0.5


def standard_errors(found, exact):
    """How far off, in standard errors: the root of the mean square over coordinates, about 1 where it is unbiased."""
    mean, error = found
    return float(((mean - exact) / error).square().mean().sqrt())


WHOLE = expected(*linear(4, 2)).sum(0)
BLIND = expected(*linear(4, 2), blind=True).sum(0)


@pytest.mark.parametrize(
    ("estimator", "truncation", "exact", "not_it"),
    [("es", 4, expected(*linear(4, 4)).sum(0), WHOLE), ("es", 2, BLIND, WHOLE), ("pes", 2, WHOLE, BLIND)],
    ids=["es", "truncated es", "pes"],
)
def test_the_mean_over_many_pairs(estimator, truncation, exact, not_it):
    """ES over the whole run and PES are unbiased; truncated ES is blind to what its truncation cannot reach."""
    found = sampled(truncation, estimator)
    assert standard_errors(found, exact) < 2
    # It would tell: the truncation bias, and a factor of sigma.
    assert standard_errors(found, not_it) > 4
    assert standard_errors(found, exact * 0.3) > 4
    assert standard_errors(found, exact / 0.3) > 4


@pytest.mark.parametrize("estimator", TRUNCATED)
def test_the_short_problem_has_the_same_numbers(estimator):
    by_network, short = (through(*linear(4, 2, estimator, kind, second_order=True))[0] for kind in (Problem, Short))
    torch.testing.assert_close(by_network, short)


def test_over_one_truncation_persistent_evolution_strategies_are_the_plain_ones():
    found = [through(*linear(4, 4, name, pairs=3)) for name in ("es", "pes")]
    torch.testing.assert_close(found[0][0], found[1][0])
    assert found[0][1] == pytest.approx(found[1][1])


# Real optimizees and learned optimizers


def real(kind, estimator, horizon=4, truncation=4, meta=clean, **numbers):
    """A group of tasks, and an optimizer of this kind."""
    plan = MetaTrainConfig(
        1, (horizon,), truncation, batch_size=4, held_out=4, estimator=estimator, second_order=True, **numbers
    )
    optimizer = scatter(learned.make(kind, generator()).double(), size=0.02)  # within the bounds of all that have some
    return Problem(tasks(2, kind=Tasks), horizon, plan, clean, meta), optimizer


@pytest.mark.parametrize("kind", learned.KINDS)
@pytest.mark.parametrize("estimator", ["es", "pes"])
def test_along_a_direction_it_agrees_with_backpropagation(monkeypatch, kind, estimator):
    """One pair along e, a small sigma: the estimate is (g . e) e, with g from second-order backpropagation."""
    problem, optimizer = real(kind, estimator, sigma=1e-6, pairs=1)
    exact = through(*real(kind, "backprop"))[0][0]
    e = torch.randn(exact.shape, generator=generator(3), dtype=torch.float64)
    monkeypatch.setattr(estimators, "normal", lambda like, rng: e)
    torch.testing.assert_close(through(problem, optimizer)[0][0], (exact @ e) * e, rtol=2e-3, atol=1e-6)


@pytest.mark.parametrize("kind", learned.KINDS)
@pytest.mark.parametrize("estimator", TRUNCATED)
def test_a_seed_is_an_estimate_and_theta_is_left_as_it_was(kind, estimator):
    problem, optimizer = real(kind, estimator, 4, 2, ADVERSARIAL, pairs=2)
    before = [(p, p.detach().clone()) for p in optimizer.parameters()]
    found = [through(problem, optimizer, seed) for seed in (5, 5, 6)]
    assert torch.equal(found[0][0], found[1][0])
    assert found[0][1] == found[1][1]
    assert not torch.equal(found[0][0], found[2][0])
    assert found[0][0].shape == (2, len(parameters_to_vector(optimizer.parameters())))
    assert bool(found[0][0].isfinite().all())
    for p, (same, old) in zip(optimizer.parameters(), before, strict=True):
        assert p is same
        assert torch.equal(p, old)
        assert p.requires_grad


def test_other_numbers_are_undone_to_the_bit_even_by_an_error():
    optimizer = scatter(learned.make("lstm", generator()))
    start = parameters_to_vector(optimizer.parameters()).detach().clone()

    def fail():
        with estimators.perturbed(optimizer, start + 1e-3):
            assert torch.equal(parameters_to_vector(optimizer.parameters()), start + 1e-3)
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert torch.equal(parameters_to_vector(optimizer.parameters()), start)


class Watched(Tasks):
    """Tasks that note which rows were drawn; `drawn` is a list that the test holds."""

    drawn = ()

    def batch(self, rows, size, generator):
        images, labels = super().batch(rows, size, generator)
        self.drawn.append(images.clone())
        return images, labels


@pytest.mark.parametrize("estimator", ["es", "pes"])
def test_all_candidates_see_the_same_batches_and_truncations_see_others(monkeypatch, estimator):
    problem, optimizer = real("steering", estimator, 4, 2, ADVERSARIAL, pairs=2)
    drawn = []
    monkeypatch.setattr(Watched, "drawn", drawn)
    problem = replace(problem, tasks=Watched(*(getattr(problem.tasks, f) for f in Tasks.__dataclass_fields__)))
    through(problem, optimizer)
    each = 4  # two steps and two meta-losses a truncation
    runs = [torch.cat(drawn[i : i + each]) for i in range(0, len(drawn), each)]
    first, second = (runs[:4], runs[-4:])
    assert len(runs) == (9 if estimator == "es" else 8)  # es goes on from where theta itself led
    assert all(torch.equal(run, first[0]) for run in first)
    assert all(torch.equal(run, second[0]) for run in second)
    assert not torch.equal(first[0], second[0])


@pytest.mark.parametrize("estimator", ["es", "pes"])
@pytest.mark.parametrize("worst", [math.nan, math.inf, -math.inf, 1e6])
def test_a_candidate_that_is_not_finite_counts_as_the_threshold(estimator, worst):
    """The side where theta is larger has no meta-loss; the other has 1."""
    problem, optimizer = linear(2, 2, estimator, pairs=3, sigma=0.5)
    mid_loss_weight = optimizer.theta.sum()

    def meta(predict, images, labels, rng):
        bad = (optimizer.theta.sum() > mid_loss_weight).double()
        return torch.where(bad > 0, worst, 1.0).expand(2)

    problem = replace(problem, meta=meta, config=replace(problem.config, divergence_threshold=7.0))
    (found,), (loss,) = through(problem, optimizer)
    assert loss == pytest.approx(4.0)
    assert bool(found.isfinite().all())
    assert float(found.sum()) > 0  # uphill is where it failed
    noise_rng, total = estimators.directions(generator()), 0
    for _ in range(3):
        e = estimators.normal(optimizer.theta.detach(), noise_rng)
        total = total + (7 - 1) * e.sum().sign() * e
    torch.testing.assert_close(found, total / (2 * 3 * 0.5))
