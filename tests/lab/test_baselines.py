"""The plain rules, each by hand: masks, pruning, noise, the penalty on the input's gradient, and complete grids."""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import product

import pytest
import torch
from torch.nn import functional as F
from toy import generator, tasks

from metarobust.attacks import counting
from metarobust.lab.baselines import (
    as_hyper,
    fit_baseline,
    layer_mask,
    methods,
    repeat,
    robust_methods,
    settings,
    std_prune,
)
from metarobust.models import build
from metarobust.objectives import Adversarial, clean
from metarobust.optimizers import SGD, Adam, ProximalL1
from metarobust.params import ParamSpec
from metarobust.penalties import Curvature, InputGradient, Noise, Trades
from metarobust.tasks import Tasks
from metarobust.training import Inner, fit

HOW = Inner(4, 8)


def column(*values):
    return torch.tensor(values)[:, None]


@pytest.mark.parametrize(
    ("name", "layer"),
    [*product(("mlp-4-5-relu", "cnn-2-3-relu"), (0, 1, -1, -3)), ("resnet-4-relu", 0), ("resnet-4-relu", -1)],
)
def test_a_mask_is_1_at_the_weights_of_one_layer(name, layer):
    param_spec = ParamSpec.of(build(name, (1, 4, 4), 3))
    mask = layer_mask(param_spec, layer, torch.zeros(1, dtype=torch.float64))
    assert (mask.shape, mask.dtype) == ((param_spec.size,), torch.float64)
    weights = [tensor for tensor, shape in zip(param_spec.names, param_spec.shapes, strict=True) if len(shape) >= 2]
    for tensor, values in param_spec.split(mask).items():
        assert values.unique().tolist() == [float(tensor == weights[layer])], tensor


def test_pruning_by_hand_on_three_pixels():
    """Pixel 0 never varies, pixel 1 a little, pixel 2 much; each task looks at its own images."""
    model = build("mlp-2-relu", (1, 1, 3), 2)
    param_spec = ParamSpec.of(model)
    images = torch.tensor([[0.5, 0.5, 0.0], [0.5, 0.7, 1.0], [0.5, 0.0, 0.3], [0.5, 1.0, 0.4]]).view(4, 1, 1, 3)
    rows = torch.tensor([[0, 1], [2, 3]])
    params = torch.arange(1.0, 2 * param_spec.size + 1).view(2, -1)
    problem = Tasks(model, param_spec, params, images, torch.zeros(4, dtype=torch.int64), rows, rows)
    spread = images[rows].flatten(2).std(1)
    # Over two images a and b it is |a - b| / sqrt(2).
    torch.testing.assert_close(spread, torch.tensor([[0, 0.2, 1], [0, 1, 0.1]]) / math.sqrt(2))
    found = std_prune(problem, {"threshold": column(0.2, 0.05), "keep": column(0.5, 1.0)})
    before, after = param_spec.split(params), param_spec.split(found.params)
    first, *others = param_spec.names
    assert (after[first][0] == before[first][0] * torch.tensor([0, 0, 0.5])).all()
    assert (after[first][1] == before[first][1] * torch.tensor([0, 1.0, 1.0])).all()
    assert all(torch.equal(before[name], after[name]) for name in others)
    assert torch.equal(problem.params, params)


def test_pruning_only_shrinks_a_convolution():
    problem = tasks(2, "cnn-2-relu", dtype=torch.float32)
    found = std_prune(problem, {"threshold": column(0.9, 0.9), "keep": column(0.5, 1.0)})
    before, after = (problem.param_spec.split(params) for params in (problem.params, found.params))
    first = problem.param_spec.names[0]
    torch.testing.assert_close(after[first], before[first] * torch.tensor([0.5, 1]).view(2, 1, 1, 1, 1))


def test_noise_is_normal_with_the_sigma_of_each_task():
    seen = []

    def predict(x):
        seen.append(x)
        return torch.zeros(len(x), 3)

    images, labels = torch.full((400, 1, 8, 8), 0.5), torch.zeros(400, dtype=torch.int64)
    losses = Noise(column(0.1, 0.8))(predict, images, labels, generator())
    assert losses.shape == (400,)
    assert float(losses[0]) == pytest.approx(math.log(3))
    for part, sigma in zip((seen[0] - images).split(200), (0.1, 0.8), strict=True):
        assert float(part.mean()) == pytest.approx(0, abs=4 * sigma / math.sqrt(part.numel()))
        assert float(part.std()) == pytest.approx(sigma, rel=0.03)
        assert float((part.abs() < sigma).float().mean()) == pytest.approx(0.683, abs=0.02)
    assert bool((images == 0.5).all())


