"""Deals the units of a run out to processes: whoever is free takes the next one that can be begun.

A unit can be begun when what it needs is there: a comparison needs the settings that tuning found or the optimizers
that were learned, an optimizer perhaps another one to begin from. Whoever computes a unit finds the same, to the bit on
one kind of processor, so that it does not matter who does.

Process 0 alone has the run's folder. It keeps its own rows at once, and what the others have left whenever it has ended
a unit of its own or stored a checkpoint; so a death costs what the others have found since then, and no more.
"""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor
from tqdm.auto import tqdm

from metarobust.lab.run_folder import Run
from metarobust.lab.stages import Stages, Unit
from metarobust.meta.sharing import Held, Share

Found = dict[str, list[dict[str, Any]]]
"""The rows of units, by the unit's name."""

PAUSE = 0.05
"""Seconds between two looks at what the others have found."""


@dataclass(frozen=True)
class Told:
    """What a process without a folder knows of the run, in place of the run: what the processes left for each other."""

    share: Share

    def restore(self, name: str) -> Held | None:
        """The last checkpoint of a meta-training, whoever made it."""
        return self.share.posted_checkpoint(name)

    stored = restore

    def save(self, name: str, tensors: Mapping[str, Tensor], about: Mapping[str, Any]) -> None:
        """Leaves a checkpoint for process 0 to keep, and for whoever needs what was learned."""
        self.share.post_checkpoint(name, (dict(tensors), dict(about)))

    def rows(self, name: str) -> list[dict[str, Any]]:
        """The rows of a unit that is finished."""
        return self.share.posted(name)


def deal(stages: Sequence[Stages], run: Run | None, share: Share, bar: tqdm) -> Found:
    """Does what is missing of the units of all stages: what learns first, then what tunes, then what compares.

    Returns the rows of all units where the folder is, and nothing elsewhere.
    """
    lessons = [unit for each in stages for unit in each.lessons()]
    others = [unit for kind in (Stages.tuning, Stages.comparisons) for each in stages for unit in kind(each)]
    units = [*lessons, *others]
    if run is None:
        help_with(units, stages, share)
        return {}
    found: Found = {}

    def keep(unit: Unit, compute: Callable[[], list[dict[str, Any]]]) -> None:
        found[unit.name] = run.unit(unit.name, compute)
        bar.update(unit.weight)

    for unit in units:
        if run.finished(unit.name):
            keep(unit, unit.compute)
    missing = [unit for unit in units if unit.name not in found]
    kept = leave(missing, {unit.name for unit in lessons}, run, share) if share.size > 1 else {}
    share.tell([unit.name for unit in missing])
    elsewhere = {unit.name: unit for unit in missing}

    def collect() -> None:
        for name, unit in list(elsewhere.items()):
            rows = share.posted(name)  # asked for first: the last checkpoint is left before the rows are
            if unit in lessons and share.taken(name):
                held = share.posted_checkpoint(name)
                if held is not None and held[1]["episode"] > kept.get(name, 0):
                    run.save(name, *held)
                    kept[name] = held[1]["episode"]
            if rows is not None:
                del elsewhere[name]
                keep(unit, lambda rows=rows: rows)

    for each in stages:
        each.after_save = collect
    for unit in turns(missing, share, collect):
        bar.set_postfix_str(unit.name)
        del elsewhere[unit.name]
        collect()  # what it needs may be elsewhere
        keep(unit, unit.compute)
        if unit in lessons and share.size > 1:
            share.post_checkpoint(unit.name, run.stored(unit.name))
        share.post(unit.name, found[unit.name])
    while elsewhere:
        bar.set_postfix_str("waiting for the other processes")
        time.sleep(PAUSE)
        collect()
    return {unit.name: found[unit.name] for unit in units}


def help_with(units: Sequence[Unit], stages: Sequence[Stages], share: Share) -> None:
    """What a process without a folder does: units that process 0 says are missing, one after the other."""
    missing = set(share.tell())
    for each in stages:
        each.run, each.quiet = Told(share), True
    for unit in turns([unit for unit in units if unit.name in missing], share, lambda: None):
        share.post(unit.name, unit.compute())


def turns(units: Sequence[Unit], share: Share, meanwhile: Callable[[], None]) -> Iterator[Unit]:
    """Of units that all processes list alike: each the next one that nobody has taken and that can be begun, until
    none is left. meanwhile: called while all that are left wait for others.
    """
    left = list(units)
    while left:
        left = [unit for unit in left if not share.taken(unit.name)]
        ready = next((unit for unit in left if share.size == 1 or all(map(share.is_posted, unit.needs))), None)
        if ready is not None:
            left.remove(ready)
            if share.take(ready.name):
                yield ready
        elif left:
            meanwhile()
            time.sleep(PAUSE)


def leave(missing: Sequence[Unit], lessons: set[str], run: Run, share: Share) -> dict[str, int]:
    """What a run that goes on has already: rows and optimizers that others need, and where meta-trainings stopped.

    Returns the episode of each checkpoint of the last.
    """
    names, stopped = {unit.name for unit in missing}, {}
    for name in sorted({need for unit in missing for need in unit.needs} - names):
        if name in lessons:
            share.post_checkpoint(name, run.stored(name))
        share.post(name, run.rows(name))
    for name in sorted(names & lessons):
        held = run.restore(name)
        if held is not None:
            share.post_checkpoint(name, held)
            stopped[name] = held[1]["episode"]
    return stopped
