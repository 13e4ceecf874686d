"""Targets of the user's choice: `toward` means the same in every attack, and equals a plain reference."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from torch.nn import functional as F
from toy import generator

from metarobust.attacks import apgd, fgsm, mi_fgsm, pgd, square, transfer
from metarobust.attacks.criterion import Criterion, misclassified
from metarobust.attacks.losses import LOSSES, TARGETED, targeted_margin
from metarobust.errors import InputError
from metarobust.models import build

ATTACKS = {
    "fgsm": fgsm,
    "pgd": partial(pgd, steps=10),
    "pgd, leave": partial(pgd, steps=10, early_exit=True, restarts=2),
    "mi-fgsm": mi_fgsm,
    "apgd": partial(apgd, steps=20),
    "square": partial(square, queries=150),
}
every_attack = pytest.mark.parametrize("attack", ATTACKS.values(), ids=ATTACKS)
every_norm = pytest.mark.parametrize("norm", ["linf", "l2"])


def problem(n=60, classes=5, architecture="mlp-8-relu", dtype=torch.float32, seed=0):
    """A random network, random images, what it says of them, and another class for each."""
    torch.manual_seed(seed)
    model, images = build(architecture, (1, 5, 5), classes).to(dtype), torch.rand(n, 1, 5, 5, dtype=dtype)
    labels = model(images).argmax(1)
    return model, images, labels, (labels + torch.randint(1, classes, (n,))) % classes


def says(model, images, classes):
    return model(images).argmax(1) == classes


@every_attack
@every_norm
def test_more_images_are_said_to_be_the_target(norm, attack):
    model, images, labels, toward = problem(120, architecture="mlp-32-relu")
    given = {"eps": 0.4 if norm == "linf" else 2.0, "norm": norm}
    assert not bool(says(model, images, toward).any())
    free, aimed = (
        int(says(model, attack(model, images, labels, targets=aim, **given, generator=generator()), toward).sum())
        for aim in (None, toward)
    )
    assert aimed > 2 * free


@every_attack
@every_norm
def test_of_two_classes_a_target_is_any_wrong_class(norm, attack):
    """There the targeted margin is the margin, z_t - z_y."""
    model, images, labels, toward = problem(classes=2, dtype=torch.float64)
    labels[::5] = toward[::5]  # some are wrong as they are
    how = {"eps": 0.05, "norm": norm} | ({} if attack is ATTACKS["square"] else {"loss": "margin"})
    moved = [attack(model, images, labels, **how, targets=aim, generator=generator()) for aim in (None, 1 - labels)]
    assert torch.equal(*moved)
    assert not torch.equal(moved[0], images)


def climbed(model, image, label, target, norm, loss, steps, eps, alpha, mu=None):
    """PGD or, with a mu, MI-FGSM toward a class: one image, by `backward`, the targeted loss written out."""
    x, g = image.clone(), torch.zeros_like(image)
    for _ in range(steps):
        x = x.detach().requires_grad_()
        z = model(x[None])[0]
        others = [z[k] for k in range(len(z)) if k != target]
        top = z.sort(descending=True).values
        {
            "ce": z[target] - z.logsumexp(0),
            "margin": z[target] - torch.stack(others).max(),
            "dlr": (z[target] - z[label]) / (top[0] - (top[2] + top[3]) / 2),
        }[loss].backward()
        g = x.grad if mu is None else mu * g + x.grad / x.grad.abs().sum()
        delta = x.detach() + alpha * (g.sign() if norm == "linf" else g / g.norm()) - image
        delta = delta.clip(-eps, eps) if norm == "linf" else delta * min(1, eps / float(delta.norm()))
        x = (image + delta).clip(0, 1)
    return x


@every_norm
@pytest.mark.parametrize("loss", LOSSES)
def test_a_targeted_climb_equals_a_plain_reference(norm, loss):
    model, images, labels, toward = problem(8, architecture="mlp-8-tanh", dtype=torch.float64)  # no slope of just 0
    each = list(zip(images, labels.tolist(), toward.tolist(), strict=True))
    how = {"eps": 0.5, "norm": norm, "loss": loss, "toward": toward}
    for ours, steps, alpha, mu in (
        (fgsm(model, images, labels, **how), 1, 0.5, None),
        (pgd(model, images, labels, **how, steps=6, step_size=0.13, best=False), 6, 0.13, None),
        (mi_fgsm(model, images, labels, **how, steps=5, momentum=0.7), 5, 0.1, 0.7),
    ):
        plain = [climbed(model, x, y, t, norm, loss, steps, 0.5, alpha, mu) for x, y, t in each]
        torch.testing.assert_close(ours, torch.stack(plain), rtol=0, atol=1e-9)


@every_norm
def test_apgd_toward_the_likeliest_class_is_its_own_first_choice(norm):
    """Except for when an image is done with: any wrong class will do where the attack chose the target itself."""
    model, images, labels, _ = problem(dtype=torch.float64)
    second = model(images).topk(2).indices[:, 1]
    given = {"eps": 0.02 if norm == "linf" else 0.1, "norm": norm, "steps": 10}
    own, aimed = apgd(model, images, labels, **given, n_targets=1), apgd(model, images, labels, **given, targets=second)
    stand = ~misclassified(model(own), labels)
    assert 10 < int(stand.sum()) < 60
    torch.testing.assert_close(own[stand], aimed[stand])


@pytest.mark.parametrize("attack", [ATTACKS["pgd, leave"], ATTACKS["apgd"], ATTACKS["square"]])
def test_an_image_is_done_with_when_the_target_is_said_and_not_before(attack):
    model, images, labels, toward = problem()
    said, there = labels.clone(), torch.arange(60) < 10
    labels[:20] = (said[:20] + 1) % 5  # wrong as they are
    toward[:20] = (said[:20] + 2) % 5
    toward[there] = said[there]  # and where they shall be
    moved = attack(model, images, labels, eps=0.25, targets=toward, generator=generator())
    reached = says(model, moved, toward)
    assert bool(reached[there].all())
    if attack is not ATTACKS["pgd, leave"]:  # it begins at a random point
        assert torch.equal(moved[there], images[there])
    assert int(reached[10:20].sum()) > 3  # a wrong class is no reason to stop


def test_a_goal_says_what_is_climbed_and_when_it_is_over():
    logits = torch.tensor([[3.0, 1, 2, 0], [0, 5, 1, 2], [0, 1, torch.nan, 2]])
    labels, toward = torch.tensor([0, 0, 0]), torch.tensor([2, 1, 3])
    expected = {
        (False, False): [False, True, True],
        (True, False): [False, True, False],  # an output that is not a number does not say the target
        (True, True): [False, True, True],
    }
    for (aimed, settle), reached in expected.items():
        goal = Criterion("margin", labels, toward if aimed else None, settle)
        assert goal.reached(logits).tolist() == reached
        form = TARGETED["margin"](logits, labels, toward) if aimed else LOSSES["margin"](logits, labels)
        torch.testing.assert_close(goal.losses(logits), form, equal_nan=True)
        assert goal.of(torch.tensor([1])).reached(logits[1:2]).tolist() == reached[1:2]


# The transfer attack


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


@every_norm
def test_images_that_fool_one_model_fool_another(norm):
    model, surrogate, images, labels = pair()
    eps = 0.15 if norm == "linf" else 0.5
    moved = transfer(model, surrogate, images, labels, eps=eps, norm=norm)
    before, after = misclassified(model(images), labels), misclassified(model(moved), labels)
    assert int(after.sum()) > int(before.sum()) + 20
    changed = (moved != images).flatten(1).any(1)
    assert torch.equal(changed, after & ~before)  # what fails, or had no need, comes back as it is
    made = pgd(surrogate, images, labels, eps=eps, norm=norm)
    assert torch.equal(moved[changed], made[changed])
    toward = (labels + 1) % 4
    aimed = transfer(model, surrogate, images, labels, eps=eps, norm=norm, targets=toward)
    assert int(says(model, aimed, toward).sum()) > int(says(model, moved, toward).sum())
    assert torch.equal((aimed != images).flatten(1).any(1), says(model, aimed, toward) & ~says(model, images, toward))


def test_the_target_of_a_transfer_is_asked_twice_and_for_no_gradient():
    model, surrogate, images, labels = pair()
    asked = []

    def sealed(x):
        assert not x.requires_grad
        assert not torch.is_grad_enabled()
        asked.append(len(x))
        return torch.from_numpy(model(x).numpy().copy())

    moved = transfer(sealed, surrogate, images, labels, eps=0.15)
    assert asked == [100, 100]
    assert torch.equal(moved, transfer(model, surrogate, images, labels, eps=0.15))
    with pytest.raises(InputError, match="no gradient"):
        transfer(model, sealed_without_asserts(model), images, labels, eps=0.15)


def sealed_without_asserts(model):
    return lambda x: model(x.detach()).detach()


def test_targeted_margin_is_above_zero_where_the_target_is_said():
    logits = torch.randn(50, 5, generator=generator())
    labels, toward = torch.zeros(50, dtype=torch.int64), torch.arange(50) % 5
    assert torch.equal(targeted_margin(logits, labels, toward) > 0, logits.argmax(1) == toward)
