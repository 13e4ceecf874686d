"""The strong attacks: inside the ball, without side effects, equal to plain references, and as strong as their peer."""

from __future__ import annotations

import math
import warnings
from functools import cache, partial

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F
from toy import generator

from metarobust.attacks import apgd, pgd, square, square_l2, threat
from metarobust.attacks.apgd import checkpoints
from metarobust.attacks.criterion import misclassified
from metarobust.attacks.square import MOVES, share
from metarobust.attacks.square_l2 import eta, hill
from metarobust.attacks.square_linf import place, sign
from metarobust.attacks.threat import length, steepest
from metarobust.data import load
from metarobust.errors import InputError
from metarobust.models import Predictor, build, fresh
from metarobust.params import ParamSpec

every_norm = pytest.mark.parametrize("norm", ["linf", "l2"])


def problem(n=12, architecture="mlp-8-relu", shape=(1, 4, 4), dtype=torch.float32, seed=0, classes=5):
    """A random network, random images, and labels that it gets right but for every fifth."""
    torch.manual_seed(seed)
    model, images = build(architecture, shape, classes).to(dtype), torch.rand(n, *shape, dtype=dtype)
    labels = model(images).argmax(1)
    labels[::5] = (labels[::5] + 1) % classes
    return model, images, labels


# Schedules, and who leaves


def test_schedules_are_those_of_the_papers():
    assert list(checkpoints(100)) == [22, 41, 57, 70, 80, 87, 93, 99]
    assert [share(query, 10_000) for query in (1, 10, 11, 51, 201, 1001, 8001)] == [
        0.8 / 2**k for k in (0, 0, 1, 2, 3, 5, 9)
    ]
    assert [share(query, 1000) for query in (1, 2, 6, 801)] == [0.8 / 2**k for k in (0, 1, 2, 9)]


LEAVING = {
    "restarts": (partial(apgd, steps=10, restarts=3), 2 + 3 * 11),
    "n_targets": (partial(apgd, steps=10, loss="dlr", n_targets=4), 2 + 4 * 11),
    "square": (partial(square, queries=60), 2 + 60),
}


def recording(model):
    """The model, and the list of the batch sizes it is asked about."""
    sizes = []

    def predict(x):
        sizes.append(len(x))
        return model(x)

    return predict, sizes


@pytest.mark.parametrize("name", LEAVING)
def test_images_leave_when_they_are_fooled_and_come_back_the_same_where_nobody_leaves(name):
    attack, most = LEAVING[name]
    model, images, labels = problem(60)
    predict, sizes = recording(model)
    moved = attack(predict, images, labels, eps=0.2, generator=generator())
    right, stand = ~misclassified(model(images), labels), ~misclassified(model(moved), labels)
    assert torch.equal(moved[~right], images[~right])
    assert not bool((stand & ~right).any())
    assert sizes[:2] == [60, 1]
    assert sizes[2] == int(right.sum()) > sizes[-1] >= int(stand.sum()) > 0
    assert sizes[2:] == sorted(sizes[2:], reverse=True)
    assert len(sizes) == most
    everyone, sizes = recording(model)
    stayed = attack(everyone, images, labels, eps=0.2, generator=generator(), early_exit=False)
    assert torch.allclose(stayed, moved, atol=1e-6)
    assert set(sizes) == {60}
    # Two models, the second of which is the first with other weights: each gets what it would get by itself.
    param_spec = ParamSpec.of(model)
    own = param_spec.flatten(dict(model.named_parameters())).detach()
    many = Predictor(model, param_spec, torch.stack([own, fresh(model, 1, generator(1))[0]]))
    twice = images.repeat(2, 1, 1, 1), labels.repeat(2)
    both = attack(many, *twice, eps=0.2, generator=generator(), early_exit=False)
    assert torch.allclose(both[:60], moved, atol=1e-5)
    with pytest.raises(InputError, match="1 images cannot be shared out to 2 models"):
        attack(many, *twice, eps=0.1, generator=generator())


