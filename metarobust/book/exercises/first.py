"""Checks of the readers' own answers to the exercises: each says which property failed, and gives a hint.

A check looks at properties on tiny fixed tensors, where the right answer is known: never at a trained accuracy. It
returns a verdict and raises nothing, so that an unfinished exercise does not stop a notebook.
"""

import math
import operator
from collections.abc import Callable, Iterator

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from metarobust.book.exercises.check import CLOSE, Claim, Verdict, absolutely, judged, number

EPS = 0.1


def smallest_eps(answer: float | None) -> Verdict:
    """The warm-up of "Fool a classifier": w = (2, -1, 0.5), b = 0, x = (0.5, 0.5, 0.5); which eps brings w . x to 0?"""
    w, x = (2, -1, 0.5), (0.5, 0.5, 0.5)
    score = sum(a * b for a, b in zip(w, x, strict=True))
    mistakes = {
        score / sum(w): "each pixel moves the way that hurts: a negative weight also adds to the fall. Use |w|.",
        score / math.sqrt(sum(a * a for a in w)): "that is the length of the shortest straight path (the L2 norm). "
        "Here every pixel may move by eps at the same time.",
        score / max(map(abs, w)): "that moves the most important pixel only. All of them may move.",
        score: "that is the score itself. By how much does it fall when every pixel moves by eps?",
    }
    right, size = score / sum(map(abs, w)), sum(map(abs, w))
    first = "write the score first, then how far an eps of 1 could move it."
    passed = f"the score {score:g} falls by {size:g} eps, so eps = {right:.3f}."
    other = "how far does w . δ fall if each δ is +eps or -eps?"
    return number(
        answer, right, mistakes, first=first, passed=passed, other=other, what="the smallest eps", close=absolutely
    )


Attack = Callable[[nn.Module, Tensor, Tensor, float], Tensor]


def targeted(attack: Attack) -> Verdict:
    """`attack(model, x, target, eps)`: one step of FGSM towards the class `target`, for each image of `x`."""
    return judged(
        attack,
        _properties(attack, *_tiny()),
        first="start from my_fgsm, and change the label and one sign.",
        stops="x comes in without requires_grad; does your function ask for the gradient of x?",
        passed="it stays in the ball and in [0, 1], goes all the way, "
        "and the target becomes more likely for every image.",
    )


def _properties(attack: Attack, model: nn.Module, x: Tensor, target: Tensor) -> Iterator[Claim]:
    kept = x.clone()
    moved = attack(model, x, target, EPS)
    shaped = isinstance(moved, Tensor) and moved.shape == x.shape
    yield (
        shaped,
        "it does not return images of the shape it was given.",
        "the last line should return the moved images.",
    )
    yield bool(torch.equal(x, kept)), "it changes the images it was given.", "work on a copy: x.clone()."
    yield not moved.requires_grad, "what it returns still carries a gradient.", "end with .detach()."
    bare = all(p.grad is None for p in model.parameters())
    yield bare, "it leaves gradients in the model.", "use torch.autograd.grad(loss, x) in place of loss.backward()."
    yield model.training, "it leaves the model in another mode.", "do not call eval() or train() on the model."
    size = float((moved - x).abs().max())
    yield (
        size <= EPS + CLOSE,
        f"a pixel moves by {size:.3f}, more than eps = {EPS:g}.",
        "multiply the sign of the gradient by eps; do not add the gradient itself.",
    )
    low, high = float(moved.min()), float(moved.max())
    inside = low >= -CLOSE and high <= 1 + CLOSE
    yield inside, f"pixels run from {low:.2f} to {high:.2f}, outside [0, 1].", "end with .clamp(0, 1)."
    with torch.no_grad():
        before, after = (F.cross_entropy(model(images), target, reduction="none") for images in (x, moved))
    hint = "to come closer to a class, go down its loss: subtract where FGSM adds. Is the label the target?"
    yield bool((after < before).all()), "the target does not become more likely for every image.", hint
    free = (x > EPS) & (x < 1 - EPS)
    full = bool(((moved - x).abs()[free] > EPS - CLOSE).all())
    yield (
        full,
        "some pixels move by less than eps.",
        "every pixel may use the whole of eps: take the sign of the gradient.",
    )
    alone = torch.cat([attack(model, x[i : i + 1], target[i : i + 1], EPS) for i in range(len(x))])
    same = torch.allclose(alone, moved, atol=CLOSE)
    hint = 'add the losses up (reduction="sum"), and take no mean, minimum or maximum over the batch.'
    yield same, "an image is moved otherwise when it comes alone than in a batch.", hint


