"""The strong attacks: inside the ball, without side effects, equal to plain references, and as strong as their peer."""

from __future__ import annotations

import math
import re
import warnings
from functools import cache, partial
from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F
from toy import generator

from metarobust.attacks import apgd, counting, fgsm, mi_fgsm, pgd, square
from metarobust.attacks.apgd import checkpoints
from metarobust.attacks.losses import LOSSES, TARGETED, dlr, margin
from metarobust.attacks.square import share
from metarobust.attacks.standing import fooled
from metarobust.attacks.threat import length
from metarobust.data import load
from metarobust.errors import InputError
from metarobust.layout import Layout
from metarobust.models import Predictor, build, fresh

# By name: the norms it knows and a call that begins its stream of random numbers anew.
ATTACKS = {
    "apgd": (("linf", "l2"), partial(apgd, steps=9)),
    "apgd, restarts": (("linf", "l2"), lambda *a, **k: apgd(*a, **k, steps=5, restarts=2, generator=generator())),
    "apgd, dlr": (("linf", "l2"), partial(apgd, steps=9, loss="dlr")),
    "apgd, targeted ce": (("linf", "l2"), partial(apgd, steps=4, loss="ce", targets=4)),
    "apgd, targeted dlr": (("linf", "l2"), lambda *a, **k: apgd(*a, **k, steps=4, loss="dlr", targets=2,
                                                               generator=generator())),
    "mi-fgsm": (("linf", "l2"), partial(mi_fgsm, steps=4)),
    "mi-fgsm, random start": (("linf", "l2"), lambda *a, **k: mi_fgsm(*a, **k, steps=4, generator=generator())),
    "square": (("linf",), lambda *a, **k: square(*a, **k, queries=20, generator=generator())),
}  # fmt: skip
EACH = [(norm, attack) for norms, attack in ATTACKS.values() for norm in norms]
IDS = [f"{name}, {norm}" for name, (norms, _) in ATTACKS.items() for norm in norms]
every_attack = pytest.mark.parametrize(("norm", "attack"), EACH, ids=IDS)
every_norm = pytest.mark.parametrize("norm", ["linf", "l2"])


def problem(n=12, architecture="mlp-8-relu", shape=(1, 4, 4), dtype=torch.float32, seed=0, classes=5):
    """A random network, random images, and labels that it gets right but for every fifth."""
    torch.manual_seed(seed)
    model, images = build(architecture, shape, classes).to(dtype), torch.rand(n, *shape, dtype=dtype)
    labels = model(images).argmax(1)
    labels[::5] = (labels[::5] + 1) % classes
    return model, images, labels


@every_attack
@settings(max_examples=20, deadline=None, derandomize=True)
@given(
    shape=st.tuples(*[st.integers(1, 4)] * 3),
    n=st.integers(0, 3),
    eps=st.floats(0, 1) | st.sampled_from([0.0, 8 / 255, 1.0]),
    dtype=st.sampled_from([torch.float32, torch.float64]),
    seed=st.integers(0, 99),
)
def test_every_result_is_in_the_ball_and_is_an_image(norm, attack, shape, n, eps, dtype, seed):
    model, images, labels = problem(n, "mlp-5-tanh", shape, dtype, seed)
    images = (images * 1.4 - 0.2).clamp(0, 1)  # many pixels lie on the border
    before = images.clone()
    moved = attack(model, images, labels, eps=eps, norm=norm)
    assert moved.shape == images.shape
    assert moved.dtype == dtype
    assert not moved.requires_grad
    assert bool((length(moved - images, norm) <= eps + 1e-6).all())
    assert bool(((moved >= 0) & (moved <= 1)).all())
    assert torch.equal(images, before)
    assert n == 0 or moved.data_ptr() != images.data_ptr()


@every_attack
def test_a_seed_is_a_result_and_the_global_one_does_not_matter(norm, attack):
    problem_ = problem()
    found = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        found.append(attack(*problem_, eps=0.3, norm=norm))
    assert torch.equal(*found)


