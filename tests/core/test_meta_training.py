"""The meta-training loop: stepping back, curricula, held-out tasks, early stopping, what a checkpoint has to hold."""

from __future__ import annotations

import gc
import math
from dataclasses import replace

import pytest
import torch
from torch.nn.utils import parameters_to_vector
from toy import ADVERSARIAL, generator, tasks

from metarobust import learned
from metarobust.data import Split
from metarobust.errors import InputError
from metarobust.family import Family
from metarobust.learned.mlp import FeatureMLP
from metarobust.meta import MetaTrainConfig, Validation, generator_of, hold_out, meta_train
from metarobust.meta.episode import Episode
from metarobust.meta.validation import BATCHES
from metarobust.objectives import Adversarial, Mixed, clean
from metarobust.optimizers import Adam
from metarobust.unroll import unroll

POOL = tasks(3, each=40, shape=(1, 3, 3), dtype=torch.float32)
FAMILY = Family(["mlp-3-tanh", "cnn-2-relu"], Split(POOL.images, POOL.labels), 3, 30)
BRIGHT = (POOL.images[:, 0, 0, 0] > 0.5).long()  # something that can be learned
HELD_OUT = Family(["mlp-4-relu"], Split(POOL.images, BRIGHT), 3, 100)
PLAN = MetaTrainConfig(6, (4, 8), 4, tasks=2, batch_size=8, held_out=8, warmup=2, lr=0.01, validate_every=2, pairs=2)


def validation(**changes):
    numbers = {"horizon": 3, "eps": 0.1, "groups": 2, "tasks": 2, "batch_size": 8, "images": 10, "steps": 2}
    return hold_out(HELD_OUT.sample, inner=clean, **(numbers | changes))


def vector(optimizer):
    return parameters_to_vector(optimizer.parameters()).detach().clone()


def train(plan=PLAN, *, kind="features", meta=ADVERSARIAL, sample=FAMILY.sample, seed=0, **more):
    optimizer = learned.make(kind, generator())
    log = meta_train(optimizer, sample, plan, inner=clean, meta=meta, seed=seed, **more)
    return vector(optimizer), log


def after_each(plan=PLAN, **more):
    """theta before the first episode and after each, and the log."""
    found = [vector(learned.make("features", generator()))]
    _, log = train(plan, every=1, save=lambda tensors, done: found.append(theta_of(tensors)), **more)
    return found, log


def theta_of(tensors):
    """theta in a checkpoint, as one vector."""
    return torch.cat([value.flatten() for name, value in tensors.items() if name.startswith("theta.")])


# Stepping back


def worse(bad, factor):
    """A meta-objective that is multiplied by a factor in the calls of these numbers; PLAN asks 2 to 4 an episode."""
    count = iter(range(10**6))

    def meta(predict, images, labels, rng):
        losses = clean(predict, images, labels, rng)
        return losses * factor if next(count) in bad else losses

    return meta


ONE = replace(PLAN, horizons=(4,))  # one stretch an episode, two calls of the meta-objective


@pytest.mark.parametrize("factor", [math.nan, math.inf, 1e4])
def test_it_steps_back_to_where_the_last_good_episode_began(factor):
    """Episode 3 diverges: episode 2 had moved theta, and nobody knows whether that was sound; from its start it was."""
    theta, log = after_each(ONE, meta=worse({7}, factor))
    assert [row["stepped_back"] for row in log] == [0, 0, 0, 1, 0, 0]
    assert torch.equal(theta[4], theta[2])
    assert not torch.equal(theta[3], theta[2])
    assert not torch.equal(theta[5], theta[4])
    straight, _ = after_each(ONE, meta=clean)
    assert all(torch.equal(a, b) for a, b in zip(theta[:4], straight[:4], strict=True))


def test_again_and_again_it_stays_at_the_last_good_state():
    theta, log = after_each(ONE, meta=worse({4, 5, 6, 7, 8, 9}, math.nan))
    assert [row["stepped_back"] for row in log] == [0, 0, 1, 1, 1, 0]
    assert all(torch.equal(theta[k], theta[1]) for k in (3, 4, 5))


def test_adam_steps_back_as_well():
    kept = []
    train(ONE, meta=worse({5}, math.nan), every=1, save=lambda tensors, done: kept.append(tensors))
    moments = [{n: v for n, v in each.items() if n.startswith("adam.")} for each in kept]
    assert all(torch.equal(moments[2][name], value) for name, value in moments[0].items())
    assert moments[0]["adam.log_lr.step"] == 1
    assert moments[1]["adam.log_lr.step"] == 2


