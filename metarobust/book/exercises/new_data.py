"""Exercises of new data and attacks."""

import torch

from metarobust.book.exercises.check import function, like, near, number

# 100 equal weights, 36 cut off: to what share does what an attack can do to w . x fall, in L-infinity and in L2?
falls = number(
    (0.64, 0.8),
    {
        (0.8, 0.64): "the two are swapped: in L-infinity every pixel moves by eps, and the pushes add up.",
        (0.36, None): "that is what is lost. The question is which share is left.",
        (0.64, None): "in L2 the best δ of length eps points along w, and moves the score by eps · √(w₁² + … + w₁₀₀²).",
    },
    first="write ‖w‖₁ and ‖w‖₂ of 100 ones, and of 64 ones.",
    passed="64/100 in L-infinity, but √64/√100 = 8/10 in L2: cutting pixels helps less there.",
)


@function(
    first="tensor.flatten(1).norm(dim=1) has a length for each image.",
    stops="lengths have the shape [n]; view them as [n, 1, 1, 1] before you divide.",
)
def l2_step(answer):
    """`l2_step(x, current, gradient, size, eps)`: one step of PGD in L2, for a batch of images."""
    rng = torch.Generator().manual_seed(2)
    x = 0.3 + 0.4 * torch.rand(4, 1, 3, 3, generator=rng)
    x[3] = 0.0  # at the border of what an image can be
    current = x + 0.01 * torch.rand(x.shape, generator=rng)
    gradient = torch.randn(x.shape, generator=rng) * torch.tensor([1e-4, 1.0, 1e4, 1.0]).view(4, 1, 1, 1)
    moved, far = answer(x, current, gradient, 0.05, 0.5), answer(x, current, gradient, 0.4, 0.2)
    yield like(moved, x)
    still = answer(x, current, torch.zeros_like(gradient), 0.05, 0.5)  # nan is near nothing
    yield near(still, current), "a gradient of zero moves the image.", "divide by length.clamp_min(1e-12)."
    yield bool(((moved >= 0) & (moved <= 1)).all()), "pixels leave [0, 1].", "end with .clamp(0, 1)."
    steps, ways = (change.flatten(1).norm(dim=1) for change in (moved - current, far - x))
    hint = "divide the gradient by its length, image by image. Its sign is for L-infinity."
    yield near(steps[:3], torch.full((3,), 0.05), 1e-4), "a step does not have length size.", hint
    down = ((moved - current) * gradient).flatten(1).sum(1) > 0
    yield bool(down.all()), "it goes down where an attack goes up.", "add the direction of the gradient."
    hint = "if the change from x is longer than eps, shrink it to eps; clamping each pixel is for L-infinity."
    yield bool((ways <= 0.2 + 1e-4).all()), "an image leaves its ball.", hint
    yield near(ways[0], 0.2, 1e-3), "a long step stays inside the ball.", "shrink only what is longer than eps."
    alone = [answer(*(t[i : i + 1] for t in (x, current, gradient)), 0.05, 0.5) for i in range(4)]
    hint = "take each image's own length: flatten(1) and dim=1, not the norm of the whole batch."
    yield near(torch.cat(alone), moved), "an image moves differently alone than in a batch.", hint
