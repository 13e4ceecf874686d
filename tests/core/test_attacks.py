"""FGSM and PGD: as strong as theory says, and equal to a plain reference. What all attacks share: test_properties."""

from __future__ import annotations

import warnings
from functools import partial

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F
from toy import generator, tasks

from metarobust.attacks import counting, fgsm, pgd
from metarobust.attacks.losses import LOSSES, TARGETED, margin
from metarobust.attacks.threat import Ball, length, project, random_starts, steepest
from metarobust.errors import InputError
from metarobust.models import Predictor, build, fresh
from metarobust.objectives import Adversarial, Mixed, clean
from metarobust.params import ParamSpec


def starting(attack, seed=0, **how):
    """The attack from a random point; each call begins the stream anew."""
    return lambda *args, **more: attack(*args, **more, **how, generator=generator(seed))


every_norm = pytest.mark.parametrize("norm", ["linf", "l2"])


def problem(n=12, architecture="mlp-8-relu", shape=(1, 4, 4), dtype=torch.float32, seed=0):
    torch.manual_seed(seed)
    model = build(architecture, shape, 3).to(dtype)
    return model, torch.rand(n, *shape, dtype=dtype), torch.randint(3, (n,))


@every_norm
@pytest.mark.parametrize("loss", LOSSES)
def test_one_long_pgd_step_is_fgsm(norm, loss):
    model, images, labels = problem()
    for eps in (0, 0.1, 0.7):
        one = pgd(model, images, labels, eps=eps, steps=1, step_size=eps, norm=norm, loss=loss, best=False)
        torch.testing.assert_close(one, fgsm(model, images, labels, eps=eps, norm=norm, loss=loss), rtol=0, atol=0)


@every_norm
def test_on_a_linear_model_the_worst_case_is_reached(norm):
    """loss = softplus(-m) with m = (w_y - w_k) x + b; the ball takes eps times the dual norm of w off m."""
    rng = generator()
    linear = nn.Linear(9, 2, dtype=torch.float64)
    model = nn.Sequential(nn.Flatten(), linear)
    images = 0.5 + 0.2 * (torch.rand(20, 1, 3, 3, generator=rng, dtype=torch.float64) - 0.5)
    labels = torch.randint(2, (20,), generator=rng)
    side = 2.0 * labels - 1
    weight, bias = (linear.weight[1] - linear.weight[0]).detach(), (linear.bias[1] - linear.bias[0]).detach()
    eps = 0.35
    taken = eps * (weight.abs().sum() if norm == "linf" else weight.norm())
    expected = F.softplus(-(side * (images.flatten(1) @ weight + bias) - taken))
    # From a random start the l2 ball's far side is only neared, step by step.
    for attack in (fgsm, partial(pgd, steps=5), starting(pgd, steps=400, step_size=0.1)):
        found = F.cross_entropy(model(attack(model, images, labels, eps=eps, norm=norm)), labels, reduction="none")
        torch.testing.assert_close(found.detach(), expected, rtol=1e-6, atol=1e-9)


@every_norm
@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("start", [None, 0, 1, 2])
def test_the_best_point_is_never_better_for_the_model_than_the_image(norm, loss, start):
    model, images, labels = problem(200)
    for p in model.parameters():
        p.data *= 8  # steep and crooked: a long step often overshoots
    rng = None if start is None else generator(start)
    climb = LOSSES[loss]
    for eps, steps in ((0.05, 1), (1.0, 1), (1.0, 3)):
        moved = pgd(model, images, labels, eps=eps, steps=steps, norm=norm, loss=loss, generator=rng)
        assert bool((climb(model(moved), labels) >= climb(model(images), labels)).all())


def test_by_default_the_steps_cross_the_ball():
    model, images, labels = problem()
    for steps in (1, 4):
        default, said = (pgd(model, images, labels, eps=0.2, steps=steps, step_size=a) for a in (None, 0.5 / steps))
        assert torch.equal(default, said)


def test_more_restarts_are_stronger_and_never_weaker_than_the_image():
    model, images, labels = problem(100)
    losses = []
    for restarts in (1, 4):
        moved = pgd(model, images, labels, eps=0.5, steps=2, restarts=restarts, generator=generator())
        losses.append(LOSSES["ce"](model(moved), labels).detach())
    assert float(losses[1].mean()) > float(losses[0].mean()) + 1e-4
    assert bool((losses[1] >= LOSSES["ce"](model(images), labels)).all())


def test_another_seed_is_another_result_and_the_global_one_does_not_matter():
    model, images, labels = problem()
    found = [fgsm(model, images, labels, eps=0.3, generator=generator(seed)) for seed in (0, 0, 1)]
    torch.manual_seed(99)
    found.append(fgsm(model, images, labels, eps=0.3, generator=generator(0)))
    assert [torch.equal(found[0], other) for other in found[1:]] == [True, False, True]


