"""Checks of the readers' own answers in the chapters on new networks, and on new data and attacks.

As in `exercises.first`: properties on tiny fixed tensors where the right answer is known, and a verdict that says
which property failed and what to look at.
"""

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from metarobust.book.exercises.check import CLOSE, Claim, Verdict, judged


def matrix_shape(answer: tuple[int, int] | None) -> Verdict:
    """The warm-up of the chapter on networks: the matrix that a convolution [12, 6, 3, 3] is for the optimizer."""
    mistakes = {
        (54, 12): "that is the transpose: a row belongs to an output channel, as it does to a unit in a dense layer.",
        (12, 6): "each of the 12 channels has a weight for every place of the window, in each of the 6 channels below.",
        (12, 9): "the window is 3 x 3 in *each* of the 6 channels below.",
        (72, 9): "all weights of one output channel add up in the same number, so they share a row.",
        (6, 108): "a row belongs to an output channel. Which of the four numbers counts those?",
        (12, 3): "look at all the weights that one output channel has: how many are there?",
    }
    if not isinstance(answer, tuple | list) or len(answer) != 2:
        return Verdict(
            False, "there are no two numbers yet.", "give (rows, columns). Which weights add up in a number?"
        )
    found = tuple(answer)
    if found == (12, 54):
        return Verdict(True, "12 rows, one for each channel that comes out; 6 · 3 · 3 = 54 columns.")
    hint = mistakes.get(found, "a row for each number that comes out at a place, a column for each one that goes in.")
    return Verdict(False, f"{found} is not its shape.", hint)


def row_sizes(answer: Callable[[Tensor], Tensor]) -> Verdict:
    """`row_sizes(weight)`: for a weight of any shape, each row's mean square over that of the whole, as a logarithm."""
    return judged(
        answer,
        _row_properties(answer),
        first="weight.flatten(1) is the matrix, of a convolution too.",
        stops="it is called with [3, 4] and with [2, 3, 3, 3]: flatten all axes but the first.",
        passed="it means the same at every scale and width, and for a convolution.",
    )


def _row_properties(answer: Callable[[Tensor], Tensor]) -> Iterator[Claim]:
    generator = torch.Generator().manual_seed(5)
    dense = torch.randn(3, 4, generator=generator) * torch.tensor([[1.0], [0.1], [5.0]])
    kernel = torch.randn(2, 3, 3, 3, generator=generator) * torch.tensor([1.0, 0.2]).view(2, 1, 1, 1)
    weights, kept = (dense, kernel), (dense.clone(), kernel.clone())
    found = answer(dense), answer(kernel)
    larger, twice = answer(100 * dense), answer(torch.cat([dense, dense], 1))
    wider = answer(torch.cat([dense, dense]))
    shaped = all(isinstance(f, Tensor) and f.shape == w.shape[:1] for f, w in zip(found, weights, strict=True))
    yield shaped, "it does not give one number for each row.", "take the mean over all axes but the first."
    same = all(torch.equal(a, b) for a, b in zip(weights, kept, strict=True))
    yield same, "it changes the weight it was given.", "work on a new tensor: weight.flatten(1).square()."
    hint = "divide by the mean square of the whole weight."
    yield torch.allclose(larger, found[0], atol=1e-4), "it changes when all weights are a hundred times as large.", hint
    hint = "take means, not sums: a sum grows with the number of columns, or of rows."
    yield torch.allclose(twice, found[0], atol=1e-4), "it changes when every column stands there twice.", hint
    yield torch.allclose(wider[:3], found[0], atol=1e-4), "it changes when every row stands there twice.", hint
    right = [(w.flatten(1).square().mean(1) / w.square().mean()).log() for w in weights]
    good = all(torch.allclose(f, r, atol=1e-4) for f, r in zip(found, right, strict=True))
    yield (
        good,
        "the numbers are not the logarithms of the ratios.",
        "the log of (row's mean square / whole mean square).",
    )


