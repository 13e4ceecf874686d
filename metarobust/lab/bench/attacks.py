"""How fast the attacks are, beside a plain loop in PyTorch and beside other libraries, measured in the same run.

Two questions. What does a step of PGD cost, in image-steps per second: everyone takes the same gradients of the same
model on the same batch, and nobody stops early. And how long does a whole evaluation take: ours against AutoAttack, on
trained models, each with the accuracy that it ends at, since a quick attack that finds less is no gain.

An honest ratio needs a quiet machine. The spread over rounds, slowest beside fastest, says whether it was one.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from metarobust.attacks import pgd
from metarobust.lab.bench import record
from metarobust.lab.bench.libraries import INSTALL, PGD, installed, need
from metarobust.lab.bench.models import images, module, train
from metarobust.lab.bench.peers import our_standard, their_standard
from metarobust.lab.bench.tables import in_columns, in_pipes
from metarobust.lab.bench.timing import interleaved, ratio
from metarobust.models import build, fresh

NAME = "attacks"
SUMMARY = "speed of PGD and of the standard evaluation beside other libraries"
EPS = 0.1
OURS, PLAIN, BEST, STANDARD = "metarobust", "plain loop", "metarobust, best point", "AutoAttack"
LIBRARIES = (*PGD, STANDARD)
COLUMNS: dict[str, type] = {
    "part": str,
    "model": str,
    "norm": str,
    "way": str,
    "seconds": float,
    "fastest": float,
    "slowest": float,
    "ratio": float,
    "steps": int,
    "n": int,
    "rounds": int,
    "robust": float,
}
"""seconds: the median over rounds. ratio: seconds in units of ours. steps: of PGD. robust: for a whole evaluation."""


@dataclass(frozen=True)
class Size:
    """networks, batch, steps, rounds: of PGD. The others are of the whole evaluation; queries: of Square."""

    networks: tuple[str, ...] = ("mlp-100-relu", "cnn-8-16-relu")
    batch: int = 256
    steps: int = 20
    rounds: int = 15
    models: tuple[str, ...] = ("trained as usual", "trained against PGD", "CNN, trained against PGD")
    norms: tuple[str, ...] = ("linf", "l2")
    test_images: int = 500
    queries: int = 5000
    evaluations: int = 3


QUICK = Size(("mlp-4-relu",), 8, 2, 2, ("trained as usual",), ("linf",), 6, 20, 1)


def run(*, out: Path | None = None, quick: bool = False) -> str:
    """Measures, and stores the result in `out` where it is given. quick: a tiny size, to see that it works.

    Raises InputError where a library is missing that a stored result needs.
    """
    if out is not None:
        for name in LIBRARIES:
            need(name)
    start, size = time.perf_counter(), QUICK if quick else Size()
    rows = [*speed(size), *evaluations(size)]
    about = record.about(time.perf_counter() - start, LIBRARIES)
    manifest = {"bench": NAME, "command": f"metarobust bench {NAME}"} | about
    if out is not None:
        record.write(out, manifest, rows, COLUMNS)
    return table(manifest, rows)


def plain(model: nn.Module, x: Tensor, labels: Tensor, eps: float, steps: int, step_size: float) -> Tensor:
    """PGD as one would write it down: the floor that a library should not fall below."""
    moved = x
    for _ in range(steps):
        leaf = moved.detach().requires_grad_()
        (slope,) = torch.autograd.grad(F.cross_entropy(model(leaf), labels), leaf)
        moved = (x + (moved + step_size * slope.sign() - x).clamp(-eps, eps)).clamp(0, 1)
    return moved


def speed(size: Size) -> list[dict[str, Any]]:
    """PGD on images of 28 x 28 pixels. What the model has learned does not matter here, so it has learned nothing."""
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(size.batch, 1, 28, 28, generator=generator)
    y = torch.randint(10, (size.batch,), generator=generator)
    rows = []
    for name in size.networks:
        model = build(name, (1, 28, 28), 10).eval()
        nn.utils.vector_to_parameters(fresh(model, 1, generator)[0], model.parameters())
        step = 2.5 * EPS / size.steps
        ours = partial(pgd, model, x, y, eps=EPS, steps=size.steps, step_size=step)
        ways: dict[str, Callable[[], Tensor]] = {
            OURS: partial(ours, best=False),
            BEST: ours,
            PLAIN: partial(plain, model, x, y, EPS, size.steps, step),
        }
        for library, make in PGD.items():
            if installed(library):
                attack = make(model, "linf", eps=EPS, step_size=step, steps=size.steps)
                ways[library] = partial(attack, x, y)
        times, _ = interleaved(ways, size.rounds)
        rows += _rows("pgd", name, "linf", times, steps=size.steps, n=size.batch)
    return rows


def evaluations(size: Size) -> list[dict[str, Any]]:
    """The whole standard evaluation beside the whole AutoAttack, both as cascades."""
    data, rows = images(size.test_images), []
    for name in size.models:
        model = module(name, train(name))
        for norm in size.norms:
            ways = {OURS: partial(our_standard, model, data, norm, size.queries)}
            if installed(STANDARD):
                ways[STANDARD] = partial(their_standard, model, data, norm, size.queries)
            times, robust = interleaved(ways, size.evaluations, warm_up=0)
            rows += _rows("standard", name, norm, times, n=len(data), robust=robust)
    return rows


def _rows(
    part: str,
    model: str,
    norm: str,
    times: Mapping[str, Sequence[float]],
    *,
    n: int,
    steps: int | None = None,
    robust: Mapping[str, float] | None = None,
) -> list[dict[str, Any]]:
    return [
        {
            "part": part, "model": model, "norm": norm, "way": way, "seconds": median(seconds),
            "fastest": min(seconds), "slowest": max(seconds), "ratio": ratio(times, way, OURS), "steps": steps, "n": n,
            "rounds": len(seconds), "robust": robust[way] if robust else None,
        }
        for way, seconds in times.items()
    ]  # fmt: skip


def _speeds(rows: Sequence[Mapping[str, Any]]) -> list[list[str]]:
    lines = [["network", "PGD by", "image-steps/s", "slowest to fastest", "times ours"]]
    for row in rows:
        work = row["steps"] * row["n"]
        low, middle, high = (f"{work / row[key]:,.0f}" for key in ("slowest", "seconds", "fastest"))
        lines.append([row["model"], row["way"], middle, f"{low} to {high}", f"{row['ratio']:.2f}"])
    return lines


def _evaluations(rows: Sequence[Mapping[str, Any]]) -> list[list[str]]:
    lines = [["model", "norm", "evaluation by", "robust", "seconds", "fastest to slowest", "times ours"]]
    for row in rows:
        spread = f"{row['fastest']:.1f} to {row['slowest']:.1f}"
        robust = f"{100 * row['robust']:.1f} %"
        middle, times = f"{row['seconds']:.1f}", f"{row['ratio']:.2f}"
        lines.append([row["model"], row["norm"], row["way"], robust, middle, spread, times])
    return lines


def _captions(manifest: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> tuple[list[str], str]:
    fast, whole = (next(row for row in rows if row["part"] == part) for part in ("pgd", "standard"))
    absent = [f"{name} is not installed: {INSTALL}" for name, number in manifest["versions"].items() if number is None]
    return [
        f"PGD, {fast['steps']} steps, batch of {fast['n']}, 28 x 28 pixels, L-infinity: median of {fast['rounds']} "
        f"rounds, ways taken in turn",
        f"The standard evaluation and AutoAttack's, {whole['n']} digits, both as cascades: median of "
        f"{whole['rounds']} rounds",
    ], "\n".join([record.setting(manifest), *absent])


def _parts(rows: Sequence[Mapping[str, Any]]) -> tuple[list[list[str]], list[list[str]]]:
    fast, whole = ([row for row in rows if row["part"] == part] for part in ("pgd", "standard"))
    return _speeds(fast), _evaluations(whole)


def table(manifest: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> str:
    """Both comparisons as text for a terminal."""
    captions, setting = _captions(manifest, rows)
    return in_columns(captions, _parts(rows), setting)


def markdown(manifest: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> str:
    """Both comparisons as Markdown."""
    captions, setting = _captions(manifest, rows)
    return in_pipes(captions, _parts(rows), setting)
