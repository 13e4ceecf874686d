"""FGSM, PGD, MI-FGSM and transfer: as strong as theory says, and equal to a plain reference and to a peer."""

from __future__ import annotations

import math
from functools import partial

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F
from toy import generator, tasks

from metarobust.attacks import apgd, counting, fgsm, mi_fgsm, pgd, square, transfer
from metarobust.attacks.criterion import Criterion, misclassified
from metarobust.attacks.losses import LOSSES, TARGETED, dlr, margin
from metarobust.attacks.threat import length, project, projection, random_starts, steepest
from metarobust.errors import InputError
from metarobust.models import Predictor, build, fresh
from metarobust.objectives import Adversarial, Mixed, clean
from metarobust.params import ParamSpec

every_norm = pytest.mark.parametrize("norm", ["linf", "l2"])
every_loss = pytest.mark.parametrize("loss", LOSSES)


def problem(n=12, architecture="mlp-8-relu", dtype=torch.float32, classes=5):
    """A random network, random images, what it says of them, and another class for each."""
    torch.manual_seed(0)
    model, images = build(architecture, (1, 4, 4), classes).to(dtype), torch.rand(n, 1, 4, 4, dtype=dtype)
    labels = model(images).argmax(1)
    return model, images, labels, (labels + torch.randint(1, classes, (n,))) % classes


# Losses and steps


@settings(max_examples=60, deadline=None, derandomize=True)
@given(n=st.integers(0, 5), classes=st.integers(4, 7), size=st.sampled_from([1e-3, 1.0, 1e4]), seed=st.integers(0, 999))
def test_losses_are_their_equations(n, classes, size, seed):
    rng = generator(seed)
    logits = size * torch.randn(n, classes, generator=rng, dtype=torch.float64)
    labels = torch.randint(classes, (n,), generator=rng)
    targets = (labels + torch.randint(1, classes, (n,), generator=rng)) % classes
    assert torch.equal(margin(logits, labels) > 0, logits.argmax(1) != labels)
    untargeted = {name: loss(logits, labels).tolist() for name, loss in LOSSES.items()}
    targeted = {name: loss(logits, labels, targets).tolist() for name, loss in TARGETED.items()}
    assert list(LOSSES) == list(TARGETED) == ["ce", "margin", "dlr"]
    for i, z in enumerate(logits.tolist()):
        y, t, (first, _, third, fourth, *_) = int(labels[i]), int(targets[i]), sorted(z, reverse=True)
        total = math.log(sum(math.exp(value - first) for value in z)) + first
        best = {k: max(z[:k] + z[k + 1 :]) for k in (y, t)}
        assert [values[i] for values in untargeted.values()] == pytest.approx(
            [total - z[y], best[y] - z[y], (best[y] - z[y]) / (first - third)], rel=1e-6, abs=1e-9
        )
        assert [values[i] for values in targeted.values()] == pytest.approx(
            [z[t] - total, z[t] - best[t], (z[t] - z[y]) / (first - (third + fourth) / 2)], rel=1e-6, abs=1e-9
        )


def test_dlr_has_no_units():
    logits, labels = torch.randn(20, 6, generator=generator(), dtype=torch.float64), torch.arange(20) % 6
    for loss in (dlr, lambda z, y: TARGETED["dlr"](z, y, (y + 1) % 6)):
        torch.testing.assert_close(loss(1000 * logits - 70, labels), loss(logits, labels))
    assert torch.equal(dlr(torch.ones(1, 4), torch.tensor([2])), torch.zeros(1))


@pytest.mark.parametrize("name", ["margin", "dlr"])
def test_one_label_for_several_logits_is_refused(name):
    """PyTorch would compare each example with the first one's label, and say nothing."""
    logits, labels, one = torch.randn(3, 5, generator=generator()), torch.tensor([0, 1, 2]), torch.tensor([4])
    for call in (partial(LOSSES[name], logits, one), partial(TARGETED[name], logits, labels, one)):
        with pytest.raises(InputError, match=r"shape \[1\] and logits \[3, 5\]"):
            call()


