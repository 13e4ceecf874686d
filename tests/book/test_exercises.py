"""The exercises: the notebooks' solutions pass, and every wrong answer here fails with the hint meant for it."""

import json
import math
import re
import tomllib
from pathlib import Path
from statistics import stdev

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from metarobust.attacks import counting, fgsm
from metarobust.attacks.losses import margin
from metarobust.book.exercises import check, learning, mistakes, optimizing
from metarobust.book.exercises.check import Verdict, function, number

NOTEBOOKS = Path(__file__).parents[2] / "notebooks"
CHAPTERS = [path.stem.replace("-", "_") for path in NOTEBOOKS.glob("*.ipynb")]


def exercise(name):
    return (vars(mistakes) | vars(optimizing) | vars(learning))[name.split(".")[-1]]


def cells(chapter, kind):
    notebook = json.loads((NOTEBOOKS / f"{chapter.replace('_', '-')}.ipynb").read_text(encoding="utf-8"))
    return "\n".join("".join(cell["source"]) for cell in notebook["cells"] if cell["cell_type"] == kind)


def solution(name):
    """The function that the notebook shows in its hidden solution of an exercise."""
    chapter, _, called = name.partition(".")
    (written,) = re.findall(rf"^exercises\.{called}\((\w+)\)", cells(chapter, "code"), flags=re.M)
    blocks = re.findall(r"^```python\n(.*?)^```", cells(chapter, "markdown"), flags=re.M | re.S)
    (code,) = (block for block in blocks if f"def {written}(" in block)
    names = {"torch": torch, "F": F, "margin": margin}
    exec(code, names)
    return names[written]


FUNCTIONS = {
    "fooling_a_classifier.targeted", "geometry_of_attacks.search", "broken_defences.averaged",
    "adversarial_training.trades", "optimizers_as_functions.adamw", "learning_a_step_size.meta_gradient",
    "exploding_meta_gradients.persistent", "learned_optimizers.around_adam", "learning_from_mistakes.pruned",
    "two_by_two.paired", "few_images.stopped", "new_architectures.row_sizes", "new_data.l2_step",
    "what_was_learned.constant", "costs_and_limits.honest", "learning_penalties.bend",
}  # fmt: skip

STEPS, LOSSES, PATCHING = 40 * 4 * 20 * 64, 40 * 4 * 4 * 128, 10 * 20 * 64  # of meta-training, and of patches
RIGHT = {
    "smallest_eps": 0.75 / 3.5, "nearest_border": 1 / 5, "all_ten": 0.9**10, "passes": 7 + 1,
    "long_push": 0.1 / (1 - 0.9), "two_steps": -8 * (1 - 2 * 0.1) ** 3, "nudge": abs(1 - 0.8 * 4) ** 10,
    "memory_of_a_weight": 2 * 2 * 20, "examples_made": 2 * 2 * 4 * 128,
    "examples_of_corners": (0, LOSSES, STEPS + PATCHING, STEPS + PATCHING + LOSSES),
    "margin_left": 2 - 0.1 * 15, "times_seen": 100 * 64 / 50, "matrix_shape": (12, 6 * 3 * 3),
    "falls": (64 / 100, 8 / 10), "three_quarters": (0.04 * 0.004) ** 0.5,
    "models_until_it_pays": math.ceil((12_000_000 - 4_000_000) / (10_000 - 2_500)),
}  # fmt: skip
TEXT = Path(check.__file__).with_name("numbers.toml").read_text(encoding="utf-8")
BESIDE = re.findall(r"(?:\[|= )([-\d.e]+)(?:, .*\],)?  # ([-\d. /*()]+)$", TEXT, flags=re.M)  # value and formula


def test_every_chapter_has_its_exercises_and_its_notebook_uses_them():
    used = {c: re.findall(r"^exercises\.(\w+)\(", cells(c, "code"), flags=re.M) for c in CHAPTERS}
    assert {f"{c}.{name}" for c, names in used.items() for name in names if name not in RIGHT} == FUNCTIONS
    assert {name for names in used.values() for name in names} >= set(RIGHT) == set(tomllib.loads(TEXT))


@pytest.mark.parametrize("name", sorted(FUNCTIONS))
def test_the_solution_that_a_notebook_shows_passes(name):
    state = torch.get_rng_state()
    assert str(exercise(name)(solution(name))).startswith("Passed: ")
    for nothing in (lambda *given: None, lambda *given: 1 / 0, None):
        assert not exercise(name)(nothing)
    assert torch.equal(torch.get_rng_state(), state), "a check leaves the default generator alone"


