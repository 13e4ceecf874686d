"""How fast the attacks are, beside a plain loop in PyTorch and beside other libraries, measured in the same run.

Two questions. What does a step of PGD cost, in image-steps per second: everyone takes the same gradients of the same
model on the same batch, and nobody stops early. And how long does a whole evaluation take: ours against AutoAttack, on
trained models, each with the accuracy that it ends at, since a quick attack that finds less is no gain.

An honest ratio needs a quiet machine. The spread over rounds, slowest beside fastest, says whether it was one.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from metarobust.attacks import pgd
from metarobust.lab.bench.libraries import PGD, installed
from metarobust.lab.bench.models import images, module, train
from metarobust.lab.bench.peers import our_standard, their_standard
from metarobust.lab.bench.record import Bench, Row, Table, interleaved, pace, timed
from metarobust.models import build, fresh

EPS = 0.1
OURS, PLAIN, BEST, STANDARD = "metarobust", "plain loop", "metarobust, best point", "AutoAttack"
COLUMNS: dict[str, type] = {
    "part": str, "model": str, "norm": str, "way": str, "seconds": float, "fastest": float, "slowest": float,
    "ratio": float, "steps": int, "n": int, "rounds": int, "robust": float,
}  # fmt: skip
"""ratio: seconds in units of ours. steps: of PGD. robust: for a whole evaluation."""


def measure(quick: bool) -> list[dict[str, Any]]:
    """Both comparisons, a row for each way."""
    return [*speed(quick), *evaluations(quick)]


def plain(model: nn.Module, x: Tensor, labels: Tensor, eps: float, steps: int, step_size: float) -> Tensor:
    """PGD as one would write it down: the floor that a library should not fall below."""
    moved = x
    for _ in range(steps):
        leaf = moved.detach().requires_grad_()
        (slope,) = torch.autograd.grad(F.cross_entropy(model(leaf), labels), leaf)
        moved = (x + (moved + step_size * slope.sign() - x).clamp(-eps, eps)).clamp(0, 1)
    return moved


def speed(quick: bool) -> list[dict[str, Any]]:
    """PGD on images of 28 x 28 pixels. What the model has learned does not matter here, so it has learned nothing."""
    names = ("mlp-4-relu",) if quick else ("mlp-100-relu", "cnn-8-16-relu")
    batch, steps, rounds = (8, 2, 2) if quick else (256, 20, 15)
    generator = torch.Generator().manual_seed(0)
    x = torch.rand(batch, 1, 28, 28, generator=generator)
    y = torch.randint(10, (batch,), generator=generator)
    rows = []
    for name in names:
        model = build(name, (1, 28, 28), 10).eval()
        nn.utils.vector_to_parameters(fresh(model, 1, generator)[0], model.parameters())
        step = 2.5 * EPS / steps
        ours = partial(pgd, model, x, y, eps=EPS, steps=steps, step_size=step)
        ways: dict[str, Callable[[], Tensor]] = {
            OURS: partial(ours, keep="last"),
            BEST: ours,
            PLAIN: partial(plain, model, x, y, EPS, steps, step),
        }
        for library, make in PGD.items():
            if installed(library):
                ways[library] = partial(make(model, "linf", eps=EPS, step_size=step, steps=steps), x, y)
        times, _ = interleaved(ways, rounds)
        common = {"part": "pgd", "model": name, "norm": "linf", "steps": steps, "n": batch, "robust": None}
        rows += [common | {"way": way} | row for way, row in timed(times, OURS).items()]
    return rows


def evaluations(quick: bool) -> list[dict[str, Any]]:
    """The whole standard evaluation beside the whole AutoAttack, both as cascades; queries are Square's."""
    names = ("trained as usual",) if quick else ("trained as usual", "trained against PGD", "CNN, trained against PGD")
    norms, count, queries, rounds = (("linf",), 6, 20, 1) if quick else (("linf", "l2"), 500, 5000, 3)
    data, rows = images(count), []
    for name in names:
        model = module(name, train(name))
        for norm in norms:
            ways = {OURS: partial(our_standard, model, data, norm, queries)}
            if installed(STANDARD):
                ways[STANDARD] = partial(their_standard, model, data, norm, queries)
            times, robust = interleaved(ways, rounds, warm_up=0)
            common = {"part": "standard", "model": name, "norm": norm, "steps": None, "n": len(data)}
            rows += [common | {"way": way, "robust": robust[way]} | row for way, row in timed(times, OURS).items()]
    return rows


def tables(rows: Sequence[Row]) -> list[Table]:
    """Image-steps per second of PGD, and seconds of the whole evaluation."""
    fast, whole = ([row for row in rows if row["part"] == part] for part in ("pgd", "standard"))
    steps = [["network", "PGD by", "image-steps/s", "slowest to fastest", "times ours"]]
    steps += [[row["model"], row["way"], *pace(row, row["steps"] * row["n"])] for row in fast]
    full = [["model", "norm", "evaluation by", "robust", "seconds", "fastest to slowest", "times ours"]]
    full += [
        [row["model"], row["norm"], row["way"], f"{100 * row['robust']:.1f} %", f"{row['seconds']:.1f}",
         f"{row['fastest']:.1f} to {row['slowest']:.1f}", f"{row['ratio']:.2f}"]
        for row in whole
    ]  # fmt: skip
    return [
        (
            f"PGD, {fast[0]['steps']} steps, batch of {fast[0]['n']}, 28 x 28 pixels, L-infinity: median of "
            f"{fast[0]['rounds']} rounds, ways taken in turn",
            steps,
        ),
        (
            f"The standard evaluation and AutoAttack's, {whole[0]['n']} digits, both as cascades: median of "
            f"{whole[0]['rounds']} rounds",
            full,
        ),
    ]


SPEED = Bench(
    "attacks",
    "speed of PGD and of the standard evaluation beside other libraries",
    (*PGD, STANDARD),
    COLUMNS,
    measure,
    tables,
)
