"""The numbers and the units of work of the experiment `what-was-learned`."""

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch
from torch import Tensor

from metarobust import pretrained
from metarobust.data import Dataset
from metarobust.errors import InputError, choose
from metarobust.lab import catalogue
from metarobust.lab import spec as specs
from metarobust.lab.baselines import methods
from metarobust.lab.cards import META_SEED
from metarobust.lab.engine import Rows, Unit, Worker
from metarobust.lab.plans import patching_plan
from metarobust.lab.results import ADAM, LEARNED
from metarobust.lab.spec import OptimizerConfig, check_data, from_dict, network_kind, slug
from metarobust.lab.stages import evaluate
from metarobust.lab.stages.context import Context
from metarobust.lab.stages.meta_train import learn, learned_optimizer, unit_name
from metarobust.lab.stages.tune import best_point, tune
from metarobust.lab.what_was_learned import imitation, responses
from metarobust.lab.what_was_learned.column_decay import ColumnDecay
from metarobust.lab.what_was_learned.dissection import Look, moved, watch, weights
from metarobust.lab.what_was_learned.explained import explain, left
from metarobust.lab.what_was_learned.kept import CONTROL, IMITATION, without
from metarobust.lab.what_was_learned.knockouts import PARTS, Knockout
from metarobust.learned.features import features
from metarobust.meta import generator_of
from metarobust.optimizers import Optimizer
from metarobust.params import ParamSpec
from metarobust.storage import sha256
from metarobust.tasks import Tasks
from metarobust.training import fit_learned

NAME = "what-was-learned"
SUMMARY = "look into the learned rule for patching, and imitate it by one written by hand"
SCALES = specs.SCALES
PLAIN = (ADAM, "adam + weight decay", "std-prune")
CONSTANTS = "patch.constants"
SETS = ("digits", "mnist")
"""Where a pretrained rule learned by the plan of the experiment `patch`, which its counterpart learns by as well."""


@dataclass(frozen=True)
class Spec:
    """One scale on one data set.

    Attributes:
        setting: Networks, seeds, data and attacks, those of the experiment `patch`.
        optimizer: The pretrained rule that is looked into, and the digest of its weights.
        control: How its counterpart is meta-trained.
        watched: Seeds of the validation networks that are looked at.
        at: The step whose coordinates the response curves are about; coordinates, how many of each layer.
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


def make_spec(scale: str, dataset: str, seeds: list[int] | None) -> dict[str, Any]:
    """The frozen specification as JSON.

    Raises:
        InputError: For a data set whose patches no pretrained rule has learned.
    """
    choose(scale, SCALES, f"scale of {NAME}")
    if dataset not in SETS:
        raise InputError(
            f"{NAME} on {dataset!r}: no pretrained optimizer of the experiment patch learned there; "
            f"take --dataset {' or '.join(SETS)}"
        )
    setting = catalogue.make("patch", scale, dataset, tuple(seeds) if seeds else None)
    # The shipped rules are of scale small, whatever the scale here; their counterpart is to differ in one thing. It
    # learns to its end: no theta is picked for being robust.
    plan, watched = patching_plan("small"), tuple(range(100, 106))
    setting = replace(setting, experiment=NAME, meta_seeds=(META_SEED,), validated=False)
    if scale == "smoke":
        plan, watched = replace(plan, episodes=12), watched[:2]
        setting = replace(setting, unseen=(specs.UNSEEN[0], specs.UNSEEN[2]), test_images=200)
    control = OptimizerConfig(CONTROL, "features", plan, meta="clean")
    setting = replace(setting, parts=(replace(setting.parts[0], rules=(control,), methods=PLAIN),))
    name = f"patch-{dataset}"
    digest = sha256((pretrained.FOLDER / f"{name}.safetensors").read_bytes())
    return asdict(Spec(scale, dataset, setting.seeds, setting, name, digest, control, watched))


class Inquiry(Context):
    """What all units share in one process."""

    def __init__(self, worker: Worker):
        self.inquiry: Spec = from_dict(Spec, dict(worker.spec))
        super().__init__(self.inquiry.setting, self.inquiry.setting.parts[0], worker)
        self.rule = pretrained.load(self.inquiry.optimizer).to(self.device)
        self.baselines = _methods(self.spec)

    def optimizer(self, name: str) -> Optimizer:
        """The rule of this name, without a number to tune."""
        if name == CONTROL:
            return learned_optimizer(self, self.inquiry.control, META_SEED)
        if name == IMITATION:
            best = best_fit(self.worker.rows(CONSTANTS))
            return ColumnDecay(best["lr"], best["strength"], best["threshold"], best["slope"])
        parts = {without(part): part for part in PARTS}
        return Knockout(self.rule, parts[name]) if name in parts else self.rule

    def watched(self, network: str, name: str = LEARNED) -> tuple[list[Look], Tasks]:
        """A rule's steps on a validation network, and the tasks."""
        tasks = self.tasks(network, self.inquiry.watched, without=self.held_back)
        return watch(tasks, self.optimizer(name), self.inner, self.generator(network, 4)), tasks

    def row(self, part: str, model: str, method: str, step: int) -> dict[str, Any]:
        """What all rows of a look say."""
        common = self.common(model, method, "0", None, step, learned=method in (LEARNED, CONTROL))
        network = network_kind(model) if model != "every layer" else ""
        return common | {"part": part, "split": "validation", "attack": "", "eps": None, "network": network}

    def each_seed(self, common: dict[str, Any], values: Tensor) -> Rows:
        """A row for each watched model; n: how many there are."""
        pairs = zip(self.inquiry.watched, values.tolist(), strict=True)
        return [common | {"seed": seed, "value": value, "n": len(values)} for seed, value in pairs]


