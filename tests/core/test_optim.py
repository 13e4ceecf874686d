"""MetaOptimizer: the step that `unroll` takes, in a PyTorch loop, with all that such a loop may ask of an optimizer."""

from __future__ import annotations

import copy
import io
import pickle
import re

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from toy import generator, scatter, tasks

from metarobust import learned
from metarobust.errors import InputError
from metarobust.learned.protocol import State
from metarobust.learned.schedule import NOISE
from metarobust.models import build
from metarobust.objectives import clean
from metarobust.optim import MetaOptimizer
from metarobust.params import ParamSpec
from metarobust.tasks import Tasks
from metarobust.unroll import unroll

STEPS = 5


every_kind = pytest.mark.parametrize("kind", learned.KINDS)


def make(kind="features", seed=0):
    return scatter(learned.make(kind, generator(seed)), seed, 0.1)


def network(name="mlp-6-tanh", dtype=torch.float32, shape=(1, 4, 4)):
    torch.manual_seed(1)
    return build(name, shape, 3).to(dtype)


def batch(step=0, dtype=torch.float32, shape=(1, 4, 4)):
    rng = generator(100 + step)
    return torch.rand(8, *shape, generator=rng).to(dtype), torch.randint(3, (8,), generator=rng)


def train(model, optimizer, steps):
    """Ordinary training; steps: the numbers of the batches."""
    for step in steps:
        images, labels = batch(step, next(model.parameters()).dtype)
        optimizer.zero_grad()
        optimizer.loss(model, images, labels, generator(step)).backward()
        optimizer.step()


def values(model):
    return [p.detach().clone() for p in model.parameters()]


def same(found, expected):
    return all(torch.equal(a, b) for a, b in zip(found, expected, strict=True))


@every_kind
@pytest.mark.parametrize("name", ["mlp-6-5-relu", "cnn-3-4-tanh", "resnet-4-1-relu"])
def test_steps_are_those_of_unroll(name, kind):
    """With the same stream of chance, for batches and for the noise that some kinds ask for."""
    inner = tasks(1, name, each=20, shape=(1, 6, 6), kind=Tasks)
    theirs = make(kind).double()
    with torch.no_grad():
        state = theirs.init(inner.params, inner.param_spec, STEPS)
        how = {"steps": STEPS, "batch_size": 8, "inner": clean, "generator": generator(3)}
        expected, _ = unroll(inner, theirs, inner.params, state, **how)

    model, chance = copy.deepcopy(inner.model), generator(3)
    model.load_state_dict(inner.param_spec.split(inner.params[0]))
    optimizer = MetaOptimizer(model.parameters(), theirs, total_steps=STEPS)
    for _ in range(STEPS):
        images, labels = inner.batch(inner.train, 8, chance)
        optimizer.zero_grad()
        optimizer.loss(model, images, labels, chance).backward()
        optimizer.step()
    found = inner.param_spec.flatten(dict(model.named_parameters()))
    assert not torch.allclose(found, inner.params[0], atol=1e-2)
    torch.testing.assert_close(found, expected[0], rtol=1e-9, atol=1e-9)


@every_kind
def test_the_loss_is_what_the_tier_may_look_at(kind):
    """Cross-entropy for tier 0; at noised images for tier 1, with the noise of the step; penalised for tier 2."""
    model, (images, labels) = network(), batch()
    optimizer = MetaOptimizer(model.parameters(), make(kind), total_steps=3)
    seen = []
    look = lambda x: seen.append(x.detach()) or model(x)  # noqa: E731
    found = optimizer.loss(look, images, labels, generator())
    if (tier := learned.TIERS[kind]) == "0":
        assert torch.equal(seen[0], images)
        torch.testing.assert_close(found, F.cross_entropy(model(images), labels))
        return
    seen.clear()
    assert torch.equal(found, optimizer.loss(look, images, labels, generator()))
    assert not torch.equal(found, optimizer.loss(model, images, labels, generator(1)))
    train(model, optimizer, range(2))
    later = []
    optimizer.loss(lambda x: later.append(x.detach()) or model(x), images, labels, generator())
    assert len(later) == {"1": 1, "2": 2}[tier]
    # The same draws, another level.
    schedule = getattr(optimizer.rule, "steering", optimizer.rule)
    state = State(0, 3, ParamSpec.of(model), {}, {})
    level = schedule.values(state._replace(step=2))[NOISE] / schedule.values(state)[NOISE]
    torch.testing.assert_close(later[-int(tier)] - images, (seen[-int(tier)] - images) * level, rtol=1e-3, atol=1e-5)
    assert abs(float(level) - 1) > 0.01


