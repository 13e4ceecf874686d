"""Exercises of "Write an optimizer as a function"."""

import torch

from metarobust.book.exercises.check import function, near, number

# lr 0.1, momentum 0.9, a gradient of 1 for ever: how long is a step in the end?
long_push = number(
    1.0,
    {
        0.1: "that is the first step, before anything has piled up; SGD would go on like that.",
        0.19: "that is the second step. The pile goes on growing.",
        10.0: "that is the velocity. The step is lr times it.",
    },
    first="in the end the velocity no longer changes: solve v = 0.9 v + 1.",
    passed="v = 1 / (1 - 0.9) = 10, so the step is ten times that of SGD.",
)


@function(first="begin with the lines of adam.", stops="state is (k, m, v), of any shape. Return (step, (k, m, v)).")
def adamw(rule):
    """`rule(g, state, w, lr, decay)`: Adam that also takes lr * decay of each weight. Returns step and state."""
    g, w = torch.tensor([[0.5, -2.0, 0.0, 1e-3], [1.0, -1.0, 2.0, 0.5]], dtype=torch.float64)
    lr, zeros = torch.tensor(0.1, dtype=torch.float64, requires_grad=True), torch.zeros_like(w)
    start = (0, zeros, zeros)
    step, after = rule(g, start, w, lr, 0.5)
    yield len(after) == 3 and step.shape == w.shape, "a step or state of another form.", "return step, (k, m, v)."
    yield after[0] == 1, "the counter does not count.", "the new k is k + 1."
    decay, _ = rule(zeros, start, w, lr, 0.5)
    yield bool((decay * w < 0).all()), "with no gradient the weights do not shrink.", "add decay * w to the direction."
    hint = "the decay does not go through the averages: add decay * w after the division, inside of lr * (...)."
    yield near(decay, -0.1 * 0.5 * w, 1e-8), "with no gradient the step is not -lr * decay * w.", hint
    first, state = rule(g, start, w, lr, 0.0)
    yield bool((first * g <= 0).all()), "without decay it climbs.", "the step goes against the gradient: minus."
    hint = "at first the averages are too small: divide m by 1 - 0.9**k and v by 1 - 0.999**k, with the new k."
    yield near(first, -0.1 * g / (g.abs() + 1e-8), 1e-8), "the first step of a weight is not lr long.", hint
    second, _ = rule(-g, state, w, lr, 0.0)
    m, v = (0.9 * 0.1 - 0.1) * g / (1 - 0.9**2), 0.001 * 1.999 * g * g / (1 - 0.999**2)
    hint = "does the new state hold the new k, m and v, before any correction?"
    yield near(second, -0.1 * m / (v.sqrt() + 1e-8), 1e-8), "the second step is not Adam's.", hint
    (slope,) = torch.autograd.grad(step.sum(), lr, allow_unused=True) if step.requires_grad else (None,)
    known = slope is not None and near(slope, step.sum() / 0.1)
    yield known, "the step has no slope by lr.", "no detach, item, float or no_grad: the run should be differentiable."
    two = zeros.expand(2, 4)
    rows, _ = rule(g.expand(2, 4), (0, two, two), w.expand(2, 4), lr.new_tensor([[0.1], [0.2]]), 0.5)
    yield near(rows[1], 2 * rows[0], 1e-8), "a grid of step sizes [T, 1] is not one run.", "multiply entry by entry."
