"""The main experiment: what a meta-optimizer learned from adversarial examples, used where none are made.

1. Meta-train on a family of small networks: clean inner gradients, adversarial meta-loss.
2. Tune every baseline on validation networks, each over its whole grid.
3. On networks, seeds and test images that no meta-training, no tuning and no choice of ours looked at, patch trained
   models and train fresh ones, at equal steps and data, counting the adversarial examples that each method generates.
"""

from typing import Any

import torch
from tqdm.auto import tqdm

from metarobust.data import Dataset
from metarobust.experiments import spec as specs
from metarobust.experiments.spec import SCALES
from metarobust.experiments.stages import Stages
from metarobust.experiments.table import brief, markdown, table
from metarobust.results import COLUMNS, Run

__all__ = ["NAME", "SCALES", "SUMMARY", "brief", "execute", "make_spec", "markdown", "table"]

NAME = "transfer"
SUMMARY = "learn from adversarial examples once; patch and train unseen networks without any"


def make_spec(scale: str, dataset: str, seeds: list[int] | None) -> dict[str, Any]:
    """The frozen specification as JSON."""
    return specs.make(scale, dataset, tuple(seeds) if seeds else None).as_dict()


def execute(spec: dict[str, Any], run: Run, dataset: Dataset, device: torch.device) -> None:
    """Does what is missing of the run, unit by unit, and writes its table."""
    numbers = specs.make(spec["scale"], spec["dataset"], tuple(spec["seeds"]))
    specs.check_dataset(dataset.name, len(dataset.train), dataset.classes, numbers)
    work = [unit for part in numbers.parts for unit in Stages(numbers, part, run, dataset, device).units()]
    rows: list[dict[str, Any]] = []
    tuned: dict[str, Any] = {}
    with tqdm(total=sum(unit.weight for unit in work), desc="transfer", unit="unit") as bar:
        for unit in work:
            bar.set_postfix_str(unit.name)
            found = run.unit(unit.name, unit.compute)
            rows += [row for row in found if "metric" in row]
            if "score" in found[0]:
                tuned[unit.name] = max(found, key=lambda row: row["score"])
            bar.update(unit.weight)
    run.finish(rows, COLUMNS, {"tuned": tuned})
