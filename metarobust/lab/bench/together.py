"""Many convolutional models on a processor: all in one call, or one after the other?

All in one call, a convolution has as many groups as there are models. `metarobust.models.Predictor` goes by what comes
out here (its FAST and MANY). `python -m metarobust.lab.bench.together` measures it here, on one thread: seconds
of the gradient of the loss by the images, as an attack takes it, and how many times as long the one way takes as the
other, compared round by round.
"""

from collections.abc import Callable, Sequence
from functools import partial
from statistics import median
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from metarobust.lab.bench.tables import columns
from metarobust.lab.bench.timing import interleaved, ratio
from metarobust.models import Predictor, build, fresh
from metarobust.params import ParamSpec

NETWORKS = ("cnn-8-16-relu", "cnn-10-14-tanh", "cnn-16-16-relu", "resnet-6-1-relu")
SIDE = 28
"""Of the images, in pixels; they are grey, as those of MNIST."""


def slope(predict: Callable[[Tensor], Tensor], images: Tensor, labels: Tensor) -> Tensor:
    """The gradient of the loss by the images, `[n, C, H, W]` as they are."""
    leaf = images.clone().requires_grad_()
    return torch.autograd.grad(F.cross_entropy(predict(leaf), labels, reduction="sum"), leaf)[0]


def measure(network: str, *, models: int = 10, each: int = 64, rounds: int = 5) -> dict[str, Any]:
    """Both ways on this machine's CPU, with random networks and random images.

    models, each: so many networks, and so many images for each of them. Returns the median seconds (`at_once`,
    `in_turn`), how many times as long the first takes (`ratio`, the median over rounds), and `difference`, the largest
    of the two gradients, relative to the largest slope. Raises InputError for a name that is no network, or no round.
    """
    generator = torch.Generator().manual_seed(0)
    model = build(network, (1, SIDE, SIDE), 10)
    predictor = Predictor(model, ParamSpec.of(model), fresh(model, models, generator))
    images = torch.rand(models * each, 1, SIDE, SIDE, generator=generator)
    labels = torch.randint(0, 10, (len(images),), generator=generator)
    both = {"at_once": predictor.at_once, "in_turn": predictor.in_turn}
    ways = {way: partial(slope, partial(run, each=each), images, labels) for way, run in both.items()}
    seconds, found = interleaved(ways, rounds)
    apart = (found["at_once"] - found["in_turn"]).abs().max() / found["in_turn"].abs().max()
    return {
        "network": network, "models": models, "each": each, **{way: median(took) for way, took in seconds.items()},
        "ratio": ratio(seconds, "at_once", "in_turn"), "difference": float(apart),
    }  # fmt: skip


def table(rows: Sequence[dict[str, Any]]) -> str:
    """A line for each measurement."""
    lines = [["network", "models", "images of each", "at once, ms", "in turn, ms", "times in turn", "difference"]]
    for row in rows:
        lines.append([
            row["network"], str(row["models"]), str(row["each"]), f"{1000 * row['at_once']:.1f}",
            f"{1000 * row['in_turn']:.1f}", f"{row['ratio']:.2f}", f"{row['difference']:.0e}",
        ])  # fmt: skip
    return columns(lines)


if __name__ == "__main__":
    torch.set_num_threads(1)
    print(table([measure(network, each=each) for network in NETWORKS for each in (8, 64, 500)]))
