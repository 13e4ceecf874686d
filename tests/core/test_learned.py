"""The learned optimizers: what they see, what they are before training, and that they treat coordinates alike."""

from __future__ import annotations

import math

import pytest
import torch
from toy import generator, path, scatter, steps_of

from metarobust import learned
from metarobust.learned import features as seen
from metarobust.learned.feature_lstm import FeatureLSTM
from metarobust.learned.features import NAMES, accumulate, features
from metarobust.learned.lstm import CoordinateLSTM, log_and_sign
from metarobust.learned.mlp import FeatureMLP
from metarobust.learned.schedule import LearnedSchedule
from metarobust.models import build
from metarobust.optimizers import Adam
from metarobust.params import ParamSpec

NETWORKS = {"mlp": build("mlp-4-relu", (1, 2, 3), 3), "cnn": build("cnn-2-3-relu", (2, 3, 3), 3)}
LEARNED = {kind: lambda kind=kind: scatter(learned.make(kind, generator()).double()) for kind in learned.KINDS}
every_network = pytest.mark.parametrize("network", NETWORKS.values(), ids=NETWORKS)
every_learned = pytest.mark.parametrize("make", LEARNED.values(), ids=LEARNED)


def slow_features(param_spec, params, grads, total):
    """What NAMES say, one coordinate at a time: a list of dictionaries in the order of the vector."""
    k, tiny = len(grads), 1e-14
    average = {}
    for beta in (0.5, 0.9, 0.99):
        kept = torch.zeros_like(params)
        for g in grads:
            kept = beta * kept + (1 - beta) * g
        average[beta] = param_spec.split(kept / (1 - beta**k))
    square = torch.zeros_like(params)
    for g in grads:
        square = 0.99 * square + 0.01 * g**2
    square = param_spec.split(square / (1 - 0.99**k))
    gradient, weight = param_spec.split(grads[-1]), param_spec.split(params)

    def matrix(tensor):
        """Rows are units; a vector is a matrix with a column."""
        return tensor.reshape(len(tensor), -1).tolist()

    def mean(values):
        values = list(values)
        return sum(values) / len(values)

    def second_moments(values, is_vector):
        """Averages of a matrix's squares over each row, each column and all; a vector's rows are its entries."""
        rows = [mean(v + tiny for v in row) for row in values]
        columns = [mean(v + tiny for v in column) for column in zip(*values, strict=True)]
        return rows, columns, mean(rows) if not is_vector else columns[0]

    found, last = [], max(param_spec.layers)
    for number, (name, shape) in enumerate(zip(param_spec.names, param_spec.shapes, strict=True)):
        layer, (fan_in, fan_out) = param_spec.layers[number], param_spec.fans[number]
        vector = len(shape) == 1
        g_row, g_column, g_all = second_moments(matrix(square[name]), vector)
        squares = [[w * w for w in row] for row in matrix(weight[name])]
        w_row, w_column, w_all = second_moments(squares, vector)
        bias = average[0.9][name if vector else param_spec.names[number + 1]].tolist()
        bias_size = math.sqrt(mean(b * b for b in bias) + tiny)
        for i, row in enumerate(matrix(weight[name])):
            for j, w in enumerate(row):
                v = matrix(square[name])[i][j] + tiny
                m = {beta: matrix(average[beta][name])[i][j] for beta in average}
                g = matrix(gradient[name])[i][j]
                factor = math.sqrt(g_all / (g_row[i] * g_column[j]))
                found.append({
                    "gradient": g / math.sqrt(v),
                    "momentum 0.5": m[0.5] / math.sqrt(v),
                    "momentum 0.9": m[0.9] / math.sqrt(v),
                    "momentum 0.99": m[0.99] / math.sqrt(v),
                    "factored gradient": g * factor,
                    "factored momentum": m[0.9] * factor,
                    "log gradient^2 of the row": math.log(g_row[i] / g_all) / 2,
                    "log gradient^2 of the column": math.log(g_column[j] / g_all) / 2,
                    "log gradient^2": math.log(v / g_all) / 4,
                    "weight over tensor": w / math.sqrt(w_all),
                    "weight times root fan-in": math.asinh(w * math.sqrt(fan_in)),
                    "log |weight|": math.log((w * w + tiny) / w_all) / 4,
                    "log weight^2 of the row": math.log(w_row[i] / w_all) / 2,
                    "log weight^2 of the column": math.log(w_column[j] / w_all) / 2,
                    "gradient of the unit's bias": bias[i] / bias_size,
                    "log gradient of the tensor": math.log(g_all) / 8 + 1,
                    "log weight of the tensor": math.log(w_all * fan_in) / 2,
                    "log fan-in": math.log(fan_in) / 4 - 1,
                    "log fan-out": math.log(fan_out) / 4 - 1,
                    "depth": layer / last,
                    "first layer": float(layer == 0),
                    "last layer": float(layer == last),
                    "bias": float(vector),
                    "convolution": float(len(shape) == 4),
                    "progress": k / total,
                    "log total steps": math.log(total) / 4 - 1,
                    "log step": math.log(k) / 4 - 1,
                })  # fmt: skip
    return found


