"""What the experiment `cost` does: it counts what is paid once, and then what each step of a patch costs and brings.

Three costs are taken of everything: seconds (see `clock`), model evaluations (see `metarobust.lab.passes`) and
adversarial examples; the last two are counted while the thing is done. Of meta-training, the models that it learns on
are made, some episodes are done and one validation, and the last two are scaled up.
"""

import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from itertools import product
from statistics import median
from typing import Any

import numpy as np
import torch
from torch import Tensor

from metarobust import pretrained
from metarobust.attacks import counting
from metarobust.data import Dataset
from metarobust.family import Family, Training, make_tasks, train_clean
from metarobust.lab.baselines import as_hyper, fit_baseline, repeat
from metarobust.lab.cost.bill import COSTS, derived
from metarobust.lab.cost.spec import RIVALS, Spec, drawn, rivals
from metarobust.lab.engine import Rows, Unit, Worker
from metarobust.lab.passes import Passes, counted
from metarobust.lab.results import BEFORE, LEARNED
from metarobust.lab.spec import check_data, from_dict, network_kind, slug
from metarobust.lab.stages.context import Context
from metarobust.lab.stages.evaluate import accuracies, checks, measured
from metarobust.lab.stages.meta_train import validation
from metarobust.lab.stages.tune import best_point
from metarobust.learned import TIERS, make
from metarobust.meta import MetaTrainConfig, generator_of, meta_train
from metarobust.objectives import Adversarial, Mixed, clean
from metarobust.tasks import Tasks
from metarobust.training import Inner, Watch, accuracy, fit_learned

Costs = np.ndarray
"""Seconds, model evaluations and adversarial examples of something: `[3]`, in the order of COSTS."""


class Setting(Context):
    """What all units of the experiment share in one process."""

    def __init__(self, worker: Worker):
        self.cost: Spec = from_dict(Spec, worker.spec)
        super().__init__(self.cost.setting, self.cost.setting.parts[0], worker)
        self.rivals = rivals(self.spec.eps)
        self.card = pretrained.card(self.cost.optimizer)
        self.learned = pretrained.load(self.cost.optimizer).to(self.device)

    def row(self, part: str, model: str, method: str, step: int) -> dict[str, Any]:
        """What all rows of a thing say. model: a network, a kind of networks, or neither."""
        learned = method == LEARNED
        tier = TIERS[self.card["kind"]] if learned else self.rivals[method].tier if method != BEFORE else ""
        meta_seed = self.card["meta_seed"] if learned else None
        common = self.common(model, method, tier, meta_seed, step, learned=learned) | {"part": part}
        once = part in ("meta-training", "search")
        return common | ({"network": model, "split": ""} if once else {}) | {"seed": None, "attack": "", "eps": None}

    def clock(self) -> float:
        """Seconds that the processor has worked, of all threads; on a GPU seconds of the wall, when its work is done.

        What else a machine is busy with takes none of this process's time. Alone, one thread has both alike.
        """
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
            return time.perf_counter()
        return time.process_time()

    @contextmanager
    def metered(self) -> Iterator[tuple[Passes, Costs]]:
        """A tally to count passes with, and the costs of what is done inside, once it is done."""
        tally, costs, began = Passes(), np.zeros(len(COSTS)), self.clock()
        with counting() as made:
            yield tally, costs
        costs[:] = self.clock() - began, tally.evaluations, made.examples

    def training_of(self, members: Sequence[str], each: int, training: Training) -> tuple[Costs, dict[str, Tensor]]:
        """What it costs to train `each` models of these networks; and the models."""
        starts, every = {}, torch.arange(len(self.pool), device=self.device).expand(each, -1)
        with self.metered() as (tally, costs):
            for name in members:
                rng = generator_of(self.device, 1)
                tasks = make_tasks(name, self.pool, self.dataset.classes, every, every, rng)
                starts[name] = train_clean(counted(tasks, tally), training, rng)
        return costs, starts

    def way(self, network: str, method: str, steps: int) -> Callable[..., tuple[Tensor, int]]:
        """A function of tasks and watch that patches in so many steps, by the settings found for these."""
        inner, rng = Inner(steps, self.cost.batch_size), self.generator(network, 4)
        if method == LEARNED:
            return partial(fit_learned, optimizer=self.learned, numbers=inner, generator=rng)
        rival = self.rivals[method]
        searched = self.worker.rows(search_name(method, network_kind(network)))
        best = best_point([row for row in searched if f"score {steps}" in row], str(steps))

        def fit(tasks: Tasks, watch: Watch) -> tuple[Tensor, int]:
            hyper = as_hyper([{key: best[key] for key in rival.grid}], len(tasks), tasks.params)
            return fit_baseline(tasks, rival, hyper, inner, rng, watch)

        return fit

    def accuracies(self, common: dict[str, Any], tasks: Tasks, params: Tensor) -> Rows:
        """Rows of clean and robust accuracy, one a seed; and at the end of a run what the checks say of one model."""
        rng = self.generator(common["model"], 5)
        rows = accuracies(self, common, measured(self, tasks, params, self.test, rng), len(self.test))
        if self.part.measures == "standard" and common["step"] in (0, *self.cost.horizons):
            rows.append(common | checks(self, tasks, params[0]))
        return rows


def cost_rows(common: dict[str, Any], costs: Iterable[float], n: int) -> Rows:
    """Rows of the three costs. n: how many models or settings are behind them."""
    return [common | {"metric": m, "value": float(v), "n": n} for m, v in zip(COSTS, costs, strict=True)]


