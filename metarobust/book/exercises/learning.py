"""Exercises of part III, "Learning from mistakes"."""

from math import hypot
from statistics import stdev

import torch
from torch.nn import functional as F

from metarobust.book.exercises.check import function, hint_for, numbers
from metarobust.book.properties import in_range, near, parts, same, tensor

examples_made, examples_of_corners, margin_left, times_seen = numbers(
    "examples_made", "examples_of_corners", "margin_left", "times_seen"
)
matrix_shape, falls, three_quarters, models_until_it_pays = numbers(
    "matrix_shape", "falls", "three_quarters", "models_until_it_pays"
)
T_OF_FOUR = 3.182446305284263
"""The 97.5 % point of Student's t with three degrees of freedom: for four seeds."""

# Settings down, seeds across. The best on validation is the third on average, and the first by its best seed; on test
# images it is the second, the last by its best seed.
VALIDATION = torch.tensor([[0.90, 0.10, 0.20], [0.35, 0.45, 0.40], [0.70, 0.40, 0.52], [0.60, 0.30, 0.58]])
TEST = torch.tensor([[0.30, 0.34, 0.41], [0.58, 0.57, 0.50], [0.44, 0.51, 0.40], [0.25, 0.66, 0.20]])


@function(
    first="images.flatten(1).std(0) has one number for each pixel.",
    stops="weight is [units, pixels]; images are [n, 1, height, width]: flatten them first.",
)
def pruned(prune):
    """`prune(weight, images, threshold, keep)`: the first layer's weights without those on pixels that hardly vary."""
    # Of six pixels: black, bright and still, dim but lively, lively, half of the time lit, hardly moving.
    pixels = [0.0] * 4, [0.9] * 4, [0.0, 0.3] * 2, [0.1, 0.9, 0.2, 0.8], [1.0, 0.0] * 2, [0.5, 0.52, 0.48, 0.5]
    images = torch.tensor(pixels).T.reshape(4, 1, 2, 3)
    weight = torch.tensor([[1.0, -2.0, 3.0, -4.0, 5.0, -6.0], [0.5, 0.5, -0.5, 0.5, -0.5, 0.5]])
    result = tensor(prune(weight, images, 0.1, 0.6), weight.shape)
    yield not result[:, 0].any(), "the weights on a black pixel are still there.", "its deviation is 0."
    hint = "use the standard deviation of each pixel over the images, and not its mean or its largest value."
    yield not result[:, 1].any(), "the weights on a bright pixel that never changes are still there.", hint
    yield not result[:, 5].any(), "a pixel whose deviation is under the threshold is kept.", "compare with >."
    yield result[:, 2:5].all(), "a pixel whose deviation is over the threshold is cut off.", hint
    shrunk = near(result[:, 2:5], 0.6 * weight[:, 2:5])
    yield shrunk, "what stays is not shrunk to the share `keep`.", "multiply what stays by keep."


@function(
    first="begin with [one[seed] - other[seed] for seed in one].", stops="both are dictionaries: seed to accuracy."
)
def paired(rule):
    """`rule(one, other)`, both seed to accuracy: mean of one minus other, and half the width of its 95 % t-interval."""
    one = {0: 0.50, 1: 0.62, 2: 0.41, 3: 0.55}
    other = {3: 0.52, 2: 0.40, 1: 0.58, 0: 0.50}  # the same seeds in another order
    mean, half = map(float, parts(rule(one, other), 2, "two numbers, mean and half"))
    yield *same(mean, 0.02, 1e-9), "one minus other, over the seeds."
    error = stdev(one[seed] - other[seed] for seed in one) / 2  # of the mean of four
    by_place = stdev(a - b for a, b in zip(one.values(), other.values(), strict=True)) / 2
    apart = hypot(stdev(one.values()), stdev(other.values())) / 2
    mistakes = {
        "pair by seed: here the seeds of the two come in another order.": T_OF_FOUR * by_place,
        "that is 1.96, of a normal distribution; with few seeds take Student's t.": 1.959963985 * error,
        "divide the squares by n - 1: the mean was taken out of the same numbers.": T_OF_FOUR * error * 0.75**0.5,
        "divide by the square root of n: it is the interval of a mean.": T_OF_FOUR * error * 2,
        "take differences first, then an interval.": T_OF_FOUR * apart,
        "that is the standard error; multiply by the point of Student's t.": error,
    }
    hint = "t(0.975, n - 1) * standard deviation of the differences / sqrt(n)."
    yield *same(half, T_OF_FOUR * error), hint_for(half, mistakes, hint, 1e-4)
    back, _ = rule(other, one)
    yield near(back, -mean, 1e-9), "turned round, the difference keeps its sign.", "no abs()."


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
        return torch.autograd.grad(F.cross_entropy(model(leaf), y, reduction="sum"), leaf)[0].flatten(1)

    here = slope(x)
    step = 0.1 * here.sign().view_as(x)
    away, back, blind = (slope(x + move) - here for move in (step, -step, 0.1))
    right = away.square().sum(1)
    found = torch.as_tensor(rule(model, x, y, 0.1))
    yield found.shape == right.shape, f"it returns the shape {list(found.shape)}, not [6].", "one number an image."
    mistakes = {
        "that is the square root of it.": right.sqrt(),
        "the gradients were averaged over the images first.": right / 36,
        "the step goes down the loss; the attack goes up.": back.square().sum(1),
        "each pixel moves by the sign of its own entry, not all the same way.": blind.square().sum(1),
        "that is the slope at the far point, not what it changed by.": (away + here).square().sum(1),
        "absolute values were added; square them.": away.abs().sum(1),
    }
    hint = hint_for(found, mistakes, "compare with the formula, term by term.")
    yield near(found, right), "the numbers are others.", hint
    still = torch.as_tensor(rule(model, x, y, 0.0))
    yield not still.any(), "with far = 0 it is not 0.", "both gradients are then at the same place."


