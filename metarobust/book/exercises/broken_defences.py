"""Exercises of broken defences."""

import torch
from torch.nn import functional as F

from metarobust.book.exercises.check import function, like, near, number

DRAWS = 6

# Right with chance 0.9 in each of ten independent draws: how likely is it right in all of them?
all_ten = number(
    0.9**10,
    {
        0.9: "that is one draw. The attacker draws ten times and keeps the worst.",
        9.0: "that is how many of ten are right on average. How likely are all ten?",
        1 - 0.9**10: "that is the chance that at least one is wrong. How likely is none?",
        0.1**10: "that is the chance that all ten are wrong.",
    },
    first="the chance that two independent draws are both right is the product of the two.",
    passed="0.9 to the power of 10: two thirds of the images fall.",
)


@function(first="start from the loop that takes one gradient, and wrap it in a loop over draws.")
def averaged(gradient):
    """`gradient(model, x, y, draws)`: the gradient of the cross-entropy for the images, averaged over draws."""
    x, y = torch.rand(2, 1, 2, 2, generator=torch.Generator().manual_seed(8)), torch.tensor([0, 2])
    weight = torch.randn(3, 4, generator=torch.Generator().manual_seed(6)).requires_grad_()
    asked = []

    def model(images):  # random to an attacker, exact to a check
        asked.append(images)
        return (1.0, -3.0, 5.0)[(len(asked) - 1) % 3] * (images.flatten(1) @ weight.T)

    result = gradient(model, x, y, DRAWS)
    count = len(asked)
    yield like(result, x)
    yield weight.grad is None, "it leaves gradients in the model.", "use torch.autograd.grad(loss, x), not backward()."
    hint = "ask the model again for every draw: call it inside the loop."
    yield count == DRAWS, f"the model was asked {count} times for {DRAWS} draws.", hint
    asked.clear()
    leaf, each = x.clone().requires_grad_(), []
    for _ in range(DRAWS):
        each += torch.autograd.grad(F.cross_entropy(model(leaf), y, reduction="sum"), leaf)
    yield not near(result, each[-1]), "it is the gradient of the last draw alone.", "add up those of all draws."
    yield not near(result, sum(each)), "it is the sum and not the mean.", "divide by draws."
    signs = near(result, sum(g.sign() for g in each) / DRAWS)
    yield not signs, "it averages the signs.", "average the gradients first; the step takes the sign."
    right = near(result, sum(each) / DRAWS)
    yield right, "it is not the mean of the gradients.", 'reduction="sum" over the images, the mean over the draws.'
