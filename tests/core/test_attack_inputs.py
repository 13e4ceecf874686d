"""Malformed input: every attack refuses it before it could mislead, and says what to do instead.

Each case is one argument gone wrong in one call. Its pattern is what the message must say: the value, and what is
allowed. Behind that, after the first colon or semicolon, there must be a word that tells the user what to do.
"""

from __future__ import annotations

import inspect
import math
import re

import numpy as np
import pytest
import torch
from toy import generator

from metarobust.attacks import apgd, counting, fgsm, mi_fgsm, pgd, square, transfer
from metarobust.attacks.inputs import inputs_checked
from metarobust.errors import InputError

ATTACKS = [fgsm, pgd, mi_fgsm, apgd, square, transfer]
DO = r"\b(give|pass|use|choose|convert|undo|move|look for|leave|climb|keep)\b"
GREY, LABELS, TARGETS = torch.full((2, 1, 4, 4), 0.5), torch.tensor([0, 2]), torch.tensor([1, 0])


def model(x):
    """Three classes, a gradient, and every type of number."""
    rows = x.flatten(1)
    return torch.stack([rows.sum(1), rows[:, 0], rows[:, -1]], 1)


def images():
    for dtype in (torch.uint8, torch.int64, torch.bool, torch.complex64, torch.float8_e4m3fn):
        yield GREY.to(dtype), rf"images are {dtype}; .*floats in \[0, 1\]: .*divide by 255"
    for dtype in (torch.float16, torch.bfloat16, torch.float32, torch.float64):
        for value, pattern in (
            (-0.5, r"from -0\.5 to 0\.5, not within \[0, 1\]"),
            (255, r"to 255, not within \[0, 1\]"),
            (-math.inf, r"from -inf .*not within \[0, 1\]"),
            (math.nan, r"hold nan.*\[0, 1\]"),
        ):
            one = GREY.to(dtype).clone()
            one[1, 0, 2, 3] = value
            yield one, pattern
    for value in (None, 0.5, [[0.5, 0.5], [0.5, 0.5]], GREY.numpy()):
        yield value, rf"images are {re.escape(repr(value)[:6])}.*; give a tensor"
    for shape in ((), (2,), (2, 0), (2, 0, 4, 4)):
        yield torch.full(shape, 0.5), rf"shape {re.escape(str(list(shape)))}; (give|squares need) \[n, "


def classes(name):
    for dtype in (torch.uint8, torch.int32, torch.bool, torch.float32):
        yield TARGETS.to(dtype), rf"{name} are {dtype} of shape \[2\]; give one int64 class per image: shape \[2\]"
    for shape in ((), (1,), (3,), (2, 1)):
        yield torch.ones(shape, dtype=torch.int64), rf"{name} are .*{re.escape(str(list(shape)))}; .*shape \[2\]"
    for value in (0, [1, 0], TARGETS.numpy()):
        yield value, rf"{name} are {re.escape(repr(value))}; give one int64 class per image: shape \[2\]"
    yield torch.tensor([1, -1]), rf"{name} go down to -1; classes count from 0"
    yield TARGETS.to("meta"), rf"{name} are on meta and images on cpu: move"
    for high in (3, 10**6):
        yield torch.tensor([1, high]), rf"go up to {high}; the model has 3 outputs, 0 to 2: give classes"


def radii(norm):
    top = "1" if norm == "linf" else "infinity"
    values = [-0.1, math.inf, math.nan, True, None, "8/255", [0.1], np.array([0.1]), torch.tensor([0.1])]
    for value in values + ([1.01, 8, 10**400] if norm == "linf" else []):
        yield value, rf"eps is {re.escape(repr(value)[:20])}.*from 0 to {top} \(8/255 is 0\.031\)"
    for value in (4.01, 8, 1e300) if norm == "l2" else ():
        yield value, rf"eps is {re.escape(str(value))}; no two such images are further apart than 4 in l2"


def generators(attack):
    for value in (0, "seed", np.random.default_rng(0), torch.Generator):
        yield value, rf"generator is {re.escape(repr(value)[:20])}.*; pass generator=torch\.Generator\(\)"
    if attack is square:
        yield None, r"generator is None; .*random: pass generator=torch\.Generator\(\)"


def others(targeted):
    """Arguments that only some attacks have."""
    for value in ("cw", "CE", None, ["ce"]):
        yield "loss", value, rf"unknown attack loss {re.escape(repr(value))}; choose one of ce, margin, dlr"
    for name in ("steps", "queries", "restarts"):
        for value in (0, -1, 1.0, math.nan, True, None, "10", [5], torch.tensor([5])):
            said = rf"{name} is {re.escape(repr(value))}; give a whole number from 1"
            yield name, value, said
    yield "restarts", 2, r"several restarts without a generator.*alike: pass generator="
    for value in (0, -0.1, math.nan, True, "0.1", torch.tensor([0.1])):
        yield "step_size", value, rf"step_size is {re.escape(repr(value))}; give a length above 0"
    for value in (-0.5, math.inf, True, None, [1.0]):
        yield "momentum", value, rf"momentum is {re.escape(repr(value))}; give a number from 0"
    for value in ("worst", True, None):
        yield "keep", value, rf"unknown point to keep {value!r}; choose one of best, first, last"
    for value in (-1, 1.0, True, None, [1], TARGETS):
        yield "n_targets", value, rf"n_targets is {re.escape(repr(value))}; give 0, or how many"
    said = "targets names the classes: give one" if targeted else "one is right: give"
    yield "n_targets", 3, rf"n_targets is 3[,;].*{said}"


