"""Exercises of part II, "Learning to optimize"."""

import torch

from metarobust.book.exercises.check import function, hint_for, numbers
from metarobust.book.properties import CLOSE, near, parts, tensor

SIGMA, CAP = 0.5, 0.3
long_push, two_steps, memory_of_a_weight, nudge = numbers("long_push", "two_steps", "memory_of_a_weight", "nudge")


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
    yield (decay * w < 0).all(), "with no gradient the weights do not shrink.", "add decay * w to the direction."
    hint = "the decay does not go through the averages: add decay * w after the division, inside of lr * (...)."
    yield near(decay, -0.1 * 0.5 * w, 1e-8), "with no gradient the step is not -lr * decay * w.", hint
    first, state = rule(g, start, w, lr, 0.0)
    yield (first * g <= 0).all(), "without decay it climbs.", "the step goes against the gradient: minus."
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


@function(
    first="run the K steps with create_graph=True, then ask autograd for the slope of the last loss.",
    stops="w and alpha come in as plain tensors: make your own alpha with requires_grad_().",
)
def meta_gradient(answer):
    """`answer(loss, w, alpha, steps)`: d loss(w_K) / d alpha after K steps of gradient descent, all of it."""
    w, curvature = torch.tensor([[1.0, -0.5], [1.0, 3.0]], dtype=torch.float64)
    alpha = torch.tensor(0.2, dtype=torch.float64)
    result = answer(lambda at: 0.5 * (curvature * at * at).sum(), w, alpha, 3)
    yield result.numel() == 1, "it does not return one number.", "the slope by alpha is one number, not one per weight."
    grads = [curvature * w * (1 - 0.2 * curvature) ** k for k in range(4)]
    right = -(3 * curvature**2 * w**2 * (1 - 0.2 * curvature) ** 5).sum()
    mistakes = {
        "the sign is wrong: what is asked for is the slope, not the way down.": -right,
        "it is the first-order slope. The second gradient depends on alpha too, through w: keep its graph "
        "(create_graph=True), detach nothing.": -(grads[3] * sum(grads[:3])).sum(),
        "only the last step counts. Keep w's history: no w.detach().": -(grads[3] * grads[2]).sum(),
        "it is alpha times too small: by alpha itself, and not by its logarithm.": 0.2 * right,
    }
    hint = hint_for(result, mistakes, "K steps, then f?")
    yield near(result, right, 1e-5), f"it is {float(result):.4g}, but {float(right):.4g} on a bowl.", hint

    def waves(at):
        return at.sin().sum() + 0.3 * (at**4).sum()

    def after(size):
        at = w
        for _ in range(3):
            at = at - size * (at.cos() + 1.2 * at**3)
        return waves(at)

    slope = (after(0.2 + 1e-5) - after(0.2 - 1e-5)) / 2e-5
    hint = "nothing may be special to a bowl: differentiate the loss that comes in."
    yield near(answer(waves, w, alpha, 3), slope), "it fails for another loss.", hint


@function(
    first="two terms, both with a minus: Adam's direction, corrected, and a share of the weight.",
    stops="outputs are three tensors (d, s, c), as long as a and w; log_lr and size are numbers.",
)
def around_adam(write):
    """`write(outputs, a, w, log_lr, size)` with outputs (d, s, c): the step of the feature optimizer, cap 0.3."""
    w = torch.tensor([[1.0, -2.0], [0.5, 4.0]], dtype=torch.float64)
    direction = torch.tensor([[1.0, -1.0], [0.0, 0.5]], dtype=torch.float64)
    zero, one = torch.zeros_like(w), torch.ones_like(w)

    def step(d=zero, s=zero, c=zero, a=direction):
        return tensor(write((d, s, c), a, w, w.new_tensor(0.02).log(), w.new_tensor(2.0)), w.shape)

    plain, decay = step(), step(c=one, a=zero)
    yield (plain * direction <= 0).all(), "with d, s and c at 0 it climbs.", "the step goes against a: minus."
    hint = "the step is exp(log_lr) times size times a: log_lr is a logarithm, and size is the tensor's."
    yield near(plain, -0.04 * direction), "with d, s and c at 0 it is not Adam's step.", hint
    yield near(step(d=one), -0.04 * (direction + 1)), "d does not turn the direction.", "add d to a, before all else."
    yield near(step(s=one), plain * one.exp()), "s does not lengthen the step by a factor.", "add it inside of exp."
    yield (decay * w < 0).all(), "c does not shrink the weights.", "take a share of w away: minus."
    largest = float((step(c=100 * one, a=zero) / w).abs().max())
    hint = "squeeze c by tanh before it is multiplied by the cap."
    yield largest <= CAP + CLOSE, f"a step takes {100 * largest:.0f} % of a weight, more than the cap.", hint
    hint = "it is cap * tanh(c) * w, with a cap of 0.3, and neither the step size nor the tensor's size in it."
    yield near(decay, -CAP * one.tanh() * w), "the share that c takes away is another one.", hint


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
    result = parts(pes(unroll, theta, SIGMA, points, sums, move / SIGMA), 3, "three tensors: gradient, points, sums")
    given = theta, points, sums
    gradient, after, summed = (tensor(output, one.shape) for output, one in zip(result, given, strict=True))
    losses, right_after = unroll(torch.stack([theta + move, theta - move]), points)
    hint = "return the points that `unroll` gives, for theta + sigma * direction first, then for minus."
    yield near(after, right_after), "the candidates do not end where they should.", hint
    hint = "add this window's move, sigma * direction, to each sum; a sum belongs to the plus side of its pair."
    yield near(summed, sums + move), "the sums of the moves are not what they should be.", hint
    gaps = (losses[0] - losses[1]) / (2 * SIGMA**2)
    right = (gaps * (sums + move)).mean()
    mistakes = {
        "weight with the sum of all moves so far: this one's move alone is blind to the past.": (gaps * move).mean(),
        "this window's move belongs to the sum, too.": (gaps * sums).mean(),
        "the moves hold one sigma already: divide by sigma^2.": right * SIGMA,
        "plus and minus are 2 sigma apart: there is a 2 below.": right * 2,
        "take the mean over pairs, not the sum.": right * 3,
    }
    hint = hint_for(gradient, mistakes, "(L+ - L-) times the sum, mean, over 2 sigma^2.")
    yield near(gradient, right), "the gradient is wrong.", hint
