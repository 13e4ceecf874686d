"""Each check raises its flag where it should and nowhere else: bad defences are caught, honest models pass."""

from __future__ import annotations

from functools import cache

import pytest
import torch
from torch import nn
from toy import generator

from metarobust.data import load
from metarobust.evaluation import checks, evaluate
from metarobust.models import build
from metarobust.objectives import Adversarial, clean

EPS = 0.1


@cache
def trained(objective=clean, name="mlp-24-relu"):
    """A small network, trained on the digits for a few seconds."""
    torch.manual_seed(0)
    train, rng = load("digits").train, generator()
    model = build(name, (1, 8, 8), 10)
    adam = torch.optim.Adam(model.parameters(), 0.005)
    for _ in range(250):
        pick = torch.randint(len(train), (64,), generator=rng)
        loss = objective(model, train.images[pick], train.labels[pick], rng).mean()
        adam.zero_grad()
        loss.backward()
        adam.step()
    return model.eval()


def report(model, n=60, **changes):
    test = load("digits").test
    given = {"eps": EPS, "attacks": "standard", "steps": 20, "restarts": 1, "queries": 200} | changes
    return evaluate(model, test.images[:n], test.labels[:n], **given)


# Three that hide their gradient and make no model robust: Athalye et al. 2018; Carlini and Wagner 2017.
def rounded(model):
    return lambda images: model((images * 7).round() / 7)


def huge(model):
    return lambda images: 1000 * model(images)


def noisy(model, rng):
    return lambda images: (logits := model(images)) + 3 * torch.randn(logits.shape, generator=rng)


def raised(found):
    return {flag.check for flag in found.flags}


# Each check alone: what passes, and what does not.
TABLE = {
    "eps zero": (checks.eps_zero, [(0.9, 0.9), (0.0, 0.0)], [(0.9, 0.89), (0.5, 0.6)]),
    "falls with eps": (
        checks.falls_with_eps,
        [([(0, 0.9), (0.1, 0.5), (1, 0)], 100), ([(0, 0.9), (0.1, 0.92)], 100), ([(0, 0.9), (0.1, 1.0)], 20), ([], 9)],
        [([(0, 0.9), (0.1, 0.5), (0.2, 0.53)], 100), ([(0, 0.5), (0.1, 0.8)], 20)],
    ),
    "ends at zero": (checks.ends_at_zero, [(1.0, 0.0, 100), (1.0, 0.02, 500)], [(1.0, 0.03, 100), (1.0, 0.5, 9)]),
    "more steps": (
        checks.more_steps,
        [(0.5, 0.5, (20, 160), 100), (0.5, 0.1, (20, 160), 100), (0.51, 0.56, (20, 160), 100)],
        [(0.5, 0.57, (20, 160), 100)],
    ),
    "settled": (checks.settled, [(0.0, 400, 100), (0.02, 400, 100)], [(0.03, 400, 100)]),
    "black box": (checks.black_box, [(0.0, 100), (0.02, 100)], [(0.021, 100), (1.0, 3)]),
    "transfer": (checks.transfer, [(0.0, 100), (0.02, 100)], [(0.03, 100)]),
    "not a number": (checks.not_a_number, [(0.0, 100), (0.01, 100)], [(0.05, 100), (1.0, 4)]),
    "zero gradients": (checks.zero_gradients, [(0.0, 100), (0.01, 100)], [(0.05, 100), (1.0, 4)]),
    "saturated logits": (
        checks.saturated,
        [(torch.tensor([29.0, 1.0]),), (torch.tensor([31.0] + [1.0] * 9),)],
        [(torch.tensor([31.0, 1.0]),)],
    ),
    "probabilities": (
        checks.probabilities,
        [(torch.tensor([[0.5, 0.6]]),), (torch.tensor([[2.0, -1.0]]),), (torch.tensor([[0.5, 0.5], [3.0, 1.0]]),)],
        [(torch.tensor([[0.5, 0.5], [1.0, 0.0]]),)],
    ),
    "randomness": (
        checks.deterministic,
        [(torch.ones(2, 3), torch.ones(2, 3)), (torch.ones(2, 3), torch.ones(2, 3) + 1e-6)],
        [(torch.ones(2, 3), torch.tensor([[1.0, 1.0, 1.01], [1, 1, 1]]))],
    ),
    "alone": (
        checks.alone,
        [(torch.ones(1, 3), torch.ones(1, 3) + 0.01)],
        [(torch.ones(1, 3), torch.ones(1, 3) + 0.1)],
    ),
    "train mode": (
        checks.train_mode,
        [(nn.Sequential(nn.Dropout()).eval(),), (nn.Linear(1, 1).train(),)],
        [(nn.Sequential(nn.Dropout()),), (nn.Sequential(nn.Linear(1, 1), nn.BatchNorm2d(3)),)],
    ),
    "margin and cross-entropy": (checks.margin_and_cross_entropy, [(0.5, 0.45), (0.5, 0.6)], [(0.5, 0.39)]),
}