def models(wants_gradient):
    for value in (None, "model", GREY):
        yield value, rf"predict is {re.escape(repr(value)[:20])}.*; give a function from images to logits"
    for broken, pattern in (
        (lambda x: None, r"returns None; attacks need logits: give"),
        (lambda x: (model(x), 0), r"returns \(tensor.*; attacks need logits: give"),
        (lambda x: model(x)[:, 0], r"returns torch\.float32 of shape \[2\]; .*\[n, classes\]: give"),
        (lambda x: model(x)[:, :1], r"returns torch\.float32 of shape \[2, 1\]; .*2 classes or more"),
        (lambda x: model(x).argmax(1, keepdim=True), r"returns torch\.int64 of shape \[2, 1\]; .*\[n, classes\]: give"),
        (lambda x: model(x)[:1], r"logits for 1 of 2 images: give one row to each"),
        (lambda x: model(x)[:, :2], r"go up to 2; the model has 2 outputs, 0 to 1: give"),
    ):
        yield broken, pattern
    if wants_gradient:
        for broken in (lambda x: model(x).detach(), lambda x: model(x.detach()) * torch.ones(3, requires_grad=True)):
            yield broken, r"no gradient for its images: give it without detach.*square"


def cases(attack, norm, targeted):
    """One argument at a time: its name, a malformed value, and what the message must say."""
    yield from (("images", *case) for case in images())
    yield from (("labels", *case) for case in classes("labels") if not targeted)
    if targeted:
        yield from (("targets", *case) for case in classes("targets"))
        yield "targets", torch.tensor([1, 2]), r"target of image 1 is 2, its own label: give a wrong class"
    yield from (("eps", *case) for case in radii(norm))
    for value in ("Linf", "l1", "", None, 2, ["linf"]):
        yield "norm", value, rf"unknown norm {re.escape(repr(value))}; choose one of linf, l2"
    yield from (("generator", *case) for case in generators(attack))
    names = inspect.signature(attack).parameters
    yield from (case for case in others(targeted) if case[0] in names)
    yield from (("predict", *case) for case in models(attack not in (square, transfer)))
    if attack is transfer:
        yield from (("surrogate", *case) for case in models(True))
    if attack is square:
        yield "images", torch.full((2, 4, 4), 0.5), r"\[2, 4, 4\]; .*\[n, channels, height, width\]: give"


def given(attack, norm, targeted):
    """The call that each case starts from, a good one."""
    call = {"predict": model, "images": GREY, "labels": LABELS, "eps": 0.1, "norm": norm}
    call |= {transfer: {"surrogate": model}, square: {"generator": generator(), "queries": 20}}.get(attack, {})
    return call | ({"targets": TARGETS} if targeted else {})


def wrong_with(attack, norm, targeted, name, value, pattern):
    """What is amiss with how the attack takes it; an empty string if nothing is."""
    with counting() as counter:
        try:
            attack(**given(attack, norm, targeted) | {name: value})
        except InputError as error:
            message = str(error)
        except Exception as error:
            return f"{type(error).__name__}: {error}"
        else:
            return "was taken"
    remedy = re.split(r"[:;] ", message, maxsplit=1)[-1]
    if not re.search(pattern, message):
        return f"said {message!r}, not {pattern!r}"
    if "\n" in message or not re.search(DO, remedy) or len(message) > 250:
        return f"gives no remedy in one line: {message!r}"
    if counter.examples and not re.search("model|predict", message):
        return f"counted {counter.examples} examples"  # what is wrong with a model is seen only once it was asked
    return ""


@pytest.mark.parametrize("attack", ATTACKS)
@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize("targeted", [False, True])
def test_bad_input_is_refused_with_its_value_and_a_remedy(attack, norm, targeted):
    assert attack(**given(attack, norm, targeted)).shape == GREY.shape
    faults = {
        f"{name}={value!r}": wrong_with(attack, norm, targeted, name, value, pattern)
        for name, value, pattern in cases(attack, norm, targeted)
    }
    faults = {case: fault for case, fault in faults.items() if fault}
    assert not faults, "\n".join(f"{case[:80]}: {fault[:300]}" for case, fault in faults.items())


@pytest.mark.parametrize("attack", ATTACKS)
def test_losses_refuse_too_few_classes_and_last_points_of_many_runs(attack):
    two = {"predict": lambda x: model(x)[:, :2], "labels": torch.tensor([0, 1]), "loss": "dlr"}
    if attack is not square:
        for targets, few in ((None, 3), (torch.tensor([1, 0]), 4)):
            call = given(attack, "linf", False) | two | {"targets": targets}
            call |= {"surrogate": two["predict"]} if attack is transfer else {}
            with pytest.raises(InputError, match=f"{few} largest logits and the model has 2 outputs: climb 'margin'"):
                attack(**call)
    with pytest.raises(InputError, match="3 restarts have no last point; give one"):
        pgd(model, GREY, LABELS, eps=0.1, restarts=3, generator=generator(), keep="last")


@pytest.mark.parametrize("attack", ATTACKS)
def test_input_that_was_checked_is_not_read_again(attack):
    """A read makes a GPU wait. Names and numbers are checked as ever."""
    reads = []

    class Reads(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            if "aminmax" in str(function):
                reads.append(function)
            return function(*args, **(kwargs or {}))

    call = given(attack, "linf", False)
    with Reads():
        attack(**call)
        assert len(reads) >= 2  # the images, and the labels
        reads.clear()
        with inputs_checked():
            attack(**call)
            with pytest.raises(InputError, match="eps is 8"):
                attack(**call | {"eps": 8})
    assert not reads
