"""`metarobust.patch`: more robust on images held out, no adversarial example in use, the original as it was."""

from __future__ import annotations

import copy
import math
import re
from contextlib import nullcontext
from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from toy import generator

import metarobust
from metarobust import fitting, patching
from metarobust.data import load
from metarobust.errors import InputError
from metarobust.evaluation import evaluate
from metarobust.fitting import LEAST, split
from metarobust.learned.mlp import FeatureMLP
from metarobust.models import build
from metarobust.optim import MetaOptimizer

UNLIKE = r"learned on no network that normalises .* is safer: loss = F.cross_entropy\(model\(pgd\("
HALF = 700  # of the digits' training images: the first half trains models, the other patches them


@pytest.fixture(scope="module")
def digits():
    train = load("digits").train
    return train[:HALF], train[HALF:]


def with_norm():
    """A network of layers that no pretrained optimizer has met."""
    return nn.Sequential(
        nn.Conv2d(1, 8, 3, 2, 1), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.Dropout(0.3), nn.Linear(128, 10)
    )


def trained(model, part, steps=150):
    """Ordinary training on clean images."""
    adam, chance = torch.optim.Adam(model.parameters(), 0.01), generator()
    for _ in range(steps):
        pick = torch.randint(len(part), (64,), generator=chance)
        adam.zero_grad()
        F.cross_entropy(model(part.images[pick]), part.labels[pick]).backward()
        adam.step()
    return model


@pytest.fixture(scope="module")
def mlp(digits):
    torch.manual_seed(0)
    return trained(build("mlp-64-tanh", (1, 8, 8), 10), digits[0])