@pytest.mark.parametrize("name", RIGHT)
def test_numbers(name):
    known = tomllib.loads(TEXT)[name]
    right, size = RIGHT[name], np.size(RIGHT[name])
    assert str(exercise(name)(right)) == f"Passed: {known['passed']}"
    for wrong, hint in known["mistakes"]:
        given = [1 if one == check.ANY else one for one in wrong] if size > 1 else wrong
        assert str(exercise(name)(given)).endswith(f"that is not it.\nHint: {hint}")
    for odd in (None, str(right), True, 54 if size > 1 else (54, 54), [math.nan] * size):
        verdict = exercise(name)(odd)
        assert not verdict
        assert str(verdict).endswith(f"\nHint: {known['first']}")
        assert ("no " in verdict.message) == (odd != [math.nan] * size)


@pytest.mark.parametrize(("value", "formula"), BESIDE)
def test_a_number_is_what_the_formula_beside_it_says(value, formula):
    assert float(value) == pytest.approx(eval(formula), rel=1e-6)


def slope(model, x, label, reduction="sum"):
    leaf = x.clone().requires_grad_()
    return torch.autograd.grad(F.cross_entropy(model(leaf), label, reduction=reduction), leaf)[0]


def targeted_backward(model, x, target, eps):
    leaf = x.clone().requires_grad_()
    F.cross_entropy(model(leaf), target).backward()
    return (leaf - eps * leaf.grad.sign()).clamp(0, 1).detach()


def mixes_the_batch(model, x, target, eps):
    return (x - eps * (1 if len(x) > 1 else 0.9) * slope(model, x, target).sign()).clamp(0, 1)


def flips(x, generator, share=0.1):
    return 1 - 2 * (torch.rand(x.shape, generator=generator) < share).float()


def climb(model, x, y, eps, tries, generator, share=0.1, of_last=False, clip=True, keep=True):
    """The search of the exercise, with its usual mistakes."""
    signs, kept, best = flips(x, generator, 0.5), x.clone(), margin(model(x), y)
    for _ in range(tries):
        other = flips(x, generator, 0.5) if share == 0.5 else signs * flips(x, generator, share)
        moved = (kept if of_last else x) + eps * other
        moved = moved.clamp(0, 1) if clip else moved
        higher = margin(model(moved), y) > best
        mask = higher[:, None, None, None] if keep else torch.ones_like(x, dtype=torch.bool)
        signs, kept = torch.where(mask, other, signs), torch.where(mask, moved, kept)
        best = margin(model(kept), y)
    return kept


def kl(reduction, turned=False):
    def loss(clean, attacked, y, beta):
        p, q = (attacked, clean) if turned else (clean, attacked)
        return F.cross_entropy(clean, y) + beta * F.kl_div(q.log_softmax(1), p.softmax(1), reduction=reduction)

    return loss


def adam_without_correction(g, state, w, lr, decay):
    k, m, v = state[0] + 1, 0.9 * state[1] + 0.1 * g, 0.999 * state[2] + 0.001 * g * g
    return -lr * (m / (v.sqrt() + 1e-8) + decay * w), (k, m, v)


def meta(loss, w, alpha, steps, second=True, detach=False):
    alpha, at = alpha.clone().requires_grad_(), w.clone().requires_grad_()
    for _ in range(steps):
        (g,) = torch.autograd.grad(loss(at), at, create_graph=True)
        at = (at.detach() if detach else at) - alpha * (g if second else g.detach())
    return torch.autograd.grad(loss(at), alpha)[0]


def pes(unroll, theta, sigma, points, sums, directions, weigh=lambda sums, move: sums + move, over=2.0, power=2):
    move = sigma * directions
    losses, points = unroll(torch.stack([theta + move, theta - move]), points)
    return ((losses[0] - losses[1]) * weigh(sums, move)).mean() / (over * sigma**power), points, sums + move


def interval(one, other, factor=1.0):
    gaps = [one[seed] - other[seed] for seed in one]
    return sum(gaps) / 4, factor * 3.182446 * stdev(gaps) / 2


def by_place(one, other):
    return interval(dict(enumerate(one.values())), dict(enumerate(other.values())))


def two_intervals(one, other):
    return interval(one, other)[0], 3.182446 * math.hypot(stdev(one.values()), stdev(other.values())) / 2