@every_norm
def test_a_random_start_is_uniform_in_the_ball(norm):
    images = torch.full((20_000, 1, 1, 3), 0.5, dtype=torch.float64)
    delta = random_starts(images, 0.4, norm, generator())[0] - images
    # Of a ball in d dimensions the share U within radius r is (r / eps)^d: U is uniform in [0, 1].
    share = (length(delta, norm) / 0.4) ** 3
    for power in (1, 2, 3):
        assert float((share**power).mean()) == pytest.approx(1 / (power + 1), abs=0.01)
    assert float(delta.mean()) == pytest.approx(0, abs=0.005)


def test_a_random_start_in_linf_is_a_plain_draw_for_the_batch():
    """So recorded trainings, each step of which begins at one, can be had again."""
    images = torch.rand(5, 1, 3, 3, generator=generator(1))
    plain = (images + 0.1 * (torch.rand(images.shape, generator=generator()) * 2 - 1)).clamp(0, 1)
    torch.testing.assert_close(random_starts(images, 0.1, "linf", generator())[0], plain)


@every_norm
@settings(max_examples=60, deadline=None, derandomize=True)
@given(exponent=st.integers(-30, 30), seed=st.integers(0, 99))
def test_the_step_has_length_one_however_small_the_gradient(norm, exponent, seed):
    """A sure model has tiny gradients; an attack that takes them for tiny steps makes it look robust."""
    gradient = torch.randn(3, 1, 4, 4, generator=generator(seed))
    step = steepest(gradient * 10.0**exponent, norm)
    torch.testing.assert_close(step, steepest(gradient, norm))
    torch.testing.assert_close(length(step, norm), torch.ones(3))


@settings(max_examples=100, deadline=None, derandomize=True)
@given(n=st.integers(0, 6), classes=st.integers(2, 6), size=st.sampled_from([1e-3, 1.0, 1e4]), seed=st.integers(0, 999))
def test_the_margin_is_above_zero_where_the_image_is_misclassified(n, classes, size, seed):
    rng = generator(seed)
    logits = size * torch.randn(n, classes, generator=rng)
    labels = torch.randint(classes, (n,), generator=rng)
    value = margin(logits, labels)
    assert torch.equal(value > 0, logits.argmax(1) != labels)
    for row, label, found in zip(logits.tolist(), labels.tolist(), value.tolist(), strict=True):
        assert found == pytest.approx(max(row[:label] + row[label + 1 :]) - row[label], rel=1e-5)


@pytest.mark.parametrize("lost", ["labels", "targets"])
@pytest.mark.parametrize("name", ["margin", "dlr"])
def test_one_label_for_several_logits_is_refused(name, lost):
    """PyTorch would compare each example with the first one's label, and say nothing."""
    logits, labels = torch.randn(3, 5, generator=generator(0)), torch.tensor([0, 1, 2])
    targets = torch.tensor([4, 4, 3])
    assert TARGETED[name](logits, labels, targets).shape == LOSSES[name](logits, labels).shape == (3,)
    ask = partial(TARGETED[name], logits, labels) if lost == "targets" else partial(LOSSES[name], logits)
    with pytest.raises(InputError, match=r"shape \[1\] and logits \[3, 5\]"):
        ask(torch.tensor([4]))


def test_examples_are_counted_and_counts_nest():
    model, images, labels = problem(5)
    with counting() as outer:
        fgsm(model, images, labels, eps=0.1)
        with counting() as inner:
            pgd(model, images, labels, eps=0.1, steps=7)
            pgd(model, images[:3], labels[:3], eps=0.1, steps=2, restarts=3, generator=generator())
        with pytest.raises(RuntimeError), counting() as broken:  # noqa: PT012
            fgsm(model, images, labels, eps=0.1)
            raise RuntimeError
        fgsm(model, images[:0], labels[:0], eps=0.1)
    fgsm(model, images, labels, eps=0.1)
    assert (outer.examples, inner.examples, broken.examples) == (5 + 5 + 3 + 5, 8, 5)


@pytest.mark.parametrize(
    ("objective", "made"), [(clean, 0), (Adversarial(0.1), 8), (Adversarial(0.1, 3), 8), (Mixed(Adversarial(0.1)), 8)]
)
def test_objectives_give_a_loss_an_image_and_are_counted(objective, made):
    problem = tasks(dtype=torch.float32)
    images, labels = problem.batch(problem.train, 4, generator())
    with counting() as tally:
        losses = objective(problem.predictor(problem.params), images, labels, generator())
    assert losses.shape == (8,)
    assert tally.examples == made


