"""The checks of the chapters on attacks: right answers pass, and each wrong one fails with the hint that is meant."""

import json
import re
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from metarobust.attacks import counting
from metarobust.attacks.losses import margin
from metarobust.book.exercises import attacks as selfcheck
from metarobust.objectives import Adversarial

NOTEBOOKS = Path(__file__).resolve().parents[2] / "notebooks"


def spread(mask):
    return mask[:, None, None, None]


def flips(shape, generator):
    return 1 - 2 * (torch.rand(shape, generator=generator) < 0.1).float()


@torch.no_grad()
def right_search(model, x, y, eps, tries, generator):
    signs = 1 - 2 * (torch.rand(x.shape, generator=generator) < 0.5).float()
    kept, best = x.clone(), margin(model(x), y)
    for _ in range(tries):
        other = signs * flips(x.shape, generator)
        moved = (x + eps * other).clamp(0, 1)
        now = margin(model(moved), y)
        higher = now > best
        signs, kept = torch.where(spread(higher), other, signs), torch.where(spread(higher), moved, kept)
        best = torch.where(higher, now, best)
    return kept


def stub(*given): ...


def no_return(model, x, y, eps, tries, generator):
    right_search(model, x, y, eps, tries, generator)


def in_place(model, x, y, eps, tries, generator):
    x.copy_(right_search(model, x, y, eps, tries, generator))
    return x.clone()


def by_gradient(model, x, y, eps, tries, generator):
    leaf = x.clone().requires_grad_()
    (slope,) = torch.autograd.grad(margin(model(leaf), y).sum(), leaf)
    return (x + eps * slope.sign()).clamp(0, 1)


@torch.no_grad()
def wanders_off(model, x, y, eps, tries, generator):
    kept, best = x.clone(), margin(model(x), y)
    for _ in range(tries):
        moved = (kept + eps * flips(x.shape, generator)).clamp(0, 1)
        higher = margin(model(moved), y) > best
        kept = torch.where(spread(higher), moved, kept)
        best = margin(model(kept), y)
    return kept


def forgets_clip(model, x, y, eps, tries, generator):
    return x + eps * (right_search(model, x, y, eps, tries, generator) - x).sign()


@torch.no_grad()
def keeps_the_last(model, x, y, eps, tries, generator):
    for _ in range(tries):
        moved = (x + eps * flips(x.shape, generator)).clamp(0, 1)
    return moved


@torch.no_grad()
def all_or_none(model, x, y, eps, tries, generator):
    kept = x.clone()
    for _ in range(tries):
        moved = (x + eps * (1 - 2 * (torch.rand(x.shape, generator=generator) < 0.5).float())).clamp(0, 1)
        if margin(model(moved), y).mean() > margin(model(kept), y).mean():
            kept = moved
    return kept


def fixed_seed(model, x, y, eps, tries, generator):
    return right_search(model, x, y, eps, tries, torch.Generator().manual_seed(0))


def global_luck(model, x, y, eps, tries, generator):
    return right_search(model, x, y, eps, tries, torch.Generator().manual_seed(torch.seed()))


@torch.no_grad()
def lottery(model, x, y, eps, tries, generator):
    kept, best = x.clone(), margin(model(x), y)
    for _ in range(tries):
        moved = (x + eps * (1 - 2 * (torch.rand(x.shape, generator=generator) < 0.5).float())).clamp(0, 1)
        now = margin(model(moved), y)
        kept, best = torch.where(spread(now > best), moved, kept), torch.maximum(now, best)
    return kept


