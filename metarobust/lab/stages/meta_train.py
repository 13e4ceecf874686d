"""The first stage: meta-training the learned optimizers of a part, each in a unit with checkpoints of its own."""

from collections.abc import Sequence
from typing import cast

import torch
from torch import nn

from metarobust import pretrained
from metarobust.data import load
from metarobust.family import Family, vulnerable
from metarobust.lab.engine import Rows
from metarobust.lab.spec import OptimizerConfig, Part, network_kind, slug
from metarobust.lab.stages.context import Context
from metarobust.lab.what_was_learned import Knockout
from metarobust.learned import make
from metarobust.learned.penalties import LearnedPenalties
from metarobust.meta import MetaTrainer, Sample, Validation, generator_of, hold_out, theta_of
from metarobust.objectives import Adversarial, Mixed, Objective, clean
from metarobust.tasks import Tasks

SAVE_EVERY = 20
"""Episodes between two checkpoints."""


def unit_name(part: Part, rule: OptimizerConfig, seed: int) -> str:
    """The name of a rule's unit and of its checkpoint, in the part that it was learned for."""
    return f"{slug(part.home if rule in part.uses else part.name)}.{slug(rule.name)}.{seed}"


def learn(context: Context, name: str, seed: int) -> Rows:
    """Meta-trains the optimizer of this name, from its last checkpoint where there is one.

    Returns:
        A record of each episode.
    """
    spec, part, worker = context.spec, context.part, context.worker
    rule = by_name(part.rules, name)
    unit = unit_name(part, rule, seed)
    optimizer = make(rule.kind, torch.Generator().manual_seed(seed), **rule.shape).to(context.device)
    if rule.begins is not None:
        before = by_name(part.rules, rule.begins)
        trained = learned_optimizer(context, before, seed)
        if before.kind == rule.kind:
            optimizer.load_state_dict(trained.state_dict())
        else:
            optimizer.begin_from(trained)
    members = tuple(rule.family or spec.family)
    trainer = MetaTrainer(
        optimizer,
        evenly([family(context, source, members).sample for source in (rule.source, *rule.beside)]),
        rule.plan,
        inner=inner_objective(context, rule),
        meta=meta_objective(context, rule),
        seed=seed,
        validate=validation(context, rule) if spec.validated else None,
    )
    held = worker.restore(unit)
    if held:
        trainer.load_state_dict(held[0], held[1]["log"])
    for _ in trainer.episodes(None if worker.quiet else f"{part.name}, {rule.name}, meta-seed {seed}"):
        done = len(trainer.log)
        if done % SAVE_EVERY == 0 or trainer.is_over:
            worker.save(unit, trainer.state_dict(), {"episode": done, "log": trainer.log})
    return trainer.log


def learned_optimizer(context: Context, rule: OptimizerConfig, seed: int) -> nn.Module:
    """A meta-trained optimizer, from its checkpoint. Raises InputError where that is gone."""
    if rule.pretrained is not None:
        whole = pretrained.load(rule.pretrained)
        return (Knockout(cast(LearnedPenalties, whole), **rule.shape) if rule.shape else whole).to(context.device)
    tensors, _ = context.worker.stored(unit_name(context.part, rule, seed))
    optimizer = make(rule.kind, **rule.shape).to(context.device)
    optimizer.load_state_dict(theta_of(tensors))
    return optimizer


def by_name(rules: Sequence[OptimizerConfig], name: str) -> OptimizerConfig:
    """The rule of this name."""
    return next(rule for rule in rules if rule.name == name)


def inner_objective(context: Context, rule: OptimizerConfig) -> Objective:
    """Where a rule's gradients are taken, when it learns and when it is used."""
    steps = {"clean": 0, "fgsm": 1, "pgd": 7}[rule.inner]
    return Adversarial(context.spec.eps, steps) if steps else clean


def meta_objective(context: Context, rule: OptimizerConfig) -> Objective:
    """The meta-loss of a rule: what the models that come out of its steps are measured by."""
    part, eps = context.part, context.part.meta_eps * (radius(context, rule) / context.spec.eps)
    if rule.meta == "clean":
        return clean
    steps, margin = 1 if rule.meta == "fgsm" else part.attack_steps, rule.meta == "margin"
    return Mixed(Adversarial(eps, steps, loss="margin" if margin else "ce"), part.weight, calibrated=margin)


def radius(context: Context, rule: OptimizerConfig) -> float:
    """The radius that goes with the images a rule learns from, which may be of another data set."""
    return context.spec.eps if rule.source is None else context.spec.elsewhere[rule.source].eps


def family(context: Context, source: str | None, members: tuple[str, ...]) -> Family:
    """The problems of these networks, on this data set or on another. Made once: trained models take a while."""
    key = ("family", context.part.name, source, members)
    return context.worker.once(key, lambda: _make_family(context, source, members))


def _make_family(context: Context, source: str | None, members: tuple[str, ...]) -> Family:
    spec, dataset, pool, sizes = context.spec, context.dataset, context.pool, context.spec
    if source is not None:
        sizes = spec.elsewhere[source]
        dataset = load(source, dataset.root, context.device)
        pool = dataset.train[torch.arange(sizes.meta_images, device=context.device)]
    starts = None
    if context.part.trained:
        rng = generator_of(context.device, 1)
        starts = vulnerable(members, pool, dataset.classes, spec.victims, spec.training, rng)
    return Family(members, pool, dataset.classes, dataset.classes * sizes.per_class, starts, sizes.eps)


def evenly(samples: Sequence[Sample]) -> Sample:
    """Tasks of a source that is drawn evenly; of the only one without a draw."""
    if len(samples) == 1:
        return samples[0]

    def sample(tasks: int, generator: torch.Generator) -> Tasks:
        pick = torch.randint(len(samples), (1,), generator=generator, device=generator.device)
        return samples[int(pick)](tasks, generator)

    return sample


def validation(context: Context, rule: OptimizerConfig) -> Validation:
    """Validation networks, which no rule learns from, to keep the theta that does best on them.

    For one that learns on networks of its own they are of the same kinds: others would say nothing of it.
    """
    kinds = set(map(network_kind, rule.family or context.spec.family))
    members = tuple(name for name in context.spec.validation if network_kind(name) in kinds)
    groups = tuple(
        group
        for source in (rule.source, *rule.beside)
        for group in hold_out(family(context, source, members).sample, 6, 2, device=context.device)
    )
    part, inner = context.part, inner_objective(context, rule)
    return Validation(groups, inner, part.steps, part.batch_size, eps=radius(context, rule))