@pytest.mark.parametrize("name", TABLE)
def test_a_check_flags_what_it_should_and_nothing_else(name):
    check, passes, fails = TABLE[name]
    assert [check(*case) for case in passes] == [None] * len(passes)
    for case in fails:
        flag = check(*case)
        assert flag.check == name
        assert ";" in flag.says, "a flag says what is suspected; and what to try"
        assert "\n" not in flag.says


@pytest.mark.parametrize(
    ("objective", "name", "attacks"),
    [
        (clean, "mlp-24-relu", "quick"),
        (clean, "mlp-24-relu", "standard"),
        (Adversarial(EPS, 3), "mlp-24-relu", "standard"),
        (clean, "cnn-4-8-tanh", "quick"),
    ],
)
def test_honest_models_raise_no_flag(objective, name, attacks):
    found = report(trained(objective, name), attacks=attacks)
    assert found.flags == (), str(found)
    assert found.checked == 60
    # The curve begins at clean accuracy and ends at nothing.
    assert [eps for eps, _ in found.curve] == [0, EPS / 4, EPS / 2, EPS, 2 * EPS, 1]
    assert found.curve[0] == (0, found.clean)
    assert found.curve[-1][1] == 0


def test_in_l2_the_curve_ends_where_any_image_is_in_reach():
    found = report(trained(), norm="l2", attacks="quick", eps=0.5)
    assert found.curve[-1] == (8.0, 0.0)  # the diagonal of a cube of 64 pixels
    assert found.flags == ()


CAUGHT = {
    "rounded inputs": (rounded, {"zero gradients", "ends at zero", "black box"}),
    "huge logits": (huge, {"zero gradients", "saturated logits", "margin and cross-entropy"}),
    "noisy output": (lambda m: noisy(m, generator()), {"randomness", "eps zero"}),
    "probabilities": (lambda m: nn.Sequential(m, nn.Softmax(1)), {"probabilities"}),
    "of the batch": (lambda m: nn.Sequential(nn.BatchNorm2d(1, track_running_stats=False), m).eval(), {"alone"}),
    "train mode": (lambda m: nn.Sequential(m, nn.Dropout(0.5)).train(), {"train mode"}),
}


@pytest.mark.parametrize("attacks", ["quick", "standard"])
@pytest.mark.parametrize("name", CAUGHT)
def test_a_defence_that_hides_its_gradient_is_caught(name, attacks):
    defend, expected = CAUGHT[name]
    found = report(defend(trained()), attacks=attacks)
    assert expected <= raised(found), str(found)
    if name in ("probabilities", "train mode"):  # the others fail in many ways at once
        assert expected == raised(found), str(found)


def test_a_bad_defence_looks_good_to_a_naive_evaluation_and_is_not():
    """What makes it bad: PGD on cross-entropy says robust, the whole ensemble says what the plain model has."""
    plain = report(trained(), checks=0).robust
    for bad in (rounded(trained()), huge(trained())):
        found = report(bad, checks=0)
        assert found.under["apgd-20-ce"] > plain + 0.3
        assert found.robust < plain + 0.1


def test_a_surrogate_sees_through_a_hidden_gradient():
    found = report(rounded(trained()), surrogate=trained(), queries=1)
    assert "transfer" in raised(found)
    assert found.under["transfer-40"] < found.under["apgd-20-ce"] - 0.3
    assert "transfer" not in raised(report(trained(), surrogate=trained(name="cnn-4-8-tanh"), attacks="quick"))


def test_without_checks_nothing_is_flagged_and_the_report_says_so():
    found = report(rounded(trained()), checks=0)
    assert (found.flags, found.curve, found.checked) == ((), (), 0)
    assert "no checks were made" in str(found)


def test_an_attack_that_had_no_time_has_not_settled():
    found = report(trained(Adversarial(EPS, 3)), attacks="quick", steps=1, eps=0.2)
    assert "settled" in raised(found)