@function(first="which list may decide, and which may only report?", stops="held_out and test are of equal length.")
def stopped(stop):
    """`stop(held_out, test)`: the place where held_out is best, the first of equals, and what test says there."""
    held_out, test = [0.30, 0.42, 0.55, 0.51, 0.55, 0.40], [0.28, 0.40, 0.47, 0.52, 0.50, 0.56]
    place, value = parts(stop(held_out, test), 2, "a place and an accuracy")
    yield place != 5, "it stops where the test is best.", "the test decides here. Find the place in held_out."
    yield place != 4, "of two equals it takes the later one.", "stop at the first: later ones cost more steps."
    yield place == 2, f"it stops at place {place}, not at 2.", "places count from 0; the largest of held_out."
    yield value == test[2], f"it reports {value}, not what the test says there.", "return test[place], not held_out's."
    yield stop([0.9, 0.1], [0.2, 0.8]) == (0, 0.2), "it misses a best place at the start.", "look at all places."


@function(first="weight.flatten(1) is the matrix, of a convolution too.", stops="flatten all axes but the first.")
def row_sizes(answer):
    """`row_sizes(weight)`: for a weight of any shape, each row's mean square over that of the whole, as a logarithm."""
    rng = torch.Generator().manual_seed(5)
    dense = torch.randn(3, 4, generator=rng) * torch.tensor([[1.0], [0.1], [5.0]])
    kernel = torch.randn(2, 3, 3, 3, generator=rng) * torch.tensor([1.0, 0.2]).view(2, 1, 1, 1)
    results = {weight: answer(weight) for weight in (dense, kernel)}
    shaped = all(result.shape == weight.shape[:1] for weight, result in results.items())
    yield shaped, "it does not give one number for each row.", "take the mean over all axes but the first."
    larger, twice, wider = answer(100 * dense), answer(torch.cat([dense, dense], 1)), answer(torch.cat([dense, dense]))
    hint = "divide by the mean square of the whole weight."
    yield near(larger, results[dense]), "it changes when all weights are a hundred times as large.", hint
    hint = "take means, not sums: a sum grows with the number of columns, or of rows."
    yield near(twice, results[dense]), "it changes when every column stands there twice.", hint
    yield near(wider[:3], results[dense]), "it changes when every row stands there twice.", hint
    for weight, result in results.items():
        right = near(result, (weight.flatten(1).square().mean(1) / weight.square().mean()).log())
        yield right, "the numbers are not the logarithms of the ratios.", "log(row's / whole's mean)."