def test_the_mixed_objective_is_a_weighted_mean():
    problem = tasks()
    batch = (problem.predictor(problem.params), *problem.batch(problem.train, 4, generator()))
    robust = Adversarial(0.2, 3)
    expected = 0.25 * clean(*batch, generator()) + 0.75 * robust(*batch, generator())
    torch.testing.assert_close(Mixed(robust, 0.75)(*batch, generator()), expected)
    assert bool((robust(*batch, generator()) > clean(*batch, generator())).all())


def test_models_attacked_together_are_attacked_as_one_by_one():
    model, images, labels = problem(6, dtype=torch.float64)
    params = fresh(model, 2, generator()).double()
    param_spec = ParamSpec.of(model)
    together = pgd(Predictor(model, param_spec, params), images, labels, eps=0.2, steps=4)
    parts = zip(params, images.split(3), labels.split(3), strict=True)
    apart = [pgd(Predictor(model, param_spec, p), x, y, eps=0.2, steps=4) for p, x, y in parts]
    torch.testing.assert_close(together, torch.cat(apart))


@pytest.mark.parametrize(
    ("changes", "message"),
    [({"eps": -1}, "eps is -1"), ({"eps": 8}, "eps is 8"), ({"norm": "l1"}, "'l1'"), ({"steps": 0}, "0 attack steps")],
)
def test_a_bad_adversarial_objective_is_refused_where_it_is_made(changes, message):
    with pytest.raises(InputError, match=message):
        Adversarial(**{"eps": 0.1} | changes)


def reference(model, images, labels, eps, alpha, steps, norm):
    """PGD as in the paper, one image at a time, by `backward`."""
    found = []
    for image, label in zip(images, labels, strict=True):
        delta = torch.zeros_like(image)
        for _ in range(steps):
            x = (image + delta).requires_grad_()
            F.cross_entropy(model(x[None]), label[None]).backward()
            step = x.grad.sign() if norm == "linf" else x.grad / x.grad.norm()
            delta = delta + alpha * step
            far = delta.abs().max() if norm == "linf" else delta.norm()
            if norm == "linf":
                delta = delta.clip(-eps, eps)
            elif far > eps:
                delta = delta * eps / far
            delta = (image + delta).clip(0, 1) - image
        found.append(image + delta)
    return torch.stack(found)


SETTINGS = [("linf", 0.1, 0.03), ("linf", 0.5, 0.1), ("l2", 0.8, 0.2), ("l2", 2.0, 1.1)]


@pytest.mark.parametrize(("norm", "eps", "alpha"), SETTINGS)
@pytest.mark.parametrize("architecture", ["mlp-8-tanh", "cnn-4-relu"])
def test_pgd_equals_a_plain_reference(norm, eps, alpha, architecture):
    model, images, labels = problem(8, architecture, dtype=torch.float64)
    ours = pgd(model, images, labels, eps=eps, step_size=alpha, steps=9, norm=norm, best=False)
    torch.testing.assert_close(ours, reference(model, images, labels, eps, alpha, 9, norm), rtol=0, atol=1e-9)
    assert float((ours - images).abs().max()) > eps / 9


@pytest.mark.parametrize(("norm", "eps", "alpha"), SETTINGS)
def test_pgd_equals_that_of_a_peer(norm, eps, alpha):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the peer imports a name that scipy has moved
        foolbox = pytest.importorskip("foolbox")
    kind = {"linf": foolbox.attacks.LinfPGD, "l2": foolbox.attacks.L2PGD}[norm]
    model, images, labels = problem(16)
    peer = kind(abs_stepsize=alpha, steps=9, random_start=False)
    theirs = peer.run(foolbox.PyTorchModel(model.eval(), (0, 1), "cpu"), images, labels, epsilon=eps)
    ours = pgd(model, images, labels, eps=eps, step_size=alpha, steps=9, norm=norm, best=False)
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize("eps", [0.0, 0.1, 3.0])
def test_a_ball_projects_as_the_function_does(norm, eps, dtype):
    images, moved = (torch.rand(5, 2, 4, 4, generator=generator(seed), dtype=dtype) for seed in (0, 1))
    moved = 3 * moved - 1
    expected = project(moved, images, eps, norm)
    found = Ball(images, eps, norm).project_(moved.clone())
    torch.testing.assert_close(found, expected, rtol=0, atol=2 * torch.finfo(dtype).eps)
    assert 0 <= found.min() <= found.max() <= 1
    assert float(length(found - images, norm).max()) <= eps + 4 * torch.finfo(dtype).eps