def test_another_seed_is_another_result():
    model, images, labels = problem(50)
    for attack in (partial(apgd, steps=3), partial(mi_fgsm, steps=3), partial(square, queries=3)):
        first, second = (attack(model, images, labels, eps=0.02, generator=generator(seed)) for seed in (0, 1))
        assert not torch.equal(first, second)


@every_norm
@pytest.mark.parametrize("how", [{}, {"loss": "dlr"}, {"loss": "margin", "targets": 3}])
def test_without_chance_the_batch_does_not_matter(norm, how):
    model, images, labels = problem(24, dtype=torch.float64)
    attack = partial(apgd, model, eps=0.05, steps=12, norm=norm, **how)
    parts = zip(images.split([1, 7, 16]), labels.split([1, 7, 16]), strict=True)
    torch.testing.assert_close(attack(images, labels), torch.cat([attack(x, y) for x, y in parts]), rtol=0, atol=1e-9)


@every_attack
def test_nothing_but_the_result_changes(norm, attack):
    model, images, labels = problem()
    model = nn.Sequential(model, nn.Dropout(0.0), nn.BatchNorm1d(5, affine=False))
    model.eval()
    model[1].train()
    model[0][2].weight.requires_grad_(False)
    model[0][2].bias.grad = torch.full_like(model[0][2].bias, 7)

    def state():
        grads = [None if p.grad is None else p.grad.tolist() for p in model.parameters()]
        values = {name: value.tolist() for name, value in model.state_dict().items()}
        return grads, values, [p.requires_grad for p in model.parameters()], [m.training for m in model.modules()]

    before = state()
    expected = attack(model, images, labels, eps=0.3, norm=norm)
    assert state() == before
    with torch.no_grad():
        assert torch.equal(attack(model, images, labels, eps=0.3, norm=norm), expected)
        assert not torch.is_grad_enabled()


@every_attack
def test_each_image_is_counted_once(norm, attack):
    model, images, labels = problem(7)
    with counting() as tally:
        for n in (7, 1, 0):
            attack(model, images[:n], labels[:n], eps=0.1, norm=norm)
    assert tally.examples == 8


# Losses


@settings(max_examples=60, deadline=None, derandomize=True)
@given(n=st.integers(0, 5), classes=st.integers(4, 7), size=st.sampled_from([1e-3, 1.0, 1e4]), seed=st.integers(0, 999))
def test_losses_are_their_equations(n, classes, size, seed):
    rng = generator(seed)
    logits = size * torch.randn(n, classes, generator=rng, dtype=torch.float64)
    labels = torch.randint(classes, (n,), generator=rng)
    targets = (labels + torch.randint(1, classes, (n,), generator=rng)) % classes
    untargeted = {name: loss(logits, labels).tolist() for name, loss in LOSSES.items()}
    targeted = {name: loss(logits, labels, targets).tolist() for name, loss in TARGETED.items()}
    assert LOSSES.keys() == TARGETED.keys()
    for i, z in enumerate(logits.tolist()):
        y, t, (first, _, third, fourth, *_) = int(labels[i]), int(targets[i]), sorted(z, reverse=True)
        total = math.log(sum(math.exp(value - first) for value in z)) + first
        best = {k: max(z[:k] + z[k + 1 :]) for k in (y, t)}
        assert [untargeted[name][i] for name in ("ce", "margin", "dlr")] == pytest.approx(
            [total - z[y], best[y] - z[y], (best[y] - z[y]) / (first - third)], rel=1e-6, abs=1e-9
        )
        assert [targeted[name][i] for name in ("ce", "margin", "dlr")] == pytest.approx(
            [z[t] - total, z[t] - best[t], (z[t] - z[y]) / (first - (third + fourth) / 2)], rel=1e-6, abs=1e-9
        )


def test_dlr_has_no_units():
    logits, labels = torch.randn(20, 6, generator=generator(), dtype=torch.float64), torch.arange(20) % 6
    for loss in (dlr, lambda z, y: TARGETED["dlr"](z, y, (y + 1) % 6)):
        torch.testing.assert_close(loss(1000 * logits - 70, labels), loss(logits, labels))
    assert torch.equal(dlr(logits, labels) > 0, margin(logits, labels) > 0)
    assert torch.equal(dlr(torch.ones(1, 4), torch.tensor([2])), torch.zeros(1))


