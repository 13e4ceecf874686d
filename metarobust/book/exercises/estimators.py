"""Checks of the readers' answers in "Watch meta-gradients explode": see `metarobust.book.exercises.first`."""

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from metarobust.book.exercises.check import CLOSE, Claim, Verdict, judged, number

CURVATURE, STEP, STEPS = 4.0, 0.8, 10


def nudge(answer: float | None) -> Verdict:
    """The warm-up: f(w) = 2 w^2, step size 0.8. By which factor is a nudge of w longer after 10 steps?"""
    factor = abs(1 - STEP * CURVATURE)
    mistakes = {
        factor: "that is one step. There are ten, and each multiplies what the one before has left.",
        factor * STEPS: "the factors of the steps are multiplied, not added.",
        (STEP * CURVATURE) ** STEPS: "a step keeps w and subtracts: the factor is 1 - a f'', not a f''.",
        abs(1 - STEP * 2) ** STEPS: "the second derivative of 2 w^2 is 4.",
        (1 + STEP * CURVATURE) ** STEPS: "the step goes downhill: minus a f''.",
    }
    right = factor**STEPS
    first = "what is 1 - a f'' here, and how often does it come in?"
    passed = f"|1 - {STEP:g} * {CURVATURE:g}| = {factor:.1f} in each step, so {right:,.0f} in all."
    other = "the product of (1 - a f'') over the ten steps."

    def close(found: float, known: float) -> bool:  # the factor or its size
        return abs(abs(found) / known - 1) < 0.01

    return number(answer, right, mistakes, first=first, passed=passed, other=other, what="the factor", close=close)


Stretch = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
PES = Callable[[Stretch, Tensor, float, Tensor, Tensor, Tensor], tuple[Tensor, Tensor, Tensor]]
SIGMA = 0.5


def persistent(pes: PES) -> Verdict:
    """`pes(stretch, theta, sigma, points, sums, directions) -> gradient, points, sums`: one stretch of PES.

    points `[2, P]`, sums and directions `[P]`. The inner run of the check is linear, so that all is known.
    """

    return judged(
        pes,
        _properties(pes),
        first="start from my_es: two thetas for each direction, plus and minus.",
        stops="stretch takes thetas [2, P] and points [2, P]: torch.stack([plus, minus]).",
        passed="every candidate goes on from its own point, and the sums of the moves carry the past.",
    )


def _properties(pes: PES) -> Iterator[Claim]:
    def stretch(theta: Tensor, points: Tensor) -> tuple[Tensor, Tensor]:
        after = 0.5 * points + theta
        return after * after + theta, after

    theta, points = torch.tensor(0.7), torch.tensor([[1.0, 0.0, -0.5], [0.4, 1.0, 0.25]])
    sums, directions = torch.tensor([0.3, -0.2, 0.1]), torch.tensor([1.0, -0.5, 2.0])
    given = [x.clone() for x in (theta, points, sums, directions)]
    found = pes(stretch, given[0], SIGMA, *given[1:])
    unchanged = all(torch.equal(a, b) for a, b in zip(given, (theta, points, sums, directions), strict=True))
    three = isinstance(found, tuple) and len(found) == 3 and all(isinstance(x, Tensor) for x in found)
    yield three, "it does not return three tensors.", "return gradient, points, sums."
    gradient, after, summed = found
    shaped = gradient.numel() == 1 and after.shape == points.shape and summed.shape == sums.shape
    yield shaped, "what it returns has other shapes.", "one number, points [2, P], sums [P]: take the mean over pairs."
    yield unchanged, "it changes the tensors it was given.", "write sums = sums + move, and not sums += move."
    move = SIGMA * directions
    losses, right_after = stretch(torch.stack([theta + move, theta - move]), points)
    swapped = stretch(torch.stack([theta - move, theta + move]), points)[1]
    hint = "the first row of the points belongs to theta + move, the second to theta - move."
    yield not torch.allclose(after, swapped, atol=CLOSE), "plus and minus are exchanged.", hint
    hint = "return the points that `stretch` gives, for theta + sigma * direction and theta - sigma * direction."
    yield torch.allclose(after, right_after, atol=CLOSE), "the candidates do not end where they should.", hint
    hint = "add this stretch's move, sigma * direction, to each sum; a sum belongs to the plus side of its pair."
    yield torch.allclose(summed, sums + move, atol=CLOSE), "the sums of the moves are not what they should be.", hint
    difference = losses[0] - losses[1]
    right = (difference * (sums + move)).mean() / (2 * SIGMA**2)
    for wrong, hint in (
        ((difference * move).mean() / (2 * SIGMA**2), "weight with the sum of all moves so far. With this stretch's "
         "move alone it is blind to the past."),
        ((difference * sums).mean() / (2 * SIGMA**2), "this stretch's move belongs to the sum, too."),
        ((difference * (sums + move)).mean() / (2 * SIGMA), "the moves hold one sigma already: divide by sigma^2."),
        ((difference * (sums + move)).mean() / SIGMA**2, "plus and minus are 2 sigma apart: there is a 2 below."),
        ((difference * (sums + move)).sum() / (2 * SIGMA**2), "take the mean over pairs, not the sum."),
    ):  # fmt: skip
        yield abs(float(gradient - wrong)) > CLOSE, "the gradient is wrong.", hint
    yield (
        abs(float(gradient - right)) < CLOSE,
        "the gradient is wrong.",
        "(L+ - L-) times the sum, mean, over 2 sigma^2.",
    )
