"""Exercises of adversarial training."""

import torch
from torch.nn import functional as F

from metarobust.book.exercises.check import function, near, number

# Gradients through the network for one step of PGD-7 training, in all.
passes = number(
    8,
    {
        7: "those are the attack's. One more is needed for the weights.",
        1: "that is the step on the weights. Each of the attack's steps asks for a gradient, too.",
        16: "count gradients, and not passes forward and backward.",
    },
    first="how many gradients for the images, and how many for the weights?",
    passed="7 for the images and 1 for the weights.",
)


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
    added = near(result, plain + beta * 5 * forth, 1e-4) or near(result, plain + beta * forth / 4)
    yield not added, "the divergence is added up, or divided by the classes.", 'F.kl_div: use reduction="batchmean".'
    yield near(result, plain + beta * forth, 1e-4), "the value is another.", "is q a log-probability?"
    leaf = clean.clone().requires_grad_()
    slopes = [torch.autograd.grad(f, leaf)[0] for f in (loss(leaf, attacked, y, beta), F.cross_entropy(leaf, y))]
    yield not near(*slopes), "the second part sends no gradient into the clean logits.", "leave out .detach()."
