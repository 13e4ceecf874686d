"""Checks of the readers' own answers to the exercises of the chapters on attacks, defences and adversarial training.

    from metarobust.book.exercises import attacks as selfcheck

As in `metarobust.book.exercises.first`: properties on tiny fixed tensors, a verdict with a hint, and nothing is raised.
"""

from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from metarobust.attacks import pgd
from metarobust.attacks.losses import margin
from metarobust.book.exercises.check import CLOSE, Claim, Verdict, judged, number

EPS = 0.1
TRIES = 500


def nearest_border(answer: float | None) -> Verdict:
    """The warm-up on geometry: w = (3, -4), score 1; how far away, in L2, is the nearest image with score 0?"""
    mistakes = {
        1 / 7: "that is the L-infinity distance. In L2 divide by the length of w, not by the sum of its entries.",
        1 / 4: "that moves one pixel only (the L1 distance). A slanted move is shorter.",
        1.0: "that is the score. How far does it fall on a way of length 1 against w?",
        1 / 25: "that divides by the square of the length: it is the factor t in δ = -t w. How long is δ?",
    }
    first = "go straight against w: δ = -t w. Which t brings the score to 0, and how long is that δ?"
    passed = "w is 5 long, so a way of 1/5 against it costs 1."
    return number(answer, 1 / 5, mistakes, first=first, passed=passed, what="the distance")


Search = Callable[[nn.Module, Tensor, Tensor, float, int, torch.Generator], Tensor]


class _Watched(nn.Module):
    """A linear model that counts how often it was asked, and whether anybody wanted a gradient."""

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(5)
        self.weight = nn.Parameter(torch.randn(3, 64, generator=generator))
        self.asked, self.sloped = 0, False

    def forward(self, x: Tensor) -> Tensor:
        self.asked += 1
        self.sloped |= x.requires_grad
        return x.flatten(1) @ self.weight.T


def search(attack: Search) -> Verdict:
    """`attack(model, x, y, eps, tries, generator)`: keep a random change of the signs where it raises the margin."""
    generator = torch.Generator().manual_seed(7)
    x = torch.rand(6, 1, 8, 8, generator=generator)
    x[0, 0, 0, 0], x[1, 0, 0, 0] = 0.0, 1.0
    y, kept, model = torch.tensor([0, 1, 2, 0, 1, 2]), x.clone(), _Watched()

    def run(tries: int, seed: int = 0) -> Tensor:
        return attack(model, x, y, EPS, tries, torch.Generator().manual_seed(seed))

    def claims() -> Iterator[Claim]:
        moved = run(TRIES)
        shaped = isinstance(moved, Tensor) and moved.shape == x.shape
        yield shaped, "it does not return images of the shape it was given.", "return the images kept so far."
        yield bool(torch.equal(x, kept)), "it changes the images it was given.", "begin with x.clone()."
        yield not model.sloped, "it asks for a gradient.", "only compare the margins before and after a change."
        size = float((moved - x).abs().max())
        hint = "build every try from x and not from the last try: x + eps * signs."
        yield size <= EPS + CLOSE, f"a pixel moves by {size:.2f}, more than eps = {EPS:g}.", hint
        inside = float(moved.min()) >= -CLOSE and float(moved.max()) <= 1 + CLOSE
        yield inside, "pixels leave [0, 1].", "end each try with .clamp(0, 1)."
        with torch.no_grad():
            before, after = margin(model(x), y), margin(model(moved), y)
        hint = "keep a try only where its margin is higher: torch.where(higher[:, None, None, None], try, kept)."
        yield bool((after >= before - CLOSE).all()), "for some image the margin fell.", hint
        yield bool((after > before).all()), "some images did not move at all.", "decide for each image by itself."
        yield bool(torch.equal(run(TRIES), moved)), "the same generator gives another result.", "pass generator= on."
        hint = "draw from the generator that was passed, and not from a fixed seed."
        yield not torch.equal(run(TRIES, 1), moved), "another generator gives the same result.", hint
        best = pgd(_Watched(), x, y, eps=EPS, loss="margin")
        with torch.no_grad():
            within = margin(model(best), y) - before
        share = float(((after - before) / within).mean())
        hint = "change a few signs of the best pattern so far; all at once is a lottery in every try."
        yield share > 0.75, f"it gets {100 * share:.0f} % of the way in {TRIES} tries.", hint

    first = "keep signs of ±1 for each image; flip some at random; keep the flip where the margin rises."
    passed = (
        "it stays in the ball and in [0, 1], never loses ground, treats each image alone, and asks for no gradient."
    )
    return judged(attack, claims(), first=first, passed=passed)


