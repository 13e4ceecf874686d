"""The self-checks of "Write an optimizer as a function" and "Learn a step size": each wrong answer gets its hint."""

import json
import re
from pathlib import Path

import pytest
import torch

from metarobust.book.exercises import optimizers as selfcheck

NOTEBOOKS = Path(__file__).parents[2] / "notebooks"


def solution(notebook, name):
    """The function that the hidden solution of an exercise shows."""
    cells = json.loads((NOTEBOOKS / f"{notebook}.ipynb").read_text(encoding="utf-8"))["cells"]
    text = "\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "markdown")
    (code,) = re.findall(rf"^```python\n(def {name}.*?)^```", text, flags=re.M | re.S)
    names = {"torch": torch}
    exec(code, names)
    return names[name]


def fails(verdict, says):
    assert not verdict
    assert str(verdict).startswith("Not yet: ")
    assert says in str(verdict)
    assert len(str(verdict).splitlines()) == 2
    return True


def averages(g, state):
    k, m, v = state[0] + 1, state[1], state[2]
    return k, 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g * g


def direction(k, m, v):
    return (m / (1 - 0.9**k)) / ((v / (1 - 0.999**k)).sqrt() + 1e-8)


def right(g, state, w, lr, decay):
    new = averages(g, state)
    return -lr * (direction(*new) + decay * w), new


def stub(g, state, w, lr, decay): ...


def no_bias_correction(g, state, w, lr, decay):
    k, m, v = averages(g, state)
    return -lr * (m / (v.sqrt() + 1e-8) + decay * w), (k, m, v)


def decay_in_the_gradient(g, state, w, lr, decay):
    return right(g + decay * w, state, w, lr, 0.0)


def decay_without_lr(g, state, w, lr, decay):
    step, new = right(g, state, w, lr, 0.0)
    return step - decay * w, new


def no_decay(g, state, w, lr, decay):
    return right(g, state, w, lr, 0.0)


def grows(g, state, w, lr, decay):
    return right(g, state, w, lr, -decay)


def climbs(g, state, w, lr, decay):
    new = averages(g, state)
    return lr * (direction(*new) - decay * w), new


def old_state(g, state, w, lr, decay):
    return right(g, state, w, lr, decay)[0], state


def old_averages(g, state, w, lr, decay):
    step, new = right(g, state, w, lr, decay)
    return step, (new[0], state[1], state[2])


def corrected_averages(g, state, w, lr, decay):
    k, m, v = averages(g, state)
    step = -lr * (direction(k, m, v) + decay * w)
    return step, (k, m / (1 - 0.9**k), v / (1 - 0.999**k))


def old_counter(g, state, w, lr, decay):
    step, new = right(g, state, w, lr, decay)
    return step, (state[0], *new[1:])


def detached(g, state, w, lr, decay):
    return right(g, state, w, lr.detach(), decay)


def as_a_number(g, state, w, lr, decay):
    return right(g, state, w, lr.mean().item(), decay)


def in_place(g, state, w, lr, decay):
    k, m, v = state
    m.mul_(0.9).add_(0.1 * g)
    v.mul_(0.999).add_(0.001 * g * g)
    return -lr * (direction(k + 1, m, v) + decay * w), (k + 1, m, v)


def moves_the_weights(g, state, w, lr, decay):
    step, new = right(g, state, w, lr, decay)
    w += step.detach()
    return step, new


def only_a_step(g, state, w, lr, decay):
    return right(g, state, w, lr, decay)[0]


def one_size_for_all(g, state, w, lr, decay):
    return right(g, state, w, lr.mean(), decay)


def needs_a_vector(g, state, w, lr, decay):
    assert g.ndim == 1
    return right(g, state, w, lr, decay)