def test_the_rest_of_an_episode_that_diverged_is_left_out():
    plan = replace(PLAN, horizons=(12,))
    _, log = train(plan, meta=worse({0, 4}, math.nan))  # two calls a stretch
    assert [row["steps"] for row in log] == [1, 2, 3, 3, 3, 3]
    assert [row["stepped_back"] for row in log] == [1, 1, 0, 0, 0, 0]


def test_the_ceiling_is_where_a_meta_loss_has_diverged():
    _, log = train(ONE, meta=clean)
    highest = max(row["meta_loss"] for row in log)
    assert sum(row["stepped_back"] for row in train(replace(ONE, divergence_threshold=highest), meta=clean)[1]) >= 1
    assert (
        sum(row["stepped_back"] for row in train(replace(ONE, divergence_threshold=highest * 1.01), meta=clean)[1]) == 0
    )


@pytest.mark.parametrize("estimator", ["es", "pes"])
def test_evolution_strategies_step_back_where_every_candidate_diverged(estimator):
    plan = replace(ONE, estimator=estimator)
    _, log = train(plan, meta=worse(range(16, 24), math.nan))  # 2 pairs: 8 calls an episode
    assert [row["stepped_back"] for row in log] == [0, 0, 1, 0, 0, 0]
    _, log = train(plan, meta=worse(range(16, 20), math.nan))  # half of them: the ceiling says where not to go
    assert sum(row["stepped_back"] for row in log) == 0


# Curricula


def test_the_radius_grows_from_0_to_its_full_size():
    plan = MetaTrainConfig(episodes=10, eps_growth=0.5)
    assert [plan.radius(episode) for episode in range(7)] == [0, 0.2, 0.4, 0.6, 0.8, 1, 1]
    assert [MetaTrainConfig(episodes=10).radius(episode) for episode in (0, 9)] == [1, 1]
    assert Adversarial(0.2, 3, "l2").at(0.25) == Adversarial(0.05, 3, "l2")
    assert Mixed(Adversarial(0.2), 0.3).at(0.5) == Mixed(Adversarial(0.1), 0.3)


def test_with_a_radius_that_grows_it_learns_at_each_radius():
    """One episode at half the radius is one of a meta-objective with that radius."""
    grown, _ = after_each(replace(ONE, eps_growth=1.0), meta=Mixed(Adversarial(0.6), 0.5))
    assert torch.equal(grown[1], after_each(ONE, meta=Mixed(Adversarial(0.0), 0.5))[0][1])
    assert not torch.equal(grown[1], after_each(ONE, meta=Mixed(Adversarial(0.1), 0.5))[0][1])
    saved = []
    train(replace(ONE, eps_growth=1.0), meta=Mixed(Adversarial(0.6), 0.5), every=1, save=lambda *s: saved.append(s))
    theta = []
    train(ONE, meta=Mixed(Adversarial(0.1), 0.5), resume=saved[0], every=1, save=lambda t, d: theta.append(t))
    assert torch.equal(theta_of(theta[0]), theta_of(saved[1][0]))  # episode 1 of 6: a sixth of 0.6


def test_a_radius_that_cannot_grow_is_refused():
    with pytest.raises(InputError, match=r"eps_growth 0\.5: the meta-objective has no radius; give Adversarial"):
        train(replace(PLAN, eps_growth=0.5), meta=clean)


def test_horizons_are_unlocked_the_shortest_first():
    plan = MetaTrainConfig(8, (40, 20, 60, 20), 20, horizon_growth=0.5)
    assert [plan.unlocked(episode) for episode in range(5)] == [
        (20, 20), (20, 20), (40, 20, 20), (40, 20, 60, 20), (40, 20, 60, 20)
    ]  # fmt: skip
    assert MetaTrainConfig(8, (40, 20), 20).unlocked(0) == (40, 20)