def all_ten(answer: float | None) -> Verdict:
    """The warm-up on broken defences: right with chance 0.9 in each draw; how likely is it right in all of ten draws?

    The draws are independent.
    """
    mistakes = {
        0.9: "that is one draw. The attacker draws ten times and keeps the worst.",
        9.0: "that is how many of ten are right on average. How likely are all ten?",
        1 - 0.9**10: "that is the chance that at least one is wrong. How likely is none?",
        0.1**10: "that is the chance that all ten are wrong.",
    }
    first = "the chance that two independent draws are both right is the product of the two."
    passed = "0.9 to the power of 10: two thirds of the images fall."
    return number(answer, 0.9**10, mistakes, first=first, passed=passed, what="the chance")


class _Moody(nn.Module):
    """Logits that are scaled by 1, -3, 5 in turn: random to an attacker, exact to a check."""

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(6)
        self.weight = nn.Parameter(torch.randn(3, 4, generator=generator))
        self.asked = 0

    def forward(self, x: Tensor) -> Tensor:
        scale = (1.0, -3.0, 5.0)[self.asked % 3]
        self.asked += 1
        return scale * (x.flatten(1) @ self.weight.T)


Averaged = Callable[[nn.Module, Tensor, Tensor, int], Tensor]


def averaged(gradient: Averaged) -> Verdict:
    """`gradient(model, x, y, draws)`: the gradient of the cross-entropy for the images, averaged over draws."""
    x, y = torch.rand(2, 1, 2, 2, generator=torch.Generator().manual_seed(8)), torch.tensor([0, 2])
    kept, model = x.clone(), _Moody()

    def right() -> list[Tensor]:
        fresh, found = _Moody(), []
        for _ in range(6):
            leaf = x.clone().requires_grad_()
            found += torch.autograd.grad(F.cross_entropy(fresh(leaf), y, reduction="sum"), leaf)
        return found

    def claims() -> Iterator[Claim]:
        found = gradient(model, x, y, 6)
        each, mean = right(), torch.stack(right()).mean(0)
        shaped = isinstance(found, Tensor) and found.shape == x.shape
        yield shaped, "it does not return a gradient of the shape of x.", "return one number for each pixel."
        yield bool(torch.equal(x, kept)) and x.grad is None, "it changes the images it was given.", "use x.clone()."
        bare = all(p.grad is None for p in model.parameters())
        yield bare, "it leaves gradients in the model.", "use torch.autograd.grad(loss, x) in place of loss.backward()."
        asked = f"the model was asked {model.asked} times for 6 draws."
        yield model.asked == 6, asked, "ask the model again for every draw: call it inside the loop."
        hint = "add up the gradients of all draws; do not keep only one."
        yield not torch.allclose(found, each[-1], atol=CLOSE), "it is the gradient of the last draw alone.", hint
        yield not torch.allclose(found, sum(each), atol=CLOSE), "it is the sum and not the mean.", "divide by draws."
        signs = torch.stack([one.sign() for one in each]).mean(0)
        hint = "average the gradients first; take the sign afterwards, where the step is made."
        yield not torch.allclose(found, signs, atol=CLOSE), "it averages the signs.", hint
        hint = 'reduction="sum" over the images, and the mean over the draws.'
        yield torch.allclose(found, mean, atol=CLOSE), "it is not the mean of the gradients of all draws.", hint

    first = "start from the loop that takes one gradient, and wrap it in a loop over draws."
    passed = "each draw asks the model anew, and the gradients are averaged before anybody takes a sign."
    return judged(gradient, claims(), first=first, passed=passed)


