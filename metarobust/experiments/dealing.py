"""Deals the units of a run out to processes: whoever is free takes the next one that nobody has.

Process 0 alone has the run's folder. It keeps its own rows at once, and those of the others whenever it has finished a
unit of its own; so a death costs what the others have found since then, and no more.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from tqdm.auto import tqdm

from metarobust.experiments.stages import Stages, Unit
from metarobust.meta.sharing import Held, Share
from metarobust.results import Run

Found = dict[str, list[dict[str, Any]]]
"""The rows of units, by the unit's name."""

PAUSE = 0.05
"""Seconds between two looks at what the others have found."""


@dataclass
class Told:
    """What a process without a folder knows of the run: the learned optimizers, and what tuning found."""

    held: dict[str, Held]
    found: Found

    def restore(self, name: str) -> Held:
        """The checkpoint of a learned optimizer."""
        return self.held[name]

    def rows(self, name: str) -> list[dict[str, Any]]:
        """The rows of a unit of tuning."""
        return self.found[name]


def learn_together(lessons: Sequence[Unit], run: Run | None, share: Share, bar: tqdm) -> None:
    """Does what is missing of the meta-trainings, each by all processes at once."""
    missing = share.tell(run and [unit.name for unit in lessons if not run.finished(unit.name)])
    for unit in lessons:
        bar.set_postfix_str(unit.name)
        if run:
            run.unit(unit.name, unit.compute)
        elif unit.name in missing:
            unit.compute()
        bar.update(unit.weight)


def deal(units: Sequence[Unit], run: Run | None, share: Share, bar: tqdm) -> Found:
    """Does what is missing of the units, each by one process. Returns the rows of all units where the folder is."""
    by_name = {unit.name: unit for unit in units}
    missing = share.tell(run and [name for name in by_name if not run.finished(name)])
    if run is None:
        for name in share.next_of(missing):
            share.post(name, by_name[name].compute())
        return {}
    found: Found = {}

    def keep(name: str, compute: Callable[[], list[dict[str, Any]]]) -> None:
        found[name] = run.unit(name, compute)
        bar.update(by_name[name].weight)

    def collect() -> None:
        for name in missing:
            if name not in found and (rows := share.posted(name)) is not None:
                keep(name, lambda rows=rows: rows)

    for name in by_name:
        if name not in missing:
            keep(name, by_name[name].compute)
    for name in share.next_of(missing):
        bar.set_postfix_str(name)
        keep(name, by_name[name].compute)
        collect()
    while len(found) < len(by_name):
        bar.set_postfix_str("waiting for the other processes")
        time.sleep(PAUSE)
        collect()
    return {name: found[name] for name in by_name}


def tell(stages: Sequence[Stages], tuned: Found, share: Share) -> None:
    """Gives the stages of the processes without a folder what they compare: learned optimizers, and tuned baselines."""
    if share.size == 1:
        return
    lessons = [(stage, unit.name) for stage in stages for unit in stage.lessons()]
    held = {name: share.hand_out(stage.run and stage.stored(name)) for stage, name in lessons}
    told = Told(held, share.tell(tuned))
    for stage in stages:
        stage.run = stage.run or told
