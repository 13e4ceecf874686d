"""Malformed input, by the thousand: every attack refuses it before it could mislead, and says what to do instead.

Each case is one argument gone wrong in one call. Its pattern is what the message must say: the value, and what is
allowed. Behind that, after the first colon or semicolon, there must be a word that tells the user what to do.
"""

from __future__ import annotations

import inspect
import math
import re
from fractions import Fraction
from functools import partial

import numpy as np
import pytest
import torch
from toy import generator

from metarobust.attacks import apgd, counting, fgsm, mi_fgsm, pgd, square, transfer
from metarobust.errors import InputError

ATTACKS = [fgsm, pgd, mi_fgsm, apgd, square, transfer]
DO = r"\b(give|pass|use|choose|convert|undo|move|look for|leave|climb)\b"
GREY, LABELS, TOWARD = torch.full((2, 1, 4, 4), 0.5), torch.tensor([0, 2]), torch.tensor([1, 0])
HALF, BRAIN, SINGLE, DOUBLE = torch.float16, torch.bfloat16, torch.float32, torch.float64


def model(x):
    """Three classes, a gradient, and every type of number."""
    rows = x.flatten(1)
    return torch.stack([rows.sum(1), rows[:, 0], rows[:, -1]], 1)


def images():
    for dtype in (torch.uint8, torch.int8, torch.int16, torch.int32, torch.int64, torch.bool, torch.complex64):
        yield GREY.to(dtype), rf"images are {dtype}; .*floats in \[0, 1\]: .*divide by 255"
    yield GREY.to(torch.float8_e4m3fn), r"images are torch\.float8_e4m3fn; .*floats in \[0, 1\]"
    for dtype in (HALF, BRAIN, SINGLE, DOUBLE):
        for value, pattern in (
            (-0.5, r"from -0\.5 to -0\.5, not within \[0, 1\]"),
            (1.5, r"to 1\.5, not within \[0, 1\]"),
            (255, r"to 255, not within \[0, 1\]"),
            (math.inf, r"to inf, not within \[0, 1\]"),
            (-math.inf, r"from -inf .*not within \[0, 1\]"),
            (math.nan, r"hold nan.*\[0, 1\]"),
        ):
            one = GREY.to(dtype).clone()
            one[1, 0, 2, 3] = value
            yield GREY.to(dtype) * 0 + value, pattern
            yield one, pattern.replace("from -0\\.5 to -0\\.5", "from -0\\.5 to 0\\.5")
    for value in (None, 0.5, "images", [[0.5, 0.5], [0.5, 0.5]], GREY.numpy(), range(4)):
        yield value, rf"images are {re.escape(repr(value)[:6])}.*; give a tensor"
    for shape in ((), (2,), (2, 0), (2, 1, 0, 4), (2, 0, 4, 4)):
        yield torch.full(shape, 0.5), rf"shape {re.escape(str(list(shape)))}; give \[n, \.\.\.\]"


def classes(name):
    for dtype in (torch.uint8, torch.int8, torch.int16, torch.int32, torch.bool, HALF, BRAIN, SINGLE, DOUBLE,
                  torch.complex64):  # fmt: skip
        yield TOWARD.to(dtype), rf"{name} are {dtype} of shape \[2\]; give one int64 class per image: shape \[2\]"
    for shape in ((), (0,), (1,), (3,), (2, 1), (1, 2), (2, 3)):
        yield torch.ones(shape, dtype=torch.int64), rf"{name} are .*{re.escape(str(list(shape)))}; .*shape \[2\]"
    for value in (0, 1.5, "cat", [1, 0], (1, 0), TOWARD.numpy()):
        yield value, rf"{name} are {re.escape(repr(value))}; give one int64 class per image: shape \[2\]"
    for low in (-1, -100):
        yield torch.tensor([1, low]), rf"{name} go down to {low}; classes count from 0"
    yield TOWARD.to("meta"), rf"{name} are on meta and images on cpu: move"
    for high in (3, 10, 10**6):
        what = "label" if name == "labels" else "target"
        yield torch.tensor([1, high]), rf"a {what} is {high}; the model has 3 outputs, 0 to 2: give {what}s"


def radii(norm):
    top = "1" if norm == "linf" else "infinity"
    values = [-0.1, -8, -math.inf, math.inf, math.nan, True, None, "0.1", "8/255", [0.1], (0.1, 0.2), 1j]
    values += [Fraction(8, 255), np.float32(0.1), np.array([0.1, 0.1]), torch.tensor(0.1), torch.tensor([0.1, 0.1]), {}]
    values += [1.01, 8, 255, 10**400] if norm == "linf" else []
    for value in values:
        yield value, rf"eps is {re.escape(repr(value)[:20])}.*from 0 to {top} \(8/255 is 0\.031\)"
    if norm == "l2":
        for value in (4.01, 8, 128, 255, 1e300, 10**40):
            yield value, rf"eps is {re.escape(str(value))}; no two such images are further apart than 4 in l2"


