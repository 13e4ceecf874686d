"""Checks of the readers' answers in "Read a learned optimizer": see `metarobust.book.exercises.first`."""

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from metarobust.book.exercises.check import Claim, Verdict, absolutely, judged, number

RATIO, THRESHOLD, SLOPE = 0.1, 0.2, 2.0


def given_up(answer: float | None) -> Verdict:
    """The warm-up: q = 1 / (1 + (r / threshold)^slope) for r = 0.1, threshold 0.2, slope 2."""
    mistakes = {
        1 - 1 / (1 + (RATIO / THRESHOLD) ** SLOPE): "that is what is kept, 1 - q.",
        1 / (1 + RATIO / THRESHOLD): "the ratio is taken to the power of the slope.",
        (RATIO / THRESHOLD) ** SLOPE: "that is the power alone: q is 1 over 1 plus that.",
        1 / (1 + RATIO**SLOPE): "divide r by the threshold first.",
    }
    right = 1 / (1 + (RATIO / THRESHOLD) ** SLOPE)
    first = "divide r by the threshold, and square."
    passed = f"1 / (1 + 0.5^2) = {right:g}: most of the column is given up."
    other = "write down r / threshold, its square, one plus that, one over that."
    return number(answer, right, mistakes, first=first, passed=passed, other=other, what="q", close=absolutely)


Share = Callable[[Tensor, Tensor], Tensor | float]


def by_columns(share: Share) -> Verdict:
    """`share(y, w)`: how much of the change y `[rows, columns]` one factor a column of the weights w explains."""
    return judged(
        share,
        _properties(share),
        first="start from the factor of one column: sum of y w over sum of w w.",
        stops="y and w are [rows, columns]; sum over the rows with .sum(0).",
        passed="a factor for each column, and each factor paid for.",
    )


def _properties(share: Share) -> Iterator[Claim]:
    generator = torch.Generator().manual_seed(5)
    w, noise = (torch.randn(6, 4, generator=generator, dtype=torch.float64) for _ in range(2))
    y = -torch.tensor([0.9, 0.1, 0.5, 0.3], dtype=torch.float64) * w + 0.3 * noise + 0.2
    kept = y.clone(), w.clone()
    found, exact = share(y, w), share(-0.5 * w, w)
    single = isinstance(found, float) or (isinstance(found, Tensor) and found.numel() == 1)
    yield single, "it does not return one number.", "one share for the whole matrix: sum the squares over all of it."
    same = torch.equal(y, kept[0]) and torch.equal(w, kept[1])
    yield same, "it changes the tensors it was given.", "work with new ones: left = y - factors * w."
    yield (
        abs(float(exact) - 1) < 1e-6,
        "a change that is all decay is not explained to 100 %.",
        "y = b w leaves nothing over.",
    )
    rows, columns = y.shape
    n = y.numel()

    def explained(left: Tensor, p: int, whole: Tensor = y) -> float:
        return float(1 - (left.square().sum() / (n - p)) / (whole.square().sum() / n))

    by_column = y - w * ((y * w).sum(0) / (w * w).sum(0))
    by_row = y - w * ((y * w).sum(1, True) / (w * w).sum(1, True))
    at_once = y - w * ((y * w).sum() / (w * w).sum())
    for wrong, hint in (
        (explained(by_column, 0), "that is without the price of a factor: divide the squares that are left by n - p."),
        (explained(by_column, 1), "there are as many factors as columns: p is not 1."),
        (explained(at_once, 1), "that is one factor for the whole matrix. Sum over the rows only: .sum(0)."),
        (explained(at_once, columns), "that is one factor for the whole matrix. Sum over the rows only: .sum(0)."),
        (explained(by_row, rows), "that is a factor for each row. A column holds the weights on one input: .sum(0)."),
        (
            explained(by_column, columns, y - y.mean()),
            "do not take off the mean: doing nothing is what explains nothing.",
        ),
        (1 - explained(by_column, columns), "that is the share which is not explained."),
    ):
        yield abs(float(found) - wrong) > 1e-6, "the share is wrong.", hint
    right = abs(float(found) - explained(by_column, columns)) < 1e-6
    yield right, "the share is wrong.", "1 - (|left|^2 / (n - p)) / (|y|^2 / n), with p the number of columns."
