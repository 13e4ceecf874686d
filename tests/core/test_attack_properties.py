"""What every attack keeps, whatever it is given: the ball, the image, the seed, the batch, and the model as it was."""

from __future__ import annotations

from copy import deepcopy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from toy import generator

from metarobust.attacks import apgd, counting, fgsm, mi_fgsm, pgd, square, transfer
from metarobust.attacks.losses import margin
from metarobust.attacks.threat import length
from metarobust.models import build

CLASSES = 5


def transferred(model, images, labels, **how):
    """The transfer attack, from a surrogate of the same shape."""
    torch.manual_seed(77)
    surrogate = build("mlp-6-tanh", tuple(images.shape[1:]), CLASSES).to(images.dtype)
    return transfer(model, surrogate, images, labels, steps=3, **how)


TABLE = {
    "fgsm": (fgsm, {}),
    "pgd": (pgd, {"steps": 3}),
    "pgd, last point": (pgd, {"steps": 3, "keep": "last"}),
    "pgd, restarts": (pgd, {"steps": 2, "restarts": 3, "loss": "margin"}),
    "pgd, first point": (pgd, {"steps": 2, "restarts": 3, "keep": "first"}),
    "mi-fgsm": (mi_fgsm, {"steps": 4}),
    "apgd": (apgd, {"steps": 5, "loss": "dlr"}),
    "apgd, restarts": (apgd, {"steps": 4, "restarts": 2}),
    "apgd, n_targets": (apgd, {"steps": 3, "n_targets": 2, "restarts": 2, "loss": "dlr"}),
    "square": (square, {"queries": 20}),
    "square, one query": (square, {"queries": 1}),
    "transfer": (transferred, {}),
}
every_attack = pytest.mark.parametrize("name", TABLE)
every_norm = pytest.mark.parametrize("norm", ["linf", "l2"])


def run(name, model, images, labels, targets, *, seed=0, rng=None, **threat):
    attack, settings = TABLE[name]
    aim = {} if "n_targets" in settings else {"targets": targets}  # that one names its classes itself
    return attack(model, images, labels, **threat, **settings, **aim, generator=rng or generator(seed))


def problem(n=12, shape=(1, 4, 4), dtype=torch.float32, seed=0):
    """A random network, images of which some pixels are black or white, labels mostly right, and wrong classes."""
    torch.manual_seed(seed)
    model = build("mlp-8-tanh", shape, CLASSES).to(dtype)
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
def test_every_result_is_in_the_ball_and_is_an_image_and_is_counted(name, shape, n, eps, norm, dtype, targeted, seed):
    model, images, labels, targets = problem(n, shape, dtype, seed)
    before = images.clone()
    with counting() as counter:
        moved = run(name, model, images, labels, targets if targeted else None, eps=eps, norm=norm, seed=seed)
    assert counter.examples == n
    assert (moved.shape, moved.dtype, moved.requires_grad) == (images.shape, dtype, False)
    assert bool((length(moved.double() - images.double(), norm) <= eps + 1e-6).all())
    assert bool(((moved >= 0) & (moved <= 1)).all())
    assert torch.equal(images, before)
    assert n == 0 or moved.data_ptr() != images.data_ptr()


@every_attack
@every_norm
def test_a_seed_is_a_result_and_the_global_one_does_not_matter(norm, name):
    model, images, labels, _ = problem(50)
    results = []
    for global_seed, seed in ((1, 0), (2, 0), (2, 1)):
        torch.manual_seed(global_seed)
        results.append(run(name, model, images, labels, None, eps=0.4, norm=norm, seed=seed))
    assert torch.equal(results[0], results[1])
    assert not torch.equal(results[1], results[2])


