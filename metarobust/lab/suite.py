"""All experiments, one after the other: what is complete is left, what is not is resumed, what fails stops no other."""

import os
import time
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path

from metarobust import data
from metarobust.errors import InputError
from metarobust.lab import EXPERIMENTS
from metarobust.lab.results import load_results
from metarobust.lab.running import default_folder, pick_device, run
from metarobust.storage import read_json

ALL = "all"


def run_all(
    *,
    scale: str,
    dataset: str,
    seeds: Sequence[int] | None = None,
    device: str = "auto",
    data_root: str | Path | None = None,
    out: Path = Path("runs"),
    say: Callable[[str], None],
) -> None:
    """Runs each experiment at a scale on a data set into its own folder below `out`.

    say: told in a line what comes next, and at the end what became of each. An experiment that refuses the data set or
    the scale is such a line, too; of an error that is nobody's input the traceback goes to standard error.
    Raises InputError for an unknown data set or device before anything is run, under torchrun, and at the end where
    an experiment is not complete.
    """
    if os.environ.get("WORLD_SIZE", "1") != "1":
        raise InputError("run all works in one process; start torchrun for one experiment at a time")
    data.check_name(dataset)
    pick_device(device)
    what: dict[str, str] = {}
    left: list[str] = []
    for number, name in enumerate(EXPERIMENTS, start=1):
        folder = out / default_folder(name, dataset, scale).name
        after = ", ".join(list(EXPERIMENTS)[number:])
        say(f"[{number}/{len(EXPERIMENTS)}] {name} on {dataset}, {scale}" + (f"; then {after}" if after else ""))
        began = time.perf_counter()
        try:
            if complete(name, scale, dataset, seeds, folder):
                what[name] = f"was complete: {folder}"
                continue
            run(
                name, scale=scale, dataset=dataset, seeds=seeds, device=device, data_root=data_root, out=folder,
                resume=True,
            )  # fmt: skip
            what[name] = f"done in {(time.perf_counter() - began) / 60:.1f} min: {folder}"
        except (InputError, OSError) as error:
            what[name] = f"not done: {' '.join(str(error).split())}"
            left.append(name)
        except Exception as error:  # the others are worth having, whatever went wrong here
            traceback.print_exc()
            what[name] = f"failed: {type(error).__name__}: {' '.join(str(error).split())}"
            left.append(name)
    width = max(map(len, what))
    for name, became in what.items():
        say(f"{name:{width}}  {became}")
    if left:
        raise InputError(f"{len(left)} of {len(what)} experiments are not complete: {', '.join(left)}; see above")


def complete(name: str, scale: str, dataset: str, seeds: Sequence[int] | None, folder: Path) -> bool:
    """Whether the folder holds this very run, finished and whole, by whatever version of the code.

    Raises InputError where the experiment has no such scale, or where another run or a damaged one is in the folder.
    """
    experiment = EXPERIMENTS[name]
    if scale not in experiment.SCALES:
        raise InputError(f"there is no scale {scale!r}; {name} has {', '.join(experiment.SCALES)}")
    if not (folder / "manifest.json").exists() or read_json(folder / "manifest.json")["status"] != "complete":
        return False
    manifest, _ = load_results(folder)
    if not same(manifest["spec"], experiment.make_spec(scale, dataset, list(seeds) if seeds else None)):
        raise InputError(f"{folder} holds a run with another specification; choose another --out")
    return True


def same(stored: object, made: object) -> bool:
    """Whether two specifications agree, where a tuple equals the list that it was stored as."""
    if isinstance(stored, dict) and isinstance(made, dict):
        return stored.keys() == made.keys() and all(same(stored[key], made[key]) for key in stored)
    if isinstance(stored, list) and isinstance(made, (list, tuple)):
        return len(stored) == len(made) and all(map(same, stored, made))
    return stored == made