def test_search_that_is_right_passes():
    assert selfcheck.search(right_search)


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        (stub, "nothing is written"),
        (no_return, "images of the shape"),
        (in_place, "x.clone()"),
        (by_gradient, "asks for a gradient"),
        (wanders_off, "build every try from x"),
        (forgets_clip, "leave [0, 1]"),
        (keeps_the_last, "the margin fell"),
        (fixed_seed, "another generator gives the same"),
        (global_luck, "same generator gives another"),
        (lottery, "a lottery"),
        (lambda *given: 1 / 0, "ZeroDivisionError"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_wrong_searches_fail_with_their_hint(answer, says):
    state = torch.get_rng_state()
    verdict = selfcheck.search(answer)
    torch.set_rng_state(state)
    assert not verdict
    assert says in str(verdict)
    assert len(str(verdict).splitlines()) == 2


def test_a_search_that_decides_for_the_whole_batch_fails():
    assert not selfcheck.search(all_or_none)


def gradient_of(model, x, y, reduction="sum"):
    leaf = x.clone().requires_grad_()
    return torch.autograd.grad(F.cross_entropy(model(leaf), y, reduction=reduction), leaf)[0]


def right_average(model, x, y, draws):
    return sum(gradient_of(model, x, y) for _ in range(draws)) / draws


def no_gradient(model, x, y, draws):
    right_average(model, x, y, draws)


def goes_backward(model, x, y, draws):
    leaf = x.clone().requires_grad_()
    for _ in range(draws):
        F.cross_entropy(model(leaf), y, reduction="sum").backward()
    return leaf.grad / draws


def on_the_images(model, x, y, draws):
    x.requires_grad_()
    found = sum(torch.autograd.grad(F.cross_entropy(model(x), y, reduction="sum"), x)[0] for _ in range(draws)) / draws
    x.requires_grad_(False).add_(0.1)
    return found


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        (right_average, "Passed"),
        (stub, "nothing is written"),
        (no_gradient, "shape of x"),
        (on_the_images, "changes the images"),
        (goes_backward, "torch.autograd.grad"),
        (lambda model, x, y, draws: gradient_of(model, x, y), "asked 1 times for 6"),
        (lambda model, x, y, draws: [gradient_of(model, x, y) for _ in range(draws)][-1], "last draw alone"),
        (lambda model, x, y, draws: sum(gradient_of(model, x, y) for _ in range(draws)), "not the mean"),
        (lambda model, x, y, draws: sum(gradient_of(model, x, y).sign() for _ in range(draws)) / draws, "the signs"),
        (lambda model, x, y, draws: sum(gradient_of(model, x, y, "mean") for _ in range(draws)) / draws, 'n="sum"'),
    ],
)
def test_averaged(answer, says):
    verdict = selfcheck.averaged(answer)
    assert says in str(verdict)
    assert bool(verdict) == (says == "Passed")


def right_trades(clean, attacked, y, beta):
    p, q = clean.log_softmax(1), attacked.log_softmax(1)
    return F.cross_entropy(clean, y) + beta * (p.exp() * (p - q)).sum(1).mean()


def by_kl_div(reduction):
    def loss(clean, attacked, y, beta):
        apart = F.kl_div(attacked.log_softmax(1), clean.softmax(1), reduction=reduction)
        return F.cross_entropy(clean, y) + beta * apart

    return loss


@pytest.mark.parametrize("answer", [right_trades, by_kl_div("batchmean")])
def test_right_trades_passes(answer):
    assert selfcheck.trades(answer)


@pytest.mark.filterwarnings("ignore:reduction. 'mean' divides:UserWarning")
@pytest.mark.parametrize(
    ("answer", "says"),
    [
        (stub, "nothing is written"),
        (lambda clean, attacked, y, beta: F.cross_entropy(clean, y, reduction="none"), "one number"),
        (lambda c, a, y, beta: F.cross_entropy(a, y) + right_trades(c, a, y, beta), "changes nothing"),
        (lambda c, a, y, beta: right_trades(c, a, y, 6.0), "with beta 0"),
        (
            lambda c, a, y, beta: F.cross_entropy(c, y) + right_trades(a, c, y, beta) - F.cross_entropy(a, y),
            "the other way round",
        ),
        (by_kl_div("sum"), "added up"),
        (by_kl_div("mean"), "number of classes"),
        (
            lambda c, a, y, beta: (
                F.cross_entropy(c, y) + beta * (c.softmax(1) - a.softmax(1)).square().sum(1).mean()
            ),
            "another",
        ),
        (
            lambda c, a, y, beta: (
                F.cross_entropy(c, y) + right_trades(c.detach(), a, y, beta) - F.cross_entropy(c.detach(), y)
            ),
            "no gradient into the clean",
        ),
    ],
)  # fmt: skip
def test_wrong_trades_fail_with_their_hint(answer, says):
    verdict = selfcheck.trades(answer)
    assert not verdict
    assert says in str(verdict)


