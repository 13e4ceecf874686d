"""The meta-training loop: resuming, stepping back, held-out tasks, refusals."""

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
from metarobust.meta import MetaTrainConfig, MetaTrainer, Validation, generator_of, hold_out, meta_train
from metarobust.meta.validation import BATCHES
from metarobust.objectives import clean
from metarobust.optimizers import Adam
from metarobust.unroll import unroll

POOL = tasks(3, each=40, shape=(1, 3, 3), dtype=torch.float32)
FAMILY = Family(["mlp-3-tanh", "cnn-2-relu"], Split(POOL.images, POOL.labels), 3, 30)
BRIGHT = (POOL.images[:, 0, 0, 0] > 0.5).long()  # something that can be learned
HELD_OUT = Family(["mlp-4-relu"], Split(POOL.images, BRIGHT), 3, 100)
CONFIG = MetaTrainConfig(6, (4, 8), 4, tasks=2, batch_size=8, held_out=8, warmup=2, lr=0.01, validate_every=2, pairs=2)
ONE = replace(CONFIG, horizons=(4,))  # one truncation an episode, two calls of the meta-objective


def validation(**changes):
    numbers = {"horizon": 3, "eps": 0.1, "batch_size": 8, "images": 10, "steps": 2, "groups": 2, "tasks": 2} | changes
    groups = hold_out(HELD_OUT.sample, numbers.pop("groups"), numbers.pop("tasks"), seed=numbers.get("seed", 0))
    return Validation(groups, clean, **numbers)


def vector(optimizer):
    return parameters_to_vector(optimizer.parameters()).detach().clone()


def trainer(config=CONFIG, *, kind="features", meta=ADVERSARIAL, sample=FAMILY.sample, seed=0, **more):
    optimizer = learned.make(kind, generator())
    return MetaTrainer(optimizer, sample, config, inner=clean, meta=meta, seed=seed, **more)


def train(config=CONFIG, **more):
    """theta before the first episode and after each, the log, and what was saved after each."""
    running = trainer(config, **more)
    thetas, saved = [vector(running.optimizer)], []
    for _ in running.episodes():
        thetas.append(vector(running.optimizer))
        saved.append((running.state_dict(), list(running.log)))
    return thetas, running.log, saved


def stepped_back(log):
    return [record["stepped_back"] for record in log]


# The loop, and resuming it


def test_a_seed_is_a_theta_and_every_episode_has_tasks_of_its_own():
    drawn = []

    def sample(count, rng):
        drawn.append((count, rng.initial_seed()))
        return FAMILY.sample(count, rng)

    first = train(sample=sample)[0][-1]
    assert {count for count, _ in drawn} == {2}
    assert len({seed for _, seed in drawn}) == len(drawn) == 6
    torch.manual_seed(5)
    assert torch.equal(train()[0][-1], first)
    assert not torch.equal(train(seed=1)[0][-1], first)


def test_the_function_is_the_trainer_run_to_its_end():
    optimizer = learned.make("features", generator())
    log = meta_train(optimizer, FAMILY.sample, CONFIG, inner=clean, meta=ADVERSARIAL, seed=0, label=None)
    thetas, expected, _ = train()
    assert torch.equal(vector(optimizer), thetas[-1])
    assert log == expected
    assert all({"episode", "meta_loss", "gradient", "steps", "stepped_back"} == set(record) for record in log)


@pytest.mark.parametrize("estimator", ["backprop", "es", "pes"])
def test_resumed_anywhere_it_ends_with_the_same_theta_and_the_same_log(estimator):
    """With held-out tasks, the best of which came in the middle."""
    config = replace(CONFIG, estimator=estimator)
    best = train(config)[0][4]
    held_out = validation()

    def validate(optimizer):
        """Real accuracies, but the theta after episode 3 is said to be better."""
        accuracy, robust = held_out(optimizer)
        return accuracy + 0.5 * torch.equal(vector(optimizer), best), robust

    thetas, log, saved = train(config, validate=validate)
    assert torch.equal(thetas[-1], best)
    for tensors, part in saved:
        kept = {name: tensor.clone() for name, tensor in tensors.items()}
        resumed = trainer(config, validate=validate, seed=0)
        with torch.no_grad():
            for p in resumed.optimizer.parameters():
                p.add_(1.0)
        resumed.load_state_dict(tensors, part)
        assert len(list(resumed.episodes())) == 6 - len(part)
        assert torch.equal(vector(resumed.optimizer), thetas[-1])
        assert resumed.log == log
        # What was saved is a picture of that moment, and resuming from it leaves it as it is.
        assert all(torch.equal(kept[name], tensor) for name, tensor in tensors.items())


