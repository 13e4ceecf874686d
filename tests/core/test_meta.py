"""Unroll and meta-training: the meta-gradient against finite differences and by hand, and tasks drawn from a family."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from toy import ADVERSARIAL, generator, scatter, tasks

from metarobust.data import Split
from metarobust.errors import InputError
from metarobust.family import Family, Training, vulnerable
from metarobust.learned.lstm import CoordinateLSTM
from metarobust.learned.mlp import FeatureMLP
from metarobust.meta import MetaTrainConfig, meta_train
from metarobust.models import Predictor
from metarobust.objectives import clean
from metarobust.optimizers import SGD
from metarobust.tasks import Tasks
from metarobust.unroll import gradient, map_tensors, unroll


def features():
    return scatter(FeatureMLP(hidden=4, generator=generator()).double())


def lstm():
    return scatter(CoordinateLSTM(hidden=3, generator=generator()).double(), size=0.1)


LEARNED = {"features": features, "LSTM": lstm}
every_learned = pytest.mark.parametrize("make", LEARNED.values(), ids=LEARNED)


def meta_loss(problem, optimizer, *, steps=5, second_order=True, meta=clean):
    """The held-out loss after some steps on the whole training batch."""
    how = {"steps": steps, "batch_size": 4, "inner": clean, "generator": generator(), "second_order": second_order}
    state = optimizer.init(problem.params, problem.param_spec, steps)
    params, _ = unroll(problem, optimizer, problem.params, state, **how)
    batch = problem.batch(problem.held_out, 4, generator())
    return meta(problem.predictor(params), *batch, generator()).mean()


def meta_gradient(problem, optimizer, theta, **how):
    found = torch.autograd.grad(meta_loss(problem, optimizer, **how), theta)
    return torch.cat([g.flatten() for g in found])


def differences(loss, theta, directions, h=1e-5):
    """The slope of the loss along each direction in theta, by central differences."""
    start, found = torch.nn.utils.parameters_to_vector(theta).detach().clone(), []
    for direction in directions:
        ends = []
        for sign in (1, -1):
            torch.nn.utils.vector_to_parameters(start + sign * h * direction, theta)
            ends.append(loss().item())
        found.append((ends[0] - ends[1]) / (2 * h))
    torch.nn.utils.vector_to_parameters(start, theta)
    return torch.tensor(found, dtype=torch.float64)


def test_sgd_by_hand():
    """d loss / d lr of one step is -g . (gradient at the end), for each task; of two steps with the Hessian."""
    problem, lr = tasks(count=1), torch.tensor([[0.5]], dtype=torch.float64, requires_grad=True)
    batch = {name: problem.batch(getattr(problem, name), 4, generator()) for name in ("train", "held_out")}

    def slope(params, name):
        return gradient(problem, params, *batch[name], clean, generator())

    def train_loss(params):
        return clean(problem.predictor(params[None]), *batch["train"], generator()).mean()

    first = problem.params
    g0 = slope(first, "train")
    second = first - 0.5 * g0
    end = slope(second, "held_out")
    found = meta_gradient(problem, SGD(lr), [lr], steps=1)
    torch.testing.assert_close(found, -(g0 * end).sum()[None])
    g1 = slope(second, "train")
    end = slope(second - 0.5 * g1, "held_out")
    curved = torch.autograd.functional.hessian(train_loss, second[0]) @ g0[0]
    torch.testing.assert_close(
        meta_gradient(problem, SGD(lr), [lr], steps=2), -((g0 + g1 - 0.5 * curved) * end).sum()[None]
    )
    torch.testing.assert_close(
        meta_gradient(problem, SGD(lr), [lr], steps=2, second_order=False), -((g0 + g1) * end).sum()[None]
    )


@every_learned
@pytest.mark.parametrize("architecture", ["mlp-3-tanh", "cnn-2-tanh"])
def test_the_meta_gradient_of_a_learned_optimizer_is_the_slope_of_the_loss(make, architecture):
    problem, optimizer = tasks(2, architecture), make()
    theta = list(optimizer.parameters())
    exact = meta_gradient(problem, optimizer, theta)
    directions = torch.randn(8, len(exact), generator=generator(), dtype=torch.float64) / len(exact) ** 0.5
    slopes = differences(lambda: meta_loss(problem, optimizer), theta, directions)
    error = (directions @ exact - slopes).norm() / slopes.norm()
    assert float(error) < 1e-6
    shortcut = meta_gradient(problem, optimizer, theta, second_order=False)
    assert float((shortcut - exact).norm() / exact.norm()) > 1e-3


@pytest.mark.parametrize("meta", [clean, ADVERSARIAL], ids=["clean", "adversarial"])
def test_a_batch_of_tasks_has_the_mean_of_their_meta_gradients(meta):
    problem, optimizer = tasks(3), features()
    theta = list(optimizer.parameters())
    together = meta_gradient(problem, optimizer, theta, meta=last_point(meta))
    rows = ("params", "train", "held_out")
    apart = [replace(problem, **{name: getattr(problem, name)[i : i + 1] for name in rows}) for i in range(3)]
    each = torch.stack([meta_gradient(one, optimizer, theta, meta=last_point(meta)) for one in apart])
    torch.testing.assert_close(together, each.mean(0), rtol=1e-8, atol=1e-12)
    assert not torch.allclose(each[0], each[1])


def last_point(meta):
    """An adversarial objective draws its start for the whole batch; here it starts at the images themselves."""
    if meta is clean:
        return meta
    return lambda predict, images, labels, rng: meta(predict, images, labels, None)


def test_the_gradient_of_each_task_is_its_own():
    problem = tasks(3)
    images, labels = problem.batch(problem.train, 4, generator())
    found = gradient(problem, problem.params, images, labels, clean, generator())
    for i, (x, y) in enumerate(zip(images.split(4), labels.split(4), strict=True)):
        leaf = problem.params[i].clone().requires_grad_()
        loss = torch.nn.functional.cross_entropy(Predictor(problem.model, problem.param_spec, leaf)(x), y)
        torch.testing.assert_close(found[i], torch.autograd.grad(loss, leaf)[0])
    assert not found.requires_grad
    assert not problem.params.requires_grad


def by_hand(optimizer, plan, problem, meta=clean):
    """Meta-training written out for tasks without chance: each episode's truncations, clipping and Adam."""
    theta = list(optimizer.parameters())
    adam = torch.optim.Adam(theta)
    for episode in range(plan.episodes):
        warm = min(1, (episode + 1) / plan.warmup)
        adam.param_groups[0]["lr"] = (
            plan.lr * warm * (0.1 + 0.9 * (1 + math.cos(math.pi * episode / plan.episodes)) / 2)
        )
        params, state = problem.params, optimizer.init(problem.params, problem.param_spec, plan.horizons[0])
        step = 0
        while step < plan.horizons[0]:
            score = 0
            for k in range(plan.truncation):
                grads = gradient(
                    problem, params, *problem.batch(problem.train, 4, None), clean, None, second_order=plan.second_order
                )
                move, state = optimizer.update(grads, state, params)
                params = params + move
                share = {
                    plan.truncation // 2 - 1: plan.mid_loss_weight,
                    plan.truncation - 1: 1 - plan.mid_loss_weight,
                }.get(k)
                if share is not None:
                    batch = problem.batch(problem.held_out, 4, None)
                    score = score + share * meta(problem.predictor(params), *batch, None).mean()
                step += 1
            adam.zero_grad()
            score.backward()
            length = torch.cat([p.grad.flatten() for p in theta]).norm()
            for p in theta:
                p.grad *= min(1, plan.clip / length)
            adam.step()
            params, state = params.detach(), map_tensors(torch.Tensor.detach, state)
    return torch.nn.utils.parameters_to_vector(theta).detach()