@pytest.mark.parametrize(
    ("loss", "classes", "few"),
    [(dlr, 3, 2), (lambda z, y: TARGETED["dlr"](z, y, 1 - y), 4, 3)],
    ids=["dlr", "targeted"],
)
def test_dlr_needs_enough_classes(loss, classes, few):
    loss(torch.zeros(2, classes), torch.tensor([0, 1]))
    with pytest.raises(InputError, match=f"{classes} largest.* {few} outputs: climb 'margin' or 'ce'"):
        loss(torch.zeros(2, few), torch.tensor([0, 1]))


# Momentum


@every_norm
@pytest.mark.parametrize("loss", LOSSES)
def test_mi_fgsm_of_one_step_is_fgsm_and_without_memory_is_pgd(norm, loss):
    model, images, labels = problem()
    given = {"eps": 0.2, "norm": norm, "loss": loss}
    torch.testing.assert_close(mi_fgsm(model, images, labels, **given, steps=1), fgsm(model, images, labels, **given))
    plain = pgd(model, images, labels, **given, steps=6, step_size=0.2 / 6, best=False)
    torch.testing.assert_close(mi_fgsm(model, images, labels, **given, steps=6, momentum=0), plain)


@every_norm
@pytest.mark.parametrize("mu", [0.5, 1.0])
def test_mi_fgsm_equals_a_plain_reference(norm, mu):
    model, images, labels = problem(6, "cnn-4-tanh", dtype=torch.float64)
    found = []
    for image, label in zip(images, labels, strict=True):
        x, g = image.clone(), torch.zeros_like(image)
        for _ in range(5):
            x = x.detach().requires_grad_()
            F.cross_entropy(model(x[None]), label[None]).backward()
            g = mu * g + x.grad / x.grad.abs().sum()
            delta = x.detach() + 0.1 * (g.sign() if norm == "linf" else g / g.norm()) - image
            delta = delta.clip(-0.5, 0.5) if norm == "linf" else delta * min(1, 0.5 / float(delta.norm()))
            x = (image + delta).clip(0, 1)
        found.append(x)
    ours = mi_fgsm(model, images, labels, eps=0.5, steps=5, momentum=mu, norm=norm)
    torch.testing.assert_close(ours, torch.stack(found), rtol=0, atol=1e-9)


# Schedules, and who leaves


def test_schedules_are_those_of_the_papers():
    assert list(checkpoints(100)) == [22, 41, 57, 70, 80, 87, 93, 99]
    assert [share(query, 10_000) for query in (1, 10, 11, 51, 201, 1001, 8001)] == [
        0.8 / 2**k for k in (0, 0, 1, 2, 3, 5, 9)
    ]
    assert [share(query, 1000) for query in (1, 2, 6, 801)] == [0.8 / 2**k for k in (0, 1, 2, 9)]


def recording(model):
    """The model, and the list of the batch sizes it is asked about."""
    sizes = []

    def predict(x):
        sizes.append(len(x))
        return model(x)

    return predict, sizes


@pytest.mark.parametrize(
    ("attack", "most"),
    [
        (partial(apgd, steps=10, restarts=3), 2 + 3 * 11),
        (partial(apgd, steps=10, loss="dlr", targets=4), 2 + 4 * 11),
        (partial(square, queries=60), 2 + 60),
    ],
    ids=["restarts", "targets", "square"],
)
def test_images_leave_when_they_are_fooled(attack, most):
    model, images, labels = problem(60)
    predict, sizes = recording(model)
    moved = attack(predict, images, labels, eps=0.2, generator=generator())
    right = ~fooled(model(images), labels)
    stand = ~fooled(model(moved), labels)
    assert torch.equal(moved[~right], images[~right])
    assert not bool((stand & ~right).any())
    assert sizes[:2] == [60, 1]
    assert sizes[2] == int(right.sum()) > sizes[-1] >= int(stand.sum()) > 0
    assert sizes[2:] == sorted(sizes[2:], reverse=True)
    assert len(sizes) == most
    model, images, labels = digits(0)
    predict, sizes = recording(model)
    moved = attack(predict, images, labels, eps=0.6, generator=generator())  # all of them fall
    assert bool(fooled(model(moved), labels).all())
    assert len(sizes) < most