def test_an_episode_draws_from_the_horizons_that_are_unlocked():
    plan = replace(PLAN, episodes=12, horizons=(4, 8, 12), horizon_growth=0.75)
    how = {"inner": clean, "meta": clean, "device": "cpu"}

    def drawn(episodes):
        made = [(seed, number) for seed in range(5) for number in episodes]
        return {Episode(FeatureMLP(), FAMILY.sample, plan, numbers=each, **how).stretches for each in made}

    assert [drawn(range(*ends)) for ends in ((0, 3), (3, 6), (6, 12))] == [{1}, {1, 2}, {1, 2, 3}]
    steps = [row["steps"] for row in train(plan, meta=clean)[1]]
    assert steps[:3] == [1, 1, 1]
    assert max(steps) == 3


# Held-out tasks


def test_a_validation_is_accuracy_after_the_inner_run():
    """Written out, one model at a time; an attack with a radius of 0 turns nothing."""
    adam, right = Adam(0.1), []
    for number, group in enumerate(validation().groups):
        assert group.param_spec.shapes[0] == (4, 9)  # of the held-out architecture
        state, stream = adam.init(group.params, group.param_spec, 3), generator_of("cpu", 0, number, *BATCHES)
        how = {"steps": 3, "batch_size": 8, "inner": clean, "generator": stream}
        params, _ = unroll(group, adam, group.params, state, **how)
        for one, rows in zip(params.detach(), group.held_out[:, :10], strict=True):
            right += (group.predictor(one)(group.images[rows]).argmax(1) == group.labels[rows]).tolist()
    assert len(right) == 2 * 2 * 10
    assert validation(eps=0.0)(adam) == pytest.approx((sum(right) / 40, sum(right) / 40))
    assert validation()(adam) == validation()(adam)
    assert validation(seed=1)(adam) != validation()(adam)


def test_a_larger_radius_leaves_less_and_the_clean_accuracy_as_it_is():
    found = [validation(eps=eps, images=60, horizon=40)(Adam(0.1)) for eps in (0.0, 0.05, 0.3)]
    assert found[0][0] == found[1][0] == found[2][0] > 0.8
    assert found[0][1] > found[1][1] > found[2][1]
    assert found[0][0] == found[0][1]


def test_a_validation_leaves_the_optimizer_and_its_tasks_as_they_are():
    optimizer, held_out = FeatureMLP(generator=generator()), validation()
    before, starts = vector(optimizer), [t.params.clone() for t in held_out.groups]
    held_out(optimizer)
    assert torch.equal(vector(optimizer), before)
    assert all(p.grad is None for p in optimizer.parameters())
    assert all(torch.equal(t.params, start) for t, start in zip(held_out.groups, starts, strict=True))
    assert not torch.equal(starts[0], starts[1])


@pytest.mark.parametrize("name", ["groups", "tasks", "horizon", "batch_size", "images", "steps"])
def test_a_validation_without_work_is_refused(name):
    with pytest.raises(InputError, match=rf"{name} of a validation is 0; give a whole number from 1"):
        validation(**{name: 0})
    with pytest.raises(InputError, match="eps is -1"):
        validation(eps=-1)
    with pytest.raises(InputError, match="no tasks"):
        replace(validation(), groups=())


def scored(*scores):
    """A validation that says these scores in turn, and notes theta each time."""
    left, seen = iter(scores), []

    def validate(optimizer):
        seen.append(vector(optimizer))
        score = next(left)
        return score + 0.1, score - 0.1

    return validate, seen


def test_it_looks_every_few_episodes_and_keeps_the_best_theta():
    validate, seen = scored(0.3, 0.6, 0.5, 0.6)
    theta, log = train(replace(PLAN, episodes=7), validate=validate)
    assert [row["episode"] for row in log if "clean" in row] == [1, 3, 5, 6]  # the last one too
    assert log[3]["clean"], log[3]["robust"] == (0.7, 0.5)
    assert torch.equal(theta, seen[1])
    assert not torch.equal(theta, seen[3])


def test_looking_changes_nothing_else():
    validate, _ = scored(0.1, 0.2, 0.3)
    theta, log = train(validate=validate)
    plain, rows = train()
    assert torch.equal(theta, plain)
    assert [{k: v for k, v in row.items() if k not in ("clean", "robust")} for row in log] == rows


def test_without_anything_better_it_ends_early():
    plan = replace(PLAN, episodes=40, patience=2)
    validate, seen = scored(0.3, 0.6, 0.6, 0.5)
    saved = []
    theta, log = train(plan, validate=validate, save=lambda *stored: saved.append(stored))
    assert len(log) == 8
    assert torch.equal(theta, seen[1])
    # What was saved last is what it ended with, and there is nothing to go on with.
    (tensors, done) = saved[-1]
    assert done.episode == 8
    assert torch.equal(theta_of(tensors), theta)
    again, rows = train(plan, validate=validate, resume=saved[-1])
    assert rows == log
    assert torch.equal(again, theta)


