"""Robust accuracy on models whose answer is known, the worst case for each image, and the intervals."""

from __future__ import annotations

import json
import math
import re
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from scipy import stats as scipy_stats
from torch import nn
from torch.export import Dim, export
from torch.nn import functional as F
from toy import generator

from metarobust.attacks import pgd
from metarobust.errors import InputError
from metarobust.evaluation import Attack, Report, evaluate, robust_masks, standard
from metarobust.evaluation.checks import Flag
from metarobust.evaluation.intervals import wilson
from metarobust.models import Predictor, build, fresh
from metarobust.params import ParamSpec
from metarobust.storage import write_json


class Brightness(nn.Module):
    """Class 1 where the mean pixel is above a half, else class 0: robust exactly where it is right and far enough."""

    def forward(self, x):
        score = 4 * (x.flatten(1).mean(1) - 0.5)
        return torch.stack([-score, score], 1)


def grey(*values):
    return torch.tensor(values).view(-1, 1, 1, 1).expand(-1, 1, 2, 3).clone()


IMAGES = grey(0.1, 0.35, 0.45, 0.55, 0.65, 0.9, 0.4, 0.95)
LABELS = torch.tensor([0, 0, 0, 1, 1, 1, 1, 0])
STANDARD = {"attacks": "standard", "steps": 20, "queries": 300}


def measure(model=None, images=IMAGES, labels=LABELS, **changes):
    given = {"eps": 0.1, "attacks": "quick", "steps": 5, "checks": 0} | changes
    return evaluate(Brightness() if model is None else model, images, labels, **given)


@pytest.mark.parametrize(
    ("eps", "norm", "robust"),
    [
        *((0, "linf", 6), (0.04, "linf", 6), (0.1, "linf", 4), (0.2, "linf", 2), (0.45, "linf", 0)),
        # The mean of 6 pixels falls by eps / sqrt(6).
        *((0.04, "l2", 6), (0.1, "l2", 6), (0.2, "l2", 4), (0.5, "l2", 2), (1.2, "l2", 0)),
    ],
)
def test_a_model_with_a_known_answer(eps, norm, robust):
    for how in ({"batch_size": 3}, {}, STANDARD, STANDARD | {"independent": False}):
        report = measure(eps=eps, norm=norm, **how)
        assert (report.clean, report.robust, report.n) == (6 / 8, robust / 8, 8)
        assert report.clean_interval == wilson(6, 8)
        assert report.robust_interval == wilson(robust, 8)
        assert (report.eps, report.norm, report.restarts) == (eps, norm, 2)
        white = "apgd-20-ce" if "steps" in how else "pgd-5-ce"
        assert report.under[white] == robust / 8
        black = ["apgd-20-margin-targeted", "square-300"] if "steps" in how else ["pgd-5-margin"]
        assert list(report.under) == [white, *black]


def fake(name, turned):
    """An attack that turns images of these grey values into their negatives, and keeps what it was given."""

    def move(predict, images, labels, generator):
        move.given = images[:, 0, 0, 0].tolist()
        return torch.where(torch.isin(images[:, :1, :1, :1], torch.tensor(turned)), 1 - images, images)

    return Attack(name, "white", move)


@pytest.mark.parametrize(("independent", "b", "given"), [(True, [0, 2, 3, 4, 5], 6), (False, [2, 3, 4, 5], 5)])
def test_an_image_is_robust_if_it_is_right_and_no_attack_turns_it(independent, b, given):
    # Image 6 is wrong, and the attack would make it right: it is not robust for that.
    attacks = [fake("a", [0.1, 0.4]), fake("b", [0.35, 0.4])]
    masks = robust_masks(Brightness(), IMAGES, LABELS, attacks, generator=generator(), independent=independent)
    right = {name: mask.nonzero().flatten().tolist() for name, mask in masks.items()}
    assert right == {"clean": [0, 1, 2, 3, 4, 5], "a": [1, 2, 3, 4, 5], "b": b, "robust": [2, 3, 4, 5]}
    assert [len(attack.move.given) for attack in attacks] == [6, given]


