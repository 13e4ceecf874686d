"""Exercises of "Read a learned optimizer"."""

import torch

from metarobust.book.exercises.check import function, number

# On a logarithmic scale half-way between 0.04 and 0.004.
three_quarters = number(
    (0.04 * 0.004) ** 0.5,
    {
        0.022: "that is half-way on an ordinary scale. Here the logarithm goes along a line.",
        0.00016: "that is the product of both; half of its logarithm is that of its root.",
        0.04: "that is the middle of the run.",
        0.004: "that is the end of the run.",
    },
    first="take the mean of both logarithms, and go back.",
    passed="the root of 0.04 * 0.004, about 0.0126: as far from the middle as from the end, by a factor of 3.2.",
)


@function(
    first="the mean of the logarithms over the steps, and back with exp.",
    stops="curves are [hyperparameters, steps]; average over the last axis, .mean(-1, keepdim=True).",
)
def constant(hold):
    """`hold(curves)`: each row of `[hyperparameters, steps]` at its geometric mean, in every step."""
    curves = torch.tensor([[0.04, 0.04, 0.01, 0.0025], [1.0, 2.0, 4.0, 8.0]], dtype=torch.float64)
    given = curves.clone()
    result = torch.as_tensor(hold(curves)).double()
    yield torch.equal(curves, given), "it changes what it was given.", "make new values."
    right = curves.log().mean(-1, keepdim=True).exp().expand(2, 4)
    same = result.shape == right.shape
    yield same, f"it returns the shape {list(result.shape)}, not [2, 4].", "as many steps as before, all of them alike."
    for wrong, hint in (
        (curves.mean(-1, keepdim=True), "that is the ordinary mean, which large values rule. Take logarithms first."),
        (curves.log().mean(-1, keepdim=True), "that is the mean of the logarithms; go back with exp."),
        (curves.log().mean(0).exp(), "that mixes hyperparameters. Average over the steps of each."),
        (curves.log().mean().exp(), "that is one number for all. Average over the steps of each."),
        (curves, "nothing has changed: all steps of a row should be alike."),
    ):
        yield not torch.allclose(result, wrong.expand(2, 4)), "the values are others.", hint
    yield torch.allclose(result, right), "the values are others.", "exp of the mean of log, row by row."