def everything(model):
    """Parameters, buffers, gradients and modes."""
    grads = {f"{name} grad": p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    modes = [module.training for module in model.modules()]
    held = {name: t.clone() for name, t in model.state_dict().items() if isinstance(t, torch.Tensor)}
    return held | grads, modes


def unchanged(before, after):
    assert before[1] == after[1]
    assert before[0].keys() == after[0].keys()
    return all(torch.equal(t, after[0][name]) for name, t in before[0].items())


@pytest.mark.parametrize(
    ("kind", "rule"), [("mlp", "patch"), ("mlp", "patch-digits"), ("norm", "patch"), ("norm", "patch-digits-penalties")]
)
def test_a_patched_model_is_more_robust_on_held_out_images(kind, rule, digits, mlp):
    model = mlp if kind == "mlp" else trained(with_norm(), digits[0])
    model[1].eval()  # modes are kept module by module
    before, chance = everything(model), torch.get_rng_state()
    steps, strange = 20 if rule == "patch-digits" else 100, rule == "patch-digits-penalties"
    with pytest.warns(UserWarning, match=UNLIKE) if strange else nullcontext():
        patched, report = metarobust.patch(model, digits[1].images, digits[1].labels, optimizer=rule, steps=steps)
    assert unchanged(before, everything(model))
    assert torch.equal(chance, torch.get_rng_state()), "global chance was used"
    after = everything(patched)
    assert after[1] == before[1]
    assert all(p.grad is None for p in patched.parameters())
    buffers = dict(model.named_buffers())
    assert all(not torch.equal(b, buffers[name]) for name, b in patched.named_buffers()), "averages follow the weights"

    assert report.examples_in_use == 0
    assert report.points_in_use == (0 if rule == "patch-digits" else steps * 64)
    assert (f"CAREFUL: {rule} learned on no network that normalises" in str(report)) == strange
    assert report.examples_to_measure > 0
    assert not report.undone
    assert report.after is report.tried
    assert report.images + report.tried.n == len(digits[1])
    assert report.tried.robust - report.before.robust > (0.15 if kind == "mlp" else 0.05)
    assert report.before.clean - report.tried.clean <= 0.05
    train, test = split(digits[1].labels, 0.2, generator())
    assert len(test) == report.tried.n
    with torch.no_grad():
        right = patched.eval()(digits[1].images[test]).argmax(1) == digits[1].labels[test]
    assert float(right.double().mean()) == report.tried.clean
    assert not set(train.tolist()) & set(test.tolist())


def test_the_same_seed_gives_the_same_patch_and_report(digits, mlp):
    few = digits[1][:200]
    (a, one), (b, two), (c, _) = (
        metarobust.patch(mlp, few.images, few.labels, optimizer="patch-digits", steps=3, max_clean_drop=1.0, seed=seed)
        for seed in (5, 5, 6)
    )
    assert one == two
    assert all(torch.equal(p, q) for p, q in zip(a.parameters(), b.parameters(), strict=True))
    assert not torch.equal(next(a.parameters()), next(c.parameters()))


def ruinous(value):
    """A rule that takes absurd steps."""
    rule = FeatureMLP(lr=1.0)
    with torch.no_grad():
        rule.log_lr.fill_(value)
    return rule


@pytest.mark.parametrize("size", [3.0, float("nan")])
def test_a_patch_that_costs_too_much_is_undone(size, digits, mlp):
    few = digits[1][:200]
    model = copy.deepcopy(mlp).train()
    patched, report = metarobust.patch(model, few.images, few.labels, optimizer=ruinous(size), steps=3)
    assert report.undone
    assert report.after is report.before
    assert report.before.clean - report.tried.clean > 0.05
    assert unchanged((model.state_dict(), patched.training), (patched.state_dict(), True))
    assert "UNDONE: clean accuracy fell by" in str(report)
    kept, report = metarobust.patch(model, few.images, few.labels, optimizer=ruinous(size), steps=3, max_clean_drop=1.0)
    assert not report.undone
    assert not torch.equal(next(kept.parameters()), next(model.parameters()))


def test_a_patch_that_costs_too_much_is_taken_in_part(digits, mlp):
    few, rule = digits[1][:300], ruinous(-1.2)
    whole, full = metarobust.patch(mlp, few.images, few.labels, optimizer=rule, steps=3, max_clean_drop=1.0)
    cost = full.before.clean - full.tried.clean
    assert full.part == 1
    assert cost > 0.02
    found, report = metarobust.patch(mlp, few.images, few.labels, optimizer=rule, steps=3, max_clean_drop=cost - 0.01)
    assert 0 < report.part < 1
    assert report.before.clean - report.after.clean <= cost - 0.01 + 1e-9
    for old, new, taken in zip(mlp.parameters(), whole.parameters(), found.parameters(), strict=True):
        torch.testing.assert_close(taken, torch.lerp(old, new, report.part))
    assert f"{100 * report.part:.0f} % of the way" in str(report)


def test_batch_normalisation_that_is_frozen_keeps_its_averages(digits):
    few, model = digits[1][:100], trained(with_norm(), digits[0])
    model[1].requires_grad_(False)
    rule = FeatureMLP()
    patched, _ = metarobust.patch(model, few.images, few.labels, optimizer=rule, steps=3, max_clean_drop=1.0)
    assert torch.equal(patched[1].running_mean, model[1].running_mean)
    assert not torch.equal(patched[0].weight, model[0].weight)


@pytest.mark.parametrize("kind", ["mlp", "norm"])
def test_a_fresh_model_is_trained_to_be_robust(kind, digits):
    torch.manual_seed(0)
    model = build("mlp-64-tanh", (1, 8, 8), 10) if kind == "mlp" else with_norm()
    before = everything(model)
    found, report = metarobust.train(model, digits[1].images, digits[1].labels, steps=150)
    assert unchanged(before, everything(model))
    assert everything(found)[1] == before[1]
    assert (report.examples_in_use, report.points_in_use) == (0, 150 * 64)
    ordinary = trained(copy.deepcopy(model), digits[1])
    ordinary = evaluate(ordinary, digits[1].images, digits[1].labels, eps=0.1, attacks="quick")
    assert report.after.clean > 0.85
    assert report.after.robust > ordinary.robust + 0.05
    assert "trained" in str(report)
    assert "UNDONE" not in str(report)


def test_a_report_says_what_was_done(digits, mlp):
    few = digits[1][:150]
    _, report = metarobust.patch(mlp, few.images, few.labels, steps=2, eps=torch.tensor(0.05, dtype=torch.float64))
    text, page = str(report), report._repr_html_()
    words = ("before", "patched", "clean", "robust", "2 steps of 64", " 0 adversarial examples", "eps 0.05", "pgd-40")
    assert all(word in text and word in page for word in words)
    assert str(report.tried.n) in text
    sad = replace(report, tried=replace(report.before))
    assert "does not help this model" in str(sad)
    assert "&lt;b&gt;" in replace(report, optimizer="<b>")._repr_html_()


FULL = 2 * (200 * 160 + 100 * 1130)  # what two evaluations of 200 images may ask for


@pytest.mark.parametrize(
    ("n", "budget", "attacked", "checked"),
    [
        *[(200, FULL, 200, 100), (200, math.inf, 200, 100), (200, FULL - 1, 200, 99), (200, FULL / 2, 200, 35)],
        *[(200, 2 * 210 * 160, 200, 0), (200, 2 * 30 * 160, 30, 0), (200, 1, 10, 0), (5, 0, 5, 0)],
    ],
)
def test_what_is_measured_is_in_proportion_to_the_steps(n, budget, attacked, checked, mlp, monkeypatch):
    monkeypatch.setattr(fitting, "SMALL", 0)
    rows, checks, asks, left_out = fitting.scope(mlp, torch.zeros(n, 1, 8, 8), "quick", budget)
    assert (len(set(rows.tolist())), checks) == (attacked, checked)
    assert asks <= max(budget, 2 * 160 * LEAST)
    assert left_out.startswith(f"{attacked} of {n} held-out") == ((attacked, checked) != (n, min(n, 100)))
    monkeypatch.undo()
    assert fitting.scope(mlp, X, "quick", 1)[1:] == (20, 2 * 20 * (160 + 1130), "")  # a small model's work is small


@pytest.mark.parametrize(("attacks", "asks"), fitting.ASKS.items())
def test_no_evaluation_asks_for_more_than_is_reckoned_with(attacks, asks):
    sure = nn.Sequential(build("mlp-4-tanh", (1, 8, 8), 10), nn.Linear(10, 10))
    with torch.no_grad():
        sure[1].weight *= 1e-4
        sure[1].bias.copy_(10.0 * (torch.arange(10) == 3))
    report = evaluate(sure, X[:3], torch.full((3,), 3), eps=0.1, attacks=attacks)
    asked = (report.gradients_asked + report.images_asked) / 2
    assert asked / 3 == pytest.approx(sum(asks), rel=0.05)


def test_split_holds_out_a_share_of_each_class():
    labels = torch.tensor([0] * 50 + [1] * 10 + [2] * 2 + [5])
    train, test = split(labels, 0.2, generator())
    assert labels[test].bincount().tolist() == [10, 2, 1]
    assert sorted(train.tolist() + test.tolist()) == list(range(len(labels)))
    assert labels[train].bincount()[5] == 1  # the only one of its class is trained on
    assert len(split(labels, 0.99, generator())[0]) > 2


class Head(nn.Module):
    """Frozen, but for a head that no answer asks for."""

    def __init__(self):
        super().__init__()
        self.net, self.head = build("mlp-4-relu", (1, 8, 8), 10).requires_grad_(False), nn.Linear(3, 3)

    def forward(self, x):
        return self.net(x)


class Averaged(Head):
    """Answers with averaged weights in eval mode, as many a training code does: `eval()` puts them in place."""

    def __init__(self):
        super().__init__()
        self.average = copy.deepcopy(self.net.requires_grad_().state_dict())

    def train(self, mode=True):
        if not mode and self.training:
            self.net.load_state_dict(self.average)
        return super().train(mode)


LOCKED = with_norm()
LOCKED.held = (number for number in range(3))
X, Y = torch.rand(20, 1, 8, 8), torch.arange(20) % 10
BAD = {
    "steps": ({"steps": 0}, "steps is 0; give a whole number from 1"),
    "batch": ({"batch_size": 1.5}, "batch_size is 1.5"),
    "name": ({"optimizer": "patch-mnits"}, "did you mean 'patch-mnist'"),
    "held out": ({"held_out": 1.0}, "held_out is 1.0"),
    "no share": ({"held_out": 0.0}, "between 0 and 1"),
    "drop": ({"max_clean_drop": -0.1}, "max_clean_drop is -0.1"),
    "nan drop": ({"max_clean_drop": float("nan")}, "max_clean_drop is nan"),
    "eps": ({"eps": 8}, "eps"),
    "attacks": ({"attacks": "slow"}, "'slow'"),
    "images": ({"images": 255 * X}, "not within [0, 1]"),
    "labels": ({"labels": Y[:-1]}, "labels"),
    "too few": ({"images": X[:10], "labels": Y[:10]}, "no class with two"),
    "none": ({"images": X[:0], "labels": Y[:0]}, "0 images"),
    "frozen": ({"model": build("mlp-4-relu", (1, 8, 8), 10).requires_grad_(False)}, "unfreeze some"),
    "measure": ({"measure": -1}, "measure is -1"),
    "function": ({"model": lambda x: x.flatten(1)[:, :10]}, "give an nn.Module"),
    "TorchScript": ({"model": nn.Sequential(with_norm(), torch.jit.ScriptModule())}, "the model is TorchScript"),
    "no copy": ({"model": LOCKED}, "cannot be copied (cannot pickle 'generator'"),
    "unused head": ({"model": Head()}, "no gradient reaches a parameter that is free"),
    "averages": ({"model": Averaged(), "measure": 0}, "own train() or eval() exchanges its weights"),
}


@pytest.mark.parametrize(("changes", "says"), BAD.values(), ids=BAD)
def test_bad_input_is_refused(changes, says):
    given = {"model": build("mlp-4-relu", (1, 8, 8), 10), "images": X, "labels": Y} | changes
    with pytest.raises(InputError, match=re.escape(says)):
        metarobust.patch(**given)


def test_the_names_of_the_package():
    assert metarobust.patch is patching.patch
    assert metarobust.MetaOptimizer is MetaOptimizer
    assert metarobust.evaluate is evaluate
    assert set(metarobust.__all__) == {"MetaOptimizer", "__version__", "evaluate", "patch", "train"}
