"""The engine: runs the units of an experiment, here, in several processes of this machine, or on a Dask cluster.

An experiment is a module, or any object, with

    NAME, SUMMARY, SCALES                            its name, a line that says what it asks, and the scales it has
    make_spec(scale, dataset, seeds, eps=None)       the frozen specification, a JSON object. It is stored in the run's
                                                     manifest, and what is executed is what is stored there
    units(spec, dataset) -> list[Unit]               what there is to do, in an order in which it could be done one by
                                                     one. Raises InputError where the data set will not do
    collect(spec, rows) -> (rows, summary)           the rows of results.csv (`run_folder.COLUMNS`) and the manifest's
                                                     summary, from the rows of every unit by its name
    table(frame), brief(frame), markdown(frame, part)   what is shown of a finished run, whose values are a DataFrame

A unit is a name, a function at the top of a module, and its arguments; all of it must pickle. The function gets a
`Worker`, from which it takes spec, data, device, the rows of the units that it needs, and checkpoints:

    def tune(worker: Worker, method: str) -> list[dict]:
        context = worker.once("context", lambda: Context(from_dict(Spec, worker.spec), worker.dataset))
        ...
    Unit("tune.adam", tune, ("adam",))
    Unit("compare.adam", compare, ("adam",), needs=("tune.adam",))       # calls worker.rows("tune.adam")

Every unit computes with one thread and draws from streams of its own, so that the table is the same, to the byte,
whoever computes what; more cores are used by more workers. The rows of a unit are stored as soon as it is finished, and
a unit of a worker that died is computed again, from its checkpoint where it has one.
"""

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, BrokenExecutor, Executor, wait
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from joblib.externals.loky import get_reusable_executor
from tqdm.auto import tqdm

from metarobust.data import Dataset, load
from metarobust.errors import InputError
from metarobust.lab.provenance import code
from metarobust.lab.run_folder import Run, Units

Rows = list[dict[str, Any]]

DEATHS = 3
"""So often a worker may die before the run is given up."""


@dataclass(frozen=True)
class Unit:
    """A piece of work that is finished as a whole.

    Args:
        name: Of letters, digits and . _ = + -; its rows are stored under it.
        function: Called with a `Worker` and the arguments; returns rows, dictionaries of JSON values.
        arguments: What else it is called with.
        needs: The names of units that have to be finished before it.
        weight: Its rough share of the time, for the bar of progress.
    """

    name: str
    function: Callable[..., Rows]
    arguments: tuple[Any, ...] = ()
    needs: tuple[str, ...] = ()
    weight: int = 1


class Worker(Units):
    """What the function of a unit works with, one for each process: units and checkpoints of the run, data and device.

    Args:
        out: The folder of the run.
        dataset: Its images, on the device.
        device: Where to compute.
        quiet: Whether other workers show their progress in the same place, so that this one had better not.
    """

    def __init__(self, out: Path, dataset: Dataset, device: torch.device, *, quiet: bool = False):
        super().__init__(out)
        self.dataset, self.device, self.quiet = dataset, device, quiet
        self._kept: dict[Any, Any] = {}

    @property
    def spec(self) -> dict[str, Any]:
        """The frozen specification, as the manifest holds it."""
        return self.manifest["spec"]

    def once(self, key: Any, make: Callable[[], Any]) -> Any:
        """`make()` the first time that a process asks for the key, and the same object from then on."""
        if key not in self._kept:
            self._kept[key] = make()
        return self._kept[key]


def complete(experiment: Any, run: Run, dataset: Dataset, device: torch.device, **pool: Any) -> None:
    """Computes what is missing of an experiment's run and writes its table. pool: as the options of `execute`."""
    rows = execute(experiment.units(run.spec, dataset), run, dataset, device, **pool)
    run.finish(*experiment.collect(run.spec, rows))


def execute(
    units: Sequence[Unit], run: Run, dataset: Dataset, device: torch.device, *, workers: int = 1, cluster: str = ""
) -> dict[str, Rows]:
    """Computes what is missing of a run and stores it, unit by unit.

    Args:
        units: All units of the run, each behind those that it needs.
        run: The folder; what it holds already is kept.
        dataset: The images, which workers of other processes load for themselves.
        device: Where to compute; workers on a machine with several GPUs take turns.
        workers: Processes on this machine. One is this process itself.
        cluster: The address of a Dask scheduler, such as `tcp://host:8786`, whose workers are used instead. They need
            the same code, the folder of the run, and the data set.

    Returns:
        The rows of every unit, by its name.

    Raises:
        InputError: Where workers die again and again, or a cluster cannot be reached or has other code.
    """
    rows: dict[str, Rows] = {}
    with tqdm(total=sum(unit.weight for unit in units), desc=run.spec["experiment"], unit="unit") as bar:

        def keep(unit: Unit, computed: Rows | None = None) -> None:
            rows[unit.name] = run.rows(unit.name) if computed is None else run.keep(unit.name, computed)
            bar.update(unit.weight)

        for unit in units:
            if run.finished(unit.name):
                keep(unit)
        missing = [unit for unit in units if unit.name not in rows]
        if workers > 1 or cluster:
            place = (run.out.resolve(), dataset.name, dataset.root, device.type)
            _share_out(missing, keep, place, cluster, workers)
        else:
            worker = Worker(run.out, dataset, device)
            for unit in missing:
                bar.set_postfix_str(unit.name)
                keep(unit, _call(unit, worker))
    return {unit.name: rows[unit.name] for unit in units}


