"""How fast learned optimizers are: while they are meta-trained, and while they train a network.

Two questions. What does a coordinate's step cost in meta-training, forward and backward: the LSTM of ours beside the
same LSTM in plain PyTorch and by the library `higher`, which find the same meta-gradient; and the other kinds of ours.
And what does `MetaOptimizer.step()` cost beside Adam's, on a ResNet of 11 million parameters. Memory is what bounds a
step, so its pace is also said as a share of the bandwidth on the same machine, counting each number that a step must
read or write once. The bandwidth is that of multiplying numbers in place, which reads and writes each.

On a CPU the clock is the processor's time, of all threads, so that a busy machine does less harm; on a GPU the wall's.
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
from torchvision.models import resnet18

from metarobust.lab.bench import record
from metarobust.lab.bench.libraries import INSTALL, installed, need
from metarobust.lab.bench.plain_lstm import plain, problem, with_higher
from metarobust.lab.bench.tables import in_columns, in_pipes
from metarobust.lab.bench.timing import interleaved, ratio
from metarobust.learned import KINDS, make
from metarobust.meta.estimators import Backprop
from metarobust.meta.problem import Problem
from metarobust.meta.replay import Replay
from metarobust.optim import MetaOptimizer

NAME = "optimizers"
SUMMARY = "speed of meta-training and of MetaOptimizer beside plain PyTorch, higher and Adam"
LIBRARIES = ("higher",)
OURS, GRAPH, PLAIN, HIGHER = "lstm", "lstm, through a graph", "lstm, plain PyTorch", "lstm, higher"
ADAM, FUSED, META, SCALE = "Adam", "Adam, fused", "MetaOptimizer", "scaling in place"
MOVED = {ADAM: 7, FUSED: 7, META: 11, SCALE: 16}
"""Numbers of a coordinate that a step must read or write: weight, gradient and averages, two for Adam and four for
MetaOptimizer; all but the gradient are written too. Scaling is of eight numbers for each, too many for any cache."""
COLUMNS: dict[str, type] = {
    "part": str,
    "device": str,
    "network": str,
    "way": str,
    "seconds": float,
    "fastest": float,
    "slowest": float,
    "ratio": float,
    "work": int,
    "rounds": int,
    "difference": float,
    "share": float,
}
"""seconds: the median over rounds. ratio: seconds in units of the first way of its network. work: coordinate-steps.
difference: the largest of the meta-gradient from ours, relative to the largest slope of the same tensor. share: of the
bandwidth."""


@dataclass(frozen=True)
class Size:
    """networks, tasks, truncation, rounds: of meta-training, on images of 28 x 28 pixels. width: of the ResNet. steps:
    in each of its rounds."""

    networks: tuple[str, ...] = ("mlp-20-sigmoid", "cnn-8-16-relu")
    tasks: int = 4
    truncation: int = 20
    rounds: int = 5
    width: int = 64
    steps: int = 1
    step_rounds: int = 5


QUICK = Size(("mlp-2-sigmoid",), 2, 2, 2, 2, 1, 2)


def run(*, out: Path | None = None, quick: bool = False) -> str:
    """Measures, and stores the result in `out` where it is given. quick: a tiny size, to see that it works.

    Raises InputError where a library is missing that a stored result needs.
    """
    if out is not None:
        for name in LIBRARIES:
            need(name)
    start, size = time.perf_counter(), QUICK if quick else Size()
    devices = ["cpu", "cuda"] if torch.cuda.is_available() else ["cpu"]
    rows = meta_training(size) + [row for device in devices for row in stepping(size, device)]
    about = record.about(time.perf_counter() - start, LIBRARIES)
    manifest = {"bench": NAME, "command": f"metarobust bench {NAME}"} | about
    if out is not None:
        record.write(out, manifest, rows, COLUMNS)
    return table(manifest, rows)


def ours(where: Problem, optimizer: Any, estimator: Backprop, seed: int) -> list[Tensor]:
    """The meta-gradient of the first stretch, for each parameter in turn."""
    begin = estimator.begin(optimizer, where)
    return estimator.step(optimizer, where, begin, torch.Generator().manual_seed(seed)).gradient


def meta_training(size: Size) -> list[dict[str, Any]]:
    """Meta-gradients of one stretch, on the CPU."""
    rows = []
    for network in size.networks:
        where = problem(network, size.tasks, size.truncation)
        made = {kind: make(kind, torch.Generator().manual_seed(0)) for kind in KINDS}
        lstm = made.pop("lstm")
        ways: dict[str, Callable[[], list[Tensor]]] = {
            OURS: partial(ours, where, lstm, Replay(), 1),
            GRAPH: partial(ours, where, lstm, Backprop(), 1),
            PLAIN: partial(plain, where, lstm, 1),
        }
        if installed("higher"):
            ways[HIGHER] = partial(with_higher, where, lstm, 1)
        same = list(ways)
        ways |= {kind: partial(ours, where, other, Backprop(), 1) for kind, other in made.items()}
        times, found = interleaved(ways, size.rounds, clock=time.process_time)
        work = where.tasks.params.numel() * size.truncation
        apart = {way: difference(found[way], found[OURS]) for way in same}
        rows += _rows("meta-training", "cpu", network, times, work, OURS, difference=apart)
    return rows


def difference(one: Sequence[Tensor], other: Sequence[Tensor]) -> float:
    """The largest difference of two meta-gradients, relative to the largest slope of the same tensor."""
    return max(float((a - b).abs().max() / b.abs().max()) for a, b in zip(one, other, strict=True))


def stepping(size: Size, device: str) -> list[dict[str, Any]]:
    """Steps on a ResNet-18 with random gradients, which stay the same; and the bandwidth."""
    done = (size.step_rounds + 1) * size.steps
    make_each: dict[str, Callable[[list[nn.Parameter]], torch.optim.Optimizer]] = {
        ADAM: torch.optim.Adam,
        FUSED: partial(torch.optim.Adam, fused=True),
        META: partial(MetaOptimizer, total_steps=done),
    }
    ways: dict[str, Callable[[], Any]] = {}
    for way, each in make_each.items():
        params = _resnet(size.width, device)
        ways[way] = partial(_repeat, each(params).step, size.steps, device)
    count = sum(p.numel() for p in params)
    numbers = torch.ones(MOVED[SCALE] // 2 * count, device=device)
    ways[SCALE] = partial(_repeat, partial(numbers.mul_, 1.0), size.steps, device)
    clock = time.process_time if device == "cpu" else time.perf_counter
    times, _ = interleaved(ways, size.step_rounds, clock=clock)
    pace = MOVED[SCALE] / median(times[SCALE])
    share = {way: MOVED[way] / median(seconds) / pace for way, seconds in times.items()}
    return _rows("step", device, "resnet18", times, count * size.steps, ADAM, share=share)


def _resnet(width: int, device: str) -> list[nn.Parameter]:
    """The parameters of torchvision's ResNet-18 (width 64: 11.7 million), each with a gradient.

    A narrower one, for quick runs, has its widths divided.
    """
    generator = torch.Generator().manual_seed(0)
    with torch.device("meta"):
        shapes = [p.shape for p in resnet18().parameters()]
    params = []
    for shape in shapes:
        slim = [max(1, n * width // 64) if n >= 64 else n for n in shape]
        p = nn.Parameter(0.02 * torch.randn(slim, generator=generator).to(device))
        p.grad = 0.01 * torch.randn(slim, generator=generator).to(device)
        params.append(p)
    return params


def _repeat(step: Callable[[], Any], times: int, device: str) -> None:
    for _ in range(times):
        step()
    if device == "cuda":
        torch.cuda.synchronize()


def _rows(
    part: str,
    device: str,
    network: str,
    times: Mapping[str, Sequence[float]],
    work: int,
    unit: str,
    *,
    difference: Mapping[str, float] | None = None,
    share: Mapping[str, float] | None = None,
) -> list[dict[str, Any]]:
    return [
        {
            "part": part, "device": device, "network": network, "way": way, "seconds": median(seconds),
            "fastest": min(seconds), "slowest": max(seconds), "ratio": ratio(times, way, unit), "work": work,
            "rounds": len(seconds), "difference": (difference or {}).get(way), "share": (share or {}).get(way),
        }
        for way, seconds in times.items()
    ]  # fmt: skip


def _meta_lines(rows: Sequence[Mapping[str, Any]]) -> list[list[str]]:
    lines = [["network", "meta-training of", "coordinate-steps/s", "slowest to fastest", "times ours", "difference"]]
    for row in rows:
        low, middle, high = (f"{row['work'] / row[key]:,.0f}" for key in ("slowest", "seconds", "fastest"))
        apart = "" if row["difference"] is None else f"{row['difference']:.0e}"
        lines.append([row["network"], row["way"], middle, f"{low} to {high}", f"{row['ratio']:.2f}", apart])
    return lines


def _step_lines(rows: Sequence[Mapping[str, Any]]) -> list[list[str]]:
    lines = [["device", "step by", "million coordinates/s", "slowest to fastest", "times Adam", "share of bandwidth"]]
    for row in rows:
        low, middle, high = (f"{row['work'] / row[key] / 1e6:,.2f}" for key in ("slowest", "seconds", "fastest"))
        share = f"{100 * row['share']:.1f} %"
        lines.append([row["device"], row["way"], middle, f"{low} to {high}", f"{row['ratio']:.2f}", share])
    return lines


def _captions(manifest: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> tuple[list[str], str]:
    meta, step = (next(row for row in rows if row["part"] == part) for part in ("meta-training", "step"))
    absent = [f"{name} is not installed: {INSTALL}" for name in LIBRARIES if manifest["versions"][name] is None]
    return [
        f"Meta-gradients of first order, clean objectives, {meta['work']:,} coordinate-steps on {meta['network']}: "
        f"median of {meta['rounds']} rounds, ways taken in turn, processor time",
        f"Steps on a ResNet-18 in shape, {step['work']:,} coordinate-steps: median of {step['rounds']} rounds",
    ], "\n".join([record.setting(manifest), *absent])


def _parts(rows: Sequence[Mapping[str, Any]]) -> tuple[list[list[str]], list[list[str]]]:
    meta, step = ([row for row in rows if row["part"] == part] for part in ("meta-training", "step"))
    return _meta_lines(meta), _step_lines(step)


def table(manifest: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> str:
    """Both comparisons as text for a terminal."""
    captions, setting = _captions(manifest, rows)
    return in_columns(captions, _parts(rows), setting)


def markdown(manifest: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> str:
    """Both comparisons as Markdown."""
    captions, setting = _captions(manifest, rows)
    return in_pipes(captions, _parts(rows), setting)
