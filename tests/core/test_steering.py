"""The steering optimizer, lever by lever against a calculation by hand, and the joint one on top of it."""

from __future__ import annotations

import math

import pytest
import torch
from toy import generator, path, scatter, steps_of

from metarobust.learned.features import NAMES, accumulate, features
from metarobust.learned.joint import Joint
from metarobust.learned.schedule import BOUNDS, HYPERPARAMETERS, NOISE, START, LearnedSchedule
from metarobust.models import build
from metarobust.params import ParamSpec

NETWORKS = {
    "mlp": build("mlp-4-3-2-relu", (1, 2, 3), 3),
    "one layer": torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(6, 3)),
    "two layers": build("mlp-4-tanh", (1, 2, 3), 3),
    "cnn": build("cnn-2-3-relu", (2, 3, 3), 3),
}
POSITIONS = {
    "mlp": ["first", "first", "middle", "middle", "middle", "middle", "last", "last"],
    "one layer": ["last", "last"],
    "two layers": ["first", "first", "last", "last"],
    "cnn": ["first", "first", "middle", "middle", "last", "last"],
}
every_network = pytest.mark.parametrize("name", NETWORKS)


def steering(size=0.1, seed=0):
    return scatter(LearnedSchedule().double(), seed, size)


def by_hand(optimizer, kind, step, total):
    """Every lever by name after `step` of `total` steps: a line on a logarithmic scale, within its bounds."""
    found = {}
    for name, (start, end), (low, high) in zip(HYPERPARAMETERS, optimizer.levers[kind].tolist(), BOUNDS, strict=True):
        value = math.exp(4 * (start + (end - start) * step / total))
        found[name] = min(max(value, low), high)
    return found


def seen(optimizer, images, state, rng):
    """The images at which it wants the gradient of an objective."""
    return optimizer.objective(lambda predict, images, labels, generator: images, state, 0.1)(None, images, None, rng)


@every_network
def test_steps_by_hand(name):
    param_spec, optimizer, total = ParamSpec.of(NETWORKS[name]), steering(), 7
    params, grads = path(param_spec, 5, (2,))
    found = steps_of(optimizer, param_spec, params, grads, total)
    mean = square = torch.zeros_like(params)
    kept = 1.0
    for k, g in enumerate(grads):
        levers = by_hand(optimizer, int(name == "cnn"), k, total)
        beta1 = 1 - levers["forget"]
        mean, square, kept = beta1 * mean + (1 - beta1) * g, 0.99 * square + 0.01 * g**2, beta1 * kept
        direction = param_spec.split((mean / (1 - kept)) / (square / (1 - 0.99 ** (k + 1))).sqrt())
        weights, steps = param_spec.split(params), param_spec.split(found[k])
        for tensor, where in zip(param_spec.names, POSITIONS[name], strict=True):
            decay = levers[f"decay {where}"] if tensor.endswith("weight") else 0.0
            expected = -levers[f"rate {where}"] * direction[tensor] - decay * weights[tensor]
            torch.testing.assert_close(steps[tensor], expected, rtol=1e-7, atol=1e-10, msg=f"{tensor} at step {k}")
        params = params + found[k]


def test_untrained_it_is_adam_with_constant_levers():
    param_spec, optimizer = ParamSpec.of(NETWORKS["mlp"]), LearnedSchedule()
    for kind in (0, 1):
        for progress in (0.0, 0.4, 1.0):
            torch.testing.assert_close(optimizer.at(progress, kind), torch.tensor(START))
    params, grads = path(param_spec, 1)
    (step,) = steps_of(optimizer.double(), param_spec, torch.zeros_like(params), grads, 3)
    torch.testing.assert_close(step, -0.01 * grads[0].sign(), rtol=1e-5, atol=1e-9)


def test_levers_stay_within_their_bounds():
    optimizer = LearnedSchedule()
    for sign, side in ((-1, 0), (1, 1)):
        with torch.no_grad():
            optimizer.levers.fill_(sign * 50.0)
        found = optimizer.at(0.5, 0)
        torch.testing.assert_close(found, torch.tensor([bound[side] for bound in BOUNDS]))