@every_learned
@pytest.mark.parametrize(
    "plan",
    [
        MetaTrainConfig(3, (4,), 2, lr=0.01, warmup=2, clip=1e-2),
        MetaTrainConfig(3, (6,), 3, lr=0.01, warmup=2, mid_loss_weight=0.5, second_order=True),
        MetaTrainConfig(3, (6,), 6, lr=0.01, warmup=1, mid_loss_weight=0.0),
    ],
    ids=["clipped", "second order", "truncation = horizon"],
)
def test_meta_training_is_what_its_equation_says(make, plan):
    problem, optimizer = tasks(), make()
    log = meta_train(optimizer, lambda count, rng: problem, plan, inner=clean, meta=clean, seed=0)
    found = torch.nn.utils.parameters_to_vector(optimizer.parameters()).detach()
    torch.testing.assert_close(found, by_hand(make(), plan, problem), rtol=1e-9, atol=1e-11)
    start = torch.nn.utils.parameters_to_vector(make().parameters()).detach()
    assert float((found - start).abs().max()) > 1e-3
    assert [row["episode"] for row in log] == [0, 1, 2]
    assert {row["steps"] for row in log} == {plan.horizons[0] // plan.truncation}


POOL = tasks(3, each=40, shape=(1, 3, 3), dtype=torch.float32)
FAMILY = Family(["mlp-3-tanh", "cnn-2-relu"], Split(POOL.images, POOL.labels), 3, 30)


def test_a_family_holds_out_what_it_does_not_train_on():
    pool, names = FAMILY.pool, set()
    for number in range(12):
        found = FAMILY.sample(3, generator(number))
        names.add(len(found.param_spec.names) and found.param_spec.shapes[0])
        assert found.train.shape == (3, 30)
        assert found.held_out.shape == (3, len(pool) - 30)
        for train_rows, held_out in zip(found.train.tolist(), found.held_out.tolist(), strict=True):
            assert sorted(train_rows + held_out) == list(range(len(pool)))
        assert not torch.equal(found.train[0], found.train[1])
        assert not torch.equal(found.params[0], found.params[1])
    assert len(names) == 2  # both architectures came up


def test_a_batch_is_drawn_from_its_own_task():
    problem = tasks(3, each=5, kind=Tasks)
    images, _ = problem.batch(problem.held_out, 50, generator())
    for row, found in zip(problem.held_out, images.split(50), strict=True):
        own = {tuple(image.flatten().tolist()) for image in problem.images[row]}
        assert {tuple(image.flatten().tolist()) for image in found} == own


def test_patching_starts_from_trained_models():
    labels = (FAMILY.pool.images[:, 0, 0, 0] > 0.5).long()
    pool = Split(FAMILY.pool.images, labels)
    starts = vulnerable(["mlp-3-tanh"], pool, 2, 4, Training(150, 32, 0.03), generator())
    family = Family(["mlp-3-tanh"], pool, 2, 30, starts)
    found = family.sample(3, generator())
    for params in found.params:
        assert any(torch.equal(params, start) for start in starts["mlp-3-tanh"])
        right = Predictor(found.model, found.param_spec, params)(pool.images).argmax(1) == labels
        assert float(right.float().mean()) > 0.9


@pytest.mark.parametrize("images", [0, -1, 240, 999])
def test_a_family_without_held_out_images_is_refused(images):
    with pytest.raises(InputError, match=rf"{images} of 240 images.*held out"):
        Family(["mlp-3-tanh"], FAMILY.pool, 3, images)