@function(
    first="tensor.flatten(1).norm(dim=1) has a length for each image.",
    stops="lengths have the shape [n]; view them as [n, 1, 1, 1] before you divide.",
)
def l2_step(answer):
    """`l2_step(x, current, gradient, size, eps)`: one step of PGD in L2, for a batch of images."""
    rng = torch.Generator().manual_seed(2)
    x = 0.3 + 0.4 * torch.rand(4, 1, 3, 3, generator=rng)
    x[3] = 0.0  # at the border of what an image can be
    current = x + 0.01 * torch.rand(x.shape, generator=rng)
    gradient = torch.randn(x.shape, generator=rng) * torch.tensor([1e-4, 1.0, 1e4, 1.0]).view(4, 1, 1, 1)
    moved, far = (tensor(answer(x, current, gradient, *given), x.shape) for given in ((0.05, 0.5), (0.4, 0.2)))
    still = answer(x, current, torch.zeros_like(gradient), 0.05, 0.5)  # nan is near nothing
    yield near(still, current), "a gradient of zero moves the image.", "divide by length.clamp_min(1e-12)."
    yield *in_range(moved), "end with .clamp(0, 1)."
    steps, ways = (change.flatten(1).norm(dim=1) for change in (moved - current, far - x))
    hint = "divide the gradient by its length, image by image. Its sign is for L-infinity."
    yield near(steps[:3], torch.full((3,), 0.05)), "a step does not have length size.", hint
    down = ((moved - current) * gradient).flatten(1).sum(1) > 0
    yield down.all(), "it goes down where an attack goes up.", "add the direction of the gradient."
    hint = "if the change from x is longer than eps, shrink it to eps; clamping each pixel is for L-infinity."
    yield (ways <= 0.2 + 1e-4).all(), "an image leaves its ball.", hint
    yield near(ways[0], 0.2, 1e-3), "a long step stays inside the ball.", "shrink only what is longer than eps."
    alone = [answer(*(t[i : i + 1] for t in (x, current, gradient)), 0.05, 0.5) for i in range(4)]
    hint = "take each image's own length: flatten(1) and dim=1, not the norm of the whole batch."
    yield near(torch.cat(alone), moved), "an image moves differently alone than in a batch.", hint


@function(
    first="the mean of the logarithms over the steps, and back with exp.",
    stops="curves are [hyperparameters, steps]; average over the last axis, .mean(-1, keepdim=True).",
)
def constant(hold):
    """`hold(curves)`: each row of `[hyperparameters, steps]` at its geometric mean, in every step."""
    curves = torch.tensor([[0.04, 0.04, 0.01, 0.0025], [1.0, 2.0, 4.0, 8.0]], dtype=torch.float64)
    result = torch.as_tensor(hold(curves))
    hint = "as many steps as before, all of them alike."
    yield result.shape == curves.shape, f"it returns the shape {list(result.shape)}, not [2, 4].", hint
    logs = curves.log()
    mistakes = {
        "that is the ordinary mean, which large values rule. Take logarithms first.": curves.mean(-1, keepdim=True),
        "that is the mean of the logarithms; go back with exp.": logs.mean(-1, keepdim=True),
        "that mixes hyperparameters. Average over the steps of each.": logs.mean(0).exp(),
        "that is one number for all. Average over the steps of each.": logs.mean().exp(),
        "nothing has changed: all steps of a row should be alike.": curves,
    }
    right = near(result, logs.mean(-1, keepdim=True).exp(), 1e-5)
    yield right, "the values are others.", hint_for(result, mistakes, "exp of the mean of log, row by row.")


@function(
    first="validation.mean(1) has one number for each setting.",
    stops="return one number; both tables have a row a setting and a column a seed.",
)
def honest(report):
    """`report(validation, test)`, both `[settings, seeds]`: the number to publish, as a share."""
    result = float(report(VALIDATION.clone(), TEST.clone()))
    by_luck = int(VALIDATION.amax(1).argmax())
    mistakes = {
        "test images chose the setting: choose by validation alone.": TEST.mean(1).max(),
        "that is the best seed of the best setting, on test images: choose by validation.mean(1).": TEST.max(),
        "the setting is right, and the best seed was picked: take the mean over seeds.": TEST[2].max(),
        "that is the score it was chosen by: report the test, not what chose.": VALIDATION[2].mean(),
        "one lucky seed chose the setting: take the mean before you take the best.": TEST[by_luck].mean(),
        "no setting was chosen: argmax of validation.mean(1) is the row to report.": TEST.mean(),
    }
    hint = hint_for(result, mistakes, "which row is best in validation.mean(1)?", 1e-6)
    yield near(result, TEST[2].mean(), 1e-6), f"{result:.4g} is not the number to publish.", hint
    turned = float(report(VALIDATION.flip(0), TEST.flip(0)))
    yield near(turned, result, 1e-6), "in another order it gives another number.", "let validation say which row it is."
