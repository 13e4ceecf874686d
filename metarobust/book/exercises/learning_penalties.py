"""Exercises of the learned penalties."""

import torch
from torch.nn import functional as F

from metarobust.book.exercises.check import function, number

# A margin of 2, a gradient of it in the image whose absolute values add up to 15, an attack of 0.1: what is left?
margin_left = number(
    0.5,
    {
        3.5: "an attack lowers the margin.",
        1.9: "every pixel may move by 0.1, and each move counts with its own entry of the gradient.",
        -13.0: "the pixels move by 0.1, not by 1.",
        2.0: "that is the margin before the attack.",
        1.5: "that is what the attack takes; how much is left?",
    },
    first="how far does the margin fall if each pixel moves by 0.1 against the sign of its entry?",
    passed="2 - 0.1 * 15 = 0.5: still right, if the model were linear.",
)


@function(
    first="one gradient at x, one at x + far * its sign.",
    stops="model maps images [n, 1, 4, 4] to logits; return [n].",
)
def bend(rule):
    """`rule(model, x, y, far)`: for each image the squared length of what its gradient changes by, one step along."""
    draw = torch.Generator().manual_seed(3)
    first, last = (torch.randn(*size, generator=draw, dtype=torch.float64) for size in ((16, 5), (5, 3)))
    x, y = torch.rand(6, 1, 4, 4, generator=draw, dtype=torch.float64), torch.tensor([0, 1, 2, 0, 1, 2])

    def model(images):
        return (images.flatten(1) @ first).tanh() @ last

    def slope(images):
        leaf = images.detach().requires_grad_()
        return torch.autograd.grad(F.cross_entropy(model(leaf), y, reduction="sum"), leaf)[0]

    here = slope(x)
    away = slope(x + 0.1 * here.sign()) - here
    right = away.flatten(1).square().sum(1)
    found = torch.as_tensor(rule(model, x, y, 0.1))
    yield found.shape == right.shape, f"it returns the shape {list(found.shape)}, not [6].", "one number an image."
    back = slope(x - 0.1 * here.sign()) - here
    blind = slope(x + 0.1) - here
    mistakes = {
        "that is the square root of it": right.sqrt(),
        "the gradients were averaged over the images first": right / 36,
        "the step goes down the loss; the attack goes up": back.flatten(1).square().sum(1),
        "each pixel moves by the sign of its own entry, not all the same way": blind.flatten(1).square().sum(1),
        "that is the slope at the far point, not what it changed by": (away + here).flatten(1).square().sum(1),
        "absolute values were added; square them": away.flatten(1).abs().sum(1),
    }
    hint = next((words for words, wrong in mistakes.items() if torch.allclose(found.double(), wrong)), "")
    close = torch.allclose(found.double(), right, rtol=1e-4)
    yield close, "the numbers are others.", f"{hint or 'compare with the formula, term by term'}."
    model_is_free = torch.as_tensor(rule(model, x, y, 0.0)).abs().max() == 0
    yield bool(model_is_free), "with far = 0 it is not 0.", "both gradients are then at the same place."
