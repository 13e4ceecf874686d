"""The learned penalties: the loss by hand, the curves, the exact meta-gradient, errors in words."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from toy import generator, scatter, tasks

from metarobust.attacks import counting
from metarobust.errors import InputError
from metarobust.learned import make
from metarobust.learned.penalties import BOUNDS, KINDS, LENGTHS, NAMES, START, WEIGHTS, LearnedPenalties, which
from metarobust.learned.protocol import State, param_infos
from metarobust.meta import MetaTrainConfig
from metarobust.meta.estimators import Exact
from metarobust.meta.problem import Problem
from metarobust.models import build
from metarobust.objectives import Adversarial, Mixed, NoisyFGSM, clean
from metarobust.optim import MetaOptimizer
from metarobust.params import ParamSpec
from metarobust.penalties import Curvature, InputGradient, Penalised
from metarobust.tasks import Tasks
from metarobust.unroll import unroll

IMAGES, LABELS = torch.rand(6, 1, 3, 3, dtype=torch.float64, generator=generator()), torch.tensor([0, 1, 2, 0, 1, 2])
SIZES = {"noise": 0.0, "bend": 0.0, "far": 0.1, "slope": 0.0, "smooth": 0.0, "slack": 0.0}


def network(name="mlp-5-4-tanh"):
    torch.manual_seed(0)
    return build(name, (1, 3, 3), 3).double()


def penalised(at_random=False, **sizes):
    return Penalised(
        **{name: torch.tensor(value, dtype=torch.float64) for name, value in (SIZES | sizes).items()},
        at_random=at_random,
    )


def slope_of(model, images, labels):
    leaf = images.clone().requires_grad_()
    return torch.autograd.grad(F.cross_entropy(model(leaf), labels, reduction="sum"), leaf)[0]


def test_the_loss_by_hand():
    model, sizes = network(), {"bend": 0.7, "slope": 0.2, "smooth": 0.1, "slack": 0.3, "far": 0.05, "noise": 0.2}
    found = penalised(**sizes)(model, IMAGES, LABELS, generator(1))
    here = IMAGES + 0.2 * torch.randn(IMAGES.shape, generator=generator(1), dtype=torch.float64)
    slope = slope_of(model, here, LABELS)
    moved = slope_of(model, here + 0.05 * slope.sign(), LABELS)
    for i, (image, label) in enumerate(zip(here, LABELS, strict=True)):
        leaf = image[None].clone().requires_grad_()
        logits = model(leaf)[0]
        margin = logits[label] - torch.cat([logits[:label], logits[label + 1 :]]).logsumexp(0)
        (steep,) = torch.autograd.grad(margin, leaf)
        lowered = math.log1p(math.exp(0.3 * float(steep.abs().sum()) - float(margin.detach())))
        even = float(-model(leaf).log_softmax(1).mean().detach())
        bent = float((moved[i] - slope[i]).square().sum())
        expected = 0.9 * lowered + 0.1 * even + 0.7 * bent + 0.2 * float(slope[i].abs().sum())
        assert float(found[i].detach()) == pytest.approx(expected, rel=1e-9)


def test_plain_penalties_are_special_cases():
    model, one = network(), torch.tensor([[1.0]]).double()
    for sizes, plain in (
        ({}, clean),
        ({"slope": 0.4}, InputGradient(0.4 * one)),
        ({"bend": 2.0}, Curvature(2 * one, 0.1 * one)),
    ):
        found, expected = (
            penalised(**sizes)(model, IMAGES, LABELS, generator()),
            plain(model, IMAGES, LABELS, generator()),
        )
        torch.testing.assert_close(found, expected)
        theirs = [torch.autograd.grad(losses.sum(), list(model.parameters())) for losses in (found, expected)]
        torch.testing.assert_close(*theirs)


def test_a_point_at_random_follows_no_gradient_and_all_points_are_counted():
    seen, model = [], network()
    look = lambda x: seen.append(x.detach()) or model(x)  # noqa: E731
    with counting() as counter:
        penalised(at_random=True)(look, IMAGES, LABELS, generator())
        penalised()(look, IMAGES, LABELS, generator())
    assert (counter.examples, counter.points) == (0, 12)
    _, blind, _, led = seen
    sign = slope_of(model, IMAGES, LABELS).sign()
    torch.testing.assert_close(led, IMAGES + 0.1 * sign)
    assert 0.2 < ((blind - IMAGES).sign() == sign).double().mean() < 0.8
    torch.testing.assert_close((blind - IMAGES).abs(), torch.full_like(IMAGES, 0.1))


SPECS = {
    "mlp": network(),
    "cnn": build("cnn-2-3-relu", (1, 6, 6), 3),
    "gncnn": nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(64, 3)),
}


@pytest.mark.parametrize("kind", KINDS)
def test_curves_are_lines_between_knots_and_know_the_network(kind):
    spec, optimizer = ParamSpec.of(SPECS[kind]), LearnedPenalties()
    assert list(KINDS)[which(spec)] == kind
    usual = optimizer.curve(spec, 100, torch.tensor([0.0, 0.3, 1.0]))
    smaller = [0.15] * 3 + [0.05] * 3 + [1.0] * 7 if kind == "gncnn" else [1.0] * 13
    start = torch.tensor(START) * torch.tensor(smaller)
    start[NAMES.index("rate middle")] *= ((param_infos(spec)[0].last_layer + 1) / 2) ** -1.5
    torch.testing.assert_close(usual, start[:, None].expand(-1, 3), msg="it begins constant")
    longer = optimizer.curve(spec, 400, torch.tensor([0.3]))
    torch.testing.assert_close(longer[3:6], usual[3:6, :1] / 4)  # a decay in proportion to 1 / steps
    with torch.no_grad():
        optimizer.knots[min(which(spec), 1), 8] += torch.tensor([0.1, -0.1, 0.2])
    found = optimizer.curve(spec, 100, torch.tensor([0.0, 0.25, 0.5, 0.75, 1.0]))[8].log() - math.log(START[8])
    torch.testing.assert_close(found, 4 * torch.tensor([0.1, 0.0, -0.1, 0.05, 0.2]), atol=1e-5, rtol=0)


def test_lengths_are_in_units_of_eps():
    optimizer, spec = LearnedPenalties(), ParamSpec.of(SPECS["mlp"])
    one, two = (optimizer.objective(clean, State(0, 9, spec, {}, {}), eps) for eps in (0.1, 0.2))
    for name in WEIGHTS:
        ratio = float((getattr(two, name) / getattr(one, name)).detach())
        assert ratio == pytest.approx(2 if name in LENGTHS else 1), name


def test_what_is_out_of_bounds_can_come_back():
    optimizer, spec = LearnedPenalties(), ParamSpec.of(SPECS["mlp"])
    rate = NAMES.index("rate first")
    for side, sign in ((0, -1), (1, 1)):
        with torch.no_grad():
            optimizer.knots[:, rate] = sign * 5.0
        value = optimizer.curve(spec, 100, torch.tensor([0.0]))[rate, 0]
        assert float(value.detach()) == pytest.approx(BOUNDS[rate][side])
        outward, inward = (
            torch.autograd.grad(way * value, optimizer.knots, retain_graph=True)[0] for way in (-sign, sign)
        )
        assert not outward.any(), "a step of descent would lead further out"
        assert inward.any()


def problem(name, horizon, second_order=True, **numbers):
    config = MetaTrainConfig(
        1, (horizon,), horizon, tasks=2, batch_size=6, held_out=8, mid_loss_weight=0.0, estimator="backprop",
        second_order=second_order, **{"clip": 1e9} | numbers,
    )  # fmt: skip
    return Problem(
        tasks(2, name, each=20, shape=(1, 5, 5), kind=Tasks), horizon, config, clean, Mixed(Adversarial(0.1))
    )


@pytest.mark.parametrize("kind", ["penalties", "steering", "features"])
@pytest.mark.parametrize("name", ["mlp-4-tanh", "cnn-2-3-tanh"])
def test_the_exact_meta_gradient_is_that_of_backpropagation_through_all_steps(kind, name):
    """A theta for each task or one for all: the mean over tasks is the same where nothing is clipped."""
    given, optimizer = problem(name, 4), scatter(make(kind, generator()).double(), 0, 0.01)
    theta = list(optimizer.parameters())
    stream = generator(3)
    params, _ = unroll(
        given.tasks, optimizer, *given.start(optimizer), steps=4, batch_size=6, inner=clean, generator=stream,
        second_order=True,
    )  # fmt: skip
    images, labels = given.tasks.batch(given.tasks.held_out, 8, stream)
    loss = given.meta(given.tasks.predictor(params), images, labels, stream).mean()
    expected = torch.autograd.grad(loss, theta, allow_unused=True, materialize_grads=True)
    found = Exact().step(optimizer, given, given.start(optimizer), generator(3))
    assert found.loss == pytest.approx(float(loss.detach()))
    torch.testing.assert_close(tuple(found.gradient), tuple(expected), rtol=1e-6, atol=1e-9)
    assert any(g.abs().max() > 1e-4 for g in expected)


def test_each_task_is_clipped_by_itself():
    given, optimizer = problem("mlp-4-tanh", 3), scatter(LearnedPenalties().double(), 0, 0.03)
    whole = Exact().step(optimizer, given, given.start(optimizer), generator(3)).gradient
    clipped = replace(given, config=replace(given.config, clip=1e-3))
    found = Exact().step(optimizer, clipped, clipped.start(optimizer), generator(3)).gradient
    norm = torch.cat([g.flatten() for g in found]).norm()
    assert 1e-6 < norm <= 1e-3 * (1 + 1e-9)
    assert norm < torch.cat([g.flatten() for g in whole]).norm()


def test_a_task_without_a_finite_meta_gradient_counts_as_0():
    given, optimizer = problem("mlp-4-tanh", 2, clip=1.0), LearnedPenalties().double()
    ruined = given.tasks.params.clone()
    ruined[1] = torch.nan
    given = replace(given, tasks=replace(given.tasks, params=ruined))
    found = Exact().step(optimizer, given, given.start(optimizer), generator(3)).gradient
    assert all(g.isfinite().all() for g in found)
    assert any(g.any() for g in found)


def test_calibrated_losses_do_not_hear_how_sure_a_model_sounds():
    model, meta = network(), Mixed(Adversarial(0.05, 2, loss="margin"), calibrated=True)
    losses = [meta(lambda x, k=k: k * model(x), IMAGES, LABELS, generator()).mean() for k in (0.2, 1.0, 5.0)]
    torch.testing.assert_close(losses[0], losses[2], rtol=2e-3, atol=0)
    plain = Mixed(Adversarial(0.05, 2, loss="margin"))(model, IMAGES, LABELS, generator()).mean()
    assert float(losses[1].detach()) < float(plain.detach())


def test_noisy_fgsm_by_hand():
    model = network()
    with counting() as counter:
        found = NoisyFGSM(0.1)(model, IMAGES, LABELS, generator(2))
    assert counter.examples == len(IMAGES)
    start = IMAGES + 0.2 * (2 * torch.rand(IMAGES.shape, generator=generator(2), dtype=torch.float64) - 1)
    moved = (start + 0.1 * slope_of(model, start, LABELS).sign()).clamp(0, 1)
    torch.testing.assert_close(found, F.cross_entropy(model(moved), LABELS, reduction="none"))
    assert float((moved - IMAGES).abs().max()) > 0.1


class Blind(nn.Module):
    def __init__(self, how):
        super().__init__()
        self.net, self.how = network("mlp-4-tanh"), how

    def forward(self, x):
        if self.how == "no_grad":
            with torch.no_grad():
                return self.net(x)
        return self.net(x.detach() if self.how == "detach" else (x * 255).long().double())


@pytest.mark.parametrize("how", ["no_grad", "detach", "integers"])
def test_a_model_without_a_second_derivative_is_refused_before_any_step(how):
    model = Blind(how)
    optimizer = MetaOptimizer(model.parameters(), LearnedPenalties(), total_steps=3)
    with pytest.raises(InputError, match="rule of tier 0"):
        optimizer.loss(model, IMAGES, LABELS)


def test_other_errors_are_left_to_say_what_they_say():
    model = network()
    optimizer = MetaOptimizer(model.parameters(), LearnedPenalties(), total_steps=3)
    with pytest.raises(InputError, match=r"images are torch\.int64; give floats"):
        optimizer.loss(model, IMAGES.long(), LABELS)
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        optimizer.loss(model, IMAGES[..., :2], LABELS)
