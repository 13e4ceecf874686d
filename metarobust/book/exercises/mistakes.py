"""Exercises of part I, "Mistakes"."""

import torch
from torch import nn
from torch.nn import functional as F

from metarobust.attacks import pgd
from metarobust.attacks.losses import margin
from metarobust.book.exercises.check import function, numbers
from metarobust.book.properties import CLOSE, in_ball, in_range, near, tensor

EPS, TRIES, DRAWS = 0.1, 500, 6
smallest_eps, nearest_border, all_ten, passes = numbers("smallest_eps", "nearest_border", "all_ten", "passes")


@function(first="start from my_fgsm, and change the label and one sign.", stops="does it ask for the gradient of x?")
def targeted(attack):
    """`attack(model, x, target, eps)`: one step of FGSM towards the class `target`, for each image of `x`."""
    rng = torch.Generator().manual_seed(3)
    model = nn.Sequential(nn.Flatten(), nn.utils.skip_init(nn.Linear, 4, 3))
    for p in model.parameters():
        p.data.copy_(torch.randn(p.shape, generator=rng))
    x, target = torch.rand(4, 1, 2, 2, generator=rng) * 0.7 + 0.15, torch.tensor([0, 1, 2, 0])
    x[:, 0, 0, 0], x[:, 0, 1, 1] = torch.tensor([0.0, 1.0, 0.02, 0.99]), torch.tensor([0.99, 0.0, 1.0, 0.02])
    moved = tensor(attack(model, x, target, EPS), x.shape)
    yield not moved.requires_grad, "what it returns still carries a gradient.", "end with .detach()."
    bare = all(p.grad is None for p in model.parameters())
    yield bare, "it leaves gradients in the model.", "use torch.autograd.grad(loss, x) in place of loss.backward()."
    yield *in_ball(moved, x, EPS), "multiply the gradient's sign by eps."
    yield *in_range(moved), "end with .clamp(0, 1)."
    before, after = (F.cross_entropy(model(images), target, reduction="none") for images in (x, moved))
    hint = "to come closer to a class, go down its loss: subtract where FGSM adds. Is the label the target?"
    yield (after < before).all(), "the target does not become more likely for every image.", hint
    full = (moved - x).abs()[(x > EPS) & (x < 1 - EPS)] > EPS - CLOSE
    yield full.all(), "some pixels move by less than eps.", "all may use it whole: take the sign of the gradient."
    alone = torch.cat([attack(model, x[i : i + 1], target[i : i + 1], EPS) for i in range(len(x))])
    yield near(alone, moved), "an image is moved otherwise alone than in a batch.", "take no mean or maximum over it."


@function(first="keep signs of ±1 for each image; flip some at random; keep the flip where the margin rises.")
def search(attack):
    """`attack(model, x, y, eps, tries, generator)`: keep a random change of the signs where it raises the margin."""
    weight = torch.randn(3, 64, generator=torch.Generator().manual_seed(5))
    x, y = torch.rand(6, 1, 8, 8, generator=torch.Generator().manual_seed(7)), torch.tensor([0, 1, 2, 0, 1, 2])
    x[0, 0, 0, 0], x[1, 0, 0, 0] = 0.0, 1.0
    slopes = []

    def model(images):
        slopes.append(images.requires_grad)
        return images.flatten(1) @ weight.T

    def run(seed):
        return attack(model, x, y, EPS, TRIES, torch.Generator().manual_seed(seed))

    moved = tensor(run(0), x.shape)
    yield not any(slopes), "it asks for a gradient.", "only compare the margins before and after a change."
    yield *in_ball(moved, x, EPS), "build every try from x: x + eps * signs."
    yield *in_range(moved), "end each try with .clamp(0, 1)."
    best = pgd(model, x, y, eps=EPS, loss="margin")
    start, end, most = (margin(model(images), y) for images in (x, moved, best))
    hint = "keep a try only where its margin is higher: torch.where(higher[:, None, None, None], try, kept)."
    yield (end >= start - CLOSE).all(), "for some image the margin fell.", hint
    yield (end > start).all(), "some images did not move at all.", "decide for each image by itself."
    yield torch.equal(run(0), moved), "the same generator gives another result.", "pass generator= on."
    yield not torch.equal(run(1), moved), "another generator gives the same result.", "draw from the generator given."
    share = float(((end - start) / (most - start)).mean())
    hint = "change a few signs of the best pattern so far; all at once is a lottery in every try."
    yield share > 0.75, f"it gets {100 * share:.0f} % of the way in {TRIES} tries.", hint


