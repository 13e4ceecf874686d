"""What every attack keeps, whatever it is given: the ball, the image, the seed, the batch, and the model as it was."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from toy import generator

from metarobust.attacks import apgd, counting, fgsm, mi_fgsm, pgd, square, transfer
from metarobust.attacks.threat import length
from metarobust.models import build

CLASSES = 5


def carried(model, images, labels, **how):
    """The transfer attack, from a surrogate of the same shape."""
    torch.manual_seed(77)
    surrogate = build("mlp-6-tanh", tuple(images.shape[1:]), CLASSES).to(images.dtype)
    return transfer(model, surrogate, images, labels, steps=3, **how)


# Each is called with eps, norm, toward and, unless it wants none, a generator.
WITHOUT_CHANCE = {
    "fgsm": fgsm,
    "pgd": lambda *a, **k: pgd(*a, **k, steps=3),
    "pgd, last point": lambda *a, **k: pgd(*a, **k, steps=3, best=False),
    "pgd, leave": lambda *a, **k: pgd(*a, **k, steps=3, early_exit=True),
    "mi-fgsm": lambda *a, **k: mi_fgsm(*a, **k, steps=4),
    "apgd": lambda *a, **k: apgd(*a, **k, steps=9),
    "apgd, dlr": lambda *a, **k: apgd(*a, **k, steps=5, loss="dlr"),
    "transfer": carried,
}
WITH_CHANCE = WITHOUT_CHANCE | {
    "pgd, restarts": lambda *a, **k: pgd(*a, **k, steps=2, restarts=3, loss="margin"),
    "pgd, restarts, leave": lambda *a, **k: pgd(*a, **k, steps=2, restarts=3, early_exit=True),
    "pgd, restarts, last points": lambda *a, **k: pgd(*a, **k, steps=2, restarts=2, best=False),
    "apgd, restarts": lambda *a, **k: apgd(*a, **k, steps=4, restarts=2),
    "square": lambda *a, **k: square(*a, **k, queries=20),
    "square, one query": lambda *a, **k: square(*a, **k, queries=1),
}
# These name their classes themselves.
UNTARGETED = {
    "apgd, targets": lambda *a, toward, **k: apgd(*a, **k, steps=4, n_targets=3),
    "apgd, targets, restarts": lambda *a, toward, **k: apgd(*a, **k, steps=3, n_targets=2, restarts=2, loss="dlr"),
}
ALL = {
    **{name: lambda *a, attack=attack, **k: attack(*a, **{**k, "generator": None}) for name, attack in (
        WITHOUT_CHANCE.items())},
    **{f"{name}, by chance": attack for name, attack in (WITH_CHANCE | UNTARGETED).items()},
}  # fmt: skip
every_attack = pytest.mark.parametrize("attack", ALL.values(), ids=ALL)
every_norm = pytest.mark.parametrize("norm", ["linf", "l2"])


def problem(n=12, architecture="mlp-8-relu", shape=(1, 4, 4), dtype=torch.float32, seed=0):
    """A random network, images with many pixels on the border, labels of which a fifth are wrong, and targets."""
    torch.manual_seed(seed)
    model = build(architecture, shape, CLASSES).to(dtype)
    images = (torch.rand(n, *shape) * 1.4 - 0.2).clamp(0, 1).to(dtype)
    labels = model(images).argmax(1)
    labels[::5] = (labels[::5] + 1) % CLASSES
    return model, images, labels, (labels + torch.randint(1, CLASSES, (n,))) % CLASSES


@every_attack
@settings(max_examples=20, deadline=None, derandomize=True)
@given(
    shape=st.tuples(*[st.integers(1, 7)] * 3),
    n=st.integers(0, 3),
    eps=st.floats(0, 1) | st.sampled_from([0.0, 1e-9, 8 / 255, 1.0]),
    norm=st.sampled_from(["linf", "l2"]),
    dtype=st.sampled_from([torch.float32, torch.float64, torch.float16, torch.bfloat16]),
    targeted=st.booleans(),
    seed=st.integers(0, 99),
)
def test_every_result_is_in_the_ball_and_is_an_image(attack, shape, n, eps, norm, dtype, targeted, seed):
    model, images, labels, toward = problem(n, "mlp-5-tanh", shape, dtype, seed)
    before = images.clone()
    moved = attack(
        model, images, labels, eps=eps, norm=norm, targets=toward if targeted else None, generator=generator(seed)
    )
    assert moved.shape == images.shape
    assert moved.dtype == dtype
    assert not moved.requires_grad
    # Half precision has steps of its own, and each of the pixels may be half a step off.
    slack = 1e-6
    if dtype in (torch.float16, torch.bfloat16):
        slack = torch.finfo(dtype).eps * (1 if norm == "linf" else images[:1].numel() ** 0.5)
    assert bool((length(moved.double() - images.double(), norm) <= eps + slack).all())
    assert bool(((moved >= 0) & (moved <= 1)).all())
    assert torch.equal(images, before)
    assert n == 0 or moved.data_ptr() != images.data_ptr()


@every_attack
@every_norm
def test_a_seed_is_a_result_and_the_global_one_does_not_matter(norm, attack):
    model, images, labels, toward = problem()
    found = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        found.append(attack(model, images, labels, eps=0.3, norm=norm, targets=toward, generator=generator()))
    assert torch.equal(*found)


@every_norm
@pytest.mark.parametrize("attack", (WITH_CHANCE | UNTARGETED).values(), ids=WITH_CHANCE | UNTARGETED)
def test_another_seed_is_another_result(norm, attack):
    model, images, labels, _ = problem(50)
    found = [
        attack(model, images, labels, eps=0.2, norm=norm, targets=None, generator=generator(seed)) for seed in (0, 1)
    ]
    assert not torch.equal(*found)


@every_attack
@every_norm
@settings(max_examples=5, deadline=None, derandomize=True)
@given(data=st.data(), targeted=st.booleans(), seed=st.integers(0, 99))
def test_the_batch_does_not_matter(norm, attack, data, targeted, seed):
    """The same generator runs through the parts. In float64, as a sum may be rounded otherwise in another batch."""
    model, images, labels, toward = problem(13, dtype=torch.float64, seed=seed)
    sizes, left = [], 13
    while left:
        sizes.append(data.draw(st.integers(1, left)))
        left -= sizes[-1]
    for p in model.parameters():
        p.data *= 2  # some fall, and leave, and some do not

    def run(sizes):
        rng = generator(seed)
        parts = zip(images.split(sizes), labels.split(sizes), toward.split(sizes), strict=True)
        return torch.cat([
            attack(model, x, y, eps=0.1, norm=norm, targets=t if targeted else None, generator=rng) for x, y, t in parts
        ])  # fmt: skip

    torch.testing.assert_close(run(sizes), run([13]), rtol=0, atol=1e-9)


@every_attack
@every_norm
def test_nothing_but_the_result_changes(norm, attack):
    model, images, labels, toward = problem()
    model = nn.Sequential(model, nn.Dropout(0.0), nn.BatchNorm1d(CLASSES, affine=False))
    model.eval()
    model[1].train()
    model[0][2].weight.requires_grad_(False)
    model[0][2].bias.grad = torch.full_like(model[0][2].bias, 7)

    def state():
        grads = [None if p.grad is None else p.grad.tolist() for p in model.parameters()]
        values = {name: value.tolist() for name, value in model.state_dict().items()}
        return grads, values, [p.requires_grad for p in model.parameters()], [m.training for m in model.modules()]

    def moved():
        return attack(model, images, labels, eps=0.3, norm=norm, targets=toward, generator=generator())

    before = state()
    expected = moved()
    assert state() == before
    with torch.no_grad():
        assert torch.equal(moved(), expected)
        assert not torch.is_grad_enabled()


@every_attack
@every_norm
def test_each_image_is_counted_once(norm, attack):
    model, images, labels, toward = problem(7)
    with counting() as tally:
        for n in (7, 1, 0):
            attack(model, images[:n], labels[:n], eps=0.1, norm=norm, targets=toward[:n], generator=generator())
    assert tally.examples == 8


@pytest.mark.parametrize("attack", (WITH_CHANCE | UNTARGETED).values(), ids=WITH_CHANCE | UNTARGETED)
@every_norm
def test_a_slope_or_an_output_that_is_not_a_number_makes_no_image_of_nan(norm, attack):
    model, images, labels, toward = problem()

    def broken(x):
        logits = model(x)
        return torch.where(logits > 0, logits, logits * 0 / (x.flatten(1).sum(1, keepdim=True) > 7).to(x.dtype))

    assert bool(broken(images).isnan().any())
    for aim in (None, toward):
        moved = attack(broken, images, labels, eps=0.3, norm=norm, targets=aim, generator=generator())
        assert bool((length(moved - images, norm) <= 0.3 + 1e-6).all())
        assert bool(((moved >= 0) & (moved <= 1)).all())