def test_a_criterion_says_what_is_climbed_and_when_it_is_over():
    logits = torch.tensor([[3.0, 1, 2, 0], [0, 5, 1, 2], [0, 1, torch.nan, 2]])
    labels, targets = torch.tensor([0, 0, 0]), torch.tensor([2, 1, 3])
    for given_targets, settle, reached in (
        (None, False, [False, True, True]),
        (targets, False, [False, True, False]),  # an output that is not a number does not say the target
        (targets, True, [False, True, True]),
    ):
        criterion = Criterion("margin", labels, given_targets, settle)
        assert criterion.reached(logits).tolist() == reached
        assert criterion.of(torch.tensor([1])).reached(logits[1:2]).tolist() == reached[1:2]


@every_norm
@settings(max_examples=60, deadline=None, derandomize=True)
@given(exponent=st.integers(-30, 30), seed=st.integers(0, 99))
def test_the_step_has_length_one_however_small_the_gradient(norm, exponent, seed):
    """A sure model has tiny gradients; an attack that takes them for tiny steps makes it look robust."""
    gradient = torch.randn(3, 1, 4, 4, generator=generator(seed))
    step = steepest(gradient * 10.0**exponent, norm)
    torch.testing.assert_close(step, steepest(gradient, norm))
    torch.testing.assert_close(length(step, norm), torch.ones(3))


@every_norm
@pytest.mark.parametrize("eps", [0.0, 0.1, 3.0])
def test_a_ball_projects_as_the_function_does(norm, eps):
    images, moved = (torch.rand(5, 2, 4, 4, generator=generator(seed)) for seed in (0, 1))
    moved = 3 * moved - 1
    projected = projection(images, eps, norm)(moved.clone())
    torch.testing.assert_close(projected, project(moved, images, eps, norm), rtol=0, atol=3e-7)
    assert 0 <= projected.min() <= projected.max() <= 1
    assert float(length(projected - images, norm).max()) <= eps + 5e-7


@every_norm
def test_a_random_start_is_uniform_in_the_ball(norm):
    images = torch.full((20_000, 1, 1, 3), 0.5, dtype=torch.float64)
    delta = next(random_starts(images, 0.4, norm, generator())) - images
    # Of a ball in d dimensions the share U within radius r is (r / eps)^d: U is uniform in [0, 1].
    share = (length(delta, norm) / 0.4) ** 3
    for power in (1, 2, 3):
        assert float((share**power).mean()) == pytest.approx(1 / (power + 1), abs=0.01)
    assert float(delta.mean()) == pytest.approx(0, abs=0.005)


def test_a_random_start_in_linf_is_a_plain_draw_for_the_batch():
    """So recorded trainings, each step of which begins at one, can be had again."""
    images = torch.rand(5, 1, 3, 3, generator=generator(1))
    plain = (images + 0.1 * (torch.rand(images.shape, generator=generator()) * 2 - 1)).clamp(0, 1)
    torch.testing.assert_close(next(random_starts(images, 0.1, "linf", generator())), plain)


# Oracles


@every_norm
def test_on_a_linear_model_the_worst_case_is_reached(norm):
    """With m = (w_y - w_k) x + b the ball takes eps times the dual norm of w off m: an image falls where that is more.

    APGD is done with those; the ones that stand it brings to the worst case, as the others do with all.
    """
    rng = generator()
    linear = nn.Linear(9, 2, dtype=torch.float64)
    model = nn.Sequential(nn.Flatten(), linear)
    images = 0.5 + 0.2 * (torch.rand(200, 1, 3, 3, generator=rng, dtype=torch.float64) - 0.5)
    weight, bias = (linear.weight[1] - linear.weight[0]).detach(), (linear.bias[1] - linear.bias[0]).detach()
    bias -= float((images.flatten(1) @ weight + bias).median())  # about as many images on both sides
    linear.bias.data = torch.stack([torch.zeros_like(bias), bias])
    score = images.flatten(1) @ weight + bias
    dual = weight.abs().sum() if norm == "linf" else weight.norm()
    eps = float(1.001 * score.abs().median() / dual)  # and no image on the very edge
    expected, given = score.abs() - eps * dual, {"eps": eps, "norm": norm}
    # From a random start the l2 ball's far side is only neared, step by step.
    near = partial(pgd, steps=400, step_size=eps / 3, generator=generator())
    for attack in (fgsm, partial(pgd, steps=5), near, partial(mi_fgsm, momentum=0), apgd):
        found = -margin(model(attack(model, images, (score > 0).long(), **given)), (score > 0).long()).detach()
        assert torch.equal(found > 0, expected > 0)
        assert 80 < int((found > 0).sum()) < 120
        compared = (expected > 0) | (attack is not apgd)
        torch.testing.assert_close(found[compared], expected[compared], rtol=0, atol=1e-5)