@pytest.mark.parametrize("make", [steering, lambda: scatter(Joint().double(), 0, 0.1)], ids=["steering", "joint"])
@every_network
def test_inputs_have_the_noise_of_the_step(make, name):
    param_spec, optimizer, total = ParamSpec.of(NETWORKS[name]), make(), 4
    levers = optimizer if isinstance(optimizer, LearnedSchedule) else optimizer.steering
    with torch.no_grad():
        levers.levers[:, NOISE] += torch.tensor([0.0, 0.3])
    params, grads = path(param_spec, 3)
    state, images = optimizer.init(params, param_spec, total), torch.rand(40, 1, 30, 30, dtype=torch.float64)
    for k, g in enumerate(grads):
        noise = seen(optimizer, images, state, generator(k)) - images
        again = seen(optimizer, images, state, generator(k)) - images
        sigma = by_hand(levers, int(name == "cnn"), k, total)["noise"]
        assert torch.equal(noise, again)
        assert abs(float(noise.detach().std()) / sigma - 1) < 0.02  # 36000 draws: four standard errors are 0.015
        assert abs(float(noise.detach().mean())) < 0.03 * sigma
        state = optimizer.update(g, state, params)[1]
    assert images.min() >= 0  # the given ones are as they were


@every_network
def test_an_untrained_joint_optimizer_is_the_steering_optimizer(name):
    param_spec, levers = ParamSpec.of(NETWORKS[name]), steering()
    joint = Joint(generator=generator()).double()
    joint.begin_from(levers)
    params, grads = path(param_spec, 5, (2,))
    assert torch.equal(steps_of(joint, param_spec, params, grads, 6), steps_of(levers, param_spec, params, grads, 6))


@every_network
def test_the_joint_optimizer_corrects_every_coordinate(name):
    param_spec, total = ParamSpec.of(NETWORKS[name]), 6
    joint = scatter(Joint(generator=generator()).double(), 0, 0.1)
    params, grads = path(param_spec, 1)
    (step,) = steps_of(joint, param_spec, params, grads, total)
    levers = by_hand(joint.steering, int(name == "cnn"), 0, total)
    zero = torch.zeros_like(params)
    slots = {"means": zero.repeat(3, 1), "square": zero}
    accumulate(grads[0], slots)
    table = features(grads[0], slots, params, param_spec, 1, total)
    assert table.shape == (param_spec.size, len(NAMES))
    turn, pace, give = joint.net(table).detach().unbind(-1)
    rate, decay = (
        param_spec.broadcast(
            torch.tensor([levers[f"{lever} {where}"] for where in POSITIONS[name]], dtype=torch.float64)
        )
        for lever in ("rate", "decay")
    )
    decay = decay * param_spec.broadcast(torch.tensor([float(n.endswith("weight")) for n in param_spec.names]))
    expected = -rate * pace.exp() * (grads[0].sign() + turn) - (decay + 0.3 * give.tanh()) * params
    torch.testing.assert_close(step, expected, rtol=1e-7, atol=1e-9)


def test_what_the_meta_gradient_reaches():
    """Every lever of the network's kind, and of a joint optimizer the net; the noise by way of `objective`."""
    param_spec, optimizer = ParamSpec.of(NETWORKS["mlp"]), scatter(Joint(generator=generator()).double(), 0, 0.1)
    params, grads = path(param_spec, 3)
    state, loss = optimizer.init(params, param_spec, 4), 0.0
    for g in grads:
        images = seen(optimizer, torch.zeros(1, 1, 2, 3, dtype=torch.float64), state, generator())
        step, state = optimizer.update(g + images.sum(), state, params)
        params = params + step
        loss = loss + (params**2).sum()
    names, theta = zip(*optimizer.named_parameters(), strict=True)
    for name, grad in zip(names, torch.autograd.grad(loss, theta), strict=True):
        here = grad[0] if name.endswith("levers") else grad.flatten()[None]
        assert bool((here != 0).any(-1).all()), name
        assert bool(grad.isfinite().all())
