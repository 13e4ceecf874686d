"""Exercises of "Let a network be the optimizer"."""

import torch

from metarobust.book.exercises.check import CLOSE, function, like, near, number

CAP = 0.3

# How many numbers does an LSTM of two layers with 20 units remember for each weight?
memory_of_a_weight = number(
    80,
    {
        20: "that is one layer's output. There are two layers, and each has a memory beside its output.",
        40: "each layer has two things: what it put out last, and what it keeps inside.",
        5300: "those are the numbers of theta. All weights share them; the memory is each weight's own.",
        160: "an LSTM has four gates, but it does not remember them.",
    },
    first="a layer of an LSTM hands on its output and its memory, each as long as it has units.",
    passed="2 layers, output and memory, 20 units each: 80 numbers, where Adam has 2.",
)


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
        return write((d, s, c), a, w, w.new_tensor(0.02).log(), w.new_tensor(2.0))

    plain, decay = step(), step(c=one, a=zero)
    yield like(plain, w)
    yield bool((plain * direction <= 0).all()), "with d, s and c at 0 it climbs.", "the step goes against a: minus."
    hint = "the step is exp(log_lr) times size times a: log_lr is a logarithm, and size is the tensor's."
    yield near(plain, -0.04 * direction), "with d, s and c at 0 it is not Adam's step.", hint
    yield near(step(d=one), -0.04 * (direction + 1)), "d does not turn the direction.", "add d to a, before all else."
    yield near(step(s=one), plain * one.exp()), "s does not lengthen the step by a factor.", "add it inside of exp."
    yield bool((decay * w < 0).all()), "c does not shrink the weights.", "take a share of w away: minus."
    largest = float((step(c=100 * one, a=zero) / w).abs().max())
    hint = "squeeze c by tanh before it is multiplied by the cap."
    yield largest <= CAP + CLOSE, f"a step takes {100 * largest:.0f} % of a weight, more than the cap.", hint
    hint = "it is cap * tanh(c) * w, with a cap of 0.3, and neither the step size nor the tensor's size in it."
    yield near(decay, -CAP * one.tanh() * w), "the share that c takes away is another one.", hint
