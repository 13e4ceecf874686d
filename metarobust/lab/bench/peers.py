"""Whether the attacks find as much as those of other libraries: same models, same images, same budget.

PGD, step for step, beside foolbox and the Adversarial Robustness Toolbox; from the image itself, so that no chance is
in it. The standard evaluation beside the whole AutoAttack. The models are those of `models`, patched ones among them.
"""

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from metarobust.attacks import pgd
from metarobust.attacks.losses import cross_entropy
from metarobust.data import Split
from metarobust.evaluation import correct, evaluate
from metarobust.evaluation.probe import share
from metarobust.lab.bench.libraries import PGD, autoattack, installed
from metarobust.lab.bench.models import MODELS, RADIUS, images, module, train
from metarobust.lab.bench.record import FOLDER, Bench, Row, Table
from metarobust.storage import load_tensors, save_tensors

NAME = "peers"
OURS, STANDARD, STEPS = "metarobust", "standard", 40
LIBRARIES = ("foolbox", "ART", "AutoAttack")
QUICK = ["trained as usual"]
COLUMNS: dict[str, type] = {
    "model": str, "norm": str, "eps": float, "attack": str, "library": str, "clean": float, "robust": float,
    "loss": float, "n": int, "seconds": float,
}  # fmt: skip
"""Accuracies are shares. loss: the mean cross-entropy that PGD climbed to. seconds: of processor time, since each is
measured once; `bench attacks` compares times with more care."""


def measure(quick: bool) -> list[dict[str, Any]]:
    """Every model and norm, by each library."""
    names, norms, count, queries = (QUICK, ["linf"], 6, 20) if quick else (list(MODELS), list(RADIUS), 500, 5000)
    data, rows = images(count), []
    for name in names:
        model = module(name, train(name))
        for norm in norms:
            rows += compare_pgd(name, model, data, norm) + compare_standard(name, model, data, norm, queries)
    return rows


def keep_models(folder: Path) -> None:
    """Stores the models' parameters beside the result, so that every machine can attack the same."""
    save_tensors(folder / "models.safetensors", {name: train(name) for name in MODELS})


def recorded_models(folder: Path = FOLDER / NAME) -> dict[str, nn.Module]:
    """The models that a stored comparison was made on, by name."""
    tensors, _ = load_tensors(folder / "models.safetensors")
    return {name: module(name, tensors[name]) for name in tensors}


def compare_pgd(
    name: str, model: nn.Module, data: Split, norm: str, *, keep: str = "last", seed: int | None = None
) -> list[dict[str, Any]]:
    """PGD by us and by each library that is installed, on the same images, with this `keep` of ours.

    seed: of the random start; None to begin at the image.
    """
    setting = {"eps": RADIUS[norm], "steps": STEPS, "step_size": 2.5 * RADIUS[norm] / STEPS}

    def ours(x: Tensor, y: Tensor) -> Tensor:
        generator = None if seed is None else torch.Generator().manual_seed(seed)
        return pgd(model, x, y, norm=norm, **setting, keep=keep, generator=generator)

    peers = (peer for peer in LIBRARIES if peer in PGD and installed(peer))
    ways = {OURS: ours} | {peer: PGD[peer](model, norm, **setting, seed=seed) for peer in peers}

    def outcome(attack: Callable[[Tensor, Tensor], Tensor]) -> dict[str, float]:
        moved = attack(data.images, data.labels)
        with torch.no_grad():
            loss = float(cross_entropy(model(moved), data.labels).mean())
        return {"robust": share(correct(model, moved, data.labels)), "loss": loss}

    return [
        _row(name, model, data, norm, f"pgd-{STEPS}", way, lambda a=attack: outcome(a)) for way, attack in ways.items()
    ]


def compare_standard(name: str, model: nn.Module, data: Split, norm: str, queries: int = 5000) -> list[dict[str, Any]]:
    """The standard evaluation, and AutoAttack where it is installed; each attack on what the last one left."""
    ways = {OURS: our_standard} | ({"AutoAttack": their_standard} if installed("AutoAttack") else {})
    return [
        _row(name, model, data, norm, STANDARD, way, lambda m=robust: {"robust": m(model, data, norm, queries)})
        for way, robust in ways.items()
    ]


def our_standard(model: nn.Module, data: Split, norm: str, queries: int = 5000) -> float:
    """Robust accuracy by the standard evaluation, as a cascade. queries: of Square."""
    report = evaluate(
        model, data.images, data.labels, eps=RADIUS[norm], norm=norm, attacks="standard", queries=queries,
        independent=False, checks=0,
    )  # fmt: skip
    return report.robust


def their_standard(model: nn.Module, data: Split, norm: str, queries: int = 5000) -> float:
    """Robust accuracy by AutoAttack. queries: of Square."""
    moved = autoattack(model, norm, eps=RADIUS[norm], queries=queries)(data.images, data.labels)
    return share(correct(model, moved, data.labels))


def _row(
    name: str, model: nn.Module, data: Split, norm: str, attack: str, way: str, outcome: Callable[[], dict[str, float]]
) -> dict[str, Any]:
    start = time.process_time()
    figures = outcome()
    seconds = time.process_time() - start
    clean = share(correct(model, data.images, data.labels))
    return {
        "model": name, "norm": norm, "eps": RADIUS[norm], "attack": attack, "library": way, "clean": clean,
        "loss": None, "n": len(data), "seconds": seconds,
    } | figures  # fmt: skip


def tables(rows: Sequence[Row]) -> list[Table]:
    """A line for each model, norm and attack: robust accuracy by each library, and its seconds."""
    head = ["model", "clean", "norm, eps", "attack", OURS, *LIBRARIES]
    cells: dict[tuple[str, ...], dict[str, str]] = {}
    for row in rows:
        key = row["model"], f"{100 * row['clean']:.1f}", f"{row['norm']}, {row['eps']:g}", row["attack"]
        took = f"{row['seconds']:.0f}" if row["seconds"] >= 10 else f"{row['seconds']:.2g}"
        cells.setdefault(key, {})[row["library"]] = f"{100 * row['robust']:.1f} ({took} s)"
    lines = [head, *([*key, *(line.get(name, "") for name in head[4:])] for key, line in cells.items())]
    return [(f"Robust accuracy in % and processor time; the first {rows[0]['n']} test digits", lines)]


STRENGTH = Bench(
    NAME,
    "robust accuracy beside foolbox, the Adversarial Robustness Toolbox and AutoAttack",
    LIBRARIES,
    COLUMNS,
    measure,
    tables,
    keep_models,
)