@every_kind
@pytest.mark.parametrize("stale", [None, 0.0, 1.0])
def test_frozen_parameters_stay_and_count_as_zero_gradients(kind, stale):
    model = network("mlp-6-5-tanh")
    params = list(model.parameters())
    params[1].requires_grad_(False)  # the first bias, which the weight before it looks at
    optimizer = MetaOptimizer(params, make(kind), total_steps=4)
    param_spec = ParamSpec.of(model)
    names = dict(zip(param_spec.names, params, strict=True))
    flat = param_spec.flatten(names).detach().clone()
    theirs, state = make(kind), make(kind).init(flat, param_spec, 4)
    for step in range(4):
        optimizer.zero_grad()
        images, labels = batch(step)
        F.cross_entropy(model(images), labels).backward()
        if step == 2:
            params[2].grad = None  # for a step only
        grads = param_spec.flatten({n: torch.zeros_like(p) if p.grad is None else p.grad for n, p in names.items()})
        still = [p.grad is None for p in params]
        params[1].grad = None if stale is None else torch.full_like(params[1], stale)
        with torch.no_grad():
            move, state = theirs.update(grads, state, flat)
            moves = param_spec.split(move)
            flat = flat + param_spec.flatten({n: m * (not s) for (n, m), s in zip(moves.items(), still, strict=True)})
        optimizer.step()
        torch.testing.assert_close(param_spec.flatten(names), flat, rtol=1e-5, atol=1e-6)


def test_a_step_without_any_gradient_is_no_step():
    model = network()
    optimizer = MetaOptimizer(model.parameters(), make(), total_steps=1)
    before = values(model)
    optimizer.step()
    optimizer.step()
    assert same(values(model), before)
    train(model, optimizer, [0])
    assert not same(values(model), before)


@every_kind
def test_any_shape_and_layout_in_memory(kind):
    shapes = [(), (3,), (4, 3), (4,), (2, 3, 2), (2, 3, 2, 2), (2, 2, 1, 2, 2), (0,), (3, 0), (5, 4), (7,), (1, 1)]
    draws = [torch.randn(shape, generator=generator()) for shape in shapes]
    # The same numbers, in another order in memory.
    turned = [d.transpose(0, -1).contiguous().transpose(0, -1) if d.ndim > 1 else d for d in draws]
    found = []
    for each in (draws, turned):
        params = [nn.Parameter(d.clone(memory_format=torch.preserve_format)) for d in each]
        optimizer = MetaOptimizer(params, make(kind), total_steps=3)
        for _ in range(3):
            for p in params:
                p.grad = torch.cos(p.detach())
            optimizer.step()
        found.append([p.detach() for p in params])
    for start, a, b in zip(draws, *found, strict=True):
        assert bool(a.isfinite().all())
        assert not a.numel() or not torch.equal(a, start)
        torch.testing.assert_close(a, b)


def test_a_normalisation_after_an_embedding_is_not_its_bias():
    model = nn.Sequential(nn.Embedding(9, 4), nn.LayerNorm(4), nn.Flatten(), nn.Linear(8, 3))
    optimizer = MetaOptimizer(model.parameters(), make(), total_steps=1)
    model(torch.tensor([[1, 2], [3, 4]])).square().sum().backward()
    optimizer.step()
    assert all(bool(p.isfinite().all()) for p in model.parameters())


@every_kind
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_steps_are_computed_in_float32_and_rounded_once(dtype, kind):
    rng = generator()
    start = [torch.randn(shape, generator=rng).to(dtype) for shape in ((4, 3), (4,))]
    odd, single = ([nn.Parameter(s.to(t)) for s in start] for t in (dtype, torch.float32))
    ours, theirs = (MetaOptimizer(params, make(kind), total_steps=4) for params in (odd, single))
    for _ in range(4):
        for p, q in zip(odd, single, strict=True):
            p.grad = torch.randn(p.shape, generator=rng).to(dtype)
            q.grad = p.grad.float()
        ours.step()
        theirs.step()
        for p, q in zip(odd, single, strict=True):
            assert p.dtype == dtype
            assert ours.state[p].keys() == make(kind).accumulators.keys()
            assert all(held.dtype == torch.float32 for held in ours.state[p].values())
            torch.testing.assert_close(p, q.to(dtype), rtol=0 if dtype != torch.float64 else 1e-5, atol=1e-6)
            with torch.no_grad():  # go on from the same place
                q.copy_(p)


@every_kind
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_stored_state_goes_on_to_the_bit(dtype, kind):
    straight, stopped = network("cnn-3-4-relu", dtype), network("cnn-3-4-relu", dtype)
    train(straight, MetaOptimizer(straight.parameters(), make(kind), total_steps=8), range(8))
    first = MetaOptimizer(stopped.parameters(), make(kind), total_steps=8)
    train(stopped, first, range(3))
    stored = io.BytesIO()
    torch.save([stopped.state_dict(), first.state_dict()], stored)
    stored.seek(0)
    weights, state = torch.load(stored, weights_only=True)
    resumed = network("cnn-3-4-relu", dtype)
    resumed.load_state_dict(weights)
    second = MetaOptimizer(resumed.parameters(), make(kind), total_steps=99)
    second.load_state_dict(state)
    train(resumed, second, range(3, 8))
    assert same(values(resumed), values(straight))
    assert second.param_groups[0]["total_steps"] == 8
    with pytest.raises(InputError, match="all 8 steps"):
        train(resumed, second, [8])
    another = next(other for other in learned.KINDS if other != kind)
    for other in (make(kind, 1), make(another)):
        with pytest.raises(InputError, match="another learned optimizer"):
            MetaOptimizer(network().parameters(), other, total_steps=8).load_state_dict(state)