def test_patience_without_anything_to_look_at_is_refused():
    with pytest.raises(InputError, match=r"patience 2: there is nothing to look at; give `validate`"):
        train(replace(PLAN, patience=2))


def test_the_bar_says_what_was_found(capsys):
    validate, _ = scored(0.3, 0.6, 0.5)
    train(validate=validate, meta=worse({0}, math.nan))
    shown = capsys.readouterr().err
    for words in ("meta-loss=", "held-out clean=60.0%", "held-out robust=40.0%", "stepped back=1"):
        assert words in shown


# Resuming, and memory


@pytest.mark.parametrize("estimator", ["backprop", "es", "pes"])
def test_resumed_anywhere_it_ends_with_the_same_theta_and_the_same_log(estimator):
    """With a step back, curricula and held-out tasks, the best of which came in the middle."""
    plan = replace(PLAN, estimator=estimator, eps_growth=0.5, horizon_growth=0.5)

    def chosen(optimizer):
        """Real accuracies, but what is said of them does not rise to the end."""
        found = held_out(optimizer)
        return found[0] + (0.5 if abs(float(vector(optimizer).sum()) - middle) < 1e-9 else 0), found[1]

    held_out, saved, middle = validation(), [], math.nan
    train(plan, every=1, save=lambda *stored: saved.append(stored))
    middle = float(theta_of(saved[3][0]).sum())
    saved.clear()
    theta, log = train(plan, validate=chosen, every=1, save=lambda *stored: saved.append(stored))
    assert max(log, key=lambda row: row.get("clean", 0))["episode"] == 3
    assert torch.equal(theta, theta_of(saved[3][0]))
    for stored in saved:
        again, rows = train(plan, validate=chosen, resume=stored)
        assert torch.equal(again, theta)
        assert rows == log


def test_resumed_between_a_good_episode_and_a_step_back_it_steps_back_as_far():
    theta, saved = after_each(ONE, meta=worse({7}, math.nan))[0], []
    train(ONE, meta=clean, every=1, save=lambda *stored: saved.append(stored))
    kept = []
    train(ONE, meta=worse({1}, math.nan), resume=saved[2], every=1, save=lambda t, d: kept.append(t))
    assert torch.equal(theta_of(kept[0]), theta[4])


@pytest.mark.parametrize("estimator", ["backprop", "es", "pes"])
def test_memory_does_not_grow_with_the_episodes(estimator):
    alive, problem = [], tasks(2, dtype=torch.float32)

    def count(tensors, done):
        if done.episode < 4:  # the best theta and a place to step back to are there by then
            return
        gc.collect()
        alive.append(sum(type(thing) in (torch.Tensor, torch.nn.Parameter) for thing in gc.get_objects()))

    plan = replace(PLAN, horizons=(8,), estimator=estimator, validate_every=1)
    validate = Validation((problem,), clean, 3, 8, 4, eps=0.1, steps=2, norm="linf", seed=0)
    train(plan, sample=lambda count, rng: problem, validate=validate, every=1, save=count)
    assert alive == [alive[0]] * 3


@pytest.mark.parametrize("name", ["pairs", "sigma", "divergence_threshold", "groups", "validate_every"])
@pytest.mark.parametrize("value", [0, -1, math.nan])
def test_a_plan_without_work_is_refused(name, value):
    with pytest.raises(InputError, match=rf"{name} of a meta-training is {value}: give a number above 0"):
        MetaTrainConfig(**{name: value})


@pytest.mark.parametrize("name", ["eps_growth", "horizon_growth"])
@pytest.mark.parametrize("value", [-0.1, 1.1, math.nan])
def test_a_growth_that_is_no_share_is_refused(name, value):
    with pytest.raises(InputError, match=rf"{name} {value}: give a share of the episodes, from 0 to 1"):
        MetaTrainConfig(**{name: value})


@pytest.mark.parametrize("value", [-1, math.nan])
def test_a_patience_below_0_is_refused(value):
    with pytest.raises(InputError, match=rf"patience {value}: give a number of validations, or 0"):
        MetaTrainConfig(patience=value)