def test_many_models_at_once_are_measured_as_one_by_one():
    model = build("mlp-8-relu", (1, 4, 4), 5)
    params, param_spec = fresh(model, 3, generator()) * 3, ParamSpec.of(model)
    images = torch.rand(20, 1, 4, 4)
    predict = [Predictor(model, param_spec, one) for one in params]
    labels = predict[0](images).argmax(1)
    attacks = [Attack(loss, "white", partial(start_at_image, loss=loss)) for loss in ("ce", "margin")]
    how = {"generator": generator(), "independent": False}
    alone = [robust_masks(one, images, labels, attacks, **how) for one in predict]
    everyone = Predictor(model, param_spec, params), images.repeat(3, 1, 1, 1), labels.repeat(3)
    for name, mask in robust_masks(*everyone, attacks, **how, models=3).items():
        assert torch.equal(mask, torch.cat([masks[name] for masks in alone]))
    assert 0 < int(alone[0]["robust"].sum()) < 20


def start_at_image(predict, images, labels, generator, loss):
    return pgd(predict, images, labels, eps=0.05, steps=5, loss=loss)


def test_standard_runs_toward_as_many_classes_as_there_are():
    for classes, name, n_targets in ((10, "dlr", 9), (20, "dlr", 9), (4, "dlr", 3), (3, "margin", 2), (2, "margin", 1)):
        first, second, third = standard(eps=0.1, classes=classes, restarts=3, queries=7)
        assert (second.name, second.move.keywords["n_targets"]) == (f"apgd-100-{name}-targeted", n_targets)
        assert (first.move.keywords["restarts"], third.move.keywords["queries"]) == (3, 7)
        assert [attack.kind for attack in (first, second, third)] == ["white", "white", "black"]
    with pytest.raises(InputError, match=r"1 output.*at least 2"):
        standard(eps=0.1, classes=1)


@pytest.mark.parametrize("attacks", ["quick", "standard"])
def test_the_size_of_a_batch_changes_nothing(attacks):
    torch.manual_seed(1)
    model, images = build("mlp-8-relu", (1, 4, 4), 5).double(), torch.rand(40, 1, 4, 4, dtype=torch.float64)
    how = {"images": images, "labels": model(images).argmax(1), "attacks": attacks, "eps": 0.05, "checks": 10}
    whole = measure(model, **how, queries=30)
    assert 0 < whole.robust < 1
    for batch_size in (1, 7):
        for independent in (True, False):
            found = measure(model, **how, queries=30, batch_size=batch_size, independent=independent)
            assert found.robust == whole.robust or not independent
            if independent:
                assert (found.under, found.flags, found.curve) == (whole.under, whole.flags, whole.curve)


def test_a_surrogate_joins_the_ensemble_and_is_left_as_it_was():
    surrogate = Modes().train()
    report = measure(surrogate=surrogate)
    assert report.under["transfer-40"] == 4 / 8  # another model of the same kind: what fools it fools this one
    assert surrogate.training
    assert list(report.under) == ["pgd-5-ce", "pgd-5-margin", "transfer-40"]


@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize("name", ["mlp-8-relu", "cnn-4-tanh"])
def test_robust_is_at_most_every_attack_and_clean(name, norm):
    torch.manual_seed(0)
    model, images = build(name, (1, 4, 4), 3), torch.rand(60, 1, 4, 4)
    with torch.no_grad():
        model[-1].bias -= model(images).mean(0)  # so that it does not say the same of every image
    said = model(images).argmax(1)
    labels = torch.where(torch.rand(60) < 0.8, said, (said + 1) % 3)
    before = measure(model, images=images, labels=labels, eps=0, norm=norm)
    assert before.clean == before.robust
    last = before.robust
    for eps in (0.01, 0.03, 0.1, 0.9):
        report = measure(model, images=images, labels=labels, eps=eps, norm=norm)
        assert report.robust <= min(report.under.values()) <= max(report.under.values()) <= report.clean
        assert report.robust <= last
        last = report.robust
    assert last < 0.5 < before.robust < 1
    assert measure(checks=8) == measure(checks=8)  # the same seed, the same result; the seconds are left out