def accumulated(params, grads):
    """The running averages after these gradients."""
    slots = {name: params.new_zeros(*axes, *params.shape) for name, axes in seen.ACCUMULATORS.items()}
    for g in grads:
        accumulate(g, slots)
    return slots


def fast_features(param_spec, params, grads, total):
    return features(grads[-1], accumulated(params, grads), params, param_spec, len(grads), total)


@every_network
@pytest.mark.parametrize("steps", [1, 4])
def test_features_are_what_their_names_say(network, steps):
    param_spec = ParamSpec.of(network)
    params, grads = path(param_spec, steps)
    params[1] = grads[-1][2] = 0
    expected = slow_features(param_spec, params, grads, 10)
    assert set(expected[0]) == set(NAMES)
    table = torch.tensor([[row[name] for name in NAMES] for row in expected], dtype=torch.float64).clamp(-5, 5)
    found = fast_features(param_spec, params, grads, 10)
    for column, name in enumerate(NAMES):
        torch.testing.assert_close(found[:, column], table[:, column], rtol=1e-9, atol=1e-9, msg=name)


SIZES = {"zero": 0.0, "one": 1.0, "huge": 1e30, "infinite": math.inf}


@every_network
@pytest.mark.parametrize("weight", SIZES.values(), ids=SIZES)
@pytest.mark.parametrize("gradient", SIZES.values(), ids=SIZES)
def test_features_and_steps_stay_finite(network, gradient, weight):
    param_spec = ParamSpec.of(network)
    params, grads = path(param_spec, 3, (2,), torch.float32)
    params = params.clone() if weight == 1 else params.sign() * weight if weight else torch.zeros_like(params)
    grads = [g if gradient == 1 else g.sign() * gradient if gradient else torch.zeros_like(g) for g in grads]
    grads[1] = torch.zeros_like(grads[1])
    found = fast_features(param_spec, params, grads, 10)
    assert bool(found.isfinite().all())
    assert float(found.abs().max()) <= 5
    if weight == math.inf:
        return
    for kind in learned.KINDS:
        optimizer = scatter(learned.make(kind, generator()))
        state = optimizer.init(params, param_spec, 10)
        with torch.no_grad():
            for g in grads:
                step, state = optimizer.update(g, state, params)
                assert bool(step.isfinite().all()), kind


@every_network
@pytest.mark.parametrize("kind", [FeatureMLP, FeatureLSTM])
def test_untrained_it_is_adam_with_a_step_in_proportion_to_the_tensor(network, kind):
    param_spec = ParamSpec.of(network)
    params, grads = path(param_spec, 6)
    grads[0][3:] = grads[0][3:] * 0 + 1e-3
    tensors = param_spec.split(params)
    tensors[param_spec.names[1]].mul_(1e-4)  # a bias near 0 goes by the floor
    params = param_spec.flatten(tensors)
    found = steps_of(kind(lr=0.05).double(), param_spec, params, grads)
    # Adam's direction does not depend on the parameters; the scale is that of the tensor as it is now.
    directions = steps_of(Adam(1.0, beta2=0.99, eps=0.0), param_spec, params, grads)
    now = params
    for step, direction in zip(found, directions, strict=True):
        sizes = [t.square().mean().sqrt() for t in param_spec.split(now).values()]
        scale = [max(float(s), 0.1 * fan_in**-0.5) for s, (fan_in, _) in zip(sizes, param_spec.fans, strict=True)]
        expected = 0.05 * param_spec.broadcast(torch.tensor(scale, dtype=torch.float64)) * direction
        torch.testing.assert_close(step, expected, rtol=1e-6, atol=1e-9)
        now = now + step


@every_learned
@every_network
def test_a_batch_of_tasks_is_a_loop(make, network):
    param_spec = ParamSpec.of(network)
    params, grads = path(param_spec, lead=(3,))
    optimizer = make()
    together = steps_of(optimizer, param_spec, params, grads)
    assert together.shape == (4, 3, param_spec.size)
    for row in range(3):
        alone = steps_of(optimizer, param_spec, params[row], [g[row] for g in grads])
        torch.testing.assert_close(together[:, row], alone, rtol=1e-9, atol=1e-12)


