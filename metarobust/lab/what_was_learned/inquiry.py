"""The numbers and the units of work of the experiment `what-was-learned`."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
from torch import Tensor

from metarobust import pretrained
from metarobust.data import Dataset
from metarobust.errors import InputError, choose
from metarobust.lab import cards, catalogue
from metarobust.lab import spec as specs
from metarobust.lab.baselines import Baseline, methods
from metarobust.lab.column_decay import ColumnDecay
from metarobust.lab.engine import Rows, Unit, Worker
from metarobust.lab.results import ADAM, LEARNED
from metarobust.lab.spec import OptimizerConfig, from_dict, slug
from metarobust.lab.stages import evaluate
from metarobust.lab.stages.context import Context
from metarobust.lab.stages.meta_train import learn, learned_optimizer, unit_name
from metarobust.lab.stages.tune import tune
from metarobust.lab.what_was_learned import imitation, responses
from metarobust.lab.what_was_learned.dissection import Look, moved, watch, weights
from metarobust.lab.what_was_learned.explained import explain, left
from metarobust.lab.what_was_learned.kept import CONTROL, IMITATION, without
from metarobust.lab.what_was_learned.knockouts import PARTS, Knockout
from metarobust.learned import describe
from metarobust.learned.features import features
from metarobust.learned.mlp import FeatureMLP
from metarobust.meta import generator_of
from metarobust.optimizers import Optimizer
from metarobust.params import ParamSpec
from metarobust.storage import read_bytes, sha256
from metarobust.tasks import Tasks
from metarobust.training import fit_learned

NAME = "what-was-learned"
SCALES = specs.SCALES
PLAIN = (ADAM, "adam + weight decay", "std-prune")
CONSTANTS = "patch.constants"
META_SEED = cards.META_SEED
SETS = ("digits", "mnist")
"""Where a pretrained rule learned by the plan of the experiment `patch`, which its counterpart learns by as well."""


@dataclass(frozen=True)
class Spec:
    """One scale on one data set.

    setting: networks, seeds, data and attacks, those of the experiment `patch`. optimizer: the pretrained rule that is
    looked into, and the digest of its weights. control: how its counterpart is meta-trained. watched: seeds of the
    validation networks that are looked at. at: the step whose coordinates the response curves are about; coordinates:
    how many of each layer.
    """

    scale: str
    dataset: str
    seeds: tuple[int, ...]
    setting: specs.Spec
    optimizer: str
    optimizer_sha256: str
    control: OptimizerConfig
    watched: tuple[int, ...]
    at: int = 10
    coordinates: int = 2000
    experiment: str = NAME


def make(scale: str, dataset: str, seeds: tuple[int, ...] | None) -> Spec:
    """The numbers of a scale. Raises InputError for a data set whose patches no pretrained rule has learned."""
    choose(scale, SCALES, f"scale of {NAME}")
    name = f"patch-{dataset}"
    if dataset not in SETS:
        raise InputError(
            f"{NAME} on {dataset!r}: no pretrained optimizer of the experiment patch learned there; "
            f"take --dataset {' or '.join(SETS)}"
        )
    setting = catalogue.make("patch", scale, dataset, seeds)
    # The shipped rules are of scale small, whatever the scale here; their counterpart is to differ in one thing.
    plan = catalogue.patching_plan("small")
    part = replace(setting.parts[0], rules=())
    setting = replace(setting, experiment=NAME, meta_seeds=(META_SEED,), parts=(part,))
    if scale == "smoke":
        plan = replace(plan, episodes=12)
        setting = replace(setting, unseen=(specs.UNSEEN[0], specs.UNSEEN[2]), test_images=200)
    digest = sha256(read_bytes(pretrained.FOLDER / f"{name}.safetensors"))
    watched = tuple(range(100, 102 if scale == "smoke" else 106))
    return Spec(
        scale,
        dataset,
        setting.seeds,
        setting,
        name,
        digest,
        OptimizerConfig(CONTROL, "features", plan, meta="clean"),
        watched,
    )


def make_spec(scale: str, dataset: str, seeds: list[int] | None) -> dict[str, Any]:
    """The frozen specification as JSON."""
    return asdict(make(scale, dataset, tuple(seeds) if seeds else None))


def best_fit(points: list[dict[str, Any]]) -> dict[str, Any]:
    """The constants whose steps come nearest to the learned ones."""
    return max(points, key=lambda point: point["explained"])


def plain_rules(spec: Spec) -> dict[str, Baseline]:
    """The rules that are tuned and compared, by name."""
    wide = spec.setting.wide_grids
    known = {method.name: method for method in methods(spec.setting.eps, patching=True, wide=wide)}
    return {name: known[name] for name in PLAIN} | {imitation.NAME: imitation.tuned(wide=wide)}


def units(spec: Mapping[str, Any], dataset: Dataset) -> list[Unit]:
    """What to do, in order."""
    frozen = from_dict(Spec, spec)
    part = replace(frozen.setting.parts[0], rules=(frozen.control,))
    control = unit_name(part, frozen.control, META_SEED)
    work = [Unit(control, do, ("learn",), weight=1 + frozen.control.plan.episodes // 8)]
    work.append(Unit(CONSTANTS, do, ("constants",)))
    for name in frozen.setting.validation:
        work.append(Unit(f"look.{name}", do, ("look", name), (control, CONSTANTS)))
    work.append(Unit("look.imitation", do, ("imitated",), (CONSTANTS,)))
    for name in plain_rules(frozen):
        work.append(Unit(f"patch.tune.{slug(name)}", do, ("tune", name), weight=4))
    for network in frozen.setting.unseen:
        work.append(Unit(f"patch.{network}.start", do, ("start", network)))
        for name in plain_rules(frozen):
            needs = (f"patch.tune.{slug(name)}",)
            work.append(Unit(f"patch.{network}.{slug(name)}", do, ("plain", network, name), needs))
        for name in (LEARNED, *map(without, PARTS), CONTROL, IMITATION):
            needs = {CONTROL: (control,), IMITATION: (CONSTANTS,)}.get(name, ())
            work.append(Unit(f"patch.{network}.{slug(name)}", do, ("compare", network, name), needs))
    return work


def do(worker: Worker, name: str, *arguments: str) -> Rows:
    """The function of a unit: one of the methods of `Inquiry`."""
    inquiry = worker.once("inquiry", lambda: Inquiry(from_dict(Spec, worker.spec), worker))
    return getattr(inquiry, name)(*arguments)


class Inquiry:
    """What the units of a run share."""

    def __init__(self, spec: Spec, worker: Worker):
        self.spec, self.worker, self.setting, self.device = spec, worker, spec.setting, worker.device
        part = spec.setting.parts[0]
        self.stages = Context(spec.setting, part, worker)
        self.stages.baselines = plain_rules(spec)
        # The counterpart learns to its end: no theta is picked for being robust.
        part = replace(part, rules=(spec.control,))
        self.control = Context(replace(spec.setting, parts=(part,), validated=False), part, worker)
        self.rule = pretrained.load(spec.optimizer).to(self.device)
        if not isinstance(self.rule, FeatureMLP):
            raise InputError(
                f"{spec.optimizer} is of kind {describe(self.rule)['kind']!r}; give one of kind 'features'"
            )

    def learn(self) -> Rows:
        """Meta-trains the counterpart."""
        return learn(self.control, CONTROL, META_SEED)

    def tune(self, name: str) -> Rows:
        """The search for a plain rule's settings."""
        return tune(self.stages, name)

    def start(self, network: str) -> Rows:
        """The models before the first step."""
        return evaluate.start(self.stages, network)

    def plain(self, network: str, name: str) -> Rows:
        """A plain rule on an unseen network."""
        return evaluate.compare(self.stages, network, name)

    def optimizer(self, name: str) -> Optimizer:
        """The rule of this name, without a number to tune."""
        if name == CONTROL:
            return learned_optimizer(self.control, self.spec.control, META_SEED)
        if name == IMITATION:
            best = best_fit(self.worker.rows(CONSTANTS))
            return ColumnDecay(best["lr"], best["strength"], best["threshold"], best["slope"])
        parts = {without(part): part for part in PARTS}
        return Knockout(self.rule, parts[name]) if name in parts else self.rule

    def constants(self) -> list[dict[str, Any]]:
        """How near the imitating rule comes to the learned steps on validation networks, for each point of a grid."""
        runs = [self.watched(network) for network in self.setting.validation]
        return imitation.fit_to_steps([(looks, tasks.param_spec) for looks, tasks in runs])

    def watched(self, network: str, name: str = LEARNED) -> tuple[list[Look], Tasks]:
        """A rule's steps on a validation network, and the tasks."""
        tasks = self.stages.tasks(network, self.spec.watched, without=self.stages.held_back)
        return watch(tasks, self.optimizer(name), self.stages.inner, self.stages.generator(network, 4)), tasks

    def look(self, network: str) -> list[dict[str, Any]]:
        """Explanations of the learned patches of a validation network, weights left, and response curves."""
        spread = self.stages.pool.images.flatten(1).std(0)
        looks, tasks = self.watched(network)
        param_spec, rows = tasks.param_spec, []
        for layer, found in explain(looks, param_spec, spread).items():
            for explanation, shares in found.items():
                common = self.common("explained", f"{network} {layer}", explanation, self.setting.parts[0].steps)
                rows += self.each_seed(common | {"metric": "explained"}, shares)
        runs = {LEARNED: looks} | {name: self.watched(network, name)[0] for name in (CONTROL, IMITATION)}
        (layer, first, place), *_ = weights(param_spec)
        for name, steps in runs.items() if len(place.shape) == 2 else ():
            before = tasks.params[:, first]
            for pixels, shares in left(before, before + moved(steps)[:, first], spread):
                common = self.common("weight left", f"{network} {layer}", name, len(steps))
                rows += self.each_seed(common | {"metric": "weight left", "eps": pixels}, shares)
        for name in (LEARNED, CONTROL):
            rows += self.responses(network, name, runs[name], param_spec)
        return rows

    def responses(self, network: str, name: str, looks: list[Look], param_spec: ParamSpec) -> list[dict[str, Any]]:
        """The response curves of a rule to all of its inputs, layer by layer."""
        look, rule = looks[self.spec.at - 1], self.optimizer(name)
        seen = features(look.grads, look.state.accumulators, look.params, param_spec, look.number, len(looks))
        rows = []
        for layer, where, _ in weights(param_spec):
            some = seen[:, where].flatten(0, 1)
            order = torch.randperm(len(some), generator=generator_of(self.device, 9), device=self.device)
            some = some[order[: self.spec.coordinates]]
            for moving in responses.SPANS:
                common = self.common(f"response to {moving}", f"{network} {layer}", name, look.number)
                for value, answer in responses.curve(rule, some, moving):
                    said = {"step": answer.step, "rate": answer.rate, "share given up": answer.share}
                    for metric, found in said.items():
                        here = {"seed": None, "eps": value, "metric": metric, "value": float(found), "n": len(some)}
                        rows.append(common | here)
        return rows

    def imitated(self) -> list[dict[str, Any]]:
        """The response of the imitating rule to a column's gradient, which is the same in every layer."""
        rule, rows = self.optimizer(IMITATION), []
        common = self.common("response to column", "every layer", IMITATION, self.spec.at)
        for value in responses.values("column"):
            gone = float(rule.gate(torch.tensor([[value]])))
            for metric, found in (("rate", rule.lr * (1 - gone)), ("share given up", rule.strength * gone)):
                rows.append(common | {"seed": None, "eps": value, "metric": metric, "value": found, "n": 1})
        return rows

    def compare(self, network: str, name: str) -> list[dict[str, Any]]:
        """A rule that has no number to tune, on an unseen network."""
        tasks = self.stages.tasks(network, self.setting.seeds)
        params, made = fit_learned(tasks, self.optimizer(name), self.stages.inner, self.stages.generator(network, 4))
        meta_seed = None if name == IMITATION else META_SEED
        steps, learned = self.stages.inner.steps, name != IMITATION
        common = self.stages.common(network, name, "0", meta_seed, steps, learned=learned)
        return evaluate.rows(self.stages, common, tasks, params, made)

    def common(self, part: str, model: str, method: str, step: int) -> dict[str, Any]:
        """What all rows of a look say."""
        return self.stages.common(model, method, "0", None, step) | {
            "part": part, "split": "validation", "attack": "", "eps": None,
        }  # fmt: skip

    def each_seed(self, common: dict[str, Any], values: Tensor) -> list[dict[str, Any]]:
        """A row for each watched model; n: how many there are."""
        pairs = zip(self.spec.watched, values.tolist(), strict=True)
        return [common | {"seed": seed, "value": value, "n": len(values)} for seed, value in pairs]