def counts(name):
    for value in (0, -1, -100, 2.5, 1.0, math.nan, math.inf, True, None, "10", [5], torch.tensor(5), np.float64(3)):
        yield value, rf"{name} is {re.escape(repr(value))}; give a whole number from 1"


def generators(attack):
    for value in (0, 7, "seed", 1.5, True, [1], np.random.default_rng(0), torch.Generator, torch.tensor(3)):
        yield value, rf"generator is {re.escape(repr(value)[:20])}.*; pass generator=torch\.Generator\(\)"
    if attack is square:
        yield None, r"generator is None; .*random: pass generator=torch\.Generator\(\)"


def others(names, targeted):
    """Arguments that only some attacks have."""
    if "loss" in names:
        for value in ("cross-entropy", "cw", "CE", "", None, 1, ["ce"], torch.nn.CrossEntropyLoss):
            yield "loss", value, rf"unknown attack loss {re.escape(repr(value))}; choose one of ce, margin, dlr"
    for name in ("steps", "queries"):
        if name in names:
            yield from ((name, *case) for case in counts(name))
    if "restarts" in names:
        yield from (("restarts", *case) for case in counts("restarts"))
        for value in (2, 5, 100):
            yield "restarts", value, rf"{value} restarts without a generator.*alike: pass generator="
    if "step_size" in names:
        for value in (0, -0.1, math.nan, math.inf, True, "0.1", [0.1], torch.tensor(0.1)):
            yield "step_size", value, rf"step_size is {re.escape(repr(value))}; give a length above 0"
    if "momentum" in names:
        for value in (-0.5, math.nan, math.inf, True, "1", None, [1.0]):
            yield "momentum", value, rf"momentum is {re.escape(repr(value))}; give a number from 0"
    for name in ("best", "leave"):
        if name in names:
            for value in (0, 1, None, "yes"):
                yield name, value, rf"{name} is {re.escape(repr(value))}; give True or False"
    if "targets" in names:
        for value in (-1, 1.0, 2.5, True, None, "all", [1], TOWARD):
            yield "targets", value, rf"targets is {re.escape(repr(value))}; give 0, or how many"
        for value in (3, 9):
            told = "and toward names the classes" if targeted else ""
            pattern = (
                rf"targets is {value}, {told}: give one" if targeted else rf"targets={value}.*2 of them wrong: give"
            )
            yield "targets", value, pattern


def models(attack, name="predict"):
    for value in (None, 7, "model", GREY, [model]):
        yield name, value, rf"predict is {re.escape(repr(value)[:20])}.*; give a function from images to logits"
    for broken, pattern in (
        (lambda x: None, r"returns None; attacks need logits: give"),
        (lambda x: (model(x), 0), r"returns \(tensor.*; attacks need logits: give"),
        (lambda x: model(x).tolist(), r"returns \[\[.*; attacks need logits: give"),
        (lambda x: model(x)[:, 0], r"returns torch\.float32 of shape \[2\]; .*\[n, classes\]: give"),
        (lambda x: model(x)[:, :1], r"returns torch\.float32 of shape \[2, 1\]; .*2 classes or more"),
        (lambda x: model(x)[:, :0], r"returns torch\.float32 of shape \[2, 0\]; .*2 classes or more"),
        (lambda x: model(x)[:, :, None], r"of shape \[2, 3, 1\]; .*\[n, classes\]: give"),
        (lambda x: model(x).argmax(1, keepdim=True), r"returns torch\.int64 of shape \[2, 1\]; .*\[n, classes\]: give"),
        (lambda x: model(x)[:1], r"logits for 1 of 2 images: give one row to each"),
        (lambda x: model(x).repeat(2, 1), r"logits for 4 of 2 images: give one row to each"),
        (lambda x: model(x)[:, :2], r"a (label|target) is 2; the model has 2 outputs, 0 to 1: give"),
    ):
        yield name, broken, pattern
    if attack is not square and not (attack is transfer and name == "predict"):
        for broken in (
            lambda x: model(x).detach(),
            lambda x: model(x.detach()),
            lambda x: model(x.detach()) * torch.ones(3, requires_grad=True),
        ):
            yield name, broken, r"no gradient for its images: give it without detach.*square"