FULL = {"attacks": "standard", "steps": 3, "queries": 9, "checks": 8, "eps": 0.125}
SAME = {
    "a function": lambda: {"model": lambda x: Brightness()(x)},
    "it writes into its input": lambda: {"model": lambda x: Brightness()(x.mul_(2) / 2)},
    "a frozen script": lambda: {"model": torch.jit.freeze(torch.jit.script(Brightness().eval()))},
    "parallel": lambda: {"model": nn.DataParallel(Brightness())},
    "compiled": lambda: {"model": torch.compile(Brightness(), backend="eager")},
    "exported": lambda: {"model": export(Brightness(), (IMAGES,), dynamic_shapes=[{0: Dim.AUTO}]).module()},
    "numbers of NumPy": lambda: {"eps": np.float32(0.125), "steps": np.int64(3)},
    "numbers of PyTorch": lambda: {"eps": torch.tensor(0.125), "checks": torch.tensor(8)},
}


@pytest.mark.filterwarnings("ignore")  # scripts are deprecated, and many have one
@pytest.mark.parametrize("make", SAME.values(), ids=SAME)
def test_a_model_or_a_number_in_any_form_gets_the_report_of_the_plain_one(make, tmp_path):
    before, found, plain = IMAGES.clone(), measure(**FULL | make()), measure(**FULL)
    assert replace(found, images_asked=plain.images_asked, gradients_asked=plain.gradients_asked) == plain
    assert torch.equal(IMAGES, before)
    found.save(tmp_path / "report.json")  # JSON has no numbers but plain ones


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_global_settings_change_no_report(norm):
    plain = measure(**FULL, norm=norm)
    with torch.inference_mode():
        assert measure(**FULL, norm=norm, images=IMAGES.clone(), labels=LABELS.clone()) == plain
    torch.set_default_dtype(torch.float64)
    try:
        with torch.device("meta"):  # what is made there has no numbers
            assert measure(**FULL, norm=norm) == plain
    finally:
        torch.set_default_dtype(torch.float32)


@pytest.mark.parametrize("low", [-torch.inf, torch.finfo(torch.float32).min])
def test_masked_classes_are_as_those_with_low_logits(low):
    model, images = build("mlp-8-tanh", (1, 4, 4), 4), torch.rand(60, 1, 4, 4)
    how = {"images": images, "labels": model(images).argmax(1), "eps": 0.03, "checks": 60} | STANDARD
    found, expected = (measure(lambda x, z=z: F.pad(model(x), (0, 6), value=z), **how) for z in (low, -1e4))
    assert (found.under, found.flags) == (expected.under, ())
    assert 0 < found.robust < 0.9


def test_flat_images_need_attacks_that_need_no_picture_and_a_squeeze_is_named():
    flat = {"images": IMAGES.flatten(1), "checks": 8}
    assert measure(**flat).under == measure(checks=8).under
    with pytest.raises(InputError, match=r"\[8, 6\]; squares need .*height, width.*'quick'"):
        measure(lambda x: 1 / 0, **flat, attacks="standard")  # before the model is asked
    with pytest.raises(InputError, match=r"shape \[2\].* one image a squeeze\(\) drops the batch"):
        measure(lambda x: Brightness()(x).squeeze())


def test_a_model_that_answers_nan_is_right_nowhere():
    """argmax would take the NaN for class 0, and no attack could change that: a broken model would look robust."""
    report = measure(lambda x: Brightness()(x) * math.nan, labels=torch.zeros(8, dtype=torch.int64))
    assert (report.clean, report.robust, set(report.under.values())) == (0, 0, {0})


class Modes(nn.Module):
    """Has averaged weights in eval mode, and refuses to be asked in training mode, where dropout blurs gradients."""

    def __init__(self, fails=False):
        super().__init__()
        self.inner = nn.Sequential(Brightness(), nn.BatchNorm1d(2, affine=True), nn.Dropout(0.5))
        self.fails, self.sign = fails, -1

    def train(self, mode=True):
        self.sign = -self.sign if mode != self.training else self.sign
        return super().train(mode)

    def forward(self, x):
        assert not any(part.training for part in self.modules())
        if self.fails:
            raise ZeroDivisionError
        return self.sign * self.inner(x)


@pytest.mark.parametrize("fails", [False, True])
def test_modes_gradients_and_statistics_are_left_as_they_were(fails):
    model = Modes(fails).train()
    model.inner[2].eval()
    model.inner[1].weight.requires_grad_(False)
    model.inner[1].bias.grad = torch.ones(2)
    modes = [part.training for part in model.modules()]
    values = {name: value.clone() for name, value in model.state_dict().items()}
    if fails:
        with pytest.raises(ZeroDivisionError):
            measure(model)
    else:
        assert measure(nn.Sequential(model).eval()).clean == 6 / 8 == measure(model.train()).clean
        model.inner[2].eval()
    assert model.sign == -1
    assert [part.training for part in model.modules()] == modes
    assert [p.requires_grad for p in model.parameters()] == [False, True]
    assert model.inner[1].bias.grad.tolist() == [1, 1]
    assert model.inner[1].weight.grad is None
    assert all(torch.equal(values[name], value) for name, value in model.state_dict().items())