def falls(linf: float | None, l2: float | None) -> Verdict:
    """The warm-up of the chapter on data and attacks: 100 equal weights, of which 36 are cut off.

    To which share does the most that an attack can do to w . x fall, in L-infinity and in L2?
    """
    if not isinstance(linf, int | float) or not isinstance(l2, int | float):
        return Verdict(False, "there are not two numbers yet.", "write ‖w‖₁ and ‖w‖₂ of 100 ones, and of 64 ones.")
    if abs(linf - 0.64) < 0.005 and abs(l2 - 0.8) < 0.005:
        return Verdict(True, "64/100 in L-infinity, but √64/√100 = 8/10 in L2: cutting pixels helps less there.")
    if abs(linf - 0.8) < 0.005 and abs(l2 - 0.64) < 0.005:
        return Verdict(False, "the two are swapped.", "in L-infinity every pixel moves by eps: the pushes add up.")
    if abs(linf - 0.36) < 0.005:
        return Verdict(False, f"{linf:g} is what is lost.", "the question is which share is left.")
    if abs(linf - 0.64) >= 0.005:
        return Verdict(False, f"{linf:g} is not the share in L-infinity.", "the most is eps · (|w₁| + … + |w₁₀₀|).")
    hint = "the best δ of length eps points along w, and moves the score by eps · √(w₁² + … + w₁₀₀²)."
    return Verdict(False, f"{l2:g} is not the share in L2.", hint)


Step = Callable[[Tensor, Tensor, Tensor, float, float], Tensor]


def l2_step(answer: Step) -> Verdict:
    """`l2_step(x, current, gradient, size, eps)`: one step of PGD in L2, for a batch of images."""
    return judged(
        answer,
        _step_properties(answer),
        first="tensor.flatten(1).norm(dim=1) has a length for each image.",
        stops="lengths have the shape [n]; view them as [n, 1, 1, 1] before you divide.",
        passed="each image takes a step of the right length, and stays in its ball and in [0, 1].",
    )


def _step_properties(answer: Step) -> Iterator[Claim]:
    generator = torch.Generator().manual_seed(2)
    x = 0.3 + 0.4 * torch.rand(4, 1, 3, 3, generator=generator)
    x[3] = 0.0  # at the border of what an image can be
    current = x + 0.01 * torch.rand(x.shape, generator=generator)
    gradient = torch.randn(x.shape, generator=generator) * torch.tensor([1e-4, 1.0, 1e4, 1.0]).view(4, 1, 1, 1)
    kept = x.clone(), current.clone()
    near, far = answer(x, current, gradient, 0.05, 0.5), answer(x, current, gradient, 0.4, 0.2)
    still = answer(x, current, torch.zeros_like(gradient), 0.05, 0.5)
    alone = torch.cat([answer(*(t[i : i + 1] for t in (x, current, gradient)), 0.05, 0.5) for i in range(4)])

    def length(change: Tensor) -> Tensor:
        return change.flatten(1).norm(dim=1)

    shaped = isinstance(near, Tensor) and near.shape == x.shape
    yield shaped, "it does not return images of the shape it was given.", "the last line should return the images."
    same = torch.equal(x, kept[0]) and torch.equal(current, kept[1])
    yield same, "it changes the images it was given.", "write current + ..., and not current += ..."
    finite = bool(torch.isfinite(still).all()) and torch.allclose(still, current, atol=CLOSE)
    yield finite, "a gradient of zero does not leave the image where it is.", "divide by length.clamp_min(1e-12)."
    inside = bool((near >= 0).all() and (near <= 1).all() and (far >= 0).all() and (far <= 1).all())
    yield inside, "pixels leave [0, 1].", "end with .clamp(0, 1)."
    free = slice(0, 3)  # where [0, 1] does not get in the way
    hint = "divide the gradient by its length, image by image. Its sign is for L-infinity."
    yield (
        torch.allclose(length(near - current)[free], torch.full((3,), 0.05), atol=1e-4),
        "a step has not length size.",
        hint,
    )
    down = ((near - current) * gradient).flatten(1).sum(1) > 0
    yield bool(down.all()), "it goes down where an attack goes up.", "add the direction of the gradient."
    hint = "if the change from x is longer than eps, shrink it to eps; clamping each pixel is for L-infinity."
    yield bool((length(far - x) <= 0.2 + 1e-4).all()), "an image leaves its ball.", hint
    full = torch.allclose(length(far - x)[:1], torch.tensor([0.2]), atol=1e-3)
    yield full, "a long step does not reach the edge of the ball.", "shrink to eps only what is longer than eps."
    hint = "take each image's own length: flatten(1) and dim=1, not the norm of the whole batch."
    yield torch.allclose(alone, near, atol=CLOSE), "an image moves otherwise alone than in a batch.", hint