def passes(answer: float | None) -> Verdict:
    """The warm-up on adversarial training: gradients through the network for one step of PGD-7 training, in all."""
    mistakes = {
        7.0: "those are the attack's. One more is needed for the weights.",
        1.0: "that is the step on the weights. Each of the attack's steps asks for a gradient, too.",
        14.0: "count gradients, and not passes forward and backward.",
        16.0: "count gradients, and not passes forward and backward.",
        6.0: "the attack asks for a gradient before each of its 7 steps.",
    }
    first = "how many gradients for the images, and how many for the weights?"
    passed = "7 for the images and 1 for the weights."
    return number(answer, 8, mistakes, first=first, passed=passed, what="the number of gradients")


Trades = Callable[[Tensor, Tensor, Tensor, float], Tensor]


def trades(loss: Trades) -> Verdict:
    """`loss(clean, attacked, y, beta)`: TRADES from the two logits `[n, classes]`, as one number (arXiv 1901.08573)."""
    generator = torch.Generator().manual_seed(9)
    clean, attacked = (3 * torch.randn(5, 4, generator=generator) for _ in range(2))
    y, beta = torch.tensor([0, 1, 2, 3, 0]), 6.0

    def claims() -> Iterator[Claim]:
        found = loss(clean, attacked, y, beta)
        p, q = clean.log_softmax(1), attacked.log_softmax(1)
        right = F.cross_entropy(clean, y)
        forth, back = ((a.exp() * (a - b)).sum(1).mean() for a, b in ((p, q), (q, p)))
        one = isinstance(found, Tensor) and found.numel() == 1 and found.ndim == 0
        yield one, "it does not return one number, as a tensor.", "average over the images."
        hint = "the first part is the ordinary cross-entropy on the clean logits; the labels have no other place."
        same = loss(clean, clean, y, beta)
        yield torch.allclose(same, right, atol=CLOSE), "where the attack changes nothing it is not cross-entropy.", hint
        nothing = loss(clean, attacked, y, 0.0)
        yield torch.allclose(nothing, right, atol=CLOSE), "with beta 0 it is not cross-entropy.", "multiply by beta."
        hint = "the clean probabilities are the weights of the mean: p * (log p - log q). F.kl_div takes log q first."
        yield (
            not torch.allclose(found, right + beta * back, atol=CLOSE),
            "it is the divergence the other way round.",
            hint,
        )
        summed = right + beta * 5 * forth
        yield not torch.allclose(found, summed, atol=1e-4), "the divergences are added up.", 'reduction="batchmean".'
        share = right + beta * forth / 4
        hint = 'F.kl_div divides by the classes, too, with reduction="mean": use "batchmean".'
        yield not torch.allclose(found, share, atol=CLOSE), "the divergence is divided by the number of classes.", hint
        yield torch.allclose(found, right + beta * forth, atol=1e-4), "the value is another.", "is q a log-probability?"
        leaf = clean.clone().requires_grad_()
        (slope,) = torch.autograd.grad(loss(leaf, attacked, y, beta), leaf)
        other = clean.clone().requires_grad_()
        (bare,) = torch.autograd.grad(F.cross_entropy(other, y), other)
        moves = not torch.allclose(slope, bare, atol=CLOSE)
        yield moves, "the second part sends no gradient into the clean logits.", "leave out .detach()."

    first = "cross-entropy on clean, plus beta times the mean over the images of the sum of p * (log p - log q)."
    passed = "cross-entropy on the clean images, and beta times how far the attack moves what the network says."
    return judged(loss, claims(), first=first, passed=passed)