def climbed(model, image, label, target, norm, loss, steps, eps, alpha, mu=None):
    """PGD or, with a mu, MI-FGSM of one image, by `backward`, the loss written out; target None for any class."""
    x, g = image.clone(), torch.zeros_like(image)
    for _ in range(steps):
        x = x.detach().requires_grad_()
        z = model(x[None])[0]
        sign, aim = (1, label) if target is None else (-1, target)
        others, top = torch.stack([z[k] for k in range(len(z)) if k != aim]).max(), z.sort(descending=True).values
        {
            "ce": sign * (z.logsumexp(0) - z[aim]),
            "margin": sign * (others - z[aim]),
            "dlr": (z[aim] - z[label]) / (top[0] - (top[2] + top[3]) / 2),
        }[loss].backward()
        g = x.grad if mu is None else mu * g + x.grad / x.grad.abs().sum()
        delta = x.detach() + alpha * (g.sign() if norm == "linf" else g / g.norm()) - image
        delta = delta.clip(-eps, eps) if norm == "linf" else delta * min(1, eps / float(delta.norm()))
        x = (image + delta).clip(0, 1)
    return x


@every_norm
@pytest.mark.parametrize(  # without a target, DLR is 1 where the right class is third: there its slope is just 0
    ("loss", "targeted"), [("ce", False), ("margin", False), ("ce", True), ("margin", True), ("dlr", True)]
)
def test_a_climb_equals_a_plain_reference(norm, loss, targeted):
    model, images, labels, targets = problem(8, "mlp-8-tanh", torch.float64)  # no slope of just 0
    aims = targets.tolist() if targeted else [None] * len(labels)
    how = {"eps": 0.5, "norm": norm, "loss": loss, "targets": targets if targeted else None}
    for ours, steps, alpha, mu in (
        (fgsm(model, images, labels, **how), 1, 0.5, None),
        (pgd(model, images, labels, **how, steps=6, step_size=0.13, keep="last"), 6, 0.13, None),
        (mi_fgsm(model, images, labels, **how, steps=5, momentum=0.7), 5, 0.1, 0.7),
    ):
        each = zip(images, labels.tolist(), aims, strict=True)
        plain = [climbed(model, x, y, t, norm, loss, steps, 0.5, alpha, mu) for x, y, t in each]
        torch.testing.assert_close(ours, torch.stack(plain), rtol=0, atol=1e-9)


# Which point PGD keeps


@every_norm
@every_loss
def test_the_best_point_is_never_better_for_the_model_than_the_image(norm, loss):
    model, images, labels, _ = problem(200)
    for p in model.parameters():
        p.data *= 8  # steep and crooked: a long step often overshoots
    for rng in (None, generator(0)):
        for eps, steps in ((0.05, 1), (1.0, 3)):
            moved = pgd(model, images, labels, eps=eps, steps=steps, norm=norm, loss=loss, generator=rng)
            assert bool((LOSSES[loss](model(moved), labels) >= LOSSES[loss](model(images), labels)).all())


