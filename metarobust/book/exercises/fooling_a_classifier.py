"""Exercises of "Fool a classifier"."""

import torch
from torch import nn
from torch.nn import functional as F

from metarobust.book.exercises.check import CLOSE, function, like, near, number

EPS = 0.1

# w = (2, -1, 0.5), b = 0, x = (0.5, 0.5, 0.5): which eps brings w . x to 0?
smallest_eps = number(
    0.75 / 3.5,
    {
        0.75 / 1.5: "each pixel moves the way that hurts: a negative weight also adds to the fall. Use |w|.",
        0.75 / 5.25**0.5: "that is the shortest straight path (the L2 norm). Here all pixels move by eps at once.",
        0.75 / 2: "that moves the most important pixel only. All of them may move.",
        0.75: "that is the score itself. By how much does it fall when every pixel moves by eps?",
    },
    first="write the score first, then how far an eps of 1 could move it.",
    passed="the score 0.75 falls by 3.5 eps, so eps = 0.214.",
)


@function(first="start from my_fgsm, and change the label and one sign.", stops="does it ask for the gradient of x?")
def targeted(attack):
    """`attack(model, x, target, eps)`: one step of FGSM towards the class `target`, for each image of `x`."""
    rng = torch.Generator().manual_seed(3)
    model = nn.Sequential(nn.Flatten(), nn.utils.skip_init(nn.Linear, 4, 3))
    for p in model.parameters():
        p.data.copy_(torch.randn(p.shape, generator=rng))
    x, target = torch.rand(4, 1, 2, 2, generator=rng) * 0.7 + 0.15, torch.tensor([0, 1, 2, 0])
    x[:, 0, 0, 0], x[:, 0, 1, 1] = torch.tensor([0.0, 1.0, 0.02, 0.99]), torch.tensor([0.99, 0.0, 1.0, 0.02])
    moved = attack(model, x, target, EPS)
    yield like(moved, x)
    yield not moved.requires_grad, "what it returns still carries a gradient.", "end with .detach()."
    bare = all(p.grad is None for p in model.parameters())
    yield bare, "it leaves gradients in the model.", "use torch.autograd.grad(loss, x) in place of loss.backward()."
    far = float((moved - x).abs().max())
    yield far <= EPS + CLOSE, f"a pixel moves by {far:.3f}, more than eps.", "multiply the gradient's sign by eps."
    inside = bool(((moved >= 0) & (moved <= 1)).all())
    yield inside, "pixels lie outside [0, 1].", "end with .clamp(0, 1)."
    before, after = (F.cross_entropy(model(images), target, reduction="none") for images in (x, moved))
    hint = "to come closer to a class, go down its loss: subtract where FGSM adds. Is the label the target?"
    yield bool((after < before).all()), "the target does not become more likely for every image.", hint
    full = bool(((moved - x).abs()[(x > EPS) & (x < 1 - EPS)] > EPS - CLOSE).all())
    yield full, "some pixels move by less than eps.", "all may use the whole of eps: take the sign of the gradient."
    alone = torch.cat([attack(model, x[i : i + 1], target[i : i + 1], EPS) for i in range(len(x))])
    yield near(alone, moved), "an image is moved otherwise alone than in a batch.", "take no mean or maximum over it."
