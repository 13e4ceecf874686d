"""Exercises of "Watch meta-gradients explode"."""

import torch

from metarobust.book.exercises.check import function, like, near, number

SIGMA = 0.5

# f(w) = 2 w^2, step size 0.8: by which factor has a nudge of w grown after 10 steps?
nudge = number(
    2.2**10,
    {
        2.2: "that is one step. There are ten, and each multiplies what the one before has left.",
        2.2 * 10: "the factors of the steps are multiplied, not added.",
        3.2**10: "a step keeps w and subtracts: the factor is 1 - alpha f'', not alpha f''.",
        0.6**10: "the second derivative of 2 w^2 is 4.",
    },
    first="what is 1 - alpha f'' here, and how often is it multiplied?",
    passed="|1 - 0.8 * 4| = 2.2 in each step, so 2,656 in all.",
)


@function(
    first="start from my_es: two thetas for each direction, plus and minus.", stops="unroll takes tensors [2, P]."
)
def persistent(pes):
    """`pes(unroll, theta, sigma, points, sums, directions) -> gradient, points, sums`: one truncation of PES.

    points `[2, P]`, sums and directions `[P]`. The inner run here is linear, so that all is known.
    """

    def unroll(theta, points):
        after = 0.5 * points + theta
        return after * after + theta, after

    theta, points = torch.tensor(0.7), torch.tensor([[1.0, 0.0, -0.5], [0.4, 1.0, 0.25]])
    sums, move = torch.tensor([0.3, -0.2, 0.1]), SIGMA * torch.tensor([1.0, -0.5, 2.0])
    result = pes(unroll, theta, SIGMA, points, sums, move / SIGMA)
    yield len(result) == 3, "it does not return three tensors.", "return gradient, points, sums."
    gradient, after, summed = result
    for output, given in ((gradient, theta), (after, points), (summed, sums)):
        yield like(output, given)
    losses, right_after = unroll(torch.stack([theta + move, theta - move]), points)
    hint = "return the points that `unroll` gives, for theta + sigma * direction first, then for minus."
    yield near(after, right_after), "the candidates do not end where they should.", hint
    hint = "add this window's move, sigma * direction, to each sum; a sum belongs to the plus side of its pair."
    yield near(summed, sums + move), "the sums of the moves are not what they should be.", hint
    gaps = (losses[0] - losses[1]) / (2 * SIGMA**2)
    right = (gaps * (sums + move)).mean()
    for wrong, hint in (
        ((gaps * move).mean(), "weight with the sum of all moves so far: this one's move alone is blind to the past."),
        ((gaps * sums).mean(), "this window's move belongs to the sum, too."),
        (right * SIGMA, "the moves hold one sigma already: divide by sigma^2."),
        (right * 2, "plus and minus are 2 sigma apart: there is a 2 below."),
        (right * 3, "take the mean over pairs, not the sum."),
    ):
        yield not near(gradient, wrong), "the gradient is wrong.", hint
    yield near(gradient, right), "the gradient is wrong.", "(L+ - L-) times the sum, mean, over 2 sigma^2."