@every_attack
@every_norm
@settings(max_examples=5, deadline=None, derandomize=True)
@given(data=st.data(), targeted=st.booleans(), seed=st.integers(0, 99))
def test_the_batch_does_not_matter(norm, name, data, targeted, seed):
    """The same generator runs through the parts. In float64, as a sum may be rounded otherwise in another batch."""
    model, images, labels, targets = problem(13, dtype=torch.float64, seed=seed)
    sizes, left = [], 13
    while left:
        sizes.append(data.draw(st.integers(1, left)))
        left -= sizes[-1]
    for p in model.parameters():
        p.data *= 2  # some fall, and leave, and some do not

    def in_parts(sizes):
        rng = generator(seed)
        parts = zip(images.split(sizes), labels.split(sizes), targets.split(sizes), strict=True)
        moved = [run(name, model, x, y, t if targeted else None, eps=0.1, norm=norm, rng=rng) for x, y, t in parts]
        return torch.cat(moved)

    torch.testing.assert_close(in_parts(sizes), in_parts([13]), rtol=0, atol=1e-9)


@every_attack
def test_nothing_but_the_result_changes(name):
    model, images, labels, targets = problem()
    model = nn.Sequential(nn.BatchNorm2d(1), model, nn.Dropout(0.0), nn.BatchNorm1d(CLASSES, affine=False).eval())
    model[1][-1].weight.requires_grad_(False)
    model[1][-1].bias.grad = torch.full_like(model[1][-1].bias, 7)
    model.register_buffer("calls", torch.zeros(1))
    model.register_forward_hook(lambda *_: setattr(model, "calls", model.calls + 1))
    waiting = model(images).square().sum()

    def state():
        grads = [None if p.grad is None else p.grad.tolist() for p in model.parameters()]
        values = {key: value.tolist() for key, value in model.state_dict().items()}
        return grads, values, [p.requires_grad for p in model.parameters()], [m.training for m in model.modules()]

    before = state()
    moved = run(name, model, images, labels, targets, eps=0.3, norm="linf")
    assert state() == before
    with torch.no_grad():
        assert torch.equal(run(name, model, images, labels, targets, eps=0.3, norm="linf"), moved)
        assert not torch.is_grad_enabled()
    torch.autograd.grad(waiting, model[0].weight)  # the backward of a loss from before is still to be had


@every_attack
@every_norm
def test_a_slope_or_an_output_that_is_not_a_number_makes_no_image_of_nan(norm, name):
    model, images, labels, targets = problem()

    def broken(x):
        logits = model(x)
        return torch.where(logits > 0, logits, logits * 0 / (x.flatten(1).sum(1, keepdim=True) > 7).to(x.dtype))

    assert bool(broken(images).isnan().any())
    for aim in (None, targets):
        moved = run(name, broken, images, labels, aim, eps=0.3, norm=norm)
        assert bool((length(moved - images, norm) <= 0.3 + 1e-6).all())
        assert bool(((moved >= 0) & (moved <= 1)).all())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize(("norm", "eps"), [("linf", 0.06), ("l2", 0.4)])
def test_in_half_precision_small_steps_count_and_a_sure_model_has_a_slope(dtype, norm, eps):
    model, images, _, _ = problem(50, shape=(1, 8, 8))
    model, images = model.to(dtype), (1 - 0.3 * images).to(dtype)
    labels = model(images).argmax(1)
    for scale, steps in ((1, 10), (1, 300), (40, 10)):  # in the last, float16 takes the slope of cross-entropy for 0
        gained = []
        for exact in (torch.float32, dtype):
            given, x = deepcopy(model).to(exact), images.to(exact)
            moved = pgd(lambda z, f=given, s=scale: s * f(z), x, labels, eps=eps, norm=norm, steps=steps, keep="last")
            assert float(length(moved.double() - x.double(), norm).max()) <= eps + 1e-6
            after, before = (margin(deepcopy(model).float()(z.float()), labels).detach() for z in (moved, x))
            gained.append(float((after - before).mean()))
        assert gained[1] > 0.9 * gained[0] > 0.01, (scale, steps, gained)