@pytest.mark.parametrize("estimator", ["backprop", "es", "pes"])
def test_memory_does_not_grow_with_the_episodes(estimator):
    alive, problem = [], tasks(2, dtype=torch.float32)
    config = replace(CONFIG, horizons=(8,), estimator=estimator, validate_every=1)
    validate = Validation((problem,), clean, 3, 8, 4, eps=0.1, steps=2)
    running = trainer(config, sample=lambda count, rng: problem, validate=validate)
    for record in running.episodes():
        if record["episode"] >= 3:  # the best theta and a place to step back to are there by then
            gc.collect()
            alive.append(sum(type(thing) in (torch.Tensor, torch.nn.Parameter) for thing in gc.get_objects()))
    assert alive == [alive[0]] * 3


# Stepping back


def worse(bad, factor=math.nan):
    """A meta-objective that is multiplied by a factor in the calls of these numbers; CONFIG asks 2 to 4 an episode."""
    count = iter(range(10**6))

    def meta(predict, images, labels, rng):
        losses = clean(predict, images, labels, rng)
        return losses * factor if next(count) in bad else losses

    return meta


@pytest.mark.parametrize("factor", [math.nan, math.inf, 1e4])
def test_it_steps_back_to_where_the_last_good_episode_began(factor):
    """Episode 3 diverges: episode 2 had moved theta, and nobody knows whether that was sound; from its start it was."""
    thetas, log, saved = train(ONE, meta=worse({7}, factor))
    assert stepped_back(log) == [0, 0, 0, 1, 0, 0]
    assert torch.equal(thetas[4], thetas[2])
    assert not torch.equal(thetas[3], thetas[2])
    assert not torch.equal(thetas[5], thetas[4])
    straight = train(ONE, meta=clean)[0]
    assert all(torch.equal(a, b) for a, b in zip(thetas[:4], straight[:4], strict=True))
    moments = [{n: v for n, v in tensors.items() if n.startswith("adam.")} for tensors, _ in saved]
    assert all(torch.equal(moments[3][name], value) for name, value in moments[1].items())
    # Resumed between the good episode and the step back, it steps back as far.
    resumed = trainer(ONE, meta=worse({1}, factor))
    resumed.load_state_dict(*saved[2])
    resumed.step()
    assert torch.equal(vector(resumed.optimizer), thetas[4])


def test_the_rest_of_an_episode_that_diverged_is_left_out():
    _, log, _ = train(replace(CONFIG, horizons=(12,)), meta=worse({0, 4}))  # two calls a truncation
    assert [record["steps"] for record in log] == [1, 2, 3, 3, 3, 3]
    assert stepped_back(log) == [1, 1, 0, 0, 0, 0]


def test_the_threshold_is_where_a_meta_loss_has_diverged():
    highest = max(record["meta_loss"] for record in train(ONE, meta=clean)[1])
    for threshold, diverges in ((highest, True), (highest * 1.01, False)):
        log = train(replace(ONE, divergence_threshold=threshold), meta=clean)[1]
        assert any(stepped_back(log)) == diverges


@pytest.mark.parametrize("estimator", ["es", "pes"])
def test_evolution_strategies_step_back_where_every_candidate_diverged(estimator):
    config = replace(ONE, estimator=estimator)
    log = train(config, meta=worse(range(16, 24)))[1]  # 2 pairs: 8 calls an episode
    assert stepped_back(log) == [0, 0, 1, 0, 0, 0]
    log = train(config, meta=worse(range(16, 20)))[1]  # half of them: the threshold says where not to go
    assert sum(stepped_back(log)) == 0


def test_too_many_of_them_are_an_error():
    with pytest.raises(InputError, match=r"11 of 11 episodes diverged: lower the meta learning rate"):
        train(replace(ONE, episodes=40), meta=worse(range(10**6)))


def test_the_rate_warms_up_and_falls_to_a_tenth():
    config = MetaTrainConfig(episodes=100, lr=1.0, warmup=10)
    rates = [config.lr_at(episode) for episode in range(100)]
    assert rates[0] == pytest.approx(0.1)
    assert max(rates) == rates[9]
    assert rates[-1] == pytest.approx(0.1, abs=0.001)
    assert MetaTrainConfig(episodes=100, lr=1.0, warmup=0).lr_at(0) == 1.0


def test_streams_depend_on_every_number():
    seeds = [(0,), (1,), (0, 0), (0, 1), (1, 0), (0, 0, 0), (7, 3), (3, 7)]
    draws = {numbers: generator_of("cpu", *numbers).initial_seed() for numbers in seeds}
    assert len(set(draws.values())) == len(seeds)
    assert generator_of("cpu", 3, 7).initial_seed() == draws[3, 7]


# Held-out tasks


