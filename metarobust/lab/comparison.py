"""The main experiments: what a learned optimizer learned from adversarial examples, used where none are made.

`patch` moves trained, vulnerable models; `train` starts from fresh ones; the others vary one thing each, see
`metarobust.lab.catalogue`. All go the same way, in the stages of `metarobust.lab.stages`:

1. Meta-train on a family of small networks: clean inner gradients, adversarial meta-loss.
2. Tune every baseline on validation networks, each over its whole grid.
3. On networks, seeds and test images that no meta-training, no tuning and no choice of ours looked at, patch trained
   models and train fresh ones, at equal steps and data, counting the adversarial examples that each method generates.
"""

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from itertools import product
from typing import Any

from metarobust.data import Dataset
from metarobust.lab import catalogue
from metarobust.lab.engine import Rows, Unit
from metarobust.lab.spec import SCALES, Spec, check_data, from_dict, network_kind, slug
from metarobust.lab.stages.context import in_part, part_baselines
from metarobust.lab.stages.evaluate import compare, compare_learned, search, start
from metarobust.lab.stages.meta_train import by_name, learn, unit_name
from metarobust.lab.stages.tune import best_point, finalists, tune
from metarobust.lab.summary import brief, markdown, table

SUMMARIES = {
    "patch": "learn from adversarial examples once; patch unseen trained networks without any",
    "train": "learn from adversarial examples once; train unseen fresh networks without any",
    "frontier": "the learned penalties against all that is tuned as hard: clean, robust, and passes that it takes",
    "pixels": "attack the patched where only the pixels that say most about the class may be moved",
    "robust-training": "learned optimizer and plain ones, all on adversarial gradients: learning curves",
    "low-data": "train with few images a class; how much is lost from training to test images",
    "few-images": "the same by the learned penalties as they are shipped, against all that may look as closely",
    "new-kinds": "patch deep networks and ones that normalise by the learned penalties as they are shipped",
    "adaptive": "attack by hand what the learned penalties made, knowing how",
    "transfer-architecture": "patch networks of every kind; learn on some kinds only",
    "transfer-data": "learn on one data set, patch on another",
    "attack-transfer": "learn from one attack, stand others: other radii, norms and methods",
    "ablation": "take one thing at a time away: features, meta-loss, estimator, family",
    "what-was-learned": "knock one thing at a time out of the learned penalties; nothing is learned anew",
}


@dataclass(frozen=True)
class Comparison:
    """An experiment by name; see `metarobust.lab.engine` for what each method is for."""

    NAME: str
    SCALES = SCALES
    brief = staticmethod(brief)
    markdown = staticmethod(markdown)
    table = staticmethod(table)

    @property
    def SUMMARY(self) -> str:
        return SUMMARIES[self.NAME]

    def make_spec(self, scale: str, dataset: str, seeds: list[int] | None, eps: float | None = None) -> dict[str, Any]:
        """The frozen specification. Raises InputError for a bad radius."""
        return asdict(catalogue.make(self.NAME, scale, dataset, tuple(seeds) if seeds else None, eps))

    def units(self, spec: Mapping[str, Any], dataset: Dataset) -> list[Unit]:
        """Meta-trainings of all parts, which take longest, then searches, then comparisons."""
        frozen = from_dict(Spec, spec)
        check_data(frozen, dataset)
        kinds = (meta_trainings, searches, comparisons)
        return [unit for kind in kinds for number in range(len(frozen.parts)) for unit in kind(frozen, number)]

    def collect(self, spec: Mapping[str, Any], rows: Mapping[str, Rows]) -> tuple[Rows, dict[str, Any]]:
        """The rows of all comparisons; and of every search the best setting, and those that were scored again."""
        frozen = from_dict(Spec, spec)
        numbers = range(len(frozen.parts))
        kinds = dict.fromkeys(map(network_kind, frozen.validation))
        names = [unit.name for number in numbers for unit in searches(frozen, number)]
        found = {f"{name}.{kind}": (rows[name], kind) for name, kind in product(names, kinds)}
        summary = {"tuned": {name: best_point(*search) for name, search in found.items()}}
        if frozen.deciding_seeds:
            summary["finalists"] = {name: finalists(*search) for name, search in found.items()}
        return [row for number in numbers for unit in comparisons(frozen, number) for row in rows[unit.name]], summary


def meta_trainings(spec: Spec, number: int) -> Iterator[Unit]:
    """The units that learn, of a part."""
    part = spec.parts[number]
    for rule in part.rules:
        weight = 1 + rule.plan.episodes * sum(rule.plan.horizons) // len(rule.plan.horizons) // 60
        for seed in spec.meta_seeds:
            needs = () if rule.begins is None else (unit_name(part, by_name(part.rules, rule.begins), seed),)
            yield Unit(unit_name(part, rule, seed), in_part, (number, learn, rule.name, seed), needs, weight)


def searches(spec: Spec, number: int) -> Iterator[Unit]:
    """The units that search for settings, of a part."""
    part = spec.parts[number]
    for name in part_baselines(spec, part):
        yield Unit(search(part, name), in_part, (number, tune, name), weight=2)


def comparisons(spec: Spec, number: int) -> Iterator[Unit]:
    """The units that measure, of a part."""
    part = spec.parts[number]
    for network in part.unseen or spec.unseen:
        prefix = f"{slug(part.name)}.{network}"
        yield Unit(f"{prefix}.start", in_part, (number, start, network))
        for name in part_baselines(spec, part):
            needs = (search(part, name),)
            yield Unit(f"{prefix}.{slug(name)}", in_part, (number, compare, network, name), needs)
        for rule in (*(rule for rule in part.rules if rule.compared), *part.uses):
            learned = () if rule.pretrained else spec.meta_seeds
            needs = tuple(unit_name(part, rule, seed) for seed in learned)
            yield Unit(f"{prefix}.{slug(rule.name)}", in_part, (number, compare_learned, network, rule.name), needs, 2)