@pytest.mark.parametrize("second", [False, True])
def test_the_input_gradient_penalty_by_hand(second):
    problem = tasks(2)
    images, labels = problem.batch(problem.train, 4, generator())
    weight = torch.tensor([[0.3], [2.0]], dtype=torch.float64)

    def by_hand(params):
        losses = []
        for t, (xs, ys) in enumerate(zip(images.split(4), labels.split(4), strict=True)):
            tensors = problem.param_spec.split(params[t])
            (w1, b1), (w2, b2) = [list(tensors.values())[i : i + 2] for i in (0, 2)]
            for x, y in zip(xs, ys, strict=True):
                hidden = torch.tanh(w1 @ x.flatten() + b1)
                logits = w2 @ hidden + b2
                # d loss / d x = W1^T diag(1 - h^2) W2^T (softmax(z) - onehot(y))
                error = logits.softmax(0) - F.one_hot(y, 3)
                slope = w1.T @ ((1 - hidden**2) * (w2.T @ error))
                losses.append(logits.logsumexp(0) - logits[y] + weight[t, 0] * slope.abs().sum())
        return torch.stack(losses)

    leaf = problem.params.clone().requires_grad_()
    found, expected = InputGradient(weight)(problem.predictor(leaf), images, labels, generator()), by_hand(leaf)
    torch.testing.assert_close(found, expected)
    if second:  # the step has to go down the penalty too
        torch.testing.assert_close(
            torch.autograd.grad(found.sum(), leaf)[0], torch.autograd.grad(expected.sum(), leaf)[0]
        )
    assert not images.requires_grad


def test_the_curvature_penalty_is_the_change_of_the_slope_along_its_sign():
    """On a loss that is known: predict is linear in x^2, so that the slope changes."""
    problem = tasks(2)
    images, labels = problem.batch(problem.train, 4, generator())
    weight, far = (torch.tensor(values, dtype=torch.float64)[:, None] for values in ([0.5, 2.0], [0.1, 0.3]))
    predict = problem.predictor(problem.params)

    def slope(x):
        leaf = x.clone().requires_grad_()
        return torch.autograd.grad(F.cross_entropy(predict(leaf), labels, reduction="sum"), leaf)[0]

    here = slope(images)
    there = slope(images + far.repeat_interleave(4, 0).view(-1, 1, 1, 1) * here.sign())
    bent = (there - here).flatten(1).square().sum(1)
    expected = F.cross_entropy(predict(images), labels, reduction="none") + weight.repeat_interleave(4) * bent
    found = Curvature(weight, far)(predict, images, labels, generator())
    torch.testing.assert_close(found, expected)
    assert float(bent.min()) > 0
    assert not images.requires_grad


def test_the_curvature_penalty_is_gone_down():
    problem = tasks(1)
    images, labels = problem.batch(problem.train, 8, generator())
    objective = Curvature(*(torch.tensor([[value]], dtype=torch.float64) for value in (10.0, 0.3)))
    leaf = problem.params.clone().requires_grad_()
    before = objective(problem.predictor(leaf), images, labels, generator()).mean()
    (grads,) = torch.autograd.grad(before, leaf)
    after = objective(problem.predictor(problem.params - 1e-4 * grads), images, labels, generator()).mean()
    torch.testing.assert_close(before - after, 1e-4 * grads.square().sum(), rtol=0.05, atol=0)


def test_trades_is_cross_entropy_and_what_the_worst_neighbour_says_otherwise():
    problem = tasks(2)
    images, labels = problem.batch(problem.train, 4, generator())
    predict = problem.predictor(problem.params)
    beta = torch.tensor([[0.0], [3.0]], dtype=torch.float64)
    with counting() as tally:
        losses = Trades(beta, 0.2)(predict, images, labels, generator())
    assert tally.examples == 8
    plain = F.cross_entropy(predict(images), labels, reduction="none")
    torch.testing.assert_close(losses[:4], plain[:4])  # beta is 0
    apart = (losses - plain)[4:] / 3
    said = predict(images).softmax(1)
    rng, random = generator(), []
    for _ in range(100):
        near = (images + 0.2 * (2 * torch.rand(images.shape, generator=rng, dtype=images.dtype) - 1)).clamp(0, 1)
        random.append((said * (said.log() - predict(near).log_softmax(1))).sum(1)[4:])
    assert bool((apart > torch.stack(random).amax(0)).all())  # the search finds more than chance
    assert not images.requires_grad


