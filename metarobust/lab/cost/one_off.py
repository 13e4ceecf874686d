"""What is paid once, in the experiment `cost`: meta-training, and the search for each baseline's settings.

Three costs are taken of everything: seconds (see `clock`), model evaluations (passes, see `passes`) and adversarial
examples; the last two are counted while the thing is done.

Meta-training is not repeated: a piece of the very same is counted and timed, and scaled up. A first part makes the
models that it learns on, a second are its episodes, a third its validations.
"""

import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import reduce
from typing import Any

import torch
from torch import Tensor

from metarobust import pretrained
from metarobust.attacks import counting
from metarobust.family import Family, Training, make_tasks, train_clean
from metarobust.lab.baselines import as_hyper, fit_baseline, repeat
from metarobust.lab.cost.payback import COSTS
from metarobust.lab.cost.spec import NAME, Spec, drawn, rivals
from metarobust.lab.engine import Rows, Worker
from metarobust.lab.passes import Passes, counted
from metarobust.lab.results import LEARNED
from metarobust.lab.spec import from_dict, network_kind
from metarobust.lab.stages.context import Context
from metarobust.lab.stages.meta_train import validation
from metarobust.learned import TIERS, make
from metarobust.meta import MetaTrainConfig, generator_of, meta_train
from metarobust.objectives import Adversarial, Mixed, clean
from metarobust.tasks import Tasks
from metarobust.training import Inner, accuracy

BRIEFLY = 20
"""Steps of training that are counted and timed, of a model to learn on or to tune on."""


@dataclass
class Cost:
    """seconds, evaluations and examples of something, as they are known so far."""

    seconds: float = 0.0
    evaluations: float = 0.0
    examples: float = 0.0

    def __add__(self, other: "Cost") -> "Cost":
        return Cost(*(a + b for a, b in zip(self.values(), other.values(), strict=True)))

    def times(self, factor: float) -> "Cost":
        """The same so many times."""
        return Cost(*(factor * value for value in self.values()))

    def values(self) -> tuple[float, float, float]:
        """The three in the order of COSTS."""
        return self.seconds, self.evaluations, self.examples


class Setting(Context):
    """What all units of the experiment share in one process."""

    def __init__(self, worker: Worker):
        self.cost: Spec = from_dict(Spec, dict(worker.spec))
        super().__init__(self.cost.setting, self.cost.setting.parts[0], worker)
        self.rivals = rivals(self.spec.eps)
        self.card = pretrained.card(self.cost.optimizer)
        self.learned = pretrained.load(self.cost.optimizer).to(self.device)

    def row(self, part: str, model: str, method: str, step: int, tier: str = "") -> dict[str, Any]:
        """What all rows of a thing say, and the columns that most leave empty."""
        learned = method == LEARNED
        meta_seed, tier = (self.card["meta_seed"], TIERS[self.card["kind"]]) if learned else (None, tier)
        network = model if model in ("", "dense", "convolutional") else network_kind(model)
        split = "test" if part in ("before", "short", "long") else ""
        return super().common(model, method, tier, meta_seed, step, learned=learned) | {
            "experiment": NAME, "part": part, "network": network, "seed": None, "split": split, "attack": "",
            "eps": None,
        }  # fmt: skip

    def cost_rows(self, common: dict[str, Any], cost: Cost, n: int) -> Rows:
        """Rows of the three costs. n: how many models, settings or rounds are behind them."""
        return [common | {"metric": m, "value": v, "n": n} for m, v in zip(COSTS, cost.values(), strict=True)]

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

    def making(self, members: tuple[str, ...], each: int, training: Training) -> tuple[Cost, dict[str, Tensor]]:
        """What it costs to train `each` models of these networks, from a few steps; and the models that these give."""
        starts, cost, steps = {}, Cost(), min(BRIEFLY, training.steps)
        with self.taking(cost) as tally:
            for name in members:
                rows, rng = (
                    torch.arange(len(self.pool), device=self.device).expand(each, -1),
                    generator_of(self.device, 1),
                )
                tasks = make_tasks(name, self.pool, self.dataset.classes, rows, rows, rng)
                starts[name] = train_clean(counted(tasks, tally), replace(training, steps=steps), rng)
        return cost.times(training.steps / steps), starts


