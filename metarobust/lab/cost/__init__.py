"""What robustness costs: seconds, model evaluations and adversarial examples, meta-training included and amortised.

A learned optimizer that comes along patches trained networks which neither it nor any tuning has seen, and so do plain
rules and adversarial training. Each baseline is tuned by a search of the same number of settings; the learned optimizer
has none to tune, and its meta-training is counted instead. After how many models does that pay?

Rows of results.csv, by `part`:

    before, short, long         clean and robust accuracy of each seed at marks of steps, and a model's cost until then
    meta-training, search       what is paid once; step: episodes, or steps of each setting's run
    half-gain, most-gain, as-learned    targets: see `payback`

A metric with "seconds" in its name is measured time or comes of it, and is another in each run; all others are the
same. On a CPU they are seconds of the processor, of all threads together, and on a GPU seconds of the wall. Marks of
the short run are of settings tuned for it, and those of the long run of settings tuned for that. The search's one run
of each setting is as long as the long run, which matters for noise that falls over the run alone. The learned
optimizer's long run is longer than those that it was meta-trained for.
"""

from collections.abc import Callable, Mapping
from itertools import product
from typing import Any

from metarobust.data import Dataset
from metarobust.lab.cost.bill import break_even, brief, curve, derived, markdown, once, payback, table
from metarobust.lab.cost.spec import NAME, RIVALS, SUMMARY, Spec, make_spec
from metarobust.lab.cost.stages import Setting, before, meta_training, patch, search, search_name
from metarobust.lab.engine import Rows, Unit, Worker
from metarobust.lab.passes import Passes, counted
from metarobust.lab.results import LEARNED
from metarobust.lab.spec import SCALES, check_data, from_dict, network_kind, slug
from metarobust.lab.stages.tune import best_point

__all__ = [
    "NAME", "SCALES", "SUMMARY", "Passes", "break_even", "brief", "collect", "counted", "curve", "make_spec",
    "markdown", "once", "payback", "table", "units",
]  # fmt: skip


def units(spec: Mapping[str, Any], dataset: Dataset) -> list[Unit]:
    """What is paid once, then what each step of a patch costs and brings."""
    frozen: Spec = from_dict(Spec, spec)
    check_data(frozen.setting, dataset)
    networks = frozen.setting.unseen
    work = [Unit("meta-training", at_work, (meta_training,))]
    for kind, name in product(dict.fromkeys(map(network_kind, networks)), RIVALS):
        work.append(Unit(search_name(name, kind), at_work, (search, name, kind)))
    for network in networks:
        work.append(Unit(f"{network}.before", at_work, (before, network)))
        for name in (LEARNED, *RIVALS):
            needs = () if name == LEARNED else (search_name(name, network_kind(network)),)
            work.append(Unit(f"{network}.{slug(name)}", at_work, (patch, network, name), needs))
    return work


def at_work(worker: Worker, stage: Callable[..., Rows], *arguments: Any) -> Rows:
    """The function of a unit: a stage with what all units share."""
    return stage(worker.once("cost", lambda: Setting(worker)), *arguments)


def collect(spec: Mapping[str, Any], rows: Mapping[str, Rows]) -> tuple[Rows, dict[str, Any]]:
    """The table, with what it takes to reach each target; the best settings; and the pieces of meta-training."""
    summary: dict[str, Any] = {"tuned": {}, "meta-training": rows["meta-training"][-1]}
    for name, each in rows.items():
        for step in spec["horizons"]:
            if points := [row for row in each if f"score {step}" in row]:
                summary["tuned"][f"{name}.{step}"] = best_point(points, str(step))
    measured = [row for each in rows.values() for row in each if "metric" in row]
    return [*measured, *derived(measured)], summary