def test_trades_trains_both_terms():
    problem = tasks(1)
    images, labels = problem.batch(problem.train, 8, generator())
    leaf = problem.params.clone().requires_grad_()

    def slope(beta):
        losses = Trades(torch.tensor([[beta]], dtype=torch.float64), 0.2)(
            problem.predictor(leaf), images, labels, generator()
        )
        return torch.autograd.grad(losses.mean(), leaf)[0]

    (plain,) = torch.autograd.grad(F.cross_entropy(problem.predictor(leaf)(images), labels), leaf)
    torch.testing.assert_close(slope(0.0), plain)
    assert not torch.allclose(slope(3.0), plain, rtol=0.01)
    torch.testing.assert_close(slope(6.0) - plain, 2 * (slope(3.0) - plain))


def test_adversarial_training_by_every_optimizer():
    found = robust_methods(0.1)
    assert [method.name for method in found] == [
        f"{attack} training, {name}" for attack in ("FGSM", "PGD-7") for name in ("SGD", "momentum", "RMSprop", "Adam")
    ]
    assert {method.tier for method in found} == {"adversarial"}
    problem, ends = tasks(2, dtype=torch.float32, kind=Tasks), []
    for method in found:
        hyper = as_hyper([next(settings(method))], 2, problem.params)
        params, made = fit_baseline(problem, method, hyper, HOW, generator())
        assert made == 2 * 4 * 8
        ends.append(params)
    assert len({float(params.sum()) for params in ends}) == len(ends)
    assert [len(method.grid["lr"]) for method in robust_methods(0.1, wide=False)] == [4] * 8


GRIDS = {
    "sgd": {"lr"},
    "adam": {"lr"},
    "adam + weight decay": {"lr", "decay"},
    "adam + first-layer decay": {"lr", "first_decay"},
    "adam + last-layer decay": {"lr", "last_decay"},
    "adam + L1 on layer 1": {"lr", "l1"},
    "std-prune": {"lr", "threshold", "keep"},
    "noise": {"lr", "sigma"},
    "falling noise + last-layer decay": {"lr", "sigma", "last_decay"},
    "input-gradient penalty": {"lr", "weight"},
    "curvature penalty": {"lr", "weight", "far"},
    "FGSM training": {"lr"},
    "PGD-7 training": {"lr"},
    "PGD-7 training + L1 on layer 1": {"lr", "l1"},
    "TRADES": {"lr", "beta"},
}
TIERS = {
    "noise": "1", "falling noise + last-layer decay": "1", "input-gradient penalty": "2", "curvature penalty": "2",
    "TRADES": "adversarial",
}  # fmt: skip


@pytest.mark.parametrize("patching", [False, True])
def test_every_plain_rule_is_there_with_its_grid(patching):
    found = {method.name: method for method in methods(0.1, patching=patching)}
    expected = GRIDS if patching else {name: grid for name, grid in GRIDS.items() if name != "std-prune"}
    assert {name: set(method.grid) for name, method in found.items()} == expected
    for name, method in found.items():
        assert method.tier == TIERS.get(name, "adversarial" if name[:4] in ("FGSM", "PGD-") else "0")
        points = list(settings(method))
        whole = list(product(*method.grid.values()))
        left_out = len(whole) - len(points)
        # A decay of more than the whole weight in a step turns it round and is none.
        assert (
            left_out == sum(lr * decay >= 1 for lr, decay in whole) if name == "adam + weight decay" else not left_out
        )
        assert len({tuple(point.items()) for point in points}) == len(points)
        for values in method.grid.values():
            assert len(values) >= 2
            assert list(values) == sorted(values)


