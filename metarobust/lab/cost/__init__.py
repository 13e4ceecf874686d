"""What robustness costs: seconds, model evaluations and adversarial examples, meta-training included and amortised.

A learned optimizer that comes along patches trained networks which neither it nor any tuning has seen, and so do plain
rules and adversarial training. Each baseline is tuned by a search of the same number of settings; the learned optimizer
has none to tune, and its meta-training is counted instead. After how many models does that pay?

Rows of results.csv, by `part`:

    before, short, long         clean and robust accuracy of each seed at marks of steps, and a model's cost until then
    meta-training, search       what is paid once; step: episodes, or steps of each setting's run
    half-gain, most-gain, as-learned    targets: what each way needs to reach it (inf: it never does), and the number of
                                models after which meta-training has paid (inf: it never has), see `break_even`

A metric with "seconds" in its name is measured time or comes of it, and is another in each run; all others are the
same. On a CPU they are seconds of the processor, of all threads together, and on a GPU seconds of the wall. Marks of
the short run are of settings tuned for it, and those of the long run of settings tuned for that. The search's one run
of each setting is as long as the long run, which matters for noise that falls over the run alone. The learned
optimizer's long run is longer than those that it was meta-trained for.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from tqdm.auto import tqdm

from metarobust.data import Dataset
from metarobust.lab.cost import spec as cost_spec
from metarobust.lab.cost.break_even import derived
from metarobust.lab.cost.spec import NAME, SCALES
from metarobust.lab.cost.stages import Costs
from metarobust.lab.cost.text import brief, markdown, table
from metarobust.lab.learning import slug
from metarobust.lab.run_folder import COLUMNS, Run
from metarobust.lab.table import LEARNED
from metarobust.lab.tuning import best_point, kind
from metarobust.meta import ALONE, Share

__all__ = ["NAME", "SCALES", "SUMMARY", "brief", "execute", "make_spec", "markdown", "table"]

SUMMARY = "what a given robustness costs, and after how many patched models meta-training has paid"


def make_spec(scale: str, dataset: str, seeds: list[int] | None) -> dict[str, Any]:
    """The frozen specification as JSON. Raises InputError for a data set without a learned optimizer of its own."""
    return cost_spec.as_dict(cost_spec.make(scale, dataset, tuple(seeds) if seeds else None))


def execute(spec: dict[str, Any], run: Run, dataset: Dataset, device: torch.device, share: Share = ALONE) -> None:
    """Measures what is missing, unit by unit, and writes the table. share: of one process."""
    numbers = cost_spec.make(spec["scale"], spec["dataset"], tuple(spec["seeds"]))
    stages = Costs(numbers, run, dataset, device)
    kinds = {network: kind(network) for network in numbers.networks}
    rows: list[dict[str, Any]] = []
    summary: dict[str, Any] = {"tuned": {}}
    work = units(stages, kinds)
    with tqdm(total=len(work), desc=NAME, unit="unit") as bar:
        for name, compute in work.items():
            bar.set_postfix_str(name)
            found = run.unit(name, compute)
            rows += [row for row in found if "metric" in row]
            for step in numbers.horizons:
                if points := [row for row in found if f"score {step}" in row]:
                    summary["tuned"][f"{name}.{step}"] = best_point(points, str(step))
            if "pieces" in found[-1]:
                summary["meta-training"] = found[-1]
            bar.update()
    rows += derived(rows, kinds, numbers.horizons[0], numbers.max_clean_drop)
    run.finish(rows, COLUMNS, summary)


def units(stages: Costs, kinds: dict[str, str]) -> dict[str, Callable[[], list[dict[str, Any]]]]:
    """The resumable pieces of work by name, in order."""
    work: dict[str, Callable[[], list[dict[str, Any]]]] = {"meta-training": stages.meta_training}
    for group in dict.fromkeys(kinds.values()):
        for method in stages.rivals:
            work[f"search.{slug(method.name)}.{group}"] = partial(stages.search, method, group)
    for network in kinds:
        work[f"{network}.before"] = partial(stages.before, network)
        for name in (LEARNED, *(method.name for method in stages.rivals)):
            work[f"{network}.{slug(name)}"] = partial(stages.steps, network, name)
        work[f"{network}.seconds"] = partial(stages.seconds, network)
    return work
