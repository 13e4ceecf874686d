"""The numbers of the experiment `cost`, frozen: networks, marks, the size of every search, and the ways compared."""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch

from metarobust import pretrained
from metarobust.data import SUMMARIES
from metarobust.errors import InputError, choose
from metarobust.lab.baselines import Baseline, methods, settings
from metarobust.storage import read_bytes, sha256

NAME = "cost"
SCALES = ("smoke", "small", "full")
# Fixed before anything was measured on them, and in no other experiment: no meta-training, tuning or choice of ours has
# looked at them.
NETWORKS = ("mlp-72-elu", "cnn-5-10-gelu", "mlp-40-20-gelu", "cnn-12-24-relu", "mlp-200-relu")
SHORT, LONG = "short", "long"
RIVALS = (
    "std-prune",
    "falling noise + last-layer decay",
    "input-gradient penalty",
    "FGSM training",
    "PGD-7 training",
)
DECAY = 0.0, 0.3, 1.0, 3.0
"""Beside the step size, of adversarial training: a search of equal size needs a second number to try."""


@dataclass(frozen=True)
class Spec:
    """One scale on one data set.

    optimizer: the name of a pretrained one, and the digest of its weights. horizons: steps of a short run, those that
    it was meta-trained for, and of a long one. marks: steps at which accuracy and cost are taken; a run has those up to
    its horizon that no shorter run has. points: settings tried for each baseline. rounds: timings of each way, of which
    the median counts. piece: episodes of the meta-training that are counted and scaled up. max_clean_drop: a target is
    reached only by a model that has not lost more of its clean accuracy. measures: `quick` or `standard`, see
    `metarobust.lab.spec.Part`.
    """

    scale: str
    dataset: str
    seeds: tuple[int, ...]
    optimizer: str
    optimizer_sha256: str
    networks: tuple[str, ...]
    points: int
    tuning_seeds: tuple[int, ...]
    test_images: int
    rounds: int
    piece: int
    horizons: tuple[int, int] = (20, 100)
    marks: tuple[int, ...] = (1, 2, 5, 10, 20, 50, 100)
    batch_size: int = 64
    eps: float = 0.1
    attack_steps: int = 40
    max_clean_drop: float = 0.05
    measures: str = "standard"
    experiment: str = NAME

    def runs(self) -> Iterator[tuple[str, int, tuple[int, ...]]]:
        """The part of a run in the table, its steps and its marks: of the short run, then of the long one."""
        short, long = self.horizons
        yield SHORT, short, tuple(mark for mark in self.marks if mark <= short)
        yield LONG, long, tuple(mark for mark in self.marks if short < mark <= long)


def make(scale: str, dataset: str, seeds: tuple[int, ...] | None) -> Spec:
    """The numbers of a scale. Raises InputError where no learned optimizer that patches knows the data set."""
    choose(scale, SCALES, f"scale of {NAME}")
    name = f"patch-{dataset}"
    sets = [known for known in SUMMARIES if f"patch-{known}" in pretrained.available()]
    if dataset not in sets:
        raise InputError(
            f"data set {dataset!r}: no learned optimizer for patching comes along that knows it, and {NAME} compares "
            f"with one; give --dataset {' or '.join(sets)}"
        )
    digest = sha256(read_bytes(pretrained.FOLDER / f"{name}.safetensors"))
    common = {"scale": scale, "dataset": dataset, "optimizer": name, "optimizer_sha256": digest}
    if scale == "smoke":
        return Spec(
            **common, seeds=seeds or (0, 1, 2), networks=NETWORKS[:1], points=4, tuning_seeds=(100,), test_images=150,
            rounds=1, piece=6, attack_steps=20, measures="quick",
        )  # fmt: skip
    if scale == "small":
        return Spec(
            **common, seeds=seeds or tuple(range(10)), networks=NETWORKS[:3], points=16, tuning_seeds=(100, 101),
            test_images=300, rounds=5, piece=24,
        )  # fmt: skip
    return Spec(
        **common, seeds=seeds or tuple(range(10)), networks=NETWORKS, points=24, tuning_seeds=(100, 101),
        test_images=2000, rounds=9, piece=48,
    )  # fmt: skip


def rivals(spec: Spec) -> list[Baseline]:
    """The ways without learning, each with its whole grid."""
    found = {method.name: method for method in methods(spec.eps, patching=True)}
    chosen = [found[name] for name in RIVALS]
    return [
        replace(method, grid={**method.grid, "decay": DECAY}) if method.tier == "adversarial" else method
        for method in chosen
    ]


def drawn(method: Baseline, number: int) -> list[dict[str, float]]:
    """`number` points of a method's grid, at random and without repeats: a search of the same size for each method.

    Source: Bergstra and Bengio 2012, "Random search for hyper-parameter optimization". Raises InputError for more
    points than a grid has.
    """
    points = list(settings(method))
    if number > len(points):
        raise InputError(f"{number} points of {method.name}, whose grid has {len(points)}: give at most that many")
    order = torch.randperm(len(points), generator=torch.Generator().manual_seed(len(points)))
    return [points[i] for i in sorted(order[:number].tolist())]