@function(first="start from the loop that takes one gradient, and wrap it in a loop over draws.")
def averaged(gradient):
    """`gradient(model, x, y, draws)`: the gradient of the cross-entropy for the images, averaged over draws."""
    x, y = torch.rand(2, 1, 2, 2, generator=torch.Generator().manual_seed(8)), torch.tensor([0, 2])
    weight = torch.randn(3, 4, generator=torch.Generator().manual_seed(6)).requires_grad_()
    asked = []

    def model(images):  # random to an attacker, exact to a check
        asked.append(images)
        return (1.0, -3.0, 5.0)[(len(asked) - 1) % 3] * (images.flatten(1) @ weight.T)

    result = tensor(gradient(model, x, y, DRAWS), x.shape)
    count = len(asked)
    yield weight.grad is None, "it leaves gradients in the model.", "use torch.autograd.grad(loss, x), not backward()."
    hint = "ask the model again for every draw: call it inside the loop."
    yield count == DRAWS, f"the model was asked {count} times for {DRAWS} draws.", hint
    asked.clear()
    leaf, each = x.clone().requires_grad_(), []
    for _ in range(DRAWS):
        each += torch.autograd.grad(F.cross_entropy(model(leaf), y, reduction="sum"), leaf)
    yield not near(result, each[-1]), "it is the gradient of the last draw alone.", "add up those of all draws."
    yield not near(result, sum(each)), "it is the sum and not the mean.", "divide by draws."
    signs = near(result, sum(g.sign() for g in each) / DRAWS)
    yield not signs, "it averages the signs.", "average the gradients first; the step takes the sign."
    right = near(result, sum(each) / DRAWS)
    yield right, "it is not the mean of the gradients.", 'reduction="sum" over the images, the mean over the draws.'


@function(first="cross-entropy on clean, plus beta times the mean over the images of the sum of p * (log p - log q).")
def trades(loss):
    """`loss(clean, attacked, y, beta)`: TRADES from the two logits `[n, classes]`, as one number (arXiv 1901.08573)."""
    rng = torch.Generator().manual_seed(9)
    clean, attacked = (3 * torch.randn(5, 4, generator=rng) for _ in range(2))
    y, beta = torch.tensor([0, 1, 2, 3, 0]), 6.0
    p, q, plain = clean.log_softmax(1), attacked.log_softmax(1), F.cross_entropy(clean, y)
    forth, back = ((a.exp() * (a - b)).sum(1).mean() for a, b in ((p, q), (q, p)))
    result = loss(clean, attacked, y, beta)
    yield getattr(result, "ndim", 1) == 0, "it does not return one number, as a tensor.", "average over the images."
    hint = "the first part is the ordinary cross-entropy on the clean logits; the labels have no other place."
    yield near(loss(clean, clean, y, beta), plain), "where the attack changes nothing it is not cross-entropy.", hint
    yield near(loss(clean, attacked, y, 0.0), plain), "with beta 0 it is not cross-entropy.", "multiply by beta."
    hint = "the clean probabilities are the weights of the mean: p * (log p - log q). F.kl_div takes log q first."
    yield not near(result, plain + beta * back), "it is the divergence the other way round.", hint
    added = near(result, plain + beta * 5 * forth) or near(result, plain + beta * forth / 4)
    yield not added, "the divergence is added up, or divided by the classes.", 'F.kl_div: use reduction="batchmean".'
    yield near(result, plain + beta * forth), "the value is another.", "is q a log-probability?"
    leaf = clean.clone().requires_grad_()
    slopes = [torch.autograd.grad(f, leaf)[0] for f in (loss(leaf, attacked, y, beta), F.cross_entropy(leaf, y))]
    yield not near(*slopes), "the second part sends no gradient into the clean logits.", "leave out .detach()."
