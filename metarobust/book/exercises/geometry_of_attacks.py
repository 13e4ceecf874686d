"""Exercises of the geometry of attacks."""

import torch

from metarobust.attacks import pgd
from metarobust.attacks.losses import margin
from metarobust.book.exercises.check import CLOSE, function, like, number

EPS, TRIES = 0.1, 500

# w = (3, -4), score 1: how far away, in L2, is the nearest image with score 0?
nearest_border = number(
    1 / 5,
    {
        1 / 7: "that is the L-infinity distance. In L2 divide by the length of w, not by the sum of its entries.",
        1 / 4: "that moves one pixel only (the L1 distance). A slanted move is shorter.",
        1.0: "that is the score. How far does it fall on a way of length 1 against w?",
        1 / 25: "that divides by the square of the length: it is the factor t in δ = -t w. How long is δ?",
    },
    first="go straight against w: δ = -t w. Which t brings the score to 0, and how long is that δ?",
    passed="w is 5 long, so a way of 1/5 against it costs 1.",
)


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

    moved = run(0)
    yield like(moved, x)
    yield not any(slopes), "it asks for a gradient.", "only compare the margins before and after a change."
    far = float((moved - x).abs().max())
    yield far <= EPS + CLOSE, f"a pixel moves by {far:.2f}, more than eps.", "build every try from x: x + eps * signs."
    inside = bool(((moved >= 0) & (moved <= 1)).all())
    yield inside, "pixels leave [0, 1].", "end each try with .clamp(0, 1)."
    best = pgd(model, x, y, eps=EPS, loss="margin")
    start, end, most = (margin(model(images), y) for images in (x, moved, best))
    hint = "keep a try only where its margin is higher: torch.where(higher[:, None, None, None], try, kept)."
    yield bool((end >= start - CLOSE).all()), "for some image the margin fell.", hint
    yield bool((end > start).all()), "some images did not move at all.", "decide for each image by itself."
    yield torch.equal(run(0), moved), "the same generator gives another result.", "pass generator= on."
    yield not torch.equal(run(1), moved), "another generator gives the same result.", "draw from the generator given."
    share = float(((end - start) / (most - start)).mean())
    hint = "change a few signs of the best pattern so far; all at once is a lottery in every try."
    yield share > 0.75, f"it gets {100 * share:.0f} % of the way in {TRIES} tries.", hint