def _share_out(
    units: Sequence[Unit], keep: Callable[[Unit, Rows], None], place: tuple[Any, ...], cluster: str, workers: int
) -> None:
    """Gives each worker that is free the first unit that can be begun, until none is left."""
    left, running, deaths = {unit.name: unit for unit in units}, {}, 0
    with _pool(cluster, workers) as (pool, size):
        executor = pool()
        while left or running:
            waited_for = left.keys() | {unit.name for unit in running.values()}
            ready = [unit for unit in left.values() if waited_for.isdisjoint(unit.needs)]
            try:
                for unit in ready[: max(0, size() - len(running))]:
                    running[executor.submit(_compute, unit, *place)] = unit
                    del left[unit.name]
                if not running:  # of a cluster, whose workers are on their way
                    time.sleep(0.1)
                    continue
                done, _ = wait(running, return_when=FIRST_COMPLETED)
                for future in done:
                    keep(running[future], future.result())
                    del running[future]
            except BrokenExecutor as error:  # a process was killed, and took with it what all others were at
                deaths += 1
                names = sorted(unit.name for unit in running.values())
                if deaths > DEATHS:
                    message = f"workers died {deaths} times, the last time at {', '.join(names)}: give fewer --workers"
                    raise InputError(f"{message}, and --resume") from error
                left = {unit.name: unit for unit in units if unit.name in left or unit.name in names}
                running, executor = {}, pool()


@contextmanager
def _pool(cluster: str, workers: int) -> Iterator[tuple[Callable[[], Executor], Callable[[], int]]]:
    """A function that gives an executor, a new one where the last is broken; and one that counts its workers."""
    if not cluster:
        options = {"initializer": _begin, "initargs": (os.getpid(),), "env": {"OMP_NUM_THREADS": "1"}, "timeout": None}
        try:
            yield lambda: get_reusable_executor(workers, **options), lambda: workers
        finally:
            get_reusable_executor(workers, **options).shutdown(kill_workers=True)
        return
    try:
        from distributed import Client  # whoever has one machine does without
    except ImportError:
        raise InputError("--cluster needs dask.distributed: pip install distributed") from None
    try:
        client = Client(cluster, timeout=10)
    except (OSError, ValueError) as error:
        raise InputError(f"no Dask scheduler answers at {cluster} ({error}); start one, or leave --cluster") from None
    with client:
        if any(threads != 1 for threads in client.nthreads().values()):
            raise InputError(f"workers of {cluster} have several threads; start them with --nthreads 1")
        yield lambda: client.get_executor(pure=False), lambda: len(client.nthreads())


def _begin(parent: int) -> None:
    """In a new worker: Ctrl-C is its parent's to answer, and it ends where its parent has been killed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(0.5)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _compute(unit: Unit, folder: Path, dataset: str, root: Path | None, device: str) -> Rows:
    return _call(unit, _worker(folder, dataset, root, device))


def _call(unit: Unit, worker: Worker) -> Rows:
    # On a GPU: convolutions of full precision, by algorithms that give the same numbers each time.
    threads = torch.get_num_threads()
    exact = torch.backends.cudnn.flags(enabled=True, deterministic=True, allow_tf32=False)
    torch.set_num_threads(1)
    try:
        with exact:
            return unit.function(worker, *unit.arguments)
    finally:
        torch.set_num_threads(threads)


@lru_cache(maxsize=1)
def _worker(folder: Path, dataset: str, root: Path | None, device: str) -> Worker:
    """The worker of this process, out of what the folder says of the run."""
    place = torch.device(device, os.getpid() % torch.cuda.device_count()) if device == "cuda" else torch.device(device)
    worker = Worker(folder, load(dataset, root, place), place, quiet=True)
    if worker.manifest["code"]["sha256"] != code()["sha256"]:
        raise InputError("a worker has other code of metarobust than the run; install the same version everywhere")
    if worker.manifest["data_sha256"] != worker.dataset.sha256:
        raise InputError(f"a worker has other images of {dataset} than the run; give all of them the same files")
    return worker
