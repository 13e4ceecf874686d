"""The numbers of the experiment `cost`, frozen: networks, marks, the size of every search, and the ways compared."""

from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch

from metarobust import pretrained
from metarobust.data import SUMMARIES
from metarobust.errors import InputError
from metarobust.lab import catalogue
from metarobust.lab import spec as specs
from metarobust.lab.baselines import Baseline, methods, settings
from metarobust.lab.cost.bill import LONG, SHORT
from metarobust.storage import sha256

NAME = "cost"
SUMMARY = "what a given robustness costs, and after how many patched models meta-training has paid"
# Fixed before anything was measured on them, and in no other experiment: no meta-training, tuning or choice of ours has
# looked at them.
NETWORKS = ("mlp-72-elu", "cnn-5-10-gelu", "mlp-40-20-gelu", "cnn-12-24-relu", "mlp-200-relu")
RIVALS = "std-prune", "falling noise + last-layer decay", "input-gradient penalty", "FGSM training", "PGD-7 training"
DECAY = 0.0, 0.3, 1.0, 3.0
"""Beside the step size, of adversarial training: a search of equal size needs a second number to try."""


@dataclass(frozen=True)
class Spec:
    """One scale on one data set.

    Attributes:
        setting: Images, networks, training and attacks, as in the run that the optimizer is from: what it learned from
            is nobody's to be patched with.
        optimizer: The name of a pretrained one, and the digest of its weights.
        points: Settings tried for each baseline.
        rounds: Timings of each way, of which the median counts.
        piece: Episodes of the meta-training that are counted and scaled up.
        horizons: Steps of a short run, those that it was meta-trained for, and of a long one.
        marks: Steps at which accuracy and cost are taken; a run has those up to its horizon that no shorter run has.
    """

    scale: str
    dataset: str
    seeds: tuple[int, ...]
    setting: specs.Spec
    optimizer: str
    optimizer_sha256: str
    points: int
    rounds: int
    piece: int
    horizons: tuple[int, int] = (20, 100)
    marks: tuple[int, ...] = (1, 2, 5, 10, 20, 50, 100)
    batch_size: int = 64
    experiment: str = NAME

    def runs(self) -> Iterator[tuple[str, int, tuple[int, ...]]]:
        """The part of a run in the table, its steps and its marks: of the short run, then of the long one."""
        short, long = self.horizons
        yield SHORT, short, tuple(mark for mark in self.marks if mark <= short)
        yield LONG, long, tuple(mark for mark in self.marks if short < mark <= long)


def make_spec(scale: str, dataset: str, seeds: list[int] | None) -> dict[str, Any]:
    """The frozen specification as JSON.

    Raises:
        InputError: Where no learned optimizer that patches knows the data set.
    """
    name, known = f"patch-{dataset}", [each for each in SUMMARIES if f"patch-{each}" in pretrained.available()]
    if dataset not in known:
        raise InputError(
            f"data set {dataset!r}: no learned optimizer for patching comes along that knows it, and {NAME} compares "
            f"with one; give --dataset {' or '.join(known)}"
        )
    numbers = {  # seeds, networks, points, tuning seeds, test images, rounds, piece
        "smoke": (3, 1, 4, (100,), 150, 1, 6),
        "small": (10, 3, 16, (100, 101), 300, 5, 24),
        "full": (10, 5, 24, (100, 101), 2000, 9, 48),
    }
    count, networks, points, tuning, images, rounds, piece = numbers[scale]
    chosen = tuple(seeds) if seeds else tuple(range(count))
    base = catalogue.make("patch", "small", dataset, chosen)
    part = replace(base.parts[0], rules=base.parts[0].rules[:1], measures="quick" if scale == "smoke" else "standard")
    own = pretrained.card(name)["meta_trained_on"]["images"]
    sizes = {"attack_steps": 20 if scale == "smoke" else 40, "meta_images": own, "test_images": images}
    setting = replace(base, experiment=NAME, parts=(part,), unseen=NETWORKS[:networks], tuning_seeds=tuning, **sizes)
    digest = sha256((pretrained.FOLDER / f"{name}.safetensors").read_bytes())
    return asdict(Spec(scale, dataset, chosen, setting, name, digest, points, rounds, piece))


def rivals(eps: float) -> dict[str, Baseline]:
    """The ways without learning by name, each with its whole grid."""
    known = {method.name: method for method in methods(eps, patching=True)}
    return {
        name: replace(known[name], grid={**known[name].grid, "decay": DECAY})
        if known[name].tier == "adversarial"
        else known[name]
        for name in RIVALS
    }


def drawn(method: Baseline, number: int) -> list[dict[str, float]]:
    """`number` points of a method's grid, at random and without repeats: a search of the same size for each method.

    Source: Bergstra and Bengio 2012, "Random search for hyper-parameter optimization".

    Raises:
        InputError: For more points than a grid has.
    """
    points = list(settings(method))
    if number > len(points):
        raise InputError(f"{number} points of {method.name}, whose grid has {len(points)}: give at most that many")
    order = torch.randperm(len(points), generator=torch.Generator().manual_seed(len(points)))
    return [points[i] for i in sorted(order[:number].tolist())]
