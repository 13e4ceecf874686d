"""What is paid once, in the experiment `cost`: meta-training, and the search for each baseline's settings.

Three costs are taken of everything: seconds (see `Once.clock`), model evaluations (passes, see `passes`) and
adversarial examples; the last two are counted while the thing is done.

Meta-training is not repeated: a piece of the very same is counted and timed, and scaled up. A first part makes the
models that it learns on, a second are its episodes, a third its looks at validation networks.
"""

import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from metarobust import pretrained
from metarobust.attacks import counting
from metarobust.family import Family, Training, make_tasks, train_clean
from metarobust.lab import cards, catalogue
from metarobust.lab.baselines import as_hyper, fit_baseline, repeat
from metarobust.lab.cost.passes import Passes, counted
from metarobust.lab.cost.spec import NAME, Spec, drawn, rivals
from metarobust.lab.engine import Worker
from metarobust.lab.results import BEFORE, LEARNED
from metarobust.lab.spec import network_kind as kind
from metarobust.lab.stages.context import Context
from metarobust.lab.stages.meta_train import validation as validation_of
from metarobust.learned import TIERS, make
from metarobust.learned.protocol import LearnedOptimizer
from metarobust.meta import MetaTrainConfig, generator_of, meta_train
from metarobust.objectives import Adversarial, Mixed, clean
from metarobust.tasks import Tasks
from metarobust.training import Inner, accuracy

SECONDS, EVALUATIONS, EXAMPLES = "seconds", "model evaluations", "adversarial examples"
COSTS = SECONDS, EVALUATIONS, EXAMPLES
BRIEFLY = 20
"""Steps of training that are counted and timed, of a model to learn on or to tune on."""


@dataclass
class Cost:
    """seconds, evaluations and examples of something, as they are known so far."""

    seconds: float = 0.0
    evaluations: float = 0.0
    examples: float = 0.0

    def plus(self, other: "Cost", times: float = 1.0) -> "Cost":
        """The sum, the other taken so many times."""
        return Cost(
            self.seconds + times * other.seconds,
            self.evaluations + times * other.evaluations,
            self.examples + times * other.examples,
        )

    def by_metric(self) -> dict[str, float]:
        """The three by their names in the table."""
        return dict(zip(COSTS, (self.seconds, self.evaluations, self.examples), strict=True))


