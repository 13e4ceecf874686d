"""Models, images and numbers as people have them get the report that the plain ones get, or are refused in words."""

from __future__ import annotations

import copy
import warnings
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from test_attack_properties import problem
from test_evaluation import IMAGES, LABELS, Brightness, measure
from torch import nn
from torch.export import Dim
from toy import generator

from metarobust.attacks import apgd, pgd, square, threat
from metarobust.attacks.losses import margin
from metarobust.attacks.threat import length
from metarobust.errors import InputError

FULL = {"attacks": "standard", "steps": 3, "queries": 9, "checks": 8, "eps": 0.125}


class Averaged(Brightness):
    """Answers the wrong way round until its own `eval` brings the averaged weights."""

    sign = -1

    def train(self, mode=True):
        if mode != self.training:
            self.sign = -self.sign
        return super().train(mode)

    def forward(self, x):
        return self.sign * super().forward(x)


def frozen(model):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # scripts are deprecated, and many have one
        return torch.jit.freeze(torch.jit.script(model.eval()))


def writing(x):
    return Brightness()(x.mul_(2) / 2)


MODELS = {
    "a function": lambda: lambda x: Brightness()(x),
    "with weights of its own in eval mode": Averaged,
    "the same, part of a model": lambda: nn.Sequential(Averaged()),
    "writes into its input": lambda: writing,
    "frozen script": lambda: frozen(Brightness()),
    "parallel": lambda: nn.DataParallel(Brightness()),
    "compiled": lambda: torch.compile(Brightness(), backend="eager"),
    "exported": lambda: torch.export.export(Brightness(), (IMAGES,), dynamic_shapes=[{0: Dim.AUTO}]).module(),
}
NUMBERS = [np.float32(0.125), np.array(0.125), torch.tensor(0.125), torch.tensor(0.125, dtype=torch.float64)]


@pytest.mark.parametrize("make", MODELS.values(), ids=MODELS)
def test_a_model_in_any_form_gets_the_report_of_the_plain_one(make):
    before = IMAGES.clone()
    found, plain = measure(make(), **FULL), measure(**FULL)
    assert replace(found, images_asked=plain.images_asked, gradients_asked=plain.gradients_asked) == plain
    assert torch.equal(IMAGES, before)


def test_a_model_with_modes_of_its_own_is_left_in_each_as_it_was():
    part, other = Averaged(), Averaged().eval()
    model = nn.Sequential(part, other).eval()
    part.train()
    assert measure(model[:1]).clean == 6 / 8
    assert [m.training for m in model.modules()] == [False, True, False]
    assert (part.sign, other.sign) == (-1, 1)


@pytest.mark.parametrize("eps", NUMBERS, ids=repr)
def test_a_number_may_be_numpys_or_a_tensor(eps, tmp_path):
    report = measure(**FULL | {"eps": eps, "steps": np.int64(3)})
    report.save(tmp_path / "report.json")
    assert report == measure(**FULL)
    assert torch.equal(pgd(Brightness(), IMAGES, LABELS, eps=eps), pgd(Brightness(), IMAGES, LABELS, eps=0.125))


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_global_settings_change_no_report(norm):
    plain = measure(**FULL, norm=norm)
    with torch.inference_mode():
        assert measure(**FULL, norm=norm, images=IMAGES.clone(), labels=LABELS.clone()) == plain
    try:
        torch.set_default_device("meta")  # whatever is made there has no numbers
        assert measure(**FULL, norm=norm) == plain
        torch.set_default_device(None)
        torch.set_default_dtype(torch.float64)
        assert measure(**FULL, norm=norm) == plain
    finally:
        torch.set_default_device(None)
        torch.set_default_dtype(torch.float32)


@pytest.mark.parametrize("low", [-torch.inf, torch.finfo(torch.float32).min])
def test_masked_classes_are_as_those_with_low_logits(low):
    model, images, labels, _ = problem(60)
    with torch.no_grad():
        labels = model(images)[:, :4].argmax(1)

    def masked(x, low=low):
        return torch.cat([model(x)[:, :4], torch.full((len(x), 6), low)], 1)

    how = {"images": images, "labels": labels, "eps": 0.05} | {"attacks": "standard", "steps": 20, "queries": 50}
    found, expected = (measure(partial(masked, low=z), **how, checks=60) for z in (low, -1e4))
    assert (found.under, found.flags) == (expected.under, ())
    assert found.robust < 0.9


def test_what_is_no_picture_needs_an_attack_that_needs_none():
    flat = {"images": IMAGES.flatten(1), "checks": 8}
    assert measure(**flat).under == measure(checks=8).under
    for call in (partial(measure, **flat, attacks="standard"), partial(square, Brightness(), flat["images"], LABELS)):
        with pytest.raises(InputError, match=r"\[8, 6\]; squares need .*height, width.*'quick'"):
            call(eps=0.1) if "attacks" in call.keywords else call(eps=0.1, generator=generator())


@pytest.mark.parametrize("attack", [measure, partial(apgd, images=IMAGES, labels=LABELS, eps=0.1)])
def test_a_squeeze_is_named_before_one_image_is_left(attack):
    with pytest.raises(InputError, match=r"shape \[2\].* one image a squeeze\(\) drops the batch"):
        attack(lambda x: Brightness()(x).squeeze())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize(("norm", "eps"), [("linf", 0.06), ("l2", 0.4)])
def test_in_half_precision_small_steps_count_and_a_sure_model_has_a_slope(dtype, norm, eps):
    model, images, _, _ = problem(50, shape=(1, 8, 8))
    model, images = model.to(dtype), (1 - 0.3 * images).to(dtype)
    labels = model(images).argmax(1)
    for scale, steps in ((1, 10), (1, 300), (40, 10)):  # in the last, float16 takes the slope of cross-entropy for 0
        gained = []
        for exact in (torch.float32, dtype):
            given, x = copy.deepcopy(model).to(exact), images.to(exact)
            moved = pgd(lambda z, f=given, s=scale: s * f(z), x, labels, eps=eps, norm=norm, steps=steps, keep="last")
            assert float(length(moved.double() - x.double(), norm).max()) <= eps + 1e-6
            after, before = (margin(copy.deepcopy(model).float()(z.float()), labels).detach() for z in (moved, x))
            gained.append(float((after - before).mean()))
        assert gained[1] > 0.9 * gained[0] > 0.01, (scale, steps, gained)


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_starts_are_drawn_one_after_the_other_and_stay_the_same(norm, monkeypatch):
    model, images, labels, _ = problem(9)
    sizes = []

    class Sizes(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            out = function(*args, **(kwargs or {}))
            sizes.append(out.numel() if isinstance(out, torch.Tensor) else 0)
            return out

    how = {"eps": 0.1, "norm": norm, "steps": 2, "restarts": 5}
    whole = apgd(model, images, labels, **how, generator=generator())
    monkeypatch.setattr(threat, "AT_ONCE", 100)
    after = generator()
    with Sizes():
        assert torch.equal(apgd(model, images, labels, **how, generator=after), whole)
    assert max(sizes) <= 9 * 17  # one start, and in l2 its radius
    apgd(model, images, labels, **how, generator=(other := generator())), monkeypatch.undo()
    assert torch.equal(after.get_state(), other.get_state())
