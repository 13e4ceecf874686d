"""The main experiments: what a meta-optimizer learned from adversarial examples, used where none are made.

`patch` moves trained, vulnerable models; `train` starts from fresh ones; the others vary one thing each, see
`metarobust.lab.catalogue`. All go the same way:

1. Meta-train on a family of small networks: clean inner gradients, adversarial meta-loss.
2. Tune every baseline on validation networks, each over its whole grid.
3. On networks, seeds and test images that no meta-training, no tuning and no choice of ours looked at, patch trained
   models and train fresh ones, at equal steps and data, counting the adversarial examples that each method generates.
"""

from dataclasses import dataclass, replace
from typing import Any

import torch
from tqdm.auto import tqdm

from metarobust.data import Dataset, load
from metarobust.lab import catalogue
from metarobust.lab.dealing import deal
from metarobust.lab.run_folder import COLUMNS, Run
from metarobust.lab.spec import SCALES, Part, Spec, check_classes, check_size, sizes
from metarobust.lab.stages import Stages
from metarobust.lab.table import brief, markdown, table
from metarobust.lab.tuning import best_point, finalists
from metarobust.meta import ALONE, Share
from metarobust.storage import write_json

SEARCHES = "searches.json"
"""Beside the table of a run that scores the best settings of its searches again: these settings, with both scores."""

SUMMARIES = {
    "patch": "learn from adversarial examples once; patch unseen trained networks without any",
    "train": "learn from adversarial examples once; train unseen fresh networks without any",
    "trade-off": "patch at a lower price: the judge weighs robustness less; all seeds under the standard ensemble",
    "robust-training": "learned optimizer and plain ones, all on adversarial gradients: learning curves",
    "low-data": "train with few images a class; how much is lost from training to test images",
    "transfer-architecture": "patch networks of every kind; learn on some kinds only",
    "transfer-data": "learn on one data set, patch on another",
    "attack-transfer": "learn from one attack, stand others: other radii, norms and methods",
    "ablation": "take one thing at a time away: features, judge, estimator, family",
}


@dataclass(frozen=True)
class Comparison:
    """An experiment by name: what `metarobust run` and `metarobust show` ask of it."""

    NAME: str
    SCALES = SCALES
    brief = staticmethod(brief)
    markdown = staticmethod(markdown)
    table = staticmethod(table)

    @property
    def SUMMARY(self) -> str:
        return SUMMARIES[self.NAME]

    def make_spec(self, scale: str, dataset: str, seeds: list[int] | None, eps: float | None = None) -> dict[str, Any]:
        """The frozen specification as JSON. eps: where not that of the data set. Raises InputError for a bad one."""
        return catalogue.make(self.NAME, scale, dataset, tuple(seeds) if seeds else None, eps).as_dict()

    def execute(
        self, spec: dict[str, Any], run: Run | None, dataset: Dataset, device: torch.device, share: Share = ALONE
    ) -> None:
        """Does what is missing of the run, unit by unit, and writes its table.

        share: each process takes units of its own, and process 0, the only one that has the run, keeps what all have
        found.
        """
        numbers = catalogue.make(self.NAME, spec["scale"], spec["dataset"], tuple(spec["seeds"]), spec["eps"])
        smallest = catalogue.make(self.NAME, SCALES[0], spec["dataset"], None)
        check_size(dataset.name, len(dataset.train), dataset.classes, numbers, smallest)
        left = dataset.train.labels[numbers.meta_images :].bincount(minlength=dataset.classes)
        check_classes(dataset.name, left.tolist(), numbers)
        stages = [self._stages(numbers, part, run, dataset, device) for part in numbers.parts]
        kinds = (Stages.lessons, Stages.tuning, Stages.comparisons)
        lessons, tuning, comparisons = ([unit for each in stages for unit in kind(each)] for kind in kinds)
        weight = sum(unit.weight for unit in (*lessons, *tuning, *comparisons))
        with tqdm(total=weight, desc=self.NAME, unit="unit", disable=run is None) as bar:
            found = deal(stages, run, share, bar)
        share.leave()
        if run is None:
            return
        searches = {
            f"{unit.name}.{group}": (found[unit.name], group)
            for unit in tuning
            for group in (key.removeprefix("score ") for key in found[unit.name][0] if key.startswith("score "))
        }
        if numbers.deciding_seeds:
            again = {name: finalists(*search) for name, search in searches.items()}
            write_json(run.out / SEARCHES, {"spec_sha256": run.spec_sha256, "finalists": again})
        best = {name: best_point(*search) for name, search in searches.items()}
        run.finish([row for unit in comparisons for row in found[unit.name]], COLUMNS, {"tuned": best})

    @staticmethod
    def _stages(numbers: Spec, part: Part, run: Run | None, dataset: Dataset, device: torch.device) -> Stages:
        """The stages of a part, on its own data set where it has one."""
        if part.dataset is not None:
            numbers = replace(numbers, dataset=part.dataset, **sizes(part.dataset, numbers.scale))
            dataset = load(part.dataset, dataset.root, device)
        return Stages(numbers, part, run, dataset, device)