def test_right_adamw_passes():
    assert selfcheck.adamw(right)


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        (stub, "nothing is written"),
        (only_a_step, "step and a state"),
        (in_place, "no +="),
        (moves_the_weights, "changes the state or the weights"),
        (old_state, "counter"),
        (old_counter, "k + 1"),
        (no_decay, "do not shrink"),
        (grows, "do not shrink"),
        (climbs, "it climbs"),
        (decay_without_lr, "not -lr * decay * w"),
        (decay_in_the_gradient, "does not go through the averages"),
        (no_bias_correction, "1 - 0.9**k"),
        (old_averages, "second step"),
        (corrected_averages, "before any correction"),
        (detached, "no slope by lr"),
        (as_a_number, "no slope by lr"),
        (one_size_for_all, "entry by entry"),
        (needs_a_vector, "AssertionError"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_wrong_adamw_fails_with_its_hint(answer, says):
    fails(selfcheck.adamw(answer), says)


@pytest.mark.parametrize(
    ("check", "value", "wrong"),
    [
        (
            selfcheck.long_push,
            1.0,
            {None: "no number", "1": "no number", 0.1: "first step", 0.19: "second", 10: "lr times it", 7: "solve"},
        ),
        (
            selfcheck.two_steps,
            -4.096,
            {
                None: "no number", 4.096: "sign", -3.2: "one step", -4.608: "as given", -2.048: "second step counts",
                -0.4096: "logarithm", 1.0: "then differentiate", float("nan"): "then differentiate",
            },
        ),
    ],
)  # fmt: skip
def test_numbers(check, value, wrong):
    assert check(value)
    for answer, says in wrong.items():
        fails(check(answer), says)


def test_long_push_is_what_momentum_does():
    from metarobust.optimizers import SGD
    from metarobust.params import ParamSpec

    w, rule = torch.zeros(1), SGD(0.1, 0.9)
    state = rule.init(w, ParamSpec(("w",), ((1,),)), 200)
    for _ in range(200):
        step, state = rule.update(torch.ones(1), state, w)
    assert selfcheck.long_push(float(step.abs()))


def slope(loss, w, alpha, steps, order=2, cut=0):
    """The meta-gradient by autograd; first order, and with a detached start, where asked for."""
    alpha = alpha.clone().requires_grad_()
    at = w.clone()
    for k in range(steps):
        leaf = at if at.requires_grad else at.clone().requires_grad_()
        (g,) = torch.autograd.grad(loss(leaf), leaf, create_graph=True)
        at = (at.detach() if k < cut else at) - alpha * (g if order == 2 else g.detach())
    return torch.autograd.grad(loss(at), alpha)[0]


def meta_stub(loss, w, alpha, steps): ...


def first_order(loss, w, alpha, steps):
    return slope(loss, w, alpha, steps, order=1)


def wrong_sign(loss, w, alpha, steps):
    return -slope(loss, w, alpha, steps)


def detached_weights(loss, w, alpha, steps):
    return slope(loss, w, alpha, steps, order=1, cut=steps)


def by_the_logarithm(loss, w, alpha, steps):
    return alpha * slope(loss, w, alpha, steps)


def one_step_more(loss, w, alpha, steps):
    return slope(loss, w, alpha, steps + 1)


def by_the_weights(loss, w, alpha, steps):
    leaf = w.clone().requires_grad_()
    return torch.autograd.grad(loss(leaf), leaf)[0]


def changes_alpha(loss, w, alpha, steps):
    alpha.requires_grad_()
    return slope(loss, w, alpha, steps)


def needs_a_graph(loss, w, alpha, steps):
    return torch.autograd.grad(loss(w), alpha)[0]


def only_bowls(loss, w, alpha, steps):
    a = torch.tensor([1.0, 3.0], dtype=w.dtype)
    return -(steps * a**2 * w**2 * (1 - alpha * a) ** (2 * steps - 1)).sum()


def test_right_meta_gradient_passes():
    assert selfcheck.meta_gradient(slope)


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        (meta_stub, "nothing is written"),
        (first_order, "create_graph"),
        (wrong_sign, "sign is wrong"),
        (detached_weights, "only the last step"),
        (by_the_logarithm, "logarithm"),
        (one_step_more, "K steps"),
        (by_the_weights, "not one a weight"),
        (changes_alpha, "changes w or alpha"),
        (needs_a_graph, "requires_grad_()"),
        (only_bowls, "special to a bowl"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_wrong_meta_gradient_fails_with_its_hint(answer, says):
    fails(selfcheck.meta_gradient(answer), says)


def test_checks_leave_the_default_generator_alone():
    before = torch.get_rng_state()
    selfcheck.adamw(right)
    selfcheck.meta_gradient(slope)
    assert torch.equal(torch.get_rng_state(), before)


def test_solution_of_adamw_in_the_notebook_passes():
    assert selfcheck.adamw(solution("optimizers-as-functions", "adamw"))


def test_solution_of_meta_gradient_in_the_notebook_passes():
    assert selfcheck.meta_gradient(solution("learning-a-step-size", "meta_gradient"))