def test_the_first_point_is_one_that_plain_pgd_comes_by_and_early_exit_changes_no_verdict():
    model, images, labels, targets = problem(60)
    for aim in (None, targets):
        how = {"eps": 0.3, "steps": 8, "targets": aim}
        first = pgd(model, images, labels, **how, keep="first")
        step = {"step_size": 2.5 * 0.3 / 8}
        path = [images] + [pgd(model, images, labels, **how | {"steps": k} | step, keep="last") for k in range(1, 9)]
        reached = torch.stack([Criterion("ce", labels, aim).reached(model(x)) for x in path])
        fell = reached.any(0)
        assert 5 < int(fell.sum()) < 60
        expected = torch.stack(path)[reached.int().argmax(0), torch.arange(60)]
        torch.testing.assert_close(first[fell], expected[fell])
        best = pgd(model, images, labels, **how)
        torch.testing.assert_close(first[~fell], best[~fell])


def test_by_default_the_steps_cross_the_ball_and_more_restarts_are_stronger():
    model, images, labels, _ = problem(100)
    default, plain = (pgd(model, images, labels, eps=0.2, steps=4, step_size=a) for a in (None, 0.125))
    assert torch.equal(default, plain)
    losses = []
    for restarts in (1, 4):
        moved = pgd(model, images, labels, eps=0.5, steps=2, restarts=restarts, generator=generator())
        losses.append(LOSSES["ce"](model(moved), labels).detach())
    assert float(losses[1].mean()) > float(losses[0].mean()) + 1e-4


def test_models_attacked_together_are_attacked_as_one_by_one():
    model, images, labels, _ = problem(6, dtype=torch.float64)
    params, param_spec = fresh(model, 2, generator()).double(), ParamSpec.of(model)
    together = pgd(Predictor(model, param_spec, params), images, labels, eps=0.2, steps=4)
    parts = zip(params, images.split(3), labels.split(3), strict=True)
    apart = [pgd(Predictor(model, param_spec, p), x, y, eps=0.2, steps=4) for p, x, y in parts]
    torch.testing.assert_close(together, torch.cat(apart))


# Targets

TARGETABLE = {
    "fgsm": fgsm,
    "pgd": partial(pgd, steps=10),
    "pgd, first": partial(pgd, steps=10, keep="first", restarts=2),
    "mi-fgsm": mi_fgsm,
    "apgd": partial(apgd, steps=20),
    "square": partial(square, queries=150),
}


@pytest.mark.parametrize("attack", TARGETABLE.values(), ids=TARGETABLE)
@every_norm
def test_more_images_are_said_to_be_the_target(norm, attack):
    model, images, labels, targets = problem(120, "mlp-32-relu")
    given = {"eps": 0.4 if norm == "linf" else 2.0, "norm": norm}
    free, aimed = (
        int(
            (model(attack(model, images, labels, targets=t, **given, generator=generator())).argmax(1) == targets).sum()
        )
        for t in (None, targets)
    )
    assert aimed > 2 * free


@pytest.mark.parametrize("attack", TARGETABLE.values(), ids=TARGETABLE)
def test_of_two_classes_a_target_is_any_wrong_class(attack):
    """There the targeted margin is the margin, z_t - z_y."""
    model, images, labels, targets = problem(60, classes=2, dtype=torch.float64)
    labels[::5] = targets[::5]  # some are wrong as they are
    how = {"eps": 0.05} | ({} if attack is TARGETABLE["square"] else {"loss": "margin"})
    moved = [attack(model, images, labels, **how, targets=t, generator=generator()) for t in (None, 1 - labels)]
    assert torch.equal(*moved)
    assert not torch.equal(moved[0], images)


@pytest.mark.parametrize("name", ["pgd, first", "apgd", "square"])
def test_an_image_is_done_with_when_the_target_is_said_and_not_before(name):
    model, images, labels, targets = problem(60)
    answer, there = labels.clone(), torch.arange(60) < 10
    labels[:20] = (answer[:20] + 1) % 5  # wrong as they are
    targets[:20] = (answer[:20] + 2) % 5
    targets[there] = answer[there]  # and where they shall be
    moved = TARGETABLE[name](model, images, labels, eps=0.25, targets=targets, generator=generator())
    reached = model(moved).argmax(1) == targets
    assert bool(reached[there].all())
    assert name == "pgd, first" or torch.equal(moved[there], images[there])  # that begins at a random point
    assert int(reached[10:20].sum()) > 1  # a wrong class is no reason to stop