def cases(attack, norm, targeted):
    """One argument at a time: its name, a malformed value, and what the message must say."""
    names = inspect.signature(attack).parameters
    yield from (("images", *case) for case in images())
    yield from (("labels", *case) for case in classes("labels") if not targeted)
    yield "labels", None, r"labels are None; give one int64 class per image: shape \[2\]"
    if targeted:
        yield from (("toward", *case) for case in classes(r"target classes \(toward\)"))
        yield "toward", torch.tensor([1, 2]), r"image 1 is to be turned toward 2, its own label: give a wrong class"
        yield "toward", LABELS, r"image 0 is to be turned toward 0, its own label: give a wrong class"
    yield from (("eps", *case) for case in radii(norm))
    for value in ("Linf", "L2", "l1", "inf", "", None, 2, math.inf, ["linf"], True, b"l2"):
        yield "norm", value, rf"unknown norm {re.escape(repr(value))}; choose one of linf, l2"
    yield from (("generator", *case) for case in generators(attack))
    yield from others(names, targeted)
    yield from models(attack)
    if attack is transfer:
        yield from models(attack, "surrogate")
    if attack is square:
        for shape in ((2, 16), (2, 4, 4), (2, 1, 1, 4, 4)):
            yield (
                "images",
                torch.full(shape, 0.5),
                rf"{re.escape(str(list(shape)))}; .*\[n, channels, height, width\]: give",
            )


TABLE = [
    (attack, norm, targeted, *case)
    for attack in ATTACKS
    for norm in ("linf", "l2")
    for targeted in (False, True)
    for case in cases(attack, norm, targeted)
]


def wrong_with(attack, norm, targeted, name, value, pattern):
    """What is amiss with how the attack takes it; an empty string if nothing is."""
    given = {"predict": model, "images": GREY, "labels": LABELS, "eps": 0.1, "norm": norm}
    given |= {"surrogate": model} if attack is transfer else {}
    given |= {"generator": generator()} if attack is square else {}
    given |= {"toward": TOWARD} if targeted else {}
    with counting() as tally:
        try:
            attack(**given | {name: value})
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
    if tally.examples and not re.search("model|predict", message):
        return f"counted {tally.examples} examples"  # what is wrong with a model is seen only once it was asked
    return ""


@pytest.mark.parametrize("attack", ATTACKS)
@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_bad_input_is_refused_with_its_value_and_a_remedy(attack, norm):
    mine = [case for case in TABLE if case[:2] == (attack, norm)]
    found = {f"{case[3]}={case[4]!r}{' toward' * case[2]}": wrong_with(*case) for case in mine}
    found = {case: what for case, what in found.items() if what}
    assert not found, "\n".join(f"{case[:80]}: {what[:300]}" for case, what in found.items())


def test_there_are_a_thousand_malformed_inputs():
    """None is counted for being written twice, and even without regard to norm and target there are that many."""
    assert len({(*case[:4], repr(case[4])) for case in TABLE}) == len(TABLE) > 4000
    assert len({(case[0], case[3], repr(case[4])) for case in TABLE}) > 1000


@pytest.mark.parametrize("attack", ATTACKS)
def test_what_the_table_changes_is_all_that_is_wrong(attack):
    """The call that each case starts from is a good one."""
    more = {transfer: {"surrogate": model}, square: {"queries": 20}}.get(attack, {})
    for norm in ("linf", "l2"):
        for toward in (None, TOWARD):
            given = {"eps": 0.1, "norm": norm, "toward": toward, "generator": generator()} | more
            moved = attack(model, images=GREY, labels=LABELS, **given)
            assert moved.shape == GREY.shape


def test_losses_refuse_too_few_classes():
    for attack in (fgsm, pgd, mi_fgsm, apgd, partial(transfer, surrogate=lambda x: model(x)[:, :2])):
        for toward, few in ((None, 3), (1 - torch.tensor([0, 1]), 4)):
            with pytest.raises(InputError, match=f"{few} largest logits and the model has 2 outputs: climb 'margin'"):
                attack(lambda x: model(x)[:, :2], images=GREY, labels=torch.tensor([0, 1]), eps=0.1, loss="dlr",
                       targets=toward)  # fmt: skip


def test_an_empty_batch_has_no_label_to_be_wrong():
    none = torch.empty(0, dtype=torch.int64)
    for attack in (
        fgsm,
        pgd,
        mi_fgsm,
        apgd,
        partial(square, generator=generator()),
        partial(transfer, surrogate=model),
    ):
        assert attack(model, images=GREY[:0], labels=none, eps=0.1, targets=none).shape == (0, 1, 4, 4)
