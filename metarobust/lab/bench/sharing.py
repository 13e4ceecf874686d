"""How much sooner a meta-training ends when processes share it: wall time with N processes beside that with one.

    speed-up = seconds of one / seconds of N,    efficiency = speed-up / N

Both do the same work to the end: the plan has as many groups of tasks as there are processes, all of one architecture,
so that what is measured is the cost of sharing and not the luck of the draw. Time is taken once every process is there
and has done one episode; what it takes to come so far is told beside it. The rounds take turns, for what else the
machine does hits both alike. Processor time is taken too, which a busy machine changes less: where all processes
together need no more of it than one, cores that are free would make the speed-up N.

`python -m metarobust.lab.bench.sharing EPISODES GROUPS` is one such meta-training; torchrun starts several of it.
"""

import json
import os
import shlex
import subprocess
import sys
import time
from dataclasses import replace
from statistics import median
from typing import Any

import torch

from metarobust.data import Split
from metarobust.errors import InputError
from metarobust.family import Family
from metarobust.lab.bench.timing import interleaved, ratio
from metarobust.learned.mlp import FeatureMLP
from metarobust.meta import MetaTrainConfig, generator_of, meta_train
from metarobust.meta.sharing import joined
from metarobust.objectives import Adversarial, Mixed, clean


def efficiency(processes: int = 2, *, episodes: int = 30, rounds: int = 3) -> dict[str, Any]:
    """Measures on this machine's CPU, one thread a process.

    episodes: thirty take one process some twenty seconds. Returns the seconds of every round by number of processes
    (`one`, `shared`), medians of the seconds before that (`start_one`, `start_shared`), the median ratio (`speed_up`),
    `efficiency`, and `processor_time`, that of all processes by that of one, a median too. Raises InputError for fewer
    than 2 processes, and where a process fails.
    """
    if processes < 2:
        raise InputError(f"processes {processes}: give at least 2, for one has nothing to share")
    ways = {"one": lambda: _measure(1, episodes, processes), "shared": lambda: _measure(processes, episodes, processes)}
    found: dict[str, dict[str, list[float]]] = {key: {name: [] for name in ways} for key in ("seconds", "cpu")}

    def measured(name: str) -> None:
        for key, value in ways[name]().items():
            found[key][name].append(value)

    whole, _ = interleaved({name: lambda n=name: measured(n) for name in ways}, rounds, warm_up=0)
    seconds = found["seconds"]
    speed_up = ratio(seconds, "one", "shared")
    return {
        "processes": processes, "cores": os.cpu_count(), "episodes": episodes, **seconds,
        **{f"start_{n}": median(w - s for w, s in zip(whole[n], seconds[n], strict=True)) for n in ways},
        "speed_up": speed_up, "efficiency": speed_up / processes,
        "processor_time": ratio(found["cpu"], "shared", "one"),
    }  # fmt: skip


def _measure(processes: int, episodes: int, groups: int) -> dict[str, float]:
    """Seconds of a meta-training by so many processes, and the processor seconds of all of them."""
    start = ["torch.distributed.run", "--standalone", "--nproc-per-node", str(processes), "-m"] if processes > 1 else []
    command = [sys.executable, "-m", *start, "metarobust.lab.bench.sharing", str(episodes), str(groups)]
    done = subprocess.run(command, env=os.environ | {"OMP_NUM_THREADS": "1"}, capture_output=True, text=True)
    if done.returncode:
        raise InputError(f"a meta-training by {processes} process(es) failed; see why: {shlex.join(command[1:])}")
    return json.loads(done.stdout)


def _train(episodes: int, groups: int) -> None:
    """One meta-training on drawn images, and its seconds as JSON."""
    torch.set_num_threads(1)
    rng = generator_of("cpu", 0)
    pool = Split(torch.rand(400, 1, 8, 8, generator=rng), torch.randint(10, (400,), generator=rng))
    family = Family(("mlp-48-relu",), pool, 10, 200)
    plan = MetaTrainConfig(episodes=episodes, horizons=(20,), truncation=10, groups=groups, tasks=8)
    optimizer = FeatureMLP(generator=torch.Generator().manual_seed(0))
    with joined() as share:
        how = {"inner": clean, "meta": Mixed(Adversarial(0.1, 4), 0.5), "seed": 0, "share": share}
        meta_train(optimizer, family.sample, replace(plan, episodes=1), **how)  # the first loads and connects
        start, cpu = time.perf_counter(), time.process_time()
        meta_train(optimizer, family.sample, plan, **how)
        seconds = time.perf_counter() - start
        _, cpu = share.sum([torch.zeros(())], time.process_time() - cpu)
    if share.rank == 0:
        print(json.dumps({"seconds": seconds, "cpu": cpu}))


if __name__ == "__main__":
    _train(*map(int, sys.argv[1:]))