BAD = {
    "bytes": ({"images": (IMAGES * 255).byte()}, r"uint8.*divide by 255"),
    "no image": ({"images": IMAGES[:0], "labels": LABELS[:0]}, r"evaluating 0 images.*at least one"),
    "no batch": ({"batch_size": 0}, r"batches of 0.*at least 1"),
    "checks": ({"checks": -1}, r"checks on -1.*0 or more"),
    "queries": ({"attacks": "standard", "queries": 0}, r"queries.*0.*from 1"),
    "label": ({"labels": LABELS + 1}, r"go up to 2; the model has 2 outputs, 0 to 1"),
    "eps": ({"eps": 8}, r"eps is 8.*8/255"),
    "attacks": ({"attacks": "autoattack"}, r"'autoattack'.*standard.*quick"),
}


@pytest.mark.parametrize(("changes", "message"), BAD.values(), ids=BAD)
def test_bad_input_is_refused_and_the_model_is_left_as_it_was(changes, message):
    model = Brightness().train()
    with pytest.raises(InputError) as error:
        measure(model, **changes)
    assert re.search(message, str(error.value)), str(error.value)
    assert model.training


@pytest.mark.parametrize(
    ("right", "n"), [(0, 10), (1, 10), (5, 10), (81, 263), (15, 148), (10, 10), (999, 1000), (0, 1)]
)
def test_the_wilson_interval_is_scipys(right, n):
    theirs = scipy_stats.binomtest(right, n).proportion_ci(0.95, "wilson")
    assert wilson(right, n) == pytest.approx((theirs.low, theirs.high), abs=2e-5)


def test_the_wilson_interval_holds_the_share():
    for n in range(1, 150):
        for right in range(n + 1):
            low, high = wilson(right, n)
            assert 0 <= low <= right / n <= high <= 1


@pytest.mark.parametrize(("right", "n"), [(-1, 5), (6, 5), (0, 0), (1, -1), (math.nan, 5)])
def test_what_is_no_share_is_refused(right, n):
    with pytest.raises(InputError, match=rf"{right} right of {n}.*n of at least 1"):
        wilson(right, n)


def test_the_report_says_what_it_took():
    calls = []

    def watched(x):
        calls.append((len(x), x.requires_grad))
        return Brightness()(x)

    report = measure(watched, attacks="standard", steps=3, queries=4, checks=5)
    asked = calls[1:]  # the first call only looks at the number of outputs
    assert report.images_asked == sum(n for n, _ in asked)
    assert report.gradients_asked == sum(n for n, gradient in asked if gradient) > 0
    assert report.seconds > 0


def test_a_report_is_kept_as_json_and_a_damaged_or_foreign_file_refused(tmp_path):
    report = measure(Brightness(), labels=1 - LABELS, eps=0.1, attacks="standard", steps=4, queries=9, checks=8)
    path = tmp_path / "reports" / "report.json"
    report.save(path)
    assert Report.load(path) == report
    assert json.loads(path.read_text())["under"]["square-9"] == report.under["square-9"]
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(InputError, match=r"report\.json"):
        Report.load(path)
    write_json(path, {"experiment": "transfer"})
    with pytest.raises(InputError, match=r"is no report.*Report\.save"):
        Report.load(path)


def test_the_report_says_all_that_belongs_together():
    report = measure(checks=8)
    for part in ("clean", " 75.0 %", "robust", " 50.0 %", "linf", "eps 0.1", "8 images", "pgd-5-ce", "pgd-5-margin"):
        assert part in str(report)
    assert "no check raised a flag" in str(report)
    report = replace(report, flags=(Flag("eps zero", "a < b & c"),))
    assert "FLAG, eps zero: a < b & c." in str(report)
    assert "FLAG, eps zero: a &lt; b &amp; c." in report._repr_html_()
    assert "no checks were made" in str(measure())
