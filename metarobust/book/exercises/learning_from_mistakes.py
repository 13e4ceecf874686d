"""Exercises of "Learn from mistakes once"."""

import torch

from metarobust.book.exercises.check import function, like, near, number

# A run of 20 steps in truncation windows of 10. Half-way through each window, and at its end, the meta-loss looks at 4
# networks on 128 images each, attacked by PGD with 4 steps: how many adversarial images does that make?
examples_made = number(
    2048,
    {
        512: "that is for one network. There are four in a batch.",
        1024: "how many windows are there in a run, and how often does the meta-loss look in each?",
        8192: "the four steps of PGD move the same image four times. It is one adversarial image.",
        7168: "the images of the inner steps are clean. Leave them out.",
    },
    first="count the meta-losses of a run first.",
    passed="2 windows, 2 looks in each, 4 networks, 128 images: 2,048 in each run.",
    exact=True,
)


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
    result = prune(weight, images, 0.1, 0.6)
    yield like(result, weight)
    yield not result[:, 0].any(), "the weights on a black pixel are still there.", "its deviation is 0."
    hint = "use the standard deviation of each pixel over the images, and not its mean or its largest value."
    yield not result[:, 1].any(), "the weights on a bright pixel that never changes are still there.", hint
    yield not result[:, 5].any(), "a pixel whose deviation is under the threshold is kept.", "compare with >."
    yield bool(result[:, 2:5].all()), "a pixel whose deviation is over the threshold is cut off.", hint
    shrunk = near(result[:, 2:5], 0.6 * weight[:, 2:5])
    yield shrunk, "what stays is not shrunk to the share `keep`.", "multiply what stays by keep."