def search_name(method: str, kind: str) -> str:
    """The name of the unit that tunes a baseline for a kind of networks."""
    return f"search.{slug(method)}.{kind}"


def meta_training(setting: Setting) -> Rows:
    """The whole cost of the learned optimizer's meta-training, of which some episodes are done; and its pieces."""
    past, piece, classes = setting.card["meta_trained_on"], setting.cost.piece, setting.dataset.classes
    config: MetaTrainConfig = from_dict(MetaTrainConfig, past["plan"])
    training, family, attack = Training(**past["their_training"]), tuple(past["family"]), past["attack"]
    networks = (*family, *setting.spec.validation)
    models, starts = setting.training_of(networks, past["models_of_each"], training)
    source = Family(family, setting.pool, classes, classes * past["per_class"], starts)

    def learn(number: int, tally: Passes) -> None:
        meta_train(
            make(setting.card["kind"], torch.Generator().manual_seed(0)).to(setting.device),
            lambda tasks, generator: counted(source.sample(tasks, generator), tally),
            replace(config, episodes=number), inner=clean, seed=0,
            meta=Mixed(Adversarial(attack["eps"], attack["steps"]), attack["weight"]),
            label=None if setting.worker.quiet else f"{number} of {config.episodes} episodes",
        )  # fmt: skip

    learn(1, Passes())  # the first time takes longer, and is not to be scaled up
    with setting.metered() as (tally, episodes):
        learn(piece, tally)
    held_out = validation(setting, replace(setting.part.rules[0], plan=config))
    with setting.metered() as (tally, validations):
        replace(held_out, groups=tuple(counted(group, tally) for group in held_out.groups))(setting.learned)
    parts = {
        "models to learn on": models,
        "episodes": episodes * (config.episodes / piece),
        "validations": validations * math.ceil(config.episodes / config.validate_every),
    }
    common = setting.row("meta-training", "", LEARNED, config.episodes)
    pieces = {name: dict(zip(COSTS, costs.tolist(), strict=True)) for name, costs in parts.items()}
    return [*cost_rows(common, sum(parts.values()), 1), {"pieces": pieces, "episodes counted": piece}]


def search(setting: Setting, name: str, kind: str) -> Rows:
    """The cost of a baseline's search on the validation networks of a kind; and every point with its scores.

    One run of each point serves both horizons: it is scored where the short run ends, too. Points and seeds train side
    by side, which takes fewer seconds than one after the other.
    """
    spec, method, seeds = setting.cost, setting.rivals[name], setting.spec.tuning_seeds
    points, images = drawn(method, spec.points), setting.pool[setting.held_back]
    scores: dict[int, list[Tensor]] = {step: [] for step in spec.horizons}
    members = [each for each in setting.spec.validation if network_kind(each) == kind]
    total, _ = setting.training_of(members, len(seeds), setting.spec.training)
    for member in members:
        tasks = setting.tasks(member, seeds, without=setting.held_back)
        with setting.metered() as (tally, costs):
            many = repeat(counted(tasks, tally), len(points))

            def watch(step: int, params: Tensor, _: int, many: Tasks = many, member: str = member) -> None:
                if step in scores:
                    rng = setting.generator(member, 2)
                    shares = accuracy(many, params, images, eps=setting.spec.eps, steps=10, generator=rng)
                    both = torch.tensor([shares["clean"], shares["robust"]]).mean(0)
                    scores[step].append(both.nan_to_num().view(len(points), -1).mean(1))

            hyper = as_hyper(points, len(tasks), tasks.params)
            inner = Inner(max(spec.horizons), spec.batch_size)
            fit_baseline(many, method, hyper, inner, setting.generator(member, 1), watch)
        total += costs
    means = {f"score {step}": torch.stack(each).mean(0).tolist() for step, each in scores.items()}
    rows = cost_rows(setting.row("search", kind, name, max(spec.horizons)), total, len(points))
    return rows + [point | {key: values[i] for key, values in means.items()} for i, point in enumerate(points)]


def before(setting: Setting, network: str) -> Rows:
    """The models before the first step."""
    tasks = setting.tasks(network, setting.cost.seeds)
    return setting.accuracies(setting.row("before", network, BEFORE, 0), tasks, tasks.params)


def patch(setting: Setting, network: str, method: str) -> Rows:
    """One way on one network: at each mark the accuracies, and what a model has cost until then.

    All seeds' models are trained side by side, and what they take is divided by their number. Seconds are the median of
    one model alone, as somebody would patch it, in the long run.
    """
    spec, tasks, rows = setting.cost, setting.tasks(network, setting.cost.seeds), []
    taken: dict[int, list[float]] = {}
    for _ in range(spec.rounds + 1):
        began = setting.clock()

        def clock(step: int, *_: Any, began: float = began) -> None:
            taken.setdefault(step, []).append(setting.clock() - began)

        alone = setting.tasks(network, spec.seeds[:1])
        setting.way(network, method, max(spec.horizons))(alone, watch=clock)
    for part, horizon, marks in spec.runs():
        tally, seen = Passes(), {}

        def watch(step: int, params: Tensor, made: int, tally: Passes = tally, seen: Any = seen) -> None:
            seen[step] = params, tally.evaluations / len(tasks), made / len(tasks)

        setting.way(network, method, horizon)(counted(tasks, tally), watch=watch)
        for step in marks:
            params, *counts = seen[step]
            common = setting.row(part, network, method, step)
            rows += setting.accuracies(common, tasks, params)
            rows += cost_rows(common, [median(taken[step][1:]), *counts], len(tasks))  # the first round warms up
    return rows


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