def rows(weight, over=1, scale=True, total=False, log=True):
    square = weight.flatten(1).square()
    found = square.sum(1) if total else square.mean(over)
    found = found / (square.mean() if scale else 1)
    return found.log() if log else found


def length(change):
    return change.flatten(1).norm(dim=1).clamp_min(1e-12).view(-1, 1, 1, 1)


def l2(x, current, gradient, size, eps, clip=True, ball=True, direction=None, shrink=1.0):
    moved = current + size * (gradient / length(gradient) if direction is None else direction(gradient))
    change = moved - x
    moved = x + shrink * change * (eps / length(change)).clamp(max=1) if ball else x + change.clamp(-eps, eps)
    return moved.clamp(0, 1) if clip else moved


def step(outputs, a, w, log_lr, size, cap=0.3, squeeze=torch.tanh, outside=False):
    d, s, c = outputs
    rate = log_lr.exp() + s if outside else (log_lr + s).exp()
    return -rate * size * (a + d) - cap * squeeze(c) * w


# Exercise, then wrong answers and a part of the verdict that each gets. R is the right answer of the notebook.
WRONG = {
    "fooling_a_classifier.targeted": lambda R: {
        "go down its loss": lambda m, x, t, e: fgsm(m, x, t, eps=e),
        "outside [0, 1]": lambda m, x, t, e: x - e * slope(m, x, t).sign(),
        "more than eps": lambda m, x, t, e: (x - slope(m, x, t).sign()).clamp(0, 1),
        "take the sign": lambda m, x, t, e: (x - e * slope(m, x, t)).clamp(0, 1).clamp(x - e, x + e),
        "changes what it was given": lambda m, x, t, e: x.sub_(e * slope(m, x, t).sign()).clamp_(0, 1),
        "torch.autograd.grad": targeted_backward,
        ".detach()": lambda m, x, t, e: R(m, x, t, e).requires_grad_(),
        "alone than in a batch": mixes_the_batch,
        "ask for the gradient of x": lambda m, x, t, e: torch.autograd.grad(F.cross_entropy(m(x), t), x)[0],
        "the target does not become more likely": lambda m, x, t, e: x.clone(),
    },
    "geometry_of_attacks.search": lambda R: {
        "asks for a gradient": lambda m, x, y, e, n, g: fgsm(m, x, y, eps=e),
        "build every try from x": lambda *given: climb(*given, of_last=True),
        "outside [0, 1]": lambda *given: climb(*given, clip=False),
        "the margin fell": lambda *given: climb(*given, keep=False),
        "another generator gives the same": lambda *given: R(*given[:-1], torch.Generator().manual_seed(0)),
        "a lottery": lambda *given: climb(*given, share=0.5),
    },
    "broken_defences.averaged": lambda R: {
        "returns shape": lambda m, x, y, n: slope(m, x, y).sum(),
        "asked 1 times for 6": lambda m, x, y, n: slope(m, x, y),
        "last draw alone": lambda m, x, y, n: [slope(m, x, y) for _ in range(n)][-1],
        "not the mean.": lambda m, x, y, n: sum(slope(m, x, y) for _ in range(n)),
        "the signs": lambda m, x, y, n: sum(slope(m, x, y).sign() for _ in range(n)) / n,
        'n="sum"': lambda m, x, y, n: sum(slope(m, x, y, "mean") for _ in range(n)) / n,
    },
    "adversarial_training.trades": lambda R: {
        "one number": lambda c, a, y, beta: F.cross_entropy(c, y, reduction="none"),
        "changes nothing": lambda c, a, y, beta: F.cross_entropy(a, y) + R(c, a, y, beta),
        "with beta 0": lambda c, a, y, beta: R(c, a, y, 6.0),
        "the other way round": kl("batchmean", turned=True),
        "added up": kl("sum"),
        "divided by the classes": kl("mean"),
        "another": lambda c, a, y, beta: F.cross_entropy(c, y) + beta * (c.softmax(1) - a.softmax(1)).square().mean(),
        "no gradient into": lambda c, a, y, beta: (
            F.cross_entropy(c, y) + R(c.detach(), a, y, beta) - F.cross_entropy(c.detach(), y)
        ),
    },
    "optimizers_as_functions.adamw": lambda R: {
        "it stops with": lambda g, s, w, lr, d: R(g, s, w, lr, d)[0],
        "changes what it was given": lambda g, s, w, lr, d: R(g, s, w.mul_(0.9), lr, d),
        "k + 1": lambda g, s, w, lr, d: (R(g, s, w, lr, d)[0], s),
        "do not shrink": lambda g, s, w, lr, d: R(g, s, w, lr, -d),
        "not -lr * decay * w": lambda g, s, w, lr, d: (R(g, s, w, lr, 0.0)[0] - d * w, R(g, s, w, lr, d)[1]),
        "through the averages": lambda g, s, w, lr, d: R(g + d * w, s, w, lr, 0.0),
        "it climbs": lambda g, s, w, lr, d: R(-g, s, w, lr, d),
        "1 - 0.9**k": adam_without_correction,
        "second step": lambda g, s, w, lr, d: (R(g, s, w, lr, d)[0], (s[0] + 1, s[1], s[2])),
        "no slope by lr": lambda g, s, w, lr, d: R(g, s, w, lr.detach(), d),
        "entry by entry": lambda g, s, w, lr, d: R(g, s, w, lr.mean(), d),
    },
    "learning_a_step_size.meta_gradient": lambda R: {
        "one number": lambda loss, w, alpha, n: w,
        "create_graph": lambda *given: meta(*given, second=False),
        "sign is wrong": lambda *given: -R(*given),
        "only the last step": lambda *given: meta(*given, second=False, detach=True),
        "logarithm": lambda loss, w, alpha, n: alpha * R(loss, w, alpha, n),
        "K steps": lambda loss, w, alpha, n: R(loss, w, alpha, n + 1),
        "changes what it was given": lambda loss, w, alpha, n: R(loss, w, alpha.requires_grad_(), n),
        "make your own alpha": lambda loss, w, alpha, n: torch.autograd.grad(loss(w), alpha)[0],
        "special to a bowl": lambda loss, w, alpha, n: (
            -(n * torch.tensor([1.0, 9.0]) * w**2 * (1 - alpha * torch.tensor([1.0, 3.0])) ** (2 * n - 1)).sum()
        ),
    },
    "exploding_meta_gradients.persistent": lambda R: {
        "three tensors": lambda *given: R(*given)[:2],
        "returns shape": lambda *given: (R(*given)[0].expand(3), *R(*given)[1:]),
        "where they should": lambda *given: pes(*given[:-1], -given[-1]),
        "add this window's move": lambda *given: (*R(*given)[:2], given[2] * given[5]),
        "blind to the past": lambda *given: pes(*given, weigh=lambda sums, move: move),
        "belongs to the sum, too": lambda *given: pes(*given, weigh=lambda sums, move: sums),
        "divide by sigma^2": lambda *given: pes(*given, power=1),
        "2 sigma apart": lambda *given: pes(*given, over=1),
        "mean over pairs": lambda *given: pes(*given, over=2 / 3),
        "(L+ - L-)": lambda *given: pes(*given, over=-2),
    },
    "learned_optimizers.around_adam": lambda R: {
        "climbs": lambda *given: -R(*given),
        "log_lr is a logarithm": lambda o, a, w, log_lr, size: R(o, a, w, (-log_lr).log(), size),
        "size is the tensor's": lambda o, a, w, log_lr, size: R(o, a, w, log_lr, torch.ones_like(size)),
        "d does not turn": lambda o, *given: R((0 * o[0], *o[1:]), *given),
        "inside of exp": lambda *given: step(*given, outside=True),
        "does not shrink": lambda *given: step(*given, cap=-0.3),
        "tanh": lambda *given: step(*given, squeeze=lambda c: c),
        "more than the cap": lambda *given: step(*given, cap=1),
        "another one": lambda *given: step(*given, squeeze=lambda c: torch.tanh(c) / 2),
    },
    "learning_from_mistakes.pruned": lambda R: {
        "standard deviation": lambda w, x, t, keep: w * (x.flatten(1).mean(0) > t) * keep,
        "largest value": lambda w, x, t, keep: w * (x.flatten(1).amax(0) > t) * keep,
        "black pixel": lambda w, x, t, keep: w * (x.std() > t) * keep,
        "compare with >": lambda w, x, t, keep: w * (x.flatten(1).std(0) > t / 20) * keep,
        "cut off": lambda w, x, t, keep: w * (x.flatten(1).std(0) > 3 * t) * keep,
        "share `keep`": lambda w, x, t, keep: w * (x.flatten(1).std(0) > t),
        "changes what it was given": lambda w, x, t, keep: w.mul_(keep),
        "returns shape": lambda w, x, t, keep: w[:, x.flatten(1).std(0) > t] * keep,
        "flatten": lambda w, x, t, keep: w * (x.std(0) > t) * keep,
    },
    "two_by_two.paired": lambda R: {
        "another order": by_place,
        "1.96": lambda one, other: interval(one, other, 1.959963985 / 3.182446),
        "n - 1": lambda one, other: interval(one, other, 0.75**0.5),
        "square root": lambda one, other: interval(one, other, 2),
        "differences first": two_intervals,
        "standard error": lambda one, other: interval(one, other, 1 / 3.182446),
        "one minus other": lambda one, other: R(other, one),
        "no abs": lambda one, other: (abs(R(one, other)[0]), R(one, other)[1]),
        "two numbers": lambda one, other: R(one, other)[0],
        "changes what it was given": lambda one, other: (one.popitem(), 0),
        "TypeError": lambda one, other: one - other,
    },
    "few_images.stopped": lambda R: {
        "test is best": lambda held_out, test: (test.index(max(test)), max(test)),
        "later one": lambda held_out, test: (4, test[4]),
        "not at 2": lambda held_out, test: (3, test[2]),
        "what the test says": lambda held_out, test: (2, held_out[2]),
        "a place and an accuracy": lambda held_out, test: R(held_out, test)[1],
        "IndexError": lambda held_out, test: (2, test[2]),
        "changes what it was given": lambda held_out, test: (held_out.sort(), 0),
    },
    "new_architectures.row_sizes": lambda R: {
        "for each row": lambda w: rows(w, over=0),
        "hundred times": lambda w: rows(w, scale=False),
        "column stands there twice": lambda w: rows(w, total=True),
        "row stands there twice": lambda w: (w.flatten(1).square().mean(1) / w.flatten(1).square().mean(1).sum()).log(),
        "not the logarithms": lambda w: rows(w, log=False),
        "changes what it was given": lambda w: rows(w.mul_(2)),
    },
    "new_data.l2_step": lambda R: {
        "does not have length": lambda *given: l2(*given, direction=torch.sign),
        "leaves its ball": lambda *given: l2(*given, ball=False),
        "image by image": lambda *given: l2(*given, direction=lambda g: g / g.norm().clamp_min(1e-12)),
        "gradient of zero": lambda *given: l2(*given, direction=lambda g: g / g.square().sum((1, 2, 3), True).sqrt()),
        "goes down": lambda x, c, g, s, e: R(x, c, -g, s, e),
        "outside [0, 1]": lambda *given: l2(*given, clip=False),
        "returns shape": lambda *given: R(*given).flatten(1),
        "view them as": lambda x, c, g, s, e: c + s * g / g.flatten(1).norm(dim=1)[:, None],
        "inside the ball": lambda x, c, g, s, e: R(x, c, g, s, 0.9 * e if s > 0.1 else e),
    },
    "what_was_learned.constant": lambda R: {
        "it stops with TypeError": lambda: None,
        "changes what it was given": lambda c: R(c.mul_(2)),
        "not [2, 4]": lambda c: R(c)[:, :1],
        "Take logarithms first": lambda c: c.mean(-1, keepdim=True).expand(c.shape),
        "go back with exp": lambda c: R(c).log(),
        "mixes hyperparameters": lambda c: R(c.T).T,
        "one number for all": lambda c: c.log().mean().exp().expand(c.shape),
        "nothing has changed": lambda c: c,
        "row by row": lambda c: 2 * R(c),
    },
    "learning_penalties.bend": lambda R: {
        "it stops with": lambda m, x, y, f: m(x) @ y,
        "one number an image": lambda *given: R(*given).sum(),
        "square root": lambda *given: R(*given).sqrt(),
        "averaged over the images": lambda *given: R(*given) / 36,
        "goes up": lambda m, x, y, f: R(m, x, y, -f),
        "term by term": lambda *given: 2 * R(*given),
    },
    "costs_and_limits.honest": lambda R: {
        "test images chose": lambda v, t: t.mean(1).max(),
        "best seed of the best setting": lambda v, t: t.max(),
        "best seed was picked": lambda v, t: t[v.mean(1).argmax()].max(),
        "chosen by": lambda v, t: v.mean(1).max(),
        "lucky seed": lambda v, t: t[v.amax(1).argmax()].mean(),
        "no setting was chosen": lambda v, t: t.mean(),
        "another order": lambda v, t: t[2].mean(),
        "changes what it was given": lambda v, t: v.zero_().mean(),
        "which row": lambda v, t: 0.123,
    },
}