def test_more_restarts_and_targets_only_take_away():
    model, images, labels = problem(200)
    stands = []
    for restarts, targets in ((1, 1), (1, 4), (3, 4)):
        moved = apgd(
            model, images, labels, eps=0.2, steps=2, targets=targets, restarts=restarts, loss="dlr",
            generator=generator(),
        )  # fmt: skip
        stands.append(~fooled(model(moved), labels))
    for fewer, more in pairwise(stands):
        assert not bool((more & ~fewer).any())
    assert int(stands[0].sum()) > int(stands[-1].sum()) > 0


@pytest.mark.parametrize("attack", [apgd, partial(square, generator=generator())], ids=["apgd", "square"])
def test_many_models_at_once_are_refused(attack):
    """Where images leave, those that stay would be given to another model: that must not pass in silence."""
    model, images, labels = problem(6)
    many = Predictor(model, Layout.of(model), fresh(model, 2, generator()))
    with pytest.raises(InputError, match="1 images cannot be shared out to 2 models"):
        attack(many, images, labels, eps=0.1)


# Strength


@every_norm
def test_on_a_linear_model_apgd_is_exact(norm):
    """With m = (w_y - w_k) x + b the ball takes eps times the dual norm of w off m: an image falls where that is more.

    Those that stand are brought to the worst case.
    """
    rng = generator()
    linear = nn.Linear(9, 2, dtype=torch.float64)
    model = nn.Sequential(nn.Flatten(), linear)
    images = 0.5 + 0.2 * (torch.rand(200, 1, 3, 3, generator=rng, dtype=torch.float64) - 0.5)
    weight, bias = (linear.weight[1] - linear.weight[0]).detach(), (linear.bias[1] - linear.bias[0]).detach()
    bias -= float((images.flatten(1) @ weight + bias).median())  # about as many images on both sides
    linear.bias.data = torch.stack([torch.zeros_like(bias), bias])
    score = images.flatten(1) @ weight + bias
    labels = (score > 0).long()
    dual = weight.abs().sum() if norm == "linf" else weight.norm()
    eps = float(1.001 * score.abs().median() / dual)  # and no image on the very edge
    expected = score.abs() - eps * dual
    moved = apgd(model, images, labels, eps=eps, norm=norm, steps=100, generator=generator())
    found = -margin(model(moved), labels).detach()
    assert torch.equal(found > 0, expected > 0)
    assert 80 < int((found > 0).sum()) < 120
    torch.testing.assert_close(found[found > 0], expected[found > 0], rtol=0, atol=1e-5)