@pytest.mark.parametrize("method", methods(0.1, patching=True), ids=lambda method: method.name)
@pytest.mark.parametrize("architecture", ["mlp-4-relu", "cnn-2-relu"])
def test_a_method_runs_its_whole_grid_as_one(method, architecture):
    """Each task of the batch ends where it ends alone, with its own point of the grid; attacks are counted."""
    problem = tasks(2, architecture, shape=(1, 3, 3))
    points = [*settings(method)][:: max(1, len([*settings(method)]) // 3)]
    hyper = as_hyper(points, 2, problem.params)
    assert {tuple(values.shape) for values in hyper.values()} == {(2 * len(points), 1)}
    many = repeat(problem, len(points))
    assert len(many) == 2 * len(points)
    inner = method.name.split()[0]
    if inner in ("noise", "falling", "FGSM", "PGD-7", "TRADES"):  # the chance in them is drawn for the whole batch
        method = replace(method, inner=lambda hyper, progress: clean)
    together, _ = fit_baseline(many, method, hyper, HOW, generator())
    assert together.shape == many.params.shape
    for number, point in enumerate(points):
        alone, _ = fit_baseline(problem, method, as_hyper([point], 2, problem.params), HOW, generator())
        torch.testing.assert_close(together[2 * number : 2 * number + 2], alone, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("method", methods(0.1, patching=True), ids=lambda method: method.name)
def test_only_adversarial_training_generates_adversarial_examples(method):
    problem = tasks(2, dtype=torch.float32, kind=Tasks)
    hyper = as_hyper([next(settings(method))], 2, problem.params)
    with counting() as tally:
        params, made = fit_baseline(problem, method, hyper, HOW, generator())
    assert made == tally.examples == (2 * 4 * 8 if method.tier == "adversarial" else 0)
    assert bool(params.isfinite().all())
    assert not torch.equal(params, problem.params)
    assert not params.requires_grad


def by_name(name):
    return next(method for method in methods(0.1, patching=True) if method.name == name)


def test_hyperparameters_do_what_their_names_say():
    param_spec = tasks().param_spec
    hyper = {"lr": column(0.01, 0.02), "decay": column(3.0, 1.0)}
    hyper |= {"last_decay": column(0.1, 0.3), "l1": column(0.5, 0.2)}
    last, first = layer_mask(param_spec, -1, hyper["lr"]), layer_mask(param_spec, 0, hyper["lr"])
    params = torch.ones(2, param_spec.size)

    def share(name):
        """What a step without a gradient takes of a weight of 1."""
        method = by_name(name)
        optimizer = method.optimizer({key: hyper[key] for key in method.grid if key != "sigma"}, param_spec)
        return -optimizer.update(torch.zeros_like(params), optimizer.init(params, param_spec, 1), params)[0]

    torch.testing.assert_close(share("adam"), torch.zeros_like(params))
    torch.testing.assert_close(share("adam + weight decay"), hyper["lr"] * hyper["decay"] * params)
    torch.testing.assert_close(share("adam + last-layer decay"), hyper["last_decay"] * last)
    torch.testing.assert_close(share("falling noise + last-layer decay"), hyper["last_decay"] * last)
    torch.testing.assert_close(share("adam + L1 on layer 1"), hyper["l1"] * first)
    torch.testing.assert_close(share("PGD-7 training + L1 on layer 1"), hyper["l1"] * first)
    assert isinstance(by_name("sgd").optimizer(hyper, param_spec), SGD)
    assert by_name("sgd").optimizer(hyper, param_spec).momentum == 0.9
    assert isinstance(by_name("noise").optimizer(hyper, param_spec), Adam)
    assert isinstance(by_name("adam + L1 on layer 1").optimizer(hyper, param_spec), ProximalL1)


def test_the_noise_falls_by_two_fifths_and_attacks_have_the_radius():
    hyper = {"sigma": column(0.5)}
    falling = by_name("falling noise + last-layer decay").inner
    found = [float(falling(hyper, progress).sigma) for progress in (0, 0.5, 1)]
    assert found == pytest.approx([0.5, 0.4, 0.3])
    assert by_name("noise").inner(hyper, 0.7).sigma is hyper["sigma"]
    assert by_name("FGSM training").inner({}, 0) == Adversarial(0.1, 1)
    assert by_name("PGD-7 training").inner({}, 0) == Adversarial(0.1, 7)
    assert by_name("adam").inner({}, 0) is clean


def test_fit_tells_the_objective_how_far_it_is():
    at = []

    def inner(progress):
        at.append(progress)
        return clean

    problem = tasks()
    params, made = fit(problem, SGD(0.0), inner, HOW, generator())
    assert at == [0, 0.25, 0.5, 0.75]
    assert made == 0
    assert torch.equal(params, problem.params)
