"""What robustness costs: seconds, model evaluations and adversarial examples, meta-training included and amortised.

A learned optimizer that comes along patches trained networks which neither it nor any tuning has seen, and so do plain
rules and adversarial training. Each baseline is tuned by a search of the same number of settings; the learned optimizer
has none to tune, and its meta-training is counted instead. After how many models does that pay?

Rows of results.csv, by `part`:

    before, short, long         clean and robust accuracy of each seed at marks of steps, and a model's cost until then
    meta-training, search       what is paid once; step: episodes, or steps of each setting's run
    half-gain, most-gain, as-learned    targets: what each way needs to reach it (inf: it never does), and the number of
                                models after which meta-training has paid (inf: it never has), see `payback`

A metric with "seconds" in its name is measured time or comes of it, and is another in each run; all others are the
same. On a CPU they are seconds of the processor, of all threads together, and on a GPU seconds of the wall. Marks of
the short run are of settings tuned for it, and those of the long run of settings tuned for that. The search's one run
of each setting is as long as the long run, which matters for noise that falls over the run alone. The learned
optimizer's long run is longer than those that it was meta-trained for.
"""

from collections.abc import Callable, Mapping
from typing import Any

from metarobust.data import Dataset
from metarobust.lab.cost.each import before, seconds, steps
from metarobust.lab.cost.one_off import Setting, meta_training, search
from metarobust.lab.cost.payback import break_even, curve, derived, once, value_of
from metarobust.lab.cost.spec import NAME, RIVALS, SCALES, SUMMARY, Spec, make_spec
from metarobust.lab.cost.text import brief, markdown, table
from metarobust.lab.engine import Rows, Unit, Worker
from metarobust.lab.passes import Passes, counted
from metarobust.lab.results import LEARNED
from metarobust.lab.spec import check_data, from_dict, network_kind, slug
from metarobust.lab.stages.tune import best_point

__all__ = [
    "NAME", "SCALES", "SUMMARY", "Passes", "break_even", "brief", "collect", "counted", "curve", "make_spec",
    "markdown", "once", "table", "units", "value_of",
]  # fmt: skip


def units(spec: Mapping[str, Any], dataset: Dataset) -> list[Unit]:
    """What is paid once, then what each step of a patch costs and brings."""
    frozen: Spec = from_dict(Spec, spec)
    check_data(frozen.setting, dataset)
    networks, work = frozen.setting.unseen, []

    def add(name: str, *stage: Any, needs: tuple[str, ...] = ()) -> None:
        work.append(Unit(name, at_work, stage, needs))

    def searched(name: str, kind: str) -> str:
        return f"search.{slug(name)}.{kind}"

    add("meta-training", meta_training)
    for kind in dict.fromkeys(map(network_kind, networks)):
        for name in RIVALS:
            add(searched(name, kind), search, name, kind)
    for network in networks:
        needs = {name: searched(name, network_kind(network)) for name in RIVALS}
        add(f"{network}.before", before, network)
        for name in (LEARNED, *RIVALS):
            add(f"{network}.{slug(name)}", steps, network, name, needs=(needs[name],) if name in needs else ())
        add(f"{network}.seconds", seconds, network, needs=tuple(needs.values()))
    return work


def at_work(worker: Worker, stage: Callable[..., Rows], *arguments: Any) -> Rows:
    """Unit: a stage with what all units share."""
    return stage(worker.once("cost", lambda: Setting(worker)), *arguments)


def collect(spec: Mapping[str, Any], rows: Mapping[str, Rows]) -> tuple[Rows, dict[str, Any]]:
    """The table, with what it takes to reach each target; the best settings; and the pieces of meta-training."""
    frozen: Spec = from_dict(Spec, spec)
    summary: dict[str, Any] = {"tuned": {}, "meta-training": rows["meta-training"][-1]}
    for name, each in rows.items():
        for step in frozen.horizons:
            if points := [row for row in each if f"score {step}" in row]:
                summary["tuned"][f"{name}.{step}"] = best_point(points, str(step))
    measured = [row for each in rows.values() for row in each if "metric" in row]
    return [*measured, *derived(measured, frozen.horizons[0], frozen.max_clean_drop)], summary
