"""Whether the attacks find as much as those of other libraries: same models, same images, same budget.

PGD, step for step, beside foolbox and the Adversarial Robustness Toolbox; from the image itself, so that no chance is
in it. The standard evaluation beside the whole AutoAttack. The models are those of `models`, patched ones among them.
"""

import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from metarobust.attacks import pgd
from metarobust.attacks.criterion import misclassified
from metarobust.attacks.losses import cross_entropy
from metarobust.data import Split
from metarobust.evaluation import evaluate
from metarobust.lab.bench import record
from metarobust.lab.bench.libraries import INSTALL, PGD, autoattack, installed, need
from metarobust.lab.bench.models import MODELS, RADIUS, images, module, train
from metarobust.lab.bench.tables import columns, pipes
from metarobust.storage import load_tensors, save_tensors

NAME = "peers"
SUMMARY = "robust accuracy beside foolbox, the Adversarial Robustness Toolbox and AutoAttack"
OURS, STANDARD, STEPS = "metarobust", "standard", 40
LIBRARIES = ("foolbox", "ART", "AutoAttack")
QUICK = ["trained as usual"]
COLUMNS: dict[str, type] = {
    "model": str,
    "norm": str,
    "eps": float,
    "attack": str,
    "library": str,
    "clean": float,
    "robust": float,
    "loss": float,
    "n": int,
    "seconds": float,
}
"""Accuracies are shares. loss: the mean cross-entropy that PGD climbed to. seconds: of processor time, since each is
measured once; `bench attacks` compares times with more care."""


def run(*, out: Path | None = None, quick: bool = False) -> str:
    """Compares, and stores the result in `out`, with the models' parameters, where it is given.

    quick: one model and few images, to see that it works. Raises InputError where a library is missing that a stored
    comparison needs.
    """
    start = time.perf_counter()
    if out is not None:
        for name in LIBRARIES:
            need(name)
    names, norms, count, queries = (list(MODELS), list(RADIUS), 500, 5000) if not quick else (QUICK, ["linf"], 6, 20)
    params = {name: train(name) for name in names}
    data, rows = images(count), []
    for name in names:
        model = module(name, params[name])
        for norm in norms:
            rows += compare_pgd(name, model, data, norm) + compare_standard(name, model, data, norm, queries)
    about = record.about(time.perf_counter() - start, LIBRARIES)
    manifest = {"bench": NAME, "command": f"metarobust bench {NAME}"} | about
    if out is not None:
        save_tensors(out / "models.safetensors", params, {"models": {name: MODELS[name][0] for name in names}})
        record.write(out, manifest, rows, COLUMNS)
    return table(manifest, rows)


def recorded_models(folder: Path = record.FOLDER / NAME) -> dict[str, nn.Module]:
    """The models that a stored comparison was made on, by name."""
    tensors, _ = load_tensors(folder / "models.safetensors")
    return {name: module(name, tensors[name]) for name in tensors}


def compare_pgd(
    name: str, model: nn.Module, data: Split, norm: str, *, best: bool = False, seed: int | None = None
) -> list[dict[str, Any]]:
    """Rows of PGD by us and by each library that is here. best, seed: of `pgd`, and where everyone begins."""
    eps = RADIUS[norm]
    how = {"eps": eps, "steps": STEPS, "step_size": 2.5 * eps / STEPS}

    def ours(x: Tensor, y: Tensor) -> Tensor:
        generator = None if seed is None else torch.Generator().manual_seed(seed)
        return pgd(model, x, y, norm=norm, **how, best=best, generator=generator)

    ways = {OURS: ours}
    ways |= {peer: PGD[peer](model, norm, **how, seed=seed) for peer in LIBRARIES if peer in PGD and installed(peer)}
    rows = []
    for library, attack in ways.items():
        start = time.process_time()
        moved = attack(data.images, data.labels)
        seconds = time.process_time() - start
        robust = standing(model, moved, data.labels)
        found = {"robust": robust, "loss": mean_loss(model, moved, data.labels), "seconds": seconds}
        rows.append(_row(name, model, data, norm, f"pgd-{STEPS}", library) | found)
    return rows


def compare_standard(name: str, model: nn.Module, data: Split, norm: str, queries: int = 5000) -> list[dict[str, Any]]:
    """Rows of the standard evaluation, and of AutoAttack where it is here; each attack on what the last one left."""
    ways = {OURS: our_standard} | ({"AutoAttack": their_standard} if installed("AutoAttack") else {})
    rows = []
    for library, measure in ways.items():
        start = time.process_time()
        robust = measure(model, data, norm, queries)
        found = {"robust": robust, "seconds": time.process_time() - start}
        rows.append(_row(name, model, data, norm, STANDARD, library) | found)
    return rows


def our_standard(model: nn.Module, data: Split, norm: str, queries: int = 5000) -> float:
    """Robust accuracy by the standard evaluation, as a cascade. queries: of Square."""
    found = evaluate(
        model, data.images, data.labels, eps=RADIUS[norm], norm=norm, attacks="standard", queries=queries,
        alone=False, checks=0,
    )  # fmt: skip
    return found.robust


def their_standard(model: nn.Module, data: Split, norm: str, queries: int = 5000) -> float:
    """Robust accuracy by AutoAttack. queries: of Square."""
    moved = autoattack(model, norm, eps=RADIUS[norm], queries=queries)(data.images, data.labels)
    return standing(model, moved, data.labels)


@torch.no_grad()
def standing(model: nn.Module, moved: Tensor, labels: Tensor) -> float:
    """The share of images that the model gets right."""
    return int((~misclassified(model(moved), labels)).sum()) / len(labels)


@torch.no_grad()
def mean_loss(model: nn.Module, moved: Tensor, labels: Tensor) -> float:
    """The mean cross-entropy."""
    return float(cross_entropy(model(moved), labels).mean())


def _row(name: str, model: nn.Module, data: Split, norm: str, attack: str, library: str) -> dict[str, Any]:
    return {
        "model": name, "norm": norm, "eps": RADIUS[norm], "attack": attack, "library": library,
        "clean": standing(model, data.images, data.labels), "robust": None, "loss": None, "n": len(data),
        "seconds": None,
    }  # fmt: skip


def lines(rows: Sequence[Mapping[str, Any]]) -> list[list[str]]:
    """A header, and a line for each model, norm and attack: robust accuracy by each library, and its seconds."""
    head = ["model", "clean", "norm, eps", "attack", OURS, *LIBRARIES]
    cells: dict[tuple[str, ...], dict[str, str]] = {}
    for row in rows:
        key = row["model"], f"{100 * row['clean']:.1f}", f"{row['norm']}, {row['eps']:g}", row["attack"]
        took = f"{row['seconds']:.0f}" if row["seconds"] >= 10 else f"{row['seconds']:.2g}"
        cells.setdefault(key, {})[row["library"]] = f"{100 * row['robust']:.1f} ({took} s)"
    return [head, *([*key, *(found.get(name, "") for name in head[4:])] for key, found in cells.items())]


def _caption(manifest: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> str:
    absent = [f"{name} is not installed: {INSTALL}" for name in LIBRARIES if manifest["versions"][name] is None]
    return "\n".join([
        f"Robust accuracy in % and processor time; the first {rows[0]['n']} test digits. {record.setting(manifest)}",
        *absent,
    ])  # fmt: skip


def table(manifest: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> str:
    """The comparison as text for a terminal."""
    return f"{columns(lines(rows))}\n{_caption(manifest, rows)}"


def markdown(manifest: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> str:
    """The comparison as Markdown."""
    return f"{pipes(lines(rows))}\n\n{_caption(manifest, rows)}."
