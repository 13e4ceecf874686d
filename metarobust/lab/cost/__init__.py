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

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from metarobust.data import Dataset
from metarobust.lab.cost import spec as cost_spec
from metarobust.lab.cost.break_even import derived
from metarobust.lab.cost.spec import NAME, SCALES, Spec, rivals
from metarobust.lab.cost.stages import Costs
from metarobust.lab.cost.text import brief, markdown, table
from metarobust.lab.engine import Rows, Unit, Worker
from metarobust.lab.results import LEARNED
from metarobust.lab.spec import from_dict, slug
from metarobust.lab.spec import network_kind as kind
from metarobust.lab.stages.tune import best_point

__all__ = ["NAME", "SCALES", "SUMMARY", "brief", "collect", "make_spec", "markdown", "table", "units"]

SUMMARY = "what a given robustness costs, and after how many patched models meta-training has paid"


def make_spec(scale: str, dataset: str, seeds: list[int] | None) -> dict[str, Any]:
    """The frozen specification as JSON. Raises InputError for a data set without a learned optimizer of its own."""
    return asdict(cost_spec.make(scale, dataset, tuple(seeds) if seeds else None))


def units(spec: Mapping[str, Any], dataset: Dataset) -> list[Unit]:
    """The resumable pieces of work, in order."""
    frozen = from_dict(Spec, spec)
    work = [Unit("meta-training", do, ("meta_training",))]
    names = [method.name for method in rivals(frozen)]
    searches = {(name, kind(network)): None for network in frozen.networks for name in names}
    for name, group in searches:
        work.append(Unit(f"search.{slug(name)}.{group}", do, ("search", name, group)))
    for network in frozen.networks:
        needs = tuple(f"search.{slug(name)}.{kind(network)}" for name in names)
        work.append(Unit(f"{network}.before", do, ("before", network)))
        for name in (LEARNED, *names):
            mine = () if name == LEARNED else (f"search.{slug(name)}.{kind(network)}",)
            work.append(Unit(f"{network}.{slug(name)}", do, ("steps", network, name), mine))
        work.append(Unit(f"{network}.seconds", do, ("seconds", network), needs))
    return work


def do(worker: Worker, name: str, *arguments: str) -> Rows:
    """Unit: one of the methods of `Costs`, by name."""
    costs = worker.once("costs", lambda: Costs(from_dict(Spec, worker.spec), worker))
    return getattr(costs, name)(*arguments)


def collect(spec: Mapping[str, Any], rows: Mapping[str, Rows]) -> tuple[Rows, dict[str, Any]]:
    """The rows of all pieces, and what is derived of them."""
    frozen = from_dict(Spec, spec)
    table = [row for each in rows.values() for row in each if "metric" in row]
    summary: dict[str, Any] = {"tuned": {}}
    for name, each in rows.items():
        for step in frozen.horizons:
            if points := [row for row in each if f"score {step}" in row]:
                summary["tuned"][f"{name}.{step}"] = best_point(points, str(step))
        if "pieces" in each[-1]:
            summary["meta-training"] = each[-1]
    kinds = {network: kind(network) for network in frozen.networks}
    return table + derived(table, kinds, frozen.horizons[0], frozen.max_clean_drop), summary