@pytest.mark.filterwarnings("ignore:reduction. 'mean' divides:UserWarning")
@pytest.mark.parametrize("name", WRONG)
def test_wrong_functions_fail_with_their_hint(name):
    for says, answer in WRONG[name](solution(name)).items():
        verdict = exercise(name)(answer)
        assert not verdict, says
        assert says in str(verdict)
        assert len(str(verdict).splitlines()) == 2


HINTS = {"first": "begin here.", "stops": "look at the input."}


@function(**HINTS)
def square(answer):
    """The square."""
    yield answer(2) == 4, "it is not the square.", "multiply."
    yield answer(-3) == 9, "it fails below 0.", "no abs()."


@pytest.mark.parametrize(
    ("answer", "verdict"),
    [
        (lambda x: x * x, Verdict(True, "every property that was asked for holds.")),
        (lambda x: None, Verdict(False, "it returns nothing yet.", "begin here.")),
        (lambda x: x + 1, Verdict(False, "it is not the square.", "multiply.")),
        (lambda x: x * abs(x), Verdict(False, "it fails below 0.", "no abs().")),
        (lambda x: [][1], Verdict(False, "it stops with IndexError: list index out of range", "look at the input.")),
        (3, Verdict(False, "it stops with TypeError: 'int' object is not callable", "look at the input.")),
    ],
)
def test_the_first_property_that_fails_is_the_verdict(answer, verdict):
    assert square(answer) == verdict
    assert square.__doc__ == "The square."