def test_a_validation_is_accuracy_after_the_inner_run():
    """Written out, one model at a time; an attack with a radius of 0 turns nothing."""
    adam, right = Adam(0.1), []
    for number, group in enumerate(validation().groups):
        assert group.param_spec.shapes[0] == (4, 9)  # of the held-out architecture
        state, stream = adam.init(group.params, group.param_spec, 3), generator_of("cpu", 0, number, *BATCHES)
        numbers = {"steps": 3, "batch_size": 8, "inner": clean, "generator": stream}
        params, _ = unroll(group, adam, group.params, state, **numbers)
        for one, rows in zip(params.detach(), group.held_out[:, :10], strict=True):
            right += (group.predictor(one)(group.images[rows]).argmax(1) == group.labels[rows]).tolist()
    assert len(right) == 2 * 2 * 10
    assert validation(eps=0.0)(adam) == pytest.approx((sum(right) / 40, sum(right) / 40))
    assert validation()(adam) == validation()(adam)
    assert validation(seed=1)(adam) != validation()(adam)


def test_a_larger_radius_leaves_less_and_the_clean_accuracy_as_it_is():
    small, medium, large = (validation(eps=eps, images=60, horizon=40)(Adam(0.1)) for eps in (0.0, 0.05, 0.3))
    assert small[0] == medium[0] == large[0] > 0.8
    assert small[1] > medium[1] > large[1]
    assert small[0] == small[1]


def scored(*scores):
    """A validation that gives these scores in turn, and notes theta each time."""
    left, seen = iter(scores), []

    def validate(optimizer):
        seen.append(vector(optimizer))
        score = next(left)
        return score + 0.1, score - 0.1

    return validate, seen


def test_it_validates_every_few_episodes_and_keeps_the_best_theta():
    validate, seen = scored(0.3, 0.6, 0.5, 0.6)
    thetas, log, _ = train(replace(CONFIG, episodes=7), validate=validate)
    assert [record["episode"] for record in log if "clean" in record] == [1, 3, 5, 6]  # the last one too
    assert (log[3]["clean"], log[3]["robust"]) == pytest.approx((0.7, 0.5))
    assert torch.equal(thetas[-1], seen[1])
    assert not torch.equal(seen[3], seen[1])


def test_validating_changes_nothing_else():
    validate, _ = scored(0.1, 0.2, 0.3)
    held_out, (thetas, log, _) = validation(), train(validate=validate)
    plain, records, _ = train()
    assert torch.equal(thetas[-1], plain[-1])
    assert [{k: v for k, v in record.items() if k not in ("clean", "robust")} for record in log] == records
    optimizer, starts = FeatureMLP(generator=generator()), [group.params.clone() for group in held_out.groups]
    before = vector(optimizer)
    held_out(optimizer)
    assert torch.equal(vector(optimizer), before)
    assert all(p.grad is None for p in optimizer.parameters())
    assert all(torch.equal(group.params, start) for group, start in zip(held_out.groups, starts, strict=True))


def test_the_bar_says_what_was_found(capsys):
    validate, _ = scored(0.3, 0.6, 0.5)
    optimizer = learned.make("features", generator())
    meta_train(optimizer, FAMILY.sample, CONFIG, inner=clean, meta=worse({0}), seed=0, validate=validate)
    shown = capsys.readouterr().err
    for words in ("meta-loss=", "held-out clean=60.0%", "held-out robust=40.0%", "stepped back=1"):
        assert words in shown
    line = "meta-training: episode 0 diverged (meta-loss nan, gradient nan): back to the last good state"
    assert shown.count(line) == 1


# What is refused

WRONG = {
    "horizons .* with truncation .*whole number of truncations": [
        {"horizons": (20, 25)}, {"horizons": ()}, {"horizons": (0,)}, {"truncation": 1}, {"truncation": -5},
    ],
    "lr of a meta-training is .*: give a number above 0": [{"lr": 0}, {"lr": -1}, {"lr": math.nan}],
    "pairs of a meta-training is 0: give a number above 0": [{"pairs": 0}],
    "mid_loss_weight .*: give a share from 0 to 1": [{"mid_loss_weight": v} for v in (-0.1, 1.1, math.nan)],
    "unknown estimator of the meta-gradient 'bakcprop'": [{"estimator": "bakcprop"}],
}  # fmt: skip


@pytest.mark.parametrize(("words", "changes"), [(words, each) for words, all_ in WRONG.items() for each in all_])
def test_numbers_out_of_their_range_are_refused(words, changes):
    with pytest.raises(InputError, match=words):
        MetaTrainConfig(**changes)


def test_a_validation_without_work_is_refused():
    for name in ("groups", "tasks", "horizon", "batch_size", "images", "steps"):
        with pytest.raises(InputError, match=rf"{name} of a validation is 0; give a whole number from 1"):
            validation(**{name: 0})
    with pytest.raises(InputError, match="eps is -1"):
        validation(eps=-1)
    with pytest.raises(InputError, match="no tasks"):
        replace(validation(), groups=())