def _methods(spec: specs.Spec) -> dict[str, Any]:
    """The baselines and the imitation that is tuned by accuracy, by name."""
    known = {method.name: method for method in methods(spec.eps, patching=True, wide=spec.wide_grids)}
    tuned = imitation.tuned(wide=spec.wide_grids)
    return {name: known[name] for name in PLAIN} | {tuned.name: tuned}


def best_fit(points: Rows) -> dict[str, Any]:
    """The constants whose steps come nearest to the learned ones."""
    return max(points, key=lambda point: point["explained"])


def units(spec: Mapping[str, Any], dataset: Dataset) -> list[Unit]:
    """What to do, in order: later units need what earlier ones computed."""
    frozen: Spec = from_dict(Spec, spec)
    setting, part = frozen.setting, frozen.setting.parts[0]
    check_data(setting, dataset)
    control, work = unit_name(part, frozen.control, META_SEED), []

    def add(name: str, *stage: Any, needs: tuple[str, ...] = (), weight: int = 1) -> None:
        work.append(Unit(name, at_work, stage, needs, weight))

    add(control, learn, CONTROL, META_SEED, weight=1 + frozen.control.plan.episodes // 8)
    add(CONSTANTS, constants)
    for network in setting.validation:
        add(f"look.{network}", look, network, needs=(control, CONSTANTS))
    add("look.imitation", imitated, needs=(CONSTANTS,))
    plain = list(_methods(setting))
    for name in plain:
        add(evaluate.search(part, name), tune, name, weight=4)
    for network in setting.unseen:
        add(f"patch.{network}.start", evaluate.start, network)
        for name in plain:
            add(f"patch.{network}.{slug(name)}", evaluate.compare, network, name, needs=(evaluate.search(part, name),))
        for name in (LEARNED, *map(without, PARTS), CONTROL, IMITATION):
            needs = {CONTROL: (control,), IMITATION: (CONSTANTS,)}.get(name, ())
            add(f"patch.{network}.{slug(name)}", compare, network, name, needs=needs)
    return work


def at_work(worker: Worker, stage: Callable[..., Rows], *arguments: Any) -> Rows:
    """Unit: a stage with what all units share."""
    return stage(worker.once("inquiry", lambda: Inquiry(worker)), *arguments)


def collect(spec: Mapping[str, Any], rows: Mapping[str, Rows]) -> tuple[Rows, dict[str, Any]]:
    """The table; and the best constants and settings."""
    tuned = {CONSTANTS: best_fit(rows[CONSTANTS])}
    for name, each in rows.items():
        for score in (key for key in each[0] if key.split(" ")[0] == "score"):
            group = score.split(" ", 1)[1]
            tuned[f"{name}.{group}"] = best_point(each, group)
    return [row for each in rows.values() for row in each if "metric" in row], {"tuned": tuned}


def constants(inquiry: Inquiry) -> Rows:
    """How near the imitating rule comes to the learned steps on validation networks, for each point of a grid."""
    runs = [inquiry.watched(network) for network in inquiry.spec.validation]
    return imitation.fit_to_steps([(looks, tasks.param_spec) for looks, tasks in runs])


def compare(inquiry: Inquiry, network: str, name: str) -> Rows:
    """A rule that has no number to tune, on an unseen network."""
    tasks = inquiry.tasks(network, inquiry.spec.seeds)
    params, made = fit_learned(tasks, inquiry.optimizer(name), inquiry.inner, inquiry.generator(network, 4))
    meta_seed, steps = None if name == IMITATION else META_SEED, inquiry.inner.steps
    common = inquiry.common(network, name, "0", meta_seed, steps, learned=name != IMITATION)
    return evaluate.rows(inquiry, common, tasks, params, {evaluate.EXAMPLES: made})


def look(inquiry: Inquiry, network: str) -> Rows:
    """Explanations of the learned patches of a validation network, weights left, and response curves."""
    table: Rows = []
    spread = inquiry.pool.images.flatten(1).std(0)
    looks, tasks = inquiry.watched(network)
    for layer, explanations in explain(looks, tasks.param_spec, spread).items():
        for explanation, shares in explanations.items():
            common = inquiry.row("explained", f"{network} {layer}", explanation, inquiry.inner.steps)
            table += inquiry.each_seed(common | {"metric": "explained"}, shares)
    runs = {LEARNED: looks} | {name: inquiry.watched(network, name)[0] for name in (CONTROL, IMITATION)}
    (layer, first, info), *_ = weights(tasks.param_spec)
    for name, steps in runs.items() if len(info.shape) == 2 else ():
        before = tasks.params[:, first]
        for pixels, shares in left(before, before + moved(steps)[:, first], spread):
            common = inquiry.row("weight left", f"{network} {layer}", name, len(steps))
            table += inquiry.each_seed(common | {"metric": "weight left", "eps": pixels}, shares)
    for name in (LEARNED, CONTROL):
        table += respond(inquiry, network, name, runs[name], tasks.param_spec)
    return table


def respond(inquiry: Inquiry, network: str, name: str, looks: list[Look], param_spec: ParamSpec) -> Rows:
    """The response curves of a rule to all of its inputs, layer by layer."""
    step, rule, table = looks[inquiry.inquiry.at - 1], inquiry.optimizer(name), []
    seen = features(step.grads, step.state.accumulators, step.params, param_spec, step.number, len(looks))
    for layer, where, _ in weights(param_spec):
        some = seen[:, where].flatten(0, 1)
        order = torch.randperm(len(some), generator=generator_of(inquiry.device, 9), device=inquiry.device)
        some = some[order[: inquiry.inquiry.coordinates]]
        for moving in responses.SPANS:
            common = inquiry.row(f"response to {moving}", f"{network} {layer}", name, step.number)
            for value, answer in responses.curve(rule, some, moving):
                answers = {"step": answer.step, "rate": answer.rate, "share given up": answer.share}
                for metric, mean in answers.items():
                    own = {"seed": None, "eps": value, "metric": metric, "value": float(mean), "n": len(some)}
                    table.append(common | own)
    return table


def imitated(inquiry: Inquiry) -> Rows:
    """The response of the imitating rule to a column's gradient, which is the same in every layer."""
    table: Rows = []
    rule = inquiry.optimizer(IMITATION)
    common = inquiry.row("response to column", "every layer", IMITATION, inquiry.inquiry.at)
    for value in responses.values("column"):
        gone = float(rule.gate(torch.tensor([[value]])))
        for metric, answer in (("rate", rule.lr * (1 - gone)), ("share given up", rule.strength * gone)):
            table.append(common | {"seed": None, "eps": value, "metric": metric, "value": answer, "n": 1})
    return table
