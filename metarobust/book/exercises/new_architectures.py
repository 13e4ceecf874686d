"""Exercises of new architectures."""

import torch

from metarobust.book.exercises.check import function, near, number

# The matrix that a convolution [12, 6, 3, 3] is for the optimizer: (rows, columns).
matrix_shape = number(
    (12, 54),
    {
        (54, 12): "that is the transpose: a row belongs to an output channel, as it does to a unit in a dense layer.",
        (12, 6): "each of the 12 channels has a weight for every place of the window, in each of the 6 channels below.",
        (12, 9): "the window is 3 x 3 in *each* of the 6 channels below.",
        (72, 9): "all weights of one output channel add up in the same number, so they share a row.",
    },
    first="give (rows, columns). Which weights add up in a number?",
    passed="12 rows, one for each channel that comes out; 6 · 3 · 3 = 54 columns.",
    exact=True,
)


@function(first="weight.flatten(1) is the matrix, of a convolution too.", stops="flatten all axes but the first.")
def row_sizes(answer):
    """`row_sizes(weight)`: for a weight of any shape, each row's mean square over that of the whole, as a logarithm."""
    rng = torch.Generator().manual_seed(5)
    dense = torch.randn(3, 4, generator=rng) * torch.tensor([[1.0], [0.1], [5.0]])
    kernel = torch.randn(2, 3, 3, 3, generator=rng) * torch.tensor([1.0, 0.2]).view(2, 1, 1, 1)
    results = {weight: answer(weight) for weight in (dense, kernel)}
    shaped = all(result.shape == weight.shape[:1] for weight, result in results.items())
    yield shaped, "it does not give one number for each row.", "take the mean over all axes but the first."
    larger, twice, wider = answer(100 * dense), answer(torch.cat([dense, dense], 1)), answer(torch.cat([dense, dense]))
    hint = "divide by the mean square of the whole weight."
    yield near(larger, results[dense], 1e-4), "it changes when all weights are a hundred times as large.", hint
    hint = "take means, not sums: a sum grows with the number of columns, or of rows."
    yield near(twice, results[dense], 1e-4), "it changes when every column stands there twice.", hint
    yield near(wider[:3], results[dense], 1e-4), "it changes when every row stands there twice.", hint
    for weight, result in results.items():
        right = (weight.flatten(1).square().mean(1) / weight.square().mean()).log()
        yield (
            near(result, right, 1e-4),
            "the numbers are not the logarithms of the ratios.",
            "log(row's / whole's mean).",
        )