@every_learned
def test_hidden_units_have_no_order(make):
    """With the units of a network in another order, the updates are the same in that order."""
    param_spec = ParamSpec.of(build("mlp-5-4-relu", (1, 2, 3), 3))
    index = param_spec.split(torch.arange(param_spec.size))
    names, units = list(param_spec.names), torch.tensor([3, 0, 4, 1, 2])
    for name in names[:2]:
        index[name] = index[name][units]
    index[names[2]] = index[names[2]][:, units]
    order = param_spec.flatten(index)
    params, grads = path(param_spec)
    optimizer = make()
    plain = steps_of(optimizer, param_spec, params, grads)
    moved = steps_of(optimizer, param_spec, params[order], [g[order] for g in grads])
    torch.testing.assert_close(moved, plain[:, order], rtol=1e-9, atol=1e-12)
    assert not torch.allclose(moved, plain)


@every_learned
@every_network
def test_some_rows_at_a_time_are_all_rows(make, network, monkeypatch):
    param_spec = ParamSpec.of(network)
    params, grads = path(param_spec, lead=(2,))
    optimizer = make()
    state, expected, at = optimizer.init(params, param_spec, 10), [], params
    for g in grads:  # to be differentiated, whole matrices
        step, state = optimizer.update(g, state, at)
        at = at + step
        expected.append(step.detach())
    calls = []
    whole = optimizer.compute_update
    monkeypatch.setattr(optimizer, "compute_update", lambda *args: calls.append(0) or whole(*args))
    monkeypatch.setattr(optimizer, "chunk", 5)
    torch.testing.assert_close(
        steps_of(optimizer, param_spec, params, grads), torch.stack(expected), rtol=1e-9, atol=1e-12
    )
    assert isinstance(optimizer, CoordinateLSTM | LearnedSchedule) or len(calls) > len(grads) * len(param_spec.shapes)


@pytest.mark.parametrize(
    ("gradient", "magnitude", "direction"),
    [
        (1.0, 0.0, 1.0),
        (-1.0, 0.0, -1.0),
        (1e3, math.log(1e3) / 10, 1.0),
        (math.exp(-5), -0.5, 1.0),
        (-math.exp(-9.999), -0.9999, -1.0),
        (math.exp(-12), -1.0, math.exp(-2)),
        (-math.exp(-12), -1.0, -math.exp(-2)),
        (0.0, -1.0, 0.0),
    ],
)
def test_the_lstm_reads_the_logarithm_and_the_sign(gradient, magnitude, direction):
    found = log_and_sign(torch.tensor([gradient], dtype=torch.float64))
    torch.testing.assert_close(found, torch.tensor([[magnitude], [direction]], dtype=torch.float64), rtol=1e-12, atol=0)


def test_the_lstm_is_two_cells_and_a_read_out():
    optimizer = CoordinateLSTM(hidden=3, generator=generator()).double()
    param_spec = ParamSpec.of(NETWORKS["mlp"])
    params, grads = path(param_spec, 3)

    def cell(of, x, output, memory):
        gates = of.weight_ih @ x + of.bias_ih + of.weight_hh @ output + of.bias_hh
        enter, forget, new, leave = gates.split(3)
        memory = forget.sigmoid() * memory + enter.sigmoid() * new.tanh()
        return leave.sigmoid() * memory.tanh(), memory

    found = steps_of(optimizer, param_spec, params, grads)
    for at in (0, 7, param_spec.size - 1):
        lower = upper = (torch.zeros(3, dtype=torch.float64),) * 2
        for k, g in enumerate(grads):
            lower = cell(optimizer.lower, log_and_sign(g[at]), *lower)
            upper = cell(optimizer.upper, lower[0], *upper)
            torch.testing.assert_close(found[k, at], 0.1 * (optimizer.head.weight @ upper[0])[0].detach())
    assert bool((optimizer.lower.bias_ih[3:6] == 1).all())  # the forget gate is open at first


def test_the_feature_lstm_is_a_cell_of_the_features_and_a_read_out():
    optimizer = scatter(FeatureLSTM(hidden=3, generator=generator()).double())
    param_spec = ParamSpec.of(NETWORKS["cnn"])
    params, grads = path(param_spec, 3)
    found = steps_of(optimizer, param_spec, params, grads)
    state = (torch.zeros(param_spec.size, 3, dtype=torch.float64),) * 2
    for k in range(3):
        table = fast_features(param_spec, params, grads[: k + 1], 10)
        state = optimizer.cell(table, state)
        turn, pace, give = optimizer.head(state[0]).unbind(-1)
        root_fan_in = param_spec.broadcast(torch.tensor([fan_in for fan_in, _ in param_spec.fans])).double().sqrt()
        spread = table[:, NAMES.index("log weight of the tensor")].exp().clamp_min(0.1) / root_fan_in
        direction = table[:, NAMES.index("momentum 0.9")] + turn
        expected = -(optimizer.log_lr + pace).exp() * spread * direction - optimizer.cap * give.tanh() * params
        torch.testing.assert_close(found[k], expected.detach(), rtol=1e-9, atol=1e-12)
        params = params + found[k]
