"""Checks of the readers' answers to the exercises on optimizers as functions and on learning a step size.

As in `exercises.first`: properties on tiny fixed tensors, where the right answer is known; a verdict, and nothing
is raised.
"""

import math
from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from metarobust.book.exercises.check import CLOSE, Claim, Verdict, judged, number

State = tuple[int, Tensor, Tensor]
LATER = "it has to work for any shape, loss and state that fit."


def long_push(answer: float | None) -> Verdict:
    """The warm-up of "Write an optimizer as a function": lr 0.1, momentum 0.9, a gradient of 1 for ever."""
    mistakes = {
        0.1: "that is the first step, before anything has piled up; so would SGD go on.",
        0.19: "that is the second step. The pile goes on growing.",
        0.09: "that is the momentum's share of one step; the new gradient comes on top, again and again.",
        10.0: "that is the velocity. The step is lr times it.",
        -1.0: "how long is it? A length has no sign.",
    }
    first = "in the end the velocity no longer changes: solve v = 0.9 v + 1."
    passed = "v = 1 / (1 - 0.9) = 10, so the step is ten times that of SGD."
    return number(answer, 1.0, mistakes, first=first, passed=passed)


AdamW = Callable[[Tensor, State, Tensor, Tensor, float], tuple[Tensor, State]]


def adamw(rule: AdamW) -> Verdict:
    """`rule(g, state, w, lr, decay)`: Adam that also takes lr * decay of each weight. Returns step and state."""
    return judged(
        rule,
        _adamw_claims(rule),
        first="begin with the lines of adam.",
        stops="state is (k, m, v): updates so far, average of g, average of g * g. Return (step, (k, m, v)).",
        later=LATER,
        passed="the step is AdamW's, first and later, for any scale of the gradient; "
        "it is pure, and has a slope by lr.",
    )


def _adamw_claims(rule: AdamW) -> Iterator[Claim]:
    g = torch.tensor([0.5, -2.0, 0.0, 1e-3], dtype=torch.float64)
    w = torch.tensor([1.0, -1.0, 2.0, 0.5], dtype=torch.float64)
    lr = torch.tensor(0.1, dtype=torch.float64, requires_grad=True)
    state = (0, torch.zeros_like(w), torch.zeros_like(w))
    found = rule(g, state, w, lr, 0.5)
    pair = isinstance(found, tuple) and len(found) == 2 and isinstance(found[0], Tensor)
    yield pair, "it does not return a step and a state.", "the last line should return step, (k, m, v)."
    step, after = found
    whole = isinstance(after, tuple) and len(after) == 3 and step.shape == w.shape
    yield whole, "the step or the new state has another form than what came in.", "return step, (k, m, v)."
    same = not state[1].any() and not state[2].any() and torch.equal(w, w.new_tensor([1.0, -1.0, 2.0, 0.5]))
    yield bool(same), "it changes the state or the weights it was given.", "make new tensors: no +=, no mul_."
    yield after[0] == 1, "the counter does not count.", "the new k is k + 1."
    still = w.new_zeros(4), (0, w.new_zeros(4), w.new_zeros(4))
    only, _ = rule(still[0], still[1], w, lr, 0.5)
    yield bool((only * w < 0).all()), "with no gradient the weights do not shrink.", "add decay * w to the direction."
    hint = "the decay does not go through the averages: add decay * w after the division, inside of lr * (...)."
    yield _near(only, -0.1 * 0.5 * w), "with no gradient the step is not -lr * decay * w.", hint
    bare, bare_after = rule(g, state, w, lr, 0.0)
    yield bool((bare * g <= 0).all()), "without decay it climbs.", "the step goes against the gradient: minus."
    hint = "at first the averages are too small: divide m by 1 - 0.9**k and v by 1 - 0.999**k, with the new k."
    yield _near(bare, -0.1 * g / (g.abs() + 1e-8)), "the first step of a weight is not lr long.", hint
    second, _ = rule(-g, bare_after, w, lr, 0.0)
    mean = (0.9 * 0.1 * g - 0.1 * g) / (1 - 0.9**2)
    right = -0.1 * mean / ((0.001 * 1.999 * g * g / (1 - 0.999**2)).sqrt() + 1e-8)
    hint = "does the new state hold the new k, m and v, before any correction?"
    yield _near(second, right), "the second step is not Adam's.", hint
    (slope,) = torch.autograd.grad(step.sum(), lr, allow_unused=True) if step.requires_grad else (None,)
    known = slope is not None and math.isclose(float(slope), float(step.detach().sum()) / 0.1, rel_tol=1e-6)
    yield known, "the step has no slope by lr.", "no detach, item, float or no_grad: the run should be differentiable."
    grid = lr.new_tensor([[0.1], [0.2]])
    rows, _ = rule(g.expand(2, 4), (0, w.new_zeros(2, 4), w.new_zeros(2, 4)), w.expand(2, 4), grid, 0.5)
    yield _near(rows[1], 2 * rows[0]), "a grid of step sizes [T, 1] is not one run.", "multiply by lr, entry by entry."