def test_more_targets_only_take_away_and_restarts_help():
    model, images, labels = problem(200)
    stands = []
    for n_targets, restarts, rng in ((1, 1, None), (4, 1, None), (1, 4, generator())):
        how = {"steps": 2, "n_targets": n_targets, "restarts": restarts, "loss": "dlr", "generator": rng}
        stands.append(~misclassified(model(apgd(model, images, labels, eps=0.2, **how)), labels))
    one, more, again = stands
    assert not bool((more & ~one).any())
    assert int(one.sum()) > int(again.sum()) > int(more.sum()) > 0


@every_norm
def test_starts_are_drawn_one_after_the_other_and_stay_the_same(norm, monkeypatch):
    model, images, labels = problem(9)
    rand, drawn, chances = torch.rand, [], (generator(), generator())
    found = []
    for rng, most in zip(chances, (threat.AT_ONCE, 100), strict=True):
        monkeypatch.setattr(threat, "AT_ONCE", most)
        monkeypatch.setattr(torch, "rand", lambda size, **how: drawn.append(math.prod(size)) or rand(size, **how))
        found.append(apgd(model, images, labels, eps=0.1, norm=norm, steps=2, restarts=5, generator=rng))
    assert torch.equal(*found)
    assert torch.equal(*(rng.get_state() for rng in chances))
    assert max(drawn[5:]) <= 100 < drawn[0]  # five starts at once before, and then those of one image


@every_norm
def test_apgd_toward_the_likeliest_class_is_its_own_first_choice(norm):
    """Except for when an image is done with: any wrong class will do where the attack chose the target itself."""
    model, images, _ = problem(60, dtype=torch.float64)
    labels, second = model(images).topk(2).indices.T
    given = {"eps": 0.02 if norm == "linf" else 0.1, "norm": norm, "steps": 10}
    own, aimed = (apgd(model, images, labels, **given, **aim) for aim in ({"n_targets": 1}, {"targets": second}))
    stand = ~misclassified(model(own), labels)
    assert 10 < int(stand.sum()) < 60
    torch.testing.assert_close(own[stand], aimed[stand])


# The moves of the square attack