# Transfer


def pair():
    """Two networks trained apart on the same task: which quarter of the image is the brightest."""
    rng, models = generator(), []
    images = torch.rand(400, 1, 4, 4, generator=rng)
    labels = F.avg_pool2d(images, 2).flatten(1).argmax(1)
    for seed in (0, 1):
        torch.manual_seed(seed)
        models.append(build("mlp-16-relu", (1, 4, 4), 4))
        optimizer = torch.optim.Adam(models[-1].parameters(), 1e-2)
        for _ in range(80):
            optimizer.zero_grad()
            F.cross_entropy(models[-1](images), labels).backward()
            optimizer.step()
    return *models, images[:100], labels[:100]


def test_images_that_fool_one_model_fool_another_which_is_asked_twice_and_for_no_gradient():
    model, surrogate, images, labels = pair()
    asked = []

    def sealed(x):
        asked.append((len(x), x.requires_grad, torch.is_grad_enabled()))
        return torch.from_numpy(model(x).detach().numpy().copy())

    moved = transfer(sealed, surrogate, images, labels, eps=0.15)
    assert asked == [(100, False, False)] * 2
    before, after = misclassified(model(images), labels), misclassified(model(moved), labels)
    assert int(after.sum()) > int(before.sum()) + 20
    changed = (moved != images).flatten(1).any(1)
    assert torch.equal(changed, after & ~before)  # what fails, or had no need, comes back as it is
    assert torch.equal(moved[changed], pgd(surrogate, images, labels, eps=0.15)[changed])
    targets = (labels + 1) % 4
    aimed = transfer(model, surrogate, images, labels, eps=0.15, targets=targets)
    there = [model(x).argmax(1) == targets for x in (images, moved, aimed)]
    assert int(there[2].sum()) > int(there[1].sum())
    assert torch.equal((aimed != images).flatten(1).any(1), there[2] & ~there[0])


# Counting, and objectives


def test_counts_nest_and_outlive_an_error():
    model, images, labels, _ = problem(5)
    with counting() as outer:
        with counting() as inner:
            pgd(model, images, labels, eps=0.1, steps=7)
            pgd(model, images[:3], labels[:3], eps=0.1, steps=2, restarts=3, generator=generator())
        with pytest.raises(RuntimeError), counting() as broken:  # noqa: PT012
            fgsm(model, images, labels, eps=0.1)
            raise RuntimeError
        fgsm(model, images[:0], labels[:0], eps=0.1)
    fgsm(model, images, labels, eps=0.1)
    assert (outer.examples, inner.examples, broken.examples) == (13, 8, 5)


@pytest.mark.parametrize(
    ("objective", "made"), [(clean, 0), (Adversarial(0.1), 8), (Adversarial(0.1, 3), 8), (Mixed(Adversarial(0.1)), 8)]
)
def test_objectives_give_a_loss_an_image_and_are_counted(objective, made):
    problem = tasks(dtype=torch.float32)
    images, labels = problem.batch(problem.train, 4, generator())
    with counting() as counter:
        losses = objective(problem.predictor(problem.params), images, labels, generator())
    assert losses.shape == (8,)
    assert counter.examples == made


def test_the_mixed_objective_is_a_weighted_mean():
    problem = tasks()
    batch = (problem.predictor(problem.params), *problem.batch(problem.train, 4, generator()))
    robust = Adversarial(0.2, 3)
    expected = 0.25 * clean(*batch, generator()) + 0.75 * robust(*batch, generator())
    torch.testing.assert_close(Mixed(robust, 0.75)(*batch, generator()), expected)
    assert bool((robust(*batch, generator()) > clean(*batch, generator())).all())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"eps": -1}, "eps is -1"),
        ({"eps": 8}, "eps is 8"),
        ({"norm": "l1"}, "'l1'"),
        ({"steps": 0}, "attack steps is 0"),
    ],
)
def test_a_bad_adversarial_objective_is_refused_where_it_is_made(changes, message):
    with pytest.raises(InputError, match=message):
        Adversarial(**{"eps": 0.1} | changes)