def test_a_number_is_right_to_half_a_per_cent_or_exactly():
    about = number(10, [(20, "half of it.")], first="count.", passed="ten.")
    assert about(10.04) == Verdict(True, "ten.")
    assert about(10.06) == Verdict(False, "10.06: that is not it.", "count.")
    assert about(20.09) == Verdict(False, "20.09: that is not it.", "half of it.")
    assert not number(10, [], first="count.", passed="ten.", exact=True)(10.04)


def test_the_right_numbers_are_what_the_library_makes():
    from metarobust.data import load
    from metarobust.family import Family
    from metarobust.learned import make
    from metarobust.learned.mlp import FeatureMLP
    from metarobust.learned.protocol import param_infos
    from metarobust.meta import MetaTrainConfig, generator_of, meta_train
    from metarobust.models import build
    from metarobust.objectives import Adversarial, Mixed, clean
    from metarobust.optimizers import SGD
    from metarobust.params import ParamSpec
    from metarobust.training import Inner, fit_learned

    family, optimizer = Family(("mlp-2-relu",), load("digits").train[:300], 10, images=100), FeatureMLP(hidden=2)

    def meta_trained(inner, attack):
        with counting() as counter:
            meta_train(optimizer, family.sample, MetaTrainConfig(1), inner=inner, meta=Mixed(attack), seed=0)
        return counter.examples

    assert RIGHT["examples_made"] == meta_trained(clean, Adversarial(0.1, steps=4))
    one = family.sample(1, generator_of("cpu", 0))
    _, work = fit_learned(one, optimizer, Inner(20, 64), generator_of("cpu", 1), Adversarial(0.1))
    total = 40 * meta_trained(Adversarial(0.1), Adversarial(0.1)) + 10 * work
    assert RIGHT["examples_of_corners"][3] == total

    w, momentum = torch.zeros(1), SGD(0.1, 0.9)
    state = momentum.init(w, ParamSpec(("w",), ((1,),)), 200)
    for _ in range(200):
        update, state = momentum.update(torch.ones(1), state, w)
    assert exercise("long_push")(float(update.abs()))

    lstm = make("lstm", torch.Generator().manual_seed(0))
    state = lstm.init(torch.zeros(6), ParamSpec(("w",), ((2, 3),)), 1)
    assert exercise("memory_of_a_weight")(sum(a.numel() for a in state.accumulators.values()) // 6)

    infos = param_infos(ParamSpec.of(build("cnn-6-12-relu", (1, 8, 8), 10)))
    second = next(info for info in infos if len(info.shape) == 4 and info.layer)
    assert exercise("matrix_shape")((second.rows, second.columns))