def test_a_hill_is_equation_2():
    for height, width in ((1, 1), (1, 3), (2, 3), (3, 7), (4, 7), (4, 8)):
        n = max(height, width) // 2
        expected = torch.zeros(height, width, dtype=torch.float64)
        for r in range(1, height + 1):
            for s in range(1, width + 1):
                m = n - max(abs(r - height // 2 - 1), abs(s - width // 2 - 1))
                expected[r - 1, s - 1] = sum(1 / (n + 1 - k) ** 2 for k in range(m + 1))
        torch.testing.assert_close(hill(height, width), expected)
    for side in (1, 2, 3, 5, 8):
        both = eta(side)
        assert both.shape == (side, side)
        assert float(both.norm()) == pytest.approx(1)
        assert bool((both[: side // 2] > 0).all())
        assert bool((both[side // 2 :] < 0).all())


@settings(max_examples=30, deadline=None, derandomize=True)
@given(
    channels=st.integers(1, 3), height=st.integers(3, 12), width=st.integers(3, 12), share=st.floats(0.01, 0.8),
    spent=st.sampled_from([0.0, 0.5, 1.0]), seed=st.integers(0, 99),
)  # fmt: skip
def test_a_window_of_the_l2_square_is_algorithm_3(channels, height, width, share, spent, seed):
    """Grey images and a small eps, so that nothing is clipped."""
    rng, eps = generator(seed), 0.2
    images = torch.full((4, channels, height, width), 0.5, dtype=torch.float64)
    noise = torch.randn(images.shape, generator=rng, dtype=torch.float64)
    current = images + spent * eps * steepest(noise, "l2")
    uniform = torch.rand(4, channels + 5, generator=rng)
    moved = square_l2.propose(images, current, eps, share, uniform)
    h = min(max(round((share * height * width) ** 0.5), 3) // 2 * 2 + 1, height, width)
    for image, before, after, u in zip(images, current, moved, uniform.tolist(), strict=True):
        r1, s1, r2, s2 = (int(u[k] * (size - h + 1)) for k, size in enumerate((height, width, height, width)))
        nu, unused = before - image, eps**2 - float((before - image).square().sum())
        pattern = eta(h).to(image) if u[4] < 0.5 else eta(h).to(image).T
        for i in range(channels):
            window = nu[i, r1 : r1 + h, s1 : s1 + h].clone()
            mask = torch.zeros(height, width, dtype=torch.bool)
            mask[r1 : r1 + h, s1 : s1 + h] = mask[r2 : r2 + h, s2 : s2 + h] = True
            available = math.sqrt(float(nu[i][mask].square().sum()) + max(unused, 0) / channels)
            temp = (-1 if u[5 + i] < 0.5 else 1) * pattern + window / max(float(window.norm()), 1e-12)
            nu[i, r2 : r2 + h, s2 : s2 + h] = 0
            nu[i, r1 : r1 + h, s1 : s1 + h] = temp / temp.norm() * available
        torch.testing.assert_close(after, image + nu, rtol=0, atol=1e-7)
    torch.testing.assert_close(length(moved - images, "l2"), torch.full((4,), eps, dtype=torch.float64))


@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize("size", [(2, 9), (8, 8), (28, 28), (32, 32)])
def test_the_square_attack_begins_and_stays_at_the_surface_of_the_ball(norm, size):
    images = torch.full((50, 2, *size), 0.5, dtype=torch.float64)
    moves = MOVES[norm]
    first, later = moves.numbers(2, *size)
    rng = generator()
    x = moves.start(images, 0.3, torch.rand(50, first, generator=rng))
    for share_ in (0.8, 0.2, 0.01):
        torch.testing.assert_close(length(x - images, norm), torch.full((50,), 0.3, dtype=torch.float64))
        x = moves.propose(images, x, 0.3, share_, torch.rand(50, later, generator=rng))
    assert int(((x - images)[:, :, size[0] // 2, size[1] // 2] != 0).sum()) > 0


def test_squares_come_to_every_place_equally_often():
    rng = generator()
    assert torch.bincount(place(torch.rand(60_000, generator=rng), 8, 3)).div(10_000).sub(1).abs().max() < 0.04
    assert int(place(torch.tensor([1 - 2**-24]), 1000, 1)) == 999
    assert torch.bincount(sign(torch.rand(60_000, generator=rng)).long() + 1)[[0, 2]].sub(30_000).abs().max() < 500


# Strength


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
                images = pgd(model, images, labels, eps=eps, steps=5, keep="last", generator=rng)
            optimizer.zero_grad()
            F.cross_entropy(model(images), labels).backward()
            optimizer.step()
    return model.eval(), data.test.images, data.test.labels


def points(model, labels, *moved):
    """Accuracy in percent, an image counting as right if it is right under every attack."""
    return 100 * float(torch.stack([~misclassified(model(x), labels) for x in moved]).all(0).double().mean())


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
    ours = attack(), attack(loss="dlr", n_targets=9)
    given = {"eps": eps, "norm": {"linf": "Linf", "l2": "L2"}[norm], "n_iter": 100, "seed": 0, "device": "cpu"}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it warns of points without a gradient
        theirs = [kind(model, **given).perturb(images, labels) for kind in (peer.APGDAttack, peer.APGDAttack_targeted)]
    for a, b in zip(ours, theirs, strict=True):
        assert points(model, labels, a) <= points(model, labels, b) + 1
    assert points(model, labels, *ours) <= points(model, labels, *theirs) + 0.5


@every_trained
def test_square_is_as_strong_as_that_of_a_peer(trained, norm, eps):
    peer = pytest.importorskip("pyautoattack.square")
    model, images, labels = digits(trained)
    ours = square(model, images, labels, eps=eps, norm=norm, queries=300, generator=generator())
    given = {"eps": eps, "norm": {"linf": "Linf", "l2": "L2"}[norm], "n_queries": 300, "seed": 0, "device": "cpu"}
    theirs = peer.SquareAttack(model, **given).perturb(images, labels)
    assert points(model, labels, ours) <= points(model, labels, theirs) + 0.5
    assert points(model, labels, ours) < points(model, labels, images) - 5


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