def _near(found: Tensor, right: Tensor) -> bool:
    return torch.allclose(found.detach(), right.detach(), rtol=1e-4, atol=CLOSE * 1e-3)


def two_steps(answer: float | None) -> Verdict:
    """The warm-up of "Learn a step size": f(w) = w^2, w0 = 1, alpha 0.1; d f(w2) / d alpha."""
    mistakes = {
        4.096: "the sign: a longer step would bring this run further down.",
        -3.2: "that is after one step. There are two.",
        -4.608: "you took both gradients as given. The second was asked for at a place that depends on alpha.",
        -2.048: "only the second step counts here. The first has moved the place where it was taken.",
        -0.4096: "that is by the logarithm of alpha: divide by alpha.",
        -5.12: "after two steps the derivative of (1 - 2 alpha)^4 is 4 (1 - 2 alpha)^3 times -2.",
    }
    first = "w2 = (1 - 2 alpha)^2. Put that into the loss, then differentiate."
    passed = "f(w2) = (1 - 2α)⁴, and its slope is -8 (1 - 2α)³ = -4.096."
    return number(answer, -4.096, mistakes, first=first, passed=passed)


Loss = Callable[[Tensor], Tensor]
MetaGradient = Callable[[Loss, Tensor, Tensor, int], Tensor]


def meta_gradient(answer: MetaGradient) -> Verdict:
    """`answer(loss, w, alpha, steps)`: d loss(w_K) / d alpha after K steps of gradient descent, all of it."""
    return judged(
        answer,
        _meta_claims(answer),
        first="run the K steps with create_graph=True, then ask autograd for the slope of the last loss.",
        stops="w and alpha come in as plain tensors: make your own alpha with requires_grad_().",
        later=LATER,
        passed="it agrees with the formula on a bowl, and with finite differences where the curvature changes.",
    )


def _meta_claims(answer: MetaGradient) -> Iterator[Claim]:
    w, alpha = torch.tensor([1.0, -0.5], dtype=torch.float64), torch.tensor(0.2, dtype=torch.float64)
    curvature = torch.tensor([1.0, 3.0], dtype=torch.float64)

    def bowl(at: Tensor) -> Tensor:
        return 0.5 * (curvature * at * at).sum()

    found = answer(bowl, w, alpha, 3)
    scalar = isinstance(found, Tensor) and found.numel() == 1
    yield scalar, "it does not return one number, as a tensor.", "the slope by alpha is one number, not one a weight."
    kept = torch.equal(w, w.new_tensor([1.0, -0.5])) and not w.requires_grad and not alpha.requires_grad
    yield kept, "it changes w or alpha.", "work on copies: w.clone(), alpha.clone().requires_grad_()."
    shrunk = (1 - 0.2 * curvature) ** 5
    right = float(-(3 * curvature**2 * w**2 * shrunk).sum())
    places = [w * (1 - 0.2 * curvature) ** k for k in range(4)]
    grads = [curvature * at for at in places]
    first_order = float(-(grads[3] * sum(grads[:3])).sum())
    value = float(found)
    hint = "what is asked for is the slope, not the way down; is a minus left over?"
    yield not math.isclose(value, -right, rel_tol=1e-3), "the sign is wrong.", hint
    hint = "the second gradient depends on alpha too, through w: keep its graph (create_graph=True), detach nothing."
    yield not math.isclose(value, first_order, rel_tol=1e-3), "it is the first-order slope.", hint
    last = float(-(grads[3] * grads[2]).sum())
    yield not math.isclose(value, last, rel_tol=1e-3), "only the last step counts.", "keep w's history: no w.detach()."
    hint = "it should be by alpha itself, and not by its logarithm."
    yield not math.isclose(value, 0.2 * right, rel_tol=1e-3), "it is alpha times too small.", hint
    yield math.isclose(value, right, rel_tol=1e-4), f"it is {value:.4g}, but {right:.4g} on a bowl.", "K steps, then f?"

    def waves(at: Tensor) -> Tensor:
        return at.sin().sum() + 0.3 * (at**4).sum()

    def after(size: float) -> float:
        at = w.clone()
        for _ in range(3):
            at = at - size * (at.cos() + 1.2 * at**3)
        return float(waves(at))

    slope = (after(0.2 + 1e-5) - after(0.2 - 1e-5)) / 2e-5
    hint = "nothing may be special to a bowl: differentiate the loss that comes in."
    yield math.isclose(float(answer(waves, w, alpha, 3)), slope, rel_tol=1e-4), "it fails for another loss.", hint