def meta_training(setting: Setting) -> Rows:
    """The whole cost of the learned optimizer's meta-training, from a piece of it; and the piece."""
    past, piece, dataset = setting.card["meta_trained_on"], setting.cost.piece, setting.dataset
    config: MetaTrainConfig = from_dict(MetaTrainConfig, past["plan"])
    training, family = Training(**past["their_training"]), tuple(past["family"])
    # The first time takes longer, here and below, and is not to be scaled up.
    setting.making(family[:1], 1, replace(training, steps=2))
    models, starts = setting.making(family, past["models_of_each"], training)
    source = Family(family, setting.pool, dataset.classes, dataset.classes * past["per_class"], starts)
    attack, episodes, validations = past["attack"], Cost(), Cost()

    def learn(number: int, tally: Passes) -> None:
        meta_train(
            make(setting.card["kind"], torch.Generator().manual_seed(0)).to(setting.device),
            lambda tasks, generator: counted(source.sample(tasks, generator), tally),
            replace(config, episodes=number), inner=clean, seed=0,
            meta=Mixed(Adversarial(attack["eps"], attack["steps"]), attack["weight"]),
            label=None if setting.worker.quiet else f"{number} of {config.episodes} episodes",
        )  # fmt: skip

    learn(1, Passes())
    with setting.taking(episodes) as tally:
        learn(piece, tally)
    often = math.ceil(config.episodes / config.validate_every) if setting.spec.validated else 0
    if often:
        models += setting.making(setting.spec.validation, past["models_of_each"], training)[0]
        held_out = validation(setting, replace(setting.part.rules[0], plan=config))
        with setting.taking(validations) as tally:
            replace(held_out, groups=tuple(counted(group, tally) for group in held_out.groups))(setting.learned)
    parts = {
        "models to learn on": models,
        "episodes": episodes.times(config.episodes / piece),
        "validations": validations.times(often),
    }
    common = setting.row("meta-training", "", LEARNED, config.episodes)
    pieces = {name: dict(zip(COSTS, part.values(), strict=True)) for name, part in parts.items()}
    total = reduce(Cost.__add__, parts.values())
    return [*setting.cost_rows(common, total, 1), {"pieces": pieces, "episodes counted": piece}]


def search(setting: Setting, name: str, network: str) -> Rows:
    """The cost of a baseline's search on the validation networks of a kind; and every point with its scores.

    One run of each point serves both horizons: it is scored where the short run ends, too. Points and seeds train side
    by side, which takes fewer seconds than one after the other.
    """
    spec, method = setting.cost, setting.rivals[name]
    points, scores = drawn(method, spec.points), {}
    members = tuple(each for each in setting.spec.validation if network_kind(each) == network)
    total, _ = setting.making(members, len(setting.spec.tuning_seeds), setting.spec.training)
    images = setting.pool[setting.held_back]
    for member in members:
        tasks, cost = setting.tasks(member, setting.spec.tuning_seeds, without=setting.held_back), Cost()
        with setting.taking(cost) as tally:
            many = repeat(counted(tasks, tally), len(points))

            def watch(step: int, params: Tensor, made: int, many: Tasks = many, member: str = member) -> None:
                if step in spec.horizons:
                    rng = setting.generator(member, 2)
                    shares = accuracy(many, params, images, eps=setting.spec.eps, steps=10, generator=rng)
                    both = torch.tensor([shares["clean"], shares["robust"]]).mean(0)
                    scores.setdefault(step, []).append(both.nan_to_num().view(len(points), -1).mean(1))

            hyper = as_hyper(points, len(tasks), tasks.params)
            inner = Inner(max(spec.horizons), spec.batch_size)
            fit_baseline(many, method, hyper, inner, setting.generator(member, 1), watch)
        total += cost
    means = {step: torch.stack(each).mean(0).tolist() for step, each in scores.items()}
    rows = setting.cost_rows(setting.row("search", network, name, max(spec.horizons), method.tier), total, len(points))
    return rows + [point | {f"score {s}": values[i] for s, values in means.items()} for i, point in enumerate(points)]
