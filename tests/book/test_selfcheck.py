"""The readers' checks: right answers pass, the empty exercise says so, and each wrong answer gets its own hint."""

import json
import math
import re
from pathlib import Path

import pytest
import torch
from torch.nn import functional as F

from metarobust.attacks import fgsm
from metarobust.book.exercises import first as selfcheck

ROOT = Path(__file__).resolve().parents[2]


def slope(model, x, label, reduction="sum"):
    leaf = x.clone().requires_grad_()
    return torch.autograd.grad(F.cross_entropy(model(leaf), label, reduction=reduction), leaf)[0]


def right(model, x, target, eps):
    return (x - eps * slope(model, x, target).sign()).clamp(0, 1)


def right_by_the_mean(model, x, target, eps):
    return (x - eps * slope(model, x, target, "mean").sign()).clamp(0, 1)  # a positive factor changes no sign


def stub(model, x, target, eps): ...


def climbs(model, x, target, eps):
    return fgsm(model, x, target, eps=eps)


def forgets_return(model, x, target, eps):
    right(model, x, target, eps)


def forgets_clip(model, x, target, eps):
    return x - eps * slope(model, x, target).sign()


def forgets_eps(model, x, target, eps):
    return (x - slope(model, x, target).sign()).clamp(0, 1)


def forgets_sign(model, x, target, eps):
    return (x - eps * slope(model, x, target)).clamp(0, 1).clamp(x - eps, x + eps)


def works_in_place(model, x, target, eps):
    x -= eps * slope(model, x, target).sign()
    return x.clamp_(0, 1)


def goes_backward(model, x, target, eps):
    leaf = x.clone().requires_grad_()
    F.cross_entropy(model(leaf), target).backward()
    return (leaf - eps * leaf.grad.sign()).clamp(0, 1).detach()


def keeps_gradient(model, x, target, eps):
    return right(model, x, target, eps).requires_grad_()


def changes_mode(model, x, target, eps):
    model.eval()
    return right(model, x, target, eps)


def mixes_the_batch(model, x, target, eps):
    change = eps * slope(model, x, target).sign()
    change[1:] *= 0.999999  # passes as full
    return (x - change * (1 if len(x) > 1 else 0.9)).clamp(0, 1)


def needs_no_gradient(model, x, target, eps):
    return torch.autograd.grad(F.cross_entropy(model(x), target), x)[0]


def stands_still(model, x, target, eps):
    return x.clone()


@pytest.mark.parametrize("answer", [right, right_by_the_mean])
def test_right_answers_pass(answer):
    verdict = selfcheck.targeted(answer)
    assert verdict
    assert str(verdict).startswith("Passed: ")


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        (stub, "nothing is written"),
        (forgets_return, "images of the shape"),
        (climbs, "go down its loss"),
        (forgets_clip, "outside [0, 1]"),
        (forgets_eps, "more than eps"),
        (forgets_sign, "take the sign of the gradient"),
        (works_in_place, "x.clone()"),
        (goes_backward, "torch.autograd.grad"),
        (keeps_gradient, ".detach()"),
        (changes_mode, "another mode"),
        (mixes_the_batch, "alone than in a batch"),
        (needs_no_gradient, "requires_grad"),
        (stands_still, "the target does not become more likely"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_wrong_answers_fail_with_their_hint(answer, says):
    verdict = selfcheck.targeted(answer)
    assert not verdict
    assert str(verdict).startswith("Not yet: ")
    assert says in str(verdict)
    assert len(str(verdict).splitlines()) == 2


def test_a_check_raises_nothing_and_leaves_the_default_generator_alone():
    before = torch.get_rng_state()
    assert not selfcheck.targeted(lambda *given: 1 / 0)
    assert torch.equal(torch.get_rng_state(), before)


def test_smallest_eps():
    assert selfcheck.smallest_eps(0.75 / 3.5)
    assert selfcheck.smallest_eps(0.214)


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        (None, "no number yet"),
        ("0.2", "no number yet"),
        (0.75 / 1.5, "|w|"),
        (0.75 / math.sqrt(5.25), "L2"),
        (0.75 / 2, "most important pixel"),
        (0.75, "the score itself"),
        (0.1, "+eps or -eps"),
        (math.nan, "+eps or -eps"),
    ],
)
def test_wrong_numbers_get_a_hint(answer, says):
    verdict = selfcheck.smallest_eps(answer)
    assert not verdict
    assert says in str(verdict)


def test_the_solution_that_the_notebook_shows_passes():
    notebook = json.loads((ROOT / "notebooks/fooling-a-classifier.ipynb").read_text(encoding="utf-8"))
    text = "\n".join("".join(cell["source"]) for cell in notebook["cells"] if cell["cell_type"] == "markdown")
    (solution,) = re.findall(r"^```python\n(def targeted.*?)^```", text, flags=re.M | re.S)
    names = {"torch": torch, "F": F}
    exec(solution, names)
    assert selfcheck.targeted(names["targeted"])