@every_kind
@pytest.mark.parametrize("again", [copy.deepcopy, lambda pair: pickle.loads(pickle.dumps(pair))])
def test_a_copy_goes_on_as_the_original(again, kind):
    model = network()
    optimizer = MetaOptimizer(model.parameters(), make(kind), total_steps=6)
    train(model, optimizer, range(3))
    other, theirs = again((model, optimizer))
    train(model, optimizer, range(3, 6))
    train(other, theirs, range(3, 6))
    assert same(values(other), values(model))
    assert "total_steps: 6" in repr(theirs)


@every_kind
def test_groups_are_networks_of_their_own(kind):
    apart, together = [[network(n) for n in ("mlp-6-tanh", "cnn-2-3-relu")] for _ in range(2)]
    both = MetaOptimizer(together[0].parameters(), make(kind), total_steps=5)
    both.add_param_group({"params": list(together[1].parameters()), "total_steps": 4})
    for step in range(4):
        both.zero_grad()
        images, labels = batch(step)
        sum(F.cross_entropy(m(images), labels) for m in together).backward()
        both.step()
    for model, total in zip(apart, (5, 4), strict=True):
        alone = MetaOptimizer(model.parameters(), make(kind), total_steps=total)
        for step in range(4):
            alone.zero_grad()
            images, labels = batch(step)
            F.cross_entropy(model(images), labels).backward()
            alone.step()
    for one, other in zip(apart, together, strict=True):
        assert same(values(one), values(other))


class Largest(TorchDispatchMode):
    """Remembers how many numbers the largest tensor has that an operation made."""

    most = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        sizes = [each.numel() for each in tree_leaves(out) if isinstance(each, torch.Tensor)]
        self.most = max([self.most, *sizes])
        return out


@pytest.mark.parametrize(("kind", "numbers"), [("features", 3), ("joint", 3), ("steering", 1), ("lstm", 20)])
def test_beside_what_is_remembered_a_step_takes_little_memory(kind, numbers, monkeypatch):
    """No tensor on the way is larger than the largest that is kept: a hidden layer of a whole matrix never is there."""
    monkeypatch.setattr(learned.KINDS[kind], "chunk", 4096)
    params = [nn.Parameter(torch.randn(400, 300)), nn.Parameter(torch.randn(400)), nn.Parameter(torch.randn(3, 400))]
    for p in params:
        p.grad = torch.ones_like(p)
    optimizer = MetaOptimizer(params, make(kind), total_steps=2)
    with Largest() as found:
        optimizer.step()
    assert found.most == numbers * params[0].numel()


def weight(dtype=torch.float32, device="cpu"):
    return nn.Parameter(torch.ones(2, 2, dtype=dtype, device=device))


def with_group(**settings):
    return MetaOptimizer([{"params": [weight()], **settings}], "patch-mnist", total_steps=1)


BAD = {
    "no steps": (lambda: MetaOptimizer([weight()], "patch-mnist", total_steps=0), "total_steps is 0"),
    "true": (lambda: MetaOptimizer([weight()], "patch-mnist", total_steps=True), "total_steps is True"),
    "half a step": (lambda: MetaOptimizer([weight()], "patch-mnist", total_steps=0.5), "whole number from 1"),
    "name": (lambda: MetaOptimizer([weight()], "patch-mnits", total_steps=1), "did you mean 'patch-mnist'"),
    "class": (lambda: MetaOptimizer([weight()], nn.Linear(1, 1), total_steps=1), "optimizer is Linear; give a learned"),
    "complex": (lambda: MetaOptimizer([weight(torch.complex64)], "patch-mnist", total_steps=1), "torch.complex64"),
    "setting": (lambda: with_group(lr=0, weight_decay=9, betas=1), "a group sets betas, weight_decay; the rule knows"),
    "lr": (lambda: with_group(lr=-1), "lr is -1; give a factor on the learned step"),
    "devices": (lambda: MetaOptimizer([weight(), weight(device="meta")], "patch-mnist", total_steps=1), "cpu and meta"),
}


@pytest.mark.parametrize(("make", "says"), BAD.values(), ids=BAD)
def test_bad_input_is_refused(make, says):
    with pytest.raises(InputError, match=re.escape(says)):
        make()


def test_a_refused_group_leaves_no_trace_and_a_refused_step_moves_nothing():
    model = network()
    optimizer = MetaOptimizer(model.parameters(), make(), total_steps=1)
    with pytest.raises(InputError, match="one device"):
        optimizer.add_param_group({"params": [weight(), weight(device="meta")]})
    assert len(optimizer.param_groups) == 1
    train(model, optimizer, [0])
    before = values(model)
    with pytest.raises(InputError, match=r"all 1 steps are taken.*total_steps"):
        train(model, optimizer, [1])
    assert same(values(model), before)
    sparse = nn.Embedding(4, 3, sparse=True)
    sparse(torch.tensor([1])).sum().backward()
    with pytest.raises(InputError, match="sparse=False"):
        MetaOptimizer(sparse.parameters(), make(), total_steps=1).step()
