"""Checks of the readers' answers to the exercises of "Let a network be the optimizer".

As in `exercises.first`: properties on tiny fixed tensors, where the right answer is known; a verdict, and nothing
is raised.
"""

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from metarobust.book.exercises.check import CLOSE, Claim, Verdict, judged, number
from metarobust.book.exercises.optimizers import LATER

CAP = 0.3


def memory_of_a_weight(answer: float | None) -> Verdict:
    """The warm-up: how many numbers an LSTM of two layers with 20 units remembers for each weight."""
    mistakes = {
        20: "that is one layer's output. There are two layers, and each has a memory beside its output.",
        40: "each layer has two things: what it put out last, and what it keeps inside.",
        5300: "those are the numbers of theta. All weights share them; the memory is each weight's own.",
        2: "that is Adam. The LSTM has 20 units where Adam has one number.",
        160: "an LSTM has four gates, but it does not remember them.",
    }
    first = "a layer of an LSTM hands on its output and its memory, each as long as it has units."
    passed = "2 layers, output and memory, 20 units each: 80 numbers, where Adam has 2."
    return number(answer, 80, mistakes, first=first, passed=passed)


Write = Callable[[tuple[Tensor, Tensor, Tensor], Tensor, Tensor, Tensor, Tensor], Tensor]


def around_adam(write: Write) -> Verdict:
    """`write(outputs, a, w, log_lr, size)` with outputs (d, s, c): the step of the feature optimizer, cap 0.3."""
    return judged(
        write,
        _write_claims(write),
        first="two terms, both with a minus: Adam's direction, corrected, and a share of the weight.",
        stops="outputs are three tensors (d, s, c), as long as a and w; log_lr and size are numbers.",
        later=LATER,
        passed="untrained it is Adam; d turns it, s lengthens it by a factor, "
        "c takes away at most the cap of a weight.",
    )


def _write_claims(write: Write) -> Iterator[Claim]:
    w = torch.tensor([[1.0, -2.0], [0.5, 4.0]], dtype=torch.float64)
    a = torch.tensor([[1.0, -1.0], [0.0, 0.5]], dtype=torch.float64)
    log_lr, size = w.new_tensor(0.02).log(), w.new_tensor(2.0)
    zero, one = torch.zeros_like(w), torch.ones_like(w)
    found = write((zero, zero, zero), a, w, log_lr, size)
    shaped = isinstance(found, Tensor) and found.shape == w.shape
    yield shaped, "it does not return a step for each weight.", "the last line should return the step."
    yield bool((found * a <= 0).all()), "with d, s and c at 0 it climbs.", "the step goes against a: minus."
    hint = "the step is exp(log_lr) times size times a: log_lr is a logarithm, and size is the tensor's."
    yield _near(found, -0.02 * 2.0 * a), "with d, s and c at 0 it is not Adam's step.", hint
    turned = write((one, zero, zero), a, w, log_lr, size)
    hint = "add d to a before anything is multiplied."
    yield _near(turned, -0.02 * 2.0 * (a + 1)), "d does not turn the direction.", hint
    longer = write((zero, one, zero), a, w, log_lr, size)
    hint = "add s to log_lr inside of exp, so that the step grows by the factor e."
    yield _near(longer, found * one.exp()), "s does not lengthen the step by a factor.", hint
    given = write((zero, zero, one), zero, w, log_lr, size)
    yield bool((given * w < 0).all()), "c does not shrink the weights.", "take a share of w away: minus."
    all_of_it = write((zero, zero, 100 * one), zero, w, log_lr, size)
    largest = float((all_of_it / w).abs().max())
    hint = "squeeze c by tanh before it is multiplied by the cap."
    yield largest <= CAP + CLOSE, f"a step takes {100 * largest:.0f} % of a weight, more than the cap.", hint
    hint = "it is cap * tanh(c) * w, with a cap of 0.3, and neither the step size nor the tensor's size in it."
    yield _near(given, -CAP * one.tanh() * w), "the share that c takes away is another one.", hint


def _near(found: Tensor, right: Tensor) -> bool:
    return torch.allclose(found, right, rtol=1e-4, atol=1e-8)
