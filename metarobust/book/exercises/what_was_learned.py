"""Exercises of "Read a learned optimizer"."""

import torch

from metarobust.book.exercises.check import function, near, number

# q = 1 / (1 + (r / threshold)^slope) for r = 0.1, threshold 0.2, slope 2.
given_up = number(
    0.8,
    {
        0.2: "that is what is kept, 1 - q.",
        1 / 1.5: "the ratio is taken to the power of the slope.",
        0.25: "that is the power alone: q is 1 over 1 plus that.",
        1 / 1.01: "divide r by the threshold first.",
    },
    first="divide r by the threshold, and square.",
    passed="1 / (1 + 0.5^2) = 0.8: most of the column is given up.",
)


@function(
    first="start from the factor of one column: sum of y w over sum of w w.",
    stops="y and w are [rows, columns]; sum over the rows with .sum(0).",
)
def by_columns(share):
    """`share(y, w)`: how much of the change y `[rows, columns]` one factor per column of the weights w explains."""
    rng = torch.Generator().manual_seed(5)
    w, noise = (torch.randn(6, 4, generator=rng, dtype=torch.float64) for _ in range(2))
    y = -torch.tensor([0.9, 0.1, 0.5, 0.3], dtype=torch.float64) * w + 0.3 * noise + 0.2
    result = torch.as_tensor(share(y, w))
    yield result.numel() == 1, "it does not return one number.", "one share for the whole matrix: sum over all of it."
    whole = near(share(-0.5 * w, w), 1, 1e-6)
    yield whole, "a change that is all decay is not explained to 100 %.", "y = b w leaves nothing over."

    def explained(over, p, whole=y):
        left = y - w * ((y * w).sum(over, True) / (w * w).sum(over, True))
        return 1 - (left.square().sum() / (y.numel() - p)) / (whole.square().sum() / y.numel())

    right = explained(0, 4)
    for wrong, hint in (
        (explained(0, 0), "that is without the price of a factor: divide the squares that are left by n - p."),
        (explained(0, 1), "there are as many factors as columns: p is not 1."),
        (explained((0, 1), 1), "that is one factor for the whole matrix. Sum over the rows only: .sum(0)."),
        (explained(1, 6), "that is a factor for each row. A column holds the weights on one input: .sum(0)."),
        (explained(0, 4, y - y.mean()), "do not take off the mean: doing nothing is what explains nothing."),
        (1 - right, "that is the share which is not explained."),
    ):
        yield not near(result, wrong, 1e-6), "the share is wrong.", hint
    yield near(result, right, 1e-6), "the share is wrong.", "1 - (|left|^2 / (n - p)) / (|y|^2 / n), p the columns."
