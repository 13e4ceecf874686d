"""Runs an experiment by name into a folder: what the command line and the notebooks call."""

import platform
import shlex
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock, Timeout

from metarobust import data
from metarobust.errors import InputError, choose
from metarobust.lab import EXPERIMENTS
from metarobust.lab.comparison import Comparison
from metarobust.lab.results import load_results
from metarobust.lab.run_folder import LOCK, Run
from metarobust.meta.sharing import Share, joined


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
) -> tuple[Path, dict[str, Any], list[dict[str, Any]]]:
    """Runs what is missing of an experiment and returns its folder, manifest and rows.

    eps: the radius of attacks in pixel units, where not that of the data set.
    out: the folder; `runs/NAME-DATASET-SCALE` if None. resume: go on with the run that the folder holds.
    Under torchrun, processes share the work; only process 0 returns, the others leave with exit code 0.
    Raises InputError for an unknown name, scale, data set or device, seeds given twice, a radius that is none, or
    for an experiment with one of its own, a folder with another run, or processes that have nothing to share or have
    ended.
    """
    # On a GPU: convolutions of full precision, by algorithms that give the same numbers each time.
    exact = torch.backends.cudnn.flags(enabled=True, deterministic=True, allow_tf32=False)
    with joined() as share, exact:
        found = _run(name, scale, dataset, seeds, eps, device, data_root, out, resume, share)
    if found is None:
        raise SystemExit(0)
    return found


def _run(
    name: str,
    scale: str,
    dataset: str,
    seeds: Sequence[int] | None,
    eps: float | None,
    device: str,
    data_root: str | Path | None,
    out: str | Path | None,
    resume: bool,
    share: Share,
) -> tuple[Path, dict[str, Any], list[dict[str, Any]]] | None:
    """`run` for one of the processes; None at those that only help."""
    experiment = EXPERIMENTS[choose(name, EXPERIMENTS, "experiment")]
    choose(scale, experiment.SCALES, f"scale of {name}")
    data.check_name(dataset)
    where = share.device(pick_device(device))
    if share.size > 1 and not isinstance(experiment, Comparison):
        raise InputError(f"{name} works in one process; start it without torchrun")
    if seeds and len(set(seeds)) < len(seeds):
        raise InputError(f"--seed {' '.join(map(str, seeds))}: a seed is given twice; give each once")
    given = (scale, dataset, list(seeds) if seeds else None)
    if eps is None:
        spec = experiment.make_spec(*given)
    elif isinstance(experiment, Comparison):
        spec = experiment.make_spec(*given, eps)
    else:
        raise InputError(f"{name} has a radius of its own; leave --eps {eps:g} out")
    folder = Path(out) if out else default_folder(name, dataset, scale)
    if share.rank > 0:
        share.tell()  # process 0 comes first: a data set is downloaded once
        found = data.load(dataset, data_root, where)
        if share.tell():
            experiment.execute(spec, None, found, where, share)
        return None
    found = data.load(dataset, data_root, where)
    share.tell()
    hardware = torch.cuda.get_device_name(where) if where.type == "cuda" else platform.machine()
    about = {
        "device": {"type": where.type, "name": hardware},
        "threads": torch.get_num_threads(),
        "processes": share.size,
        "data_sha256": found.sha256,
        "command": _command(name, scale, dataset, seeds, eps, device, share.size),
    }
    with only_writer(folder):
        current = Run(folder, spec, resume=resume, about=about)
        if share.tell(not current.complete):
            experiment.execute(spec, current, found, where, share)
        return folder, *load_results(folder)


def default_folder(name: str, dataset: str, scale: str) -> Path:
    """Where a run goes if nothing else is said: `runs/NAME-DATASET-SCALE`."""
    return Path("runs") / f"{name}-{_slug(dataset)}-{scale}"


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
    name: str,
    scale: str,
    dataset: str,
    seeds: Sequence[int] | None,
    eps: float | None,
    device: str,
    processes: int,
) -> str:
    # Without --data and --out: they name places on one machine, and the manifest is shown to others.
    kind, _, path = dataset.partition(":")
    shown = f"{kind}:{Path(path).name}" if path else kind
    start = ["torchrun", "--nproc-per-node", str(processes), "-m"] if processes > 1 else []
    words = [*start, "metarobust", "run", name, "--scale", scale, "--dataset", shown, "--device", device]
    radius = [] if eps is None else ["--eps", f"{eps:.6g}"]
    return shlex.join([*words, *radius, *(["--seed", *map(str, seeds)] if seeds else [])])


def _slug(dataset: str) -> str:
    kind, _, path = dataset.partition(":")
    return f"{kind}-{Path(path).expanduser().resolve().name}" if path else kind