def _tiny() -> tuple[nn.Module, Tensor, Tensor]:
    """A linear model of three classes, four images of 2x2 pixels (some near 0 or 1), and a target for each."""
    generator = torch.Generator().manual_seed(3)
    model = nn.Sequential(nn.Flatten(), nn.utils.skip_init(nn.Linear, 4, 3))
    with torch.no_grad():
        for p in model.parameters():
            p.copy_(torch.randn(p.shape, generator=generator))
    x = torch.rand(4, 1, 2, 2, generator=generator) * 0.7 + 0.15
    x[:, 0, 0, 0], x[:, 0, 1, 1] = torch.tensor([0.0, 1.0, 0.02, 0.99]), torch.tensor([0.99, 0.0, 1.0, 0.02])
    return model, x, torch.tensor([0, 1, 2, 0])


def examples_made(answer: float | None) -> Verdict:
    """The warm-up of "Learn from mistakes once": adversarial images made in one episode of the default plan.

    A run of 20 steps in stretches of 10. Half-way through each stretch, and at its end, 4 networks are scored on 128
    images each, attacked by PGD with 4 steps.
    """
    right = 4 * 128 * 2 * 2
    mistakes = {
        right // 4: "that is for one network. There are four in a batch.",
        right // 2: "how many stretches are there in a run, and how often is each of them scored?",
        4 * right: "the four steps of PGD move the same image four times. It is one adversarial image.",
        right + 4 * 64 * 20: "the images of the inner steps are clean. Leave them out.",
        right // 128: "that counts the meta-losses. Each is taken over 128 images.",
    }
    first = "count the meta-losses of a run first."
    passed = f"2 stretches, scored twice, 4 networks, 128 images: {right:,} in each run."
    other = "multiply: stretches, scores in a stretch, networks, images of a score."
    what = "the number of adversarial images"
    return number(
        answer, right, mistakes, first=first, passed=passed, other=other, what=what, close=operator.eq, shown=","
    )


Prune = Callable[[Tensor, Tensor, float, float], Tensor]


def pruned(prune: Prune) -> Verdict:
    """`prune(weight, images, threshold, keep)`: the first layer's weights without those on pixels that hardly vary."""
    return judged(
        prune,
        _prune_properties(prune),
        first="images.flatten(1).std(0) has one number for each pixel.",
        stops="weight is [units, pixels]; images are [n, 1, height, width]: flatten them first.",
        passed="still pixels are cut off, dark or bright; what stays is shrunk; what came in is unchanged.",
    )


def _prune_properties(prune: Prune) -> Iterator[Claim]:
    # Of six pixels: black, bright and still, dim but lively, lively, half of the time lit, hardly moving.
    images = torch.tensor([
        [0.0, 0.9, 0.0, 0.1, 1.0, 0.50],
        [0.0, 0.9, 0.3, 0.9, 0.0, 0.52],
        [0.0, 0.9, 0.0, 0.2, 1.0, 0.48],
        [0.0, 0.9, 0.3, 0.8, 0.0, 0.50],
    ]).view(4, 1, 2, 3)  # fmt: skip
    weight = torch.tensor([[1.0, -2.0, 3.0, -4.0, 5.0, -6.0], [0.5, 0.5, -0.5, 0.5, -0.5, 0.5]])
    kept = weight.clone(), images.clone()
    found = prune(weight, images, 0.1, 0.6)
    shaped = isinstance(found, Tensor) and found.shape == weight.shape
    yield shaped, "it does not return weights of the shape it was given.", "set weights to 0; do not remove columns."
    same = torch.equal(weight, kept[0]) and torch.equal(images, kept[1])
    yield same, "it changes the weights or images it was given.", "return a new tensor: weight * something."
    yield bool((found[:, 0] == 0).all()), "the weights on a black pixel are still there.", "its deviation is 0."
    hint = "use the standard deviation of each pixel over the images, and not its mean or its largest value."
    yield bool((found[:, 1] == 0).all()), "the weights on a bright pixel that never changes are still there.", hint
    yield bool((found[:, 5] == 0).all()), "a pixel whose deviation is under the threshold is kept.", "compare with >."
    alive = found[:, 2:5] != 0
    yield bool(alive.all()), "a pixel whose deviation is over the threshold is cut off.", hint
    shrunk = torch.allclose(found[:, 2:5], 0.6 * weight[:, 2:5])
    yield shrunk, "what stays is not shrunk to the share `keep`.", "multiply what stays by keep."
