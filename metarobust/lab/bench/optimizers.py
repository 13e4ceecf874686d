"""What `MetaOptimizer.step()` costs beside Adam's, on a ResNet of 11 million parameters.

Memory is what bounds a step, so its pace is also said as a share of the bandwidth on the same machine, counting each
number that a step must read or write once. The bandwidth is that of multiplying numbers in place, which reads and
writes each.

On a CPU the clock is the processor's time, of all threads, so that a busy machine does less harm; on a GPU the wall's.
"""

import time
from collections.abc import Callable, Sequence
from functools import partial
from statistics import median
from typing import Any

import torch
from torch import nn
from torchvision.models import resnet18

from metarobust.lab.bench.record import Bench, Row, Table, interleaved, pace, timed
from metarobust.optim import MetaOptimizer

ADAM, FUSED, SCALE = "Adam, foreach", "Adam, fused", "scaling in place"
SCHEDULE, NETWORK = "MetaOptimizer, a schedule", "MetaOptimizer, a network for each weight"
MOVED = {ADAM: 7, FUSED: 7, SCHEDULE: 7, NETWORK: 11, SCALE: 16}
"""Numbers of a coordinate that a step must read or write: weight, gradient and averages, two for Adam and a schedule,
four for a network; all but the gradient are written too. Scaling is of eight numbers, too many for any cache."""
COLUMNS: dict[str, type] = dict.fromkeys(("device", "network", "way"), str) | dict.fromkeys(("work", "rounds"), int)
COLUMNS |= dict.fromkeys(("seconds", "fastest", "slowest", "ratio", "share"), float)
"""ratio: seconds in units of Adam's. work: coordinate-steps. share: of the bandwidth."""


def measure(quick: bool) -> list[dict[str, Any]]:
    """A row for each way; on a GPU, too, where there is one."""
    width, rounds = (2, 2) if quick else (64, 9)
    devices = ["cpu", "cuda"] if torch.cuda.is_available() else ["cpu"]
    return [row for device in devices for row in stepping(width, rounds, device)]


def stepping(width: int, rounds: int, device: str) -> list[dict[str, Any]]:
    """Steps on a ResNet-18 of this width with random gradients, which stay the same; and the bandwidth."""
    optimizers: dict[str, Callable[[list[nn.Parameter]], torch.optim.Optimizer]] = {
        ADAM: partial(torch.optim.Adam, foreach=True),
        FUSED: partial(torch.optim.Adam, fused=True),
        SCHEDULE: partial(MetaOptimizer, optimizer="train", total_steps=rounds + 1),
        NETWORK: partial(MetaOptimizer, optimizer="patch-mnist", total_steps=rounds + 1),
    }
    steps: dict[str, Callable[[], Any]] = {}
    for way, make_optimizer in optimizers.items():
        params = resnet_parameters(width, device)
        steps[way] = make_optimizer(params).step
    count = sum(p.numel() for p in params)
    steps[SCALE] = partial(torch.ones(MOVED[SCALE] // 2 * count, device=device).mul_, 1.0)

    def finished(step: Callable[[], Any]) -> None:
        step()
        if device == "cuda":
            torch.cuda.synchronize()

    clock = time.process_time if device == "cpu" else time.perf_counter
    times, _ = interleaved({way: partial(finished, step) for way, step in steps.items()}, rounds, clock=clock)
    bandwidth = MOVED[SCALE] / median(times[SCALE])
    common = {"device": device, "network": "resnet18", "work": count}
    return [
        common | {"way": way, "share": MOVED[way] / row["seconds"] / bandwidth} | row
        for way, row in timed(times, ADAM).items()
    ]


def resnet_parameters(width: int, device: str) -> list[nn.Parameter]:
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


def tables(rows: Sequence[Row]) -> list[Table]:
    """Coordinate-steps per second."""
    lines = [["device", "step by", "million coordinates/s", "slowest to fastest", "times Adam", "share of bandwidth"]]
    for row in rows:
        lines.append([row["device"], row["way"], *pace(row, row["work"] / 1e6, ",.2f"), f"{100 * row['share']:.1f} %"])
    first = rows[0]
    return [(f"A ResNet-18 in shape, {first['work']:,} coordinate-steps: median of {first['rounds']} rounds", lines)]


STEPS = Bench("optimizers", "speed of MetaOptimizer beside Adam", (), COLUMNS, measure, tables)
