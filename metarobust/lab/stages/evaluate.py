"""The last stage: the models that came out, as rows of the table.

What a part `measures` is `standard` for what is recorded: two runs of PGD and the standard ensemble at one radius, and
on one model of each method the checks that know how such figures go wrong. `quick` is the two PGDs alone, for when
somebody waits. `attacks` asks what kind of attack a model stands: others than it learned from, other radii, another
norm. `pixels` asks whether more was learned than to give up pixels that say nothing: beside `standard`, an attacker may
move no others than those that say most. `by hand` adds attacks made for the learned penalties.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from metarobust.attacks import counting
from metarobust.data import Split
from metarobust.evaluation import evaluate
from metarobust.lab import attacked
from metarobust.lab.adaptive import under_hand
from metarobust.lab.baselines import as_hyper, fit_baseline
from metarobust.lab.engine import Rows
from metarobust.lab.passes import Passes, counted
from metarobust.lab.results import BEFORE, FLAGS
from metarobust.lab.spec import Part, network_kind, slug
from metarobust.lab.stages.context import Context
from metarobust.lab.stages.meta_train import by_name, inner_objective, learned_optimizer
from metarobust.lab.stages.tune import best_point
from metarobust.learned import TIERS
from metarobust.tasks import Tasks
from metarobust.training import Watch, fit_learned

EXAMPLES, POINTS, PASSES = "adversarial examples", "points visited", "passes"
"""Metrics of what a method took: images that were attacked; points beside images at which a penalty took a gradient;
images that went through a model, forward or backward."""
CHECKED = 100
"""So many images the checks look at."""


def search(part: Part, name: str) -> str:
    """The name of the unit that tunes a baseline."""
    return f"{slug(part.name)}.tune.{slug(name)}"


def start(context: Context, network: str) -> Rows:
    """The models before the first step."""
    tasks = context.tasks(network, context.spec.seeds)
    return rows(context, context.common(network, BEFORE, "", None, 0), tasks, tasks.params, {})


def compare(context: Context, network: str, name: str) -> Rows:
    """A baseline on an unseen network, at the best point for networks of its kind."""
    method, tasks = context.baselines[name], context.tasks(network, context.spec.seeds)
    best = best_point(context.worker.rows(search(context.part, name)), network_kind(network))
    hyper = as_hyper([{key: best[key] for key in method.grid}], len(tasks), tasks.params)
    common = context.common(network, name, method.tier, None, 0)
    rng = context.generator(network, 4)
    return trace(context, common, tasks, lambda own, watch: fit_baseline(own, method, hyper, context.inner, rng, watch))


def compare_learned(context: Context, network: str, name: str) -> Rows:
    """The learned optimizers of this name, one for each meta-seed, or the one that is shipped, on an unseen network."""
    rule, tasks = by_name((*context.part.rules, *context.part.uses), name), context.tasks(network, context.spec.seeds)
    tier, table = TIERS[rule.kind] if rule.inner == "clean" else "adversarial", []
    for seed in context.spec.meta_seeds[: 1 if rule.pretrained else None]:
        optimizer, inner = learned_optimizer(context, rule, seed), inner_objective(context, rule)

        def fit(some: Tasks, watch: Watch, optimizer: Any = optimizer, inner: Any = inner) -> tuple[Tensor, int]:
            return fit_learned(some, optimizer, context.inner, context.generator(network, 4), inner, watch)

        table += trace(context, context.common(network, name, tier, seed, 0, learned=True), tasks, fit)
    return table


def trace(
    context: Context, common: Mapping[str, Any], tasks: Tasks, fit: Callable[[Tasks, Watch], tuple[Tensor, int]]
) -> Rows:
    """The rows of a method at each mark on its way, and in the end."""
    part, marks, passes = context.part, [], Passes()
    with counting() as made:

        def counts() -> dict[str, int]:
            return {EXAMPLES: made.examples, POINTS: made.points, PASSES: passes.evaluations}

        def watch(step: int, params: Tensor, _: int) -> None:
            if step in part.marks and step < part.steps:
                marks.append((step, params, counts()))

        params, _ = fit(counted(tasks, passes), watch)
        marks.append((part.steps, params, counts()))
    return [row for step, *reached in marks for row in rows(context, {**common, "step": step}, tasks, *reached)]


def rows(context: Context, common: Mapping[str, Any], tasks: Tasks, params: Tensor, counts: Mapping[str, int]) -> Rows:
    """Accuracies of each seed, and what it took for all seeds together.

    Args:
        context: Of the part.
        common: What all of the rows say, see `Context.common`.
        tasks: T of them, one for each seed.
        params: The models that came out, `[T, N]`.
        counts: Adversarial examples, points visited and passes on the way, by metric.
    """
    spec, part, model = context.spec, context.part, common["model"]
    # Many attacks take long, so that they get fewer images.
    images = context.test[:200] if part.measures == "attacks" else context.test
    values = measured(context, tasks, params, images, context.generator(model, 5))
    table = accuracies(context, common, values, len(images))
    if common["step"] == part.steps and part.gap:
        table += on_training_images(context, common, tasks, params)
    last, first = common["step"] == part.steps or common["method"] == BEFORE, (None, spec.meta_seeds[0])
    if last and part.measures in ("standard", "pixels") and common["meta_seed"] in first:
        table.append({**common, **checks(context, tasks, params[0])})
    no_attack = {**common, "seed": None, "attack": "", "eps": None, "n": len(tasks)}
    counts = {EXAMPLES: 0} | counts
    return [*table, *({**no_attack, "metric": name, "value": float(count)} for name, count in counts.items())]


def accuracies(context: Context, common: Mapping[str, Any], values: Iterable[attacked.Measured], n: int) -> Rows:
    """A row for each measured value and each seed."""
    return [
        {**common, "seed": seed, "attack": attack, "eps": eps, "value": value, "n": n, "scope": scope}
        | {"metric": "robust accuracy" if eps else "clean accuracy"}
        for attack, scope, eps, each in values
        for seed, value in zip(context.spec.seeds, each, strict=True)
    ]


def measured(
    context: Context, tasks: Tasks, params: Tensor, images: Split, rng: torch.Generator, *, own: bool = False
) -> Iterator[attacked.Measured]:
    """Attack, scope, radius, and the accuracy of each model; radius 0 is clean accuracy. own: see `together`."""
    spec, kind = context.spec, context.part.measures
    numbers = {"eps": spec.eps, "steps": spec.attack_steps, "generator": rng}
    if kind == "attacks":
        yield from attacked.under_attacks(tasks, params, images, classes=context.dataset.classes, **numbers)
    elif kind == "by hand":
        yield from under_hand(tasks, params, images, classes=context.dataset.classes, **numbers)
    elif kind == "quick":
        yield from attacked.under_pair(tasks, params, images, **numbers)
    else:
        yield from attacked.under_standard(tasks, params, images, classes=context.dataset.classes, own=own, **numbers)
    if kind == "pixels":
        order = attacked.informative(context.pool, context.dataset.classes)
        yield from attacked.under_few_pixels(tasks, params, images, order, **numbers)


def on_training_images(context: Context, common: Mapping[str, Any], tasks: Tasks, params: Tensor) -> Rows:
    """The same for each model's own training images: what is lost from there to the test images is overfitting."""
    # No more of them than test images, and of all classes.
    index = torch.stack([own[:: -(-len(own) // len(context.test))] for own in tasks.train])
    model, seeds, own = common["model"], context.spec.seeds, []
    if context.part.measures == "standard":
        images = Split(tasks.images[index.flatten()], tasks.labels[index.flatten()])
        values = list(measured(context, tasks, params, images, context.generator(model, 5), own=True))
    else:
        for seed, one, mine in zip(seeds, params, index, strict=True):
            images = Split(tasks.images[mine], tasks.labels[mine])
            own.append(list(measured(context, tasks, one[None], images, context.generator(model, 5, seed))))
        values = [(*same[0][:3], [each[3][0] for each in same]) for same in zip(*own, strict=True)]
    return accuracies(context, {**common, "split": "train"}, values, index.shape[1])


def checks(context: Context, tasks: Tasks, params: Tensor) -> dict[str, Any]:
    """How many flags the checks of `evaluate` raise on the model of the first seed, and which, as a row's end."""
    few = context.test[:CHECKED]
    report = evaluate(
        tasks.predictor(params), few.images, few.labels, eps=context.spec.eps, restarts=1, checks=len(few),
        label=None, **attacked.SHORTER,
    )  # fmt: skip
    return {
        "seed": context.spec.seeds[0],
        "attack": ", ".join(flag.check for flag in report.flags),
        "eps": context.spec.eps,
        "metric": FLAGS,
        "value": float(len(report.flags)),
        "n": len(few),
    }
