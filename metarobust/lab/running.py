"""Runs an experiment by name into a folder, or all of them: what the command line and the notebooks call."""

import inspect
import platform
import shlex
import time
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from filelock import FileLock, Timeout

from metarobust import data
from metarobust.errors import InputError, choose
from metarobust.lab import engine
from metarobust.lab.experiments import EXPERIMENTS
from metarobust.lab.results import load
from metarobust.lab.run_folder import LOCK, Run
from metarobust.storage import TEMPORARY


def run(
    name: str,
    *,
    scale: str = "small",
    dataset: str = "digits",
    seeds: Sequence[int] | None = None,
    eps: float | None = None,
    device: str = "auto",
    data_root: str | Path | None = None,
    out: str | Path | None = None,
    resume: bool = False,
    workers: int = 1,
    cluster: str = "",
) -> tuple[Path, dict[str, Any], pd.DataFrame]:
    """Runs what is missing of an experiment.

    Args:
        name: The experiment, see `metarobust list`.
        scale: `smoke`, `small` or `full`.
        dataset: A data set's name, see `metarobust.data.load`.
        seeds: Of the models that are compared; None for those of the scale.
        eps: The radius of attacks in pixel units, where not that of the data set.
        device: `auto`, `cpu` or `cuda`.
        data_root: The folder of the data sets.
        out: The run's folder; None for `runs/NAME-DATASET-SCALE`.
        resume: Whether to go on with the run that the folder holds.
        workers: Processes that compute, each with one thread.
        cluster: The address of a Dask scheduler whose workers compute instead.

    Returns:
        The folder, its manifest, and the rows of its table.

    Raises:
        InputError: For an unknown name, scale, data set or device, a seed given twice, a radius that is none or for an
            experiment with one of its own, a folder with another run, or workers that cannot do it.
    """
    experiment = EXPERIMENTS[choose(name, EXPERIMENTS, "experiment")]
    choose(scale, experiment.SCALES, f"scale of {name}")
    data.check_name(dataset)
    where = pick_device(device)
    if workers < 1:
        raise InputError(f"--workers {workers}: give a number of processes, 1 or more")
    if seeds and len(set(seeds)) < len(seeds):
        raise InputError(f"--seed {' '.join(map(str, seeds))}: a seed is given twice; give each once")
    if eps is not None and "eps" not in inspect.signature(experiment.make_spec).parameters:
        raise InputError(f"{name} has a radius of its own; leave --eps {eps:g} out")
    radius = {} if eps is None else {"eps": eps}
    spec = experiment.make_spec(scale, dataset, list(seeds) if seeds else None, **radius)
    folder = Path(out) if out else default_folder(name, dataset, scale)
    images = data.load(dataset, data_root, where)
    hardware = torch.cuda.get_device_name(where) if where.type == "cuda" else platform.machine()
    about = {
        "device": {"type": where.type, "name": hardware},
        "threads": 1,
        "workers": "a Dask cluster" if cluster else workers,
        "data_sha256": images.sha256,
        "command": _command(name, scale, dataset, seeds, eps, device, workers),
    }
    with only_writer(folder):
        current = Run(folder, spec, resume=resume, about=about)
        if not current.complete:
            engine.complete(experiment, current, images, where, workers=workers, cluster=cluster)
        return folder, *load(folder)


def run_all(*, scale: str, dataset: str, out: Path, **options: Any) -> None:
    """Runs each experiment into its own folder below `out`; what is complete is left, what is not goes on.

    It prints a line before each, and at the end what became of all.

    Args:
        scale: As for `run`, like the data set and the other options.
        dataset: As for `run`.
        out: Where the folders are.

    Raises:
        InputError: For an unknown data set or device, before anything is run, and at the end where an experiment is not
            complete, be it that it refuses the data set or that it failed, which leaves a traceback.
    """
    data.check_name(dataset)
    pick_device(options.get("device", "auto"))
    became, failed = {}, []
    for number, name in enumerate(EXPERIMENTS, start=1):
        folder = out / default_folder(name, dataset, scale).name
        after = f"; then {', '.join(list(EXPERIMENTS)[number:])}" if number < len(EXPERIMENTS) else ""
        print(f"[{number}/{len(EXPERIMENTS)}] {name} on {dataset}, {scale}{after}", flush=True)
        began = time.perf_counter()
        try:
            run(name, scale=scale, dataset=dataset, out=folder, resume=True, **options)
            became[name] = f"done in {(time.perf_counter() - began) / 60:.1f} min: {folder}"
        except (InputError, OSError) as error:
            became[name] = f"not done: {' '.join(str(error).split())}"
            failed.append(name)
        except Exception as error:  # the others are worth having, whatever went wrong here
            traceback.print_exc()
            became[name] = f"failed: {type(error).__name__}: {' '.join(str(error).split())}"
            failed.append(name)
    width = max(map(len, became))
    for name, line in became.items():
        print(f"{name:{width}}  {line}", flush=True)
    if failed:
        raise InputError(f"{len(failed)} of {len(became)} experiments are not complete: {', '.join(failed)}; see above")


def default_folder(name: str, dataset: str, scale: str) -> Path:
    """Where a run goes if nothing else is said: `runs/NAME-DATASET-SCALE`."""
    kind, _, path = dataset.partition(":")
    short = f"{kind}-{Path(path).expanduser().resolve().name}" if path else kind
    return Path("runs") / f"{name}-{short}-{scale}"


@contextmanager
def only_writer(folder: Path) -> Iterator[None]:
    """Raises InputError where another process is writing a run to the folder: each would undo the other's work."""
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder} is a file; choose another --out")
    lock = FileLock(folder / LOCK)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock.acquire(timeout=0)
    except Timeout:
        raise InputError(f"another process writes to {folder}; wait until it ends, or choose another --out") from None
    except OSError as error:
        raise InputError(f"{folder} cannot be written ({error.strerror}); choose another --out") from error
    try:
        for left in folder.rglob(f".*{TEMPORARY}"):  # of a process that was killed
            left.unlink(missing_ok=True)
        yield
    finally:
        (folder / LOCK).unlink(missing_ok=True)
        lock.release()


def pick_device(name: str) -> torch.device:
    """The device for `auto`, `cpu` or `cuda`. Raises InputError for others and without CUDA."""
    choose(name, ("auto", "cpu", "cuda"), "device")
    if name == "cuda" and not torch.cuda.is_available():
        raise InputError(f"device 'cuda': torch {torch.__version__} finds no CUDA device; give --device cpu or auto")
    return torch.device("cuda" if name != "cpu" and torch.cuda.is_available() else "cpu")


def _command(
    name: str, scale: str, dataset: str, seeds: Sequence[int] | None, eps: float | None, device: str, workers: int
) -> str:
    # Without --data, --out and --cluster: they name places on one machine, and the manifest is shown to others.
    kind, _, path = dataset.partition(":")
    shown = f"{kind}:{Path(path).name}" if path else kind
    words = ["metarobust", "run", name, "--scale", scale, "--dataset", shown, "--device", device]
    words += [] if eps is None else ["--eps", f"{eps:.6g}"]
    words += [] if workers == 1 else ["--workers", str(workers)]
    return shlex.join([*words, *(["--seed", *map(str, seeds)] if seeds else [])])