@pytest.mark.parametrize(
    ("check", "answer", "says"),
    [
        (selfcheck.nearest_border, 0.2, "Passed"),
        (selfcheck.nearest_border, None, "no number yet"),
        (selfcheck.nearest_border, 1 / 7, "L-infinity"),
        (selfcheck.nearest_border, 0.25, "L1 distance"),
        (selfcheck.nearest_border, 1, "the score"),
        (selfcheck.nearest_border, 0.04, "factor t"),
        (selfcheck.nearest_border, 0.3, "straight against w"),
        (selfcheck.all_ten, 0.9**10, "Passed"),
        (selfcheck.all_ten, 0.35, "Passed"),
        (selfcheck.all_ten, True, "no number yet"),
        (selfcheck.all_ten, 0.9, "one draw"),
        (selfcheck.all_ten, 9, "on average"),
        (selfcheck.all_ten, 0.651, "at least one"),
        (selfcheck.all_ten, 1e-10, "all ten are wrong"),
        (selfcheck.passes, 8, "Passed"),
        (selfcheck.passes, "8", "no number yet"),
        (selfcheck.passes, 7, "the attack's"),
        (selfcheck.passes, 1, "each of the attack's"),
        (selfcheck.passes, 16, "forward and backward"),
        (selfcheck.passes, 9, "how many gradients"),
    ],
)
def test_numbers(check, answer, says):
    verdict = check(answer)
    assert says.lower() in str(verdict).lower()
    assert bool(verdict) == (says == "Passed")


def test_passes_is_what_the_library_asks_for():
    """One step of PGD-7 training asks for seven gradients of images and one of weights."""
    generator = torch.Generator().manual_seed(0)
    model, asked = nn.Sequential(nn.Flatten(), nn.utils.skip_init(nn.Linear, 4, 3)), []
    nn.init.uniform_(model[1].weight, generator=generator)
    nn.init.zeros_(model[1].bias)
    x, y = torch.rand(5, 1, 2, 2, generator=generator), torch.tensor([0, 1, 2, 0, 1])

    def predict(batch):
        asked.append(batch.requires_grad)
        return model(batch)

    with counting() as tally:
        Adversarial(0.1, steps=7)(predict, x, y, generator).mean().backward()
    assert tally.examples == len(x)
    assert sum(asked) == 7
    assert selfcheck.passes(sum(asked) + 1)


@pytest.mark.parametrize(
    ("chapter", "name", "check"),
    [
        ("geometry-of-attacks", "search", selfcheck.search),
        ("broken-defences", "averaged", selfcheck.averaged),
        ("adversarial-training", "trades", selfcheck.trades),
    ],
)
def test_the_solutions_that_the_notebooks_show_pass(chapter, name, check):
    notebook = json.loads((NOTEBOOKS / f"{chapter}.ipynb").read_text(encoding="utf-8"))
    text = "\n".join("".join(cell["source"]) for cell in notebook["cells"] if cell["cell_type"] == "markdown")
    (solution,) = re.findall(rf"^```python\n((?:@torch.no_grad\(\)\n)?def {name}.*?)^```", text, flags=re.M | re.S)
    names = {"torch": torch, "F": F, "margin": margin}
    exec(solution, names)
    assert check(names[name])