def test_square_finds_the_one_weak_corner_of_a_linear_model():
    """Two pixels, one corner of the ball that fools: random search comes to it."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(4, 2))
    model[1].weight.data = torch.tensor([[0.0] * 4, [1.0, -1.0, 1.0, -1.0]])
    model[1].bias.data = torch.tensor([0.39, 0.0])
    images = torch.full((30, 1, 2, 2), 0.5)
    moved = square(model, images, torch.zeros(30, dtype=torch.int64), eps=0.1, queries=200, generator=generator())
    assert torch.allclose(moved - images, 0.1 * torch.tensor([[1.0, -1.0], [1.0, -1.0]]).expand(30, 1, 2, 2))


@cache
def digits(eps):
    """A small network trained on handwritten digits, against PGD where eps is not 0, and the test images."""
    torch.manual_seed(0)
    data, rng, model = load("digits"), generator(), build("mlp-64-relu", (1, 8, 8), 10)
    optimizer = torch.optim.Adam(model.parameters(), 3e-3)
    for _ in range(30):
        for rows in torch.randperm(len(data.train), generator=rng).split(128):
            images, labels = data.train.images[rows], data.train.labels[rows]
            if eps:
                images = pgd(model, images, labels, eps=eps, steps=5, best=False, generator=rng)
            optimizer.zero_grad()
            F.cross_entropy(model(images), labels).backward()
            optimizer.step()
    return model.eval(), data.test.images, data.test.labels


def points(model, labels, *moved):
    """Accuracy in percent, an image counting as right if it is right under every attack."""
    return 100 * float(torch.stack([~fooled(model(x), labels) for x in moved]).all(0).double().mean())


TRAINED = [(0, "linf", 0.05), (0, "l2", 0.3), (0.2, "linf", 0.2), (0.2, "l2", 0.6)]
every_trained = pytest.mark.parametrize(("trained", "norm", "eps"), TRAINED)


@every_trained
def test_apgd_is_at_least_as_strong_as_pgd(trained, norm, eps):
    model, images, labels = digits(trained)
    for steps in (10, 40, 100):
        given = {"eps": eps, "steps": steps, "norm": norm}
        ours, plain = (attack(model, images, labels, **given, generator=generator()) for attack in (apgd, pgd))
        assert points(model, labels, ours) <= points(model, labels, plain) + 0.5
        assert points(model, labels, plain) < points(model, labels, images) - 5


@every_trained
def test_apgd_is_as_strong_as_that_of_a_peer(trained, norm, eps):
    peer = pytest.importorskip("pyautoattack.autopgd_base")
    model, images, labels = digits(trained)
    attack = partial(apgd, model, images, labels, eps=eps, norm=norm, generator=generator())
    ours = attack(), attack(loss="dlr", targets=9)
    given = {"eps": eps, "norm": {"linf": "Linf", "l2": "L2"}[norm], "n_iter": 100, "seed": 0, "device": "cpu"}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it warns of points without a gradient
        theirs = [kind(model, **given).perturb(images, labels) for kind in (peer.APGDAttack, peer.APGDAttack_targeted)]
    for a, b in zip(ours, theirs, strict=True):
        assert points(model, labels, a) <= points(model, labels, b) + 1
    assert points(model, labels, *ours) <= points(model, labels, *theirs) + 0.5


@pytest.mark.parametrize(("trained", "eps"), [(0, 0.05), (0.2, 0.2)])
def test_square_is_as_strong_as_that_of_a_peer(trained, eps):
    peer = pytest.importorskip("pyautoattack.square")
    model, images, labels = digits(trained)
    ours = square(model, images, labels, eps=eps, queries=500, generator=generator())
    theirs = peer.SquareAttack(model, eps=eps, n_queries=500, seed=0, device="cpu").perturb(images, labels)
    assert points(model, labels, ours) <= points(model, labels, theirs) + 0.5


@pytest.mark.parametrize("trained", [0, 0.2])
def test_square_fools_a_model_without_gradients_where_pgd_does_not(trained):
    model, images, labels = digits(trained)

    def rounded(x):
        return model((4 * x).round() / 4)

    def outside(x):
        """Not differentiable at all: the numbers leave PyTorch on the way."""
        return rounded(torch.from_numpy(x.numpy().copy()))

    eps = 0.15
    moved = pgd(rounded, images, labels, eps=eps, steps=20)
    clean = points(rounded, labels, images)
    assert points(rounded, labels, moved) == points(rounded, labels, apgd(rounded, images, labels, eps=eps)) == clean
    found = square(outside, images, labels, eps=eps, queries=300, generator=generator())
    assert points(rounded, labels, found) < clean - 20


def test_a_gradient_that_is_not_a_number_points_nowhere():
    def predict(x):
        return torch.stack([x.flatten(1).sum(1), (x.flatten(1).sum(1) * 0).sqrt()], 1)  # the root's slope at 0

    images = torch.full((3, 1, 2, 2), 0.5)
    moved = apgd(predict, images, torch.zeros(3, dtype=torch.int64), eps=0.1, steps=5)
    assert torch.equal(moved, images)


# Input

IMAGES, LABELS = torch.full((2, 1, 4, 4), 0.5), torch.tensor([0, 2])
BAD = {
    "bytes": ({"images": torch.zeros(2, 1, 4, 4, dtype=torch.uint8)}, r"torch\.uint8.*divide by 255"),
    "normalised": ({"images": torch.full((2, 1, 4, 4), -0.42)}, r"-0\.42.*undo the normalisation"),
    "NaN image": ({"images": torch.full((2, 1, 4, 4), math.nan)}, r"nan.*\[0, 1\]"),
    "eps of bytes": ({"eps": 8}, r"eps is 8;.*8/255"),
    "negative eps": ({"eps": -0.1}, r"-0\.1.*from 0 to 1"),
    "NaN eps": ({"eps": math.nan}, r"eps is nan.*from 0 to 1"),
    "float labels": ({"labels": torch.zeros(2)}, r"torch\.float32.*int64.*\[2\]"),
    "too few labels": ({"labels": torch.zeros(1, dtype=torch.int64)}, r"shape \[1\].*\[2\]"),
    "label out of range": ({"labels": torch.tensor([0, 3])}, r"label is 3.*3 outputs, 0 to 2"),
    "unknown norm": ({"norm": "Linf"}, r"norm 'Linf'.*linf, l2.*mean 'linf'"),
}
BAD_LOSS = {"unknown loss": ({"loss": "cw"}, r"loss 'cw'.*ce, margin, dlr")}
BAD_STEPS = {"no steps": ({"steps": 0}, r"steps=0.*from 1")}
BAD_APGD = {
    "no restarts": ({"restarts": 0}, r"restarts=0.*from 1"),
    "restarts all alike": ({"restarts": 2}, r"2 restarts.*pass generator="),
    "negative targets": ({"targets": -1}, r"targets is -1; give 0"),
    "more targets than classes": ({"targets": 3}, r"targets=3.*3 outputs, 2 of them wrong: give at most"),
    "targeted dlr on 3 classes": ({"targets": 2, "loss": "dlr"}, r"4 largest.*3 outputs: climb 'margin' or 'ce'"),
}
BAD_MOMENTUM = {
    "negative momentum": ({"momentum": -0.5}, r"momentum is -0\.5; give.*from 0"),
    "NaN momentum": ({"momentum": math.nan}, r"momentum is nan; give.*from 0"),
}
BAD_SQUARE = {
    "l2": ({"norm": "l2"}, r"norm 'l2'.*'linf' only: use apgd"),
    "flat images": ({"images": torch.full((2, 16), 0.5)}, r"\[2, 16\].*\[n, channels, height, width\]"),
    "no queries": ({"queries": 0}, r"queries=0.*from 1"),
    "no generator": ({"generator": None}, r"generator is None.*pass generator="),
    "a seed": ({"generator": 7}, r"generator is 7.*pass generator="),
}
TABLES = {
    apgd: BAD | BAD_LOSS | BAD_STEPS | BAD_APGD,
    mi_fgsm: BAD | BAD_LOSS | BAD_STEPS | BAD_MOMENTUM,
    square: BAD | BAD_SQUARE,
}
CASES = [
    pytest.param(attack, *case, id=f"{attack.__name__}, {name}")
    for attack, table in TABLES.items()
    for name, case in table.items()
]


@pytest.mark.parametrize(("attack", "changes", "message"), CASES)
def test_bad_input_is_refused_with_its_value_and_a_remedy(attack, changes, message):
    given = {"images": IMAGES, "labels": LABELS, "eps": 0.1} | changes
    if attack is square:
        given = {"generator": generator()} | given
    model = nn.Sequential(nn.Flatten(), nn.LazyLinear(3))
    with pytest.raises(InputError) as error, counting() as tally:
        attack(model, given.pop("images"), given.pop("labels"), **given)
    assert re.search(message, str(error.value)), str(error.value)
    assert "\n" not in str(error.value)
    assert tally.examples == 0 or "outputs" in message  # that is seen only once the model has been asked
