"""The self-checks of "Let a network be the optimizer": right answers pass, wrong ones fail with a useful hint."""

import pytest
import torch
from test_selfcheck_optimizers import fails, solution

from metarobust.book.exercises import learned as selfcheck
from metarobust.learned import make
from metarobust.params import ParamSpec


def right(outputs, a, w, log_lr, size):
    d, s, c = outputs
    return -(log_lr + s).exp() * size * (a + d) - 0.3 * c.tanh() * w


def stub(outputs, a, w, log_lr, size): ...


def climbs(outputs, a, w, log_lr, size):
    return -right(outputs, a, w, log_lr, size)


def forgets_exp(outputs, a, w, log_lr, size):
    return right(outputs, a, w, (-log_lr).log(), size)


def forgets_size(outputs, a, w, log_lr, size):
    return right(outputs, a, w, log_lr, torch.ones_like(size))


def forgets_d(outputs, a, w, log_lr, size):
    return right((0 * outputs[0], *outputs[1:]), a, w, log_lr, size)


def s_outside_of_exp(outputs, a, w, log_lr, size):
    d, s, c = outputs
    return -(log_lr.exp() + s) * size * (a + d) - 0.3 * c.tanh() * w


def grows(outputs, a, w, log_lr, size):
    return right((*outputs[:2], -outputs[2]), a, w, log_lr, size)


def no_tanh(outputs, a, w, log_lr, size):
    d, s, c = outputs
    return -(log_lr + s).exp() * size * (a + d) - 0.3 * c * w


def decay_times_lr(outputs, a, w, log_lr, size):
    d, s, c = outputs
    return -(log_lr + s).exp() * size * (a + d + 0.3 * c.tanh() * w)


def no_cap(outputs, a, w, log_lr, size):
    d, s, c = outputs
    return -(log_lr + s).exp() * size * (a + d) - c.tanh() * w


def returns_nothing(outputs, a, w, log_lr, size):
    right(outputs, a, w, log_lr, size)


def takes_two(outputs, a, w, log_lr, size):
    d, _ = outputs
    return d


def test_right_step_passes():
    assert selfcheck.around_adam(right)


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        (stub, "nothing is written"),
        (climbs, "climbs"),
        (forgets_exp, "log_lr is a logarithm"),
        (forgets_size, "size is the tensor's"),
        (forgets_d, "d does not turn"),
        (s_outside_of_exp, "inside of exp"),
        (grows, "does not shrink"),
        (no_tanh, "tanh"),
        (decay_times_lr, "another one"),
        (no_cap, "more than the cap"),
        (returns_nothing, "return the step"),
        (takes_two, "three tensors"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_wrong_steps_fail_with_their_hint(answer, says):
    fails(selfcheck.around_adam(answer), says)


def test_memory():
    assert selfcheck.memory_of_a_weight(80)
    hints = {None: "no number", 20: "two layers", 40: "two things", 5300: "theta", 2: "Adam", 160: "gates", 7: "output"}
    for answer, says in hints.items():
        fails(selfcheck.memory_of_a_weight(answer), says)


def test_memory_is_what_the_lstm_remembers():
    lstm = make("lstm", torch.Generator().manual_seed(0))
    state = lstm.init(torch.zeros(6), ParamSpec(("w",), ((2, 3),)), 1)
    assert selfcheck.memory_of_a_weight(sum(slot.numel() for slot in state.slots.values()) // 6)
    assert sum(p.numel() for p in lstm.parameters()) == 5300


def test_the_solution_that_the_notebook_shows_passes():
    assert selfcheck.around_adam(solution("learned-optimizers", "around_adam"))