class Once:
    """What is paid once, on one data set; and how costs are taken and written down."""

    def __init__(self, spec: Spec, worker: Worker):
        self.spec, self.worker, self.dataset, self.device = spec, worker, worker.dataset, worker.device
        # Images as in the run that the optimizer is from: what it learned from is nobody's to be patched with.
        base = catalogue.make("patch", "small", spec.dataset, spec.seeds)
        base = replace(
            base, test_images=spec.test_images, tuning_seeds=spec.tuning_seeds, attack_steps=spec.attack_steps,
            eps=spec.eps, unseen=spec.networks, meta_images=self.card["meta_trained_on"]["images"],
        )  # fmt: skip
        self.stage = Context(base, replace(base.parts[0], measures=spec.measures), worker)
        self.rivals = rivals(spec)

    @cached_property
    def card(self) -> dict[str, Any]:
        """What is known of the learned optimizer."""
        return cards.card(self.spec.optimizer)

    @cached_property
    def learned(self) -> LearnedOptimizer:
        """The learned optimizer."""
        return pretrained.load(self.spec.optimizer).to(self.device)

    def making(self, members: tuple[str, ...], each: int, how: Training) -> tuple[Cost, dict[str, Tensor]]:
        """What it costs to train `each` models of these networks, from a few steps; and the models that these give."""
        pool, starts, cost = self.stage.pool, {}, Cost()
        steps = min(BRIEFLY, how.steps)
        with self.taking(cost) as tally:
            for name in members:
                rows = torch.arange(len(pool), device=self.device).expand(each, -1)
                generator = generator_of(self.device, 1)
                tasks = make_tasks(name, pool, self.dataset.classes, rows, rows, generator)
                starts[name] = train_clean(counted(tasks, tally), replace(how, steps=steps), generator)
        return Cost().plus(cost, how.steps / steps), starts

    def meta_training(self) -> list[dict[str, Any]]:
        """The whole cost of the learned optimizer's meta-training, from a piece of it; and the piece."""
        past, piece = self.card["meta_trained_on"], self.spec.piece
        plan = MetaTrainConfig(**past["plan"] | {"horizons": tuple(past["plan"]["horizons"])})
        training, family = Training(**past["their_training"]), tuple(past["family"])
        # The first time takes longer, here and below, and is not to be scaled up.
        self.making(family[:1], 1, replace(training, steps=2))
        models, starts = self.making(family, past["models_of_each"], training)
        source = Family(family, self.stage.pool, self.dataset.classes, self.dataset.classes * past["per_class"], starts)
        attack, episodes, looks = past["attack"], Cost(), Cost()

        def learn(episodes: int, tally: Passes) -> None:
            meta_train(
                make(self.card["kind"], torch.Generator().manual_seed(0)).to(self.device),
                lambda tasks, generator: counted(source.sample(tasks, generator), tally),
                replace(plan, episodes=episodes), inner=clean, seed=0,
                meta=Mixed(Adversarial(attack["eps"], attack["steps"]), attack["weight"]),
                label=f"{episodes} of {plan.episodes} episodes",
            )  # fmt: skip

        learn(1, Passes())
        with self.taking(episodes) as tally:
            learn(piece, tally)
        often = math.ceil(plan.episodes / plan.validate_every) if self.stage.spec.validated else 0
        if often:
            more, _ = self.making(self.stage.spec.validation, past["models_of_each"], training)
            models = models.plus(more)
            validation = validation_of(self.stage, replace(self.stage.part.rules[0], plan=plan))
            with self.taking(looks) as tally:
                replace(validation, groups=tuple(counted(group, tally) for group in validation.groups))(self.learned)
        parts = {
            "models to learn on": models,
            "episodes": Cost().plus(episodes, plan.episodes / piece),
            "looks at validation networks": Cost().plus(looks, often),
        }
        total = Cost()
        for part in parts.values():
            total = total.plus(part)
        common = self.common("meta-training", "", LEARNED, plan.episodes)
        pieces = {name: part.by_metric() for name, part in parts.items()}
        return [*self.rows(common, total, 1), {"pieces": pieces, "episodes counted": piece}]

    def search(self, name: str, group: str) -> list[dict[str, Any]]:
        """The cost of a baseline's search on the validation networks of a kind; and every point with its scores.

        One run of each point serves both horizons: it is scored where the short run ends, too. Points and seeds
        train side by side, which takes fewer seconds than one after the other.
        """
        spec, stage = self.spec, self.stage
        method = next(each for each in self.rivals if each.name == name)
        points, scores = drawn(method, spec.points), {}
        members = tuple(name for name in stage.spec.validation if kind(name) == group)
        total, _ = self.making(members, len(spec.tuning_seeds), stage.spec.training)
        here = stage.pool[stage.held_back]
        for name in members:
            tasks = stage.tasks(name, spec.tuning_seeds, without=stage.held_back)
            cost = Cost()
            with self.taking(cost) as tally:
                many = repeat(counted(tasks, tally), len(points))

                def watch(step: int, params: Tensor, made: int, many: Tasks = many, name: str = name) -> None:
                    if step in spec.horizons:
                        how = {"eps": spec.eps, "steps": 10, "generator": stage.generator(name, 2)}
                        found = accuracy(many, params, here, **how)
                        both = torch.tensor([found["clean"], found["robust"]]).mean(0)
                        scores.setdefault(step, []).append(both.nan_to_num().view(len(points), -1).mean(1))

                hyper = as_hyper(points, len(tasks), tasks.params)
                how = Inner(max(spec.horizons), spec.batch_size)
                fit_baseline(many, method, hyper, how, stage.generator(name, 1), watch)
            total = total.plus(cost)
        rows = self.rows(self.common("search", group, method.name, max(spec.horizons), method.tier), total, len(points))
        found = {step: torch.stack(of).mean(0).tolist() for step, of in scores.items()}
        return rows + [
            point | {f"score {step}": values[i] for step, values in found.items()} for i, point in enumerate(points)
        ]

    # Taking a cost, and writing it down

    @contextmanager
    def taking(self, cost: Cost) -> Iterator[Passes]:
        """Adds what is done inside to the cost; gives the tally to count passes with."""
        tally, began = Passes(), self.clock()
        with counting() as made:
            yield tally
        cost.seconds += self.clock() - began
        cost.evaluations += tally.evaluations
        cost.examples += made.examples

    def clock(self) -> float:
        """Seconds that the processor has worked, of all threads; on a GPU seconds of the wall, when its work is done.

        What else a machine is busy with takes none of this process's time. Alone, one thread has both alike.
        """
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
            return time.perf_counter()
        return time.process_time()

    def rows(self, common: dict[str, Any], cost: Cost, n: int) -> list[dict[str, Any]]:
        """Rows of the three costs. n: how many models, settings or rounds are behind them."""
        return [common | {"metric": metric, "value": value, "n": n} for metric, value in cost.by_metric().items()]

    def common(self, part: str, model: str, method: str, step: int, tier: str | None = None) -> dict[str, Any]:
        """What all rows of a thing say, and the columns that most leave empty."""
        if tier is None:
            tier = "" if method == BEFORE else TIERS[self.card["kind"]]
        meta_seed = self.card["meta_seed"] if method == LEARNED else None
        return self.stage.common(model, method, tier, meta_seed, step, learned=method == LEARNED) | {
            "experiment": NAME, "part": part, "seed": None, "attack": "", "eps": None,
            "split": "test" if part in ("before", "short", "long") else "",
        }  # fmt: skip
