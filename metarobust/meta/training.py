"""Meta-training: the optimizer's own parameters theta learn from how its optimizees turn out.

    theta <- theta - Adam( grad_theta  mean over tasks  meta( phi_K(theta) ) )

where phi_K are an optimizee's parameters after K steps of the optimizer. An episode is one inner run from start to
horizon, cut into stretches of K steps (truncation); after each stretch theta moves, and the next begins where it
ended. Gradients of gradients are left out (first order) unless asked for.

A stretch that diverged would teach theta nonsense. It ends its episode, and theta and its Adam step back to where the
last episode that went well began: from there a whole episode is known to go well.

Source: Andrychowicz et al. 2016 (arXiv 1606.04474), section 2. An adversarial meta-objective over clean inner
gradients is the idea of Serban et al. 2020 (arXiv 2008.05247), of which we have the abstract; every choice of set-up
is ours.
"""

import math
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from tqdm.auto import tqdm

from metarobust.errors import InputError
from metarobust.meta.config import MetaTrainConfig
from metarobust.meta.episode import Episode
from metarobust.meta.sharing import ALONE, Share
from metarobust.meta.state import State
from metarobust.objectives import Adversarial, Mixed, Objective
from metarobust.tasks import Tasks


@dataclass
class Progress:
    """What a checkpoint holds beside theta: the next episode, and a record of those that are over."""

    episode: int
    log: list[dict[str, Any]]


def meta_train(
    optimizer: nn.Module,
    sample: Callable[[int, torch.Generator], Tasks],
    plan: MetaTrainConfig,
    *,
    inner: Objective,
    meta: Objective,
    seed: int,
    device: torch.device | str = "cpu",
    validate: Callable[[Any], tuple[float, float]] | None = None,
    save: Callable[[dict[str, Tensor], Progress], None] | None = None,
    resume: tuple[dict[str, Tensor], Progress] | None = None,
    every: int = 20,
    label: str | None = "meta-training",
    share: Share = ALONE,
) -> list[dict[str, Any]]:
    """Trains theta, the optimizer's parameters, in place, and returns a record of each episode.

    sample: number of tasks and a generator to tasks. validate: the optimizer to its clean and robust accuracy on tasks
    that `sample` never draws, see `metarobust.meta.validation`. Where it is given, the theta with the best mean of the
    two is what stays in the end, and after `plan.patience` looks without a better one there is no need to go on.

    save: is given all that a later `resume` needs, after each `every` episodes and at the end: theta, the state of its
    Adam, what to step back to, the best theta, and the log. No generator is stored, for every stream of chance, that of
    the tasks included, follows from the seed, the episode and the group. A resumed meta-training ends with the same
    theta, to the bit, as one that was never stopped.

    label: what the bar of progress says; None for no bar. share: which of the groups are this process's. All processes
    end with the same theta, to the bit.

    A stretch has diverged if its meta-loss or its gradient is not finite, or the meta-loss not below
    `plan.divergence_threshold`; the log counts it in `stepped_back`. Raises InputError when that ended more than 10
    episodes and more than a tenth, for a radius that is to grow where the meta-objective has none, and for patience
    without `validate`.
    """
    if plan.eps_growth and not isinstance(meta, Adversarial | Mixed):
        raise InputError(f"eps_growth {plan.eps_growth}: the meta-objective has no radius; give Adversarial or Mixed")
    if plan.patience and validate is None:
        raise InputError(f"patience {plan.patience}: there is nothing to look at; give `validate`, or a patience of 0")
    quiet = label is None or share.rank > 0
    state, done = State(dict(optimizer.named_parameters()), plan.lr), Progress(0, [])
    if resume is not None:
        done = Progress(resume[1].episode, list(resume[1].log))
        state.take_up(resume[0])
    with tqdm(total=plan.episodes, initial=done.episode, desc=label, leave=False, disable=quiet) as bar:
        while not _over(plan, done):
            number = done.episode
            objective = meta.at(plan.radius(number)) if plan.eps_growth else meta
            episode = Episode(
                optimizer, sample, plan, inner=inner, meta=objective, device=device, numbers=(seed, number), share=share
            )
            record = {"episode": number, **_follow(episode, state)}
            if record["stepped_back"] and not quiet:
                found = f"meta-loss {record['meta_loss']:.3g}, gradient {record['gradient']:.3g}"
                tqdm.write(f"{label}: episode {number} diverged ({found}): back to the last good state", sys.stderr)
            if validate is not None and ((number + 1) % plan.validate_every == 0 or number + 1 == plan.episodes):
                best = max(_scores(done.log), default=-math.inf)
                # Process 0 looks for all: they must agree on when it is over.
                record["clean"], record["robust"] = share.tell(validate(optimizer) if share.rank == 0 else None)
                if _scores([record])[0] > best:
                    state.keep_best()
            done.log.append(record)
            done.episode += 1
            _refuse_too_many(done.log)
            if _over(plan, done):
                state.go_to_best()
            if save is not None and (done.episode % every == 0 or _over(plan, done)):
                save(state.packed(), Progress(done.episode, list(done.log)))
            bar.set_postfix(_shown(done.log))
            bar.update()
    return done.log


def _follow(episode: Episode, state: State) -> dict[str, float]:
    """Moves theta after each stretch of the episode, or steps back and ends it; returns what the log says of it."""
    plan, losses, norms, diverged = episode.plan, [], [], False
    for group in state.adam.param_groups:
        group["lr"] = plan.rate(episode.number)
    start = state.here()
    while len(losses) < episode.stretches and not diverged:
        loss, gradient = episode.stretch()
        norm = float(torch.linalg.vector_norm(torch.stack([torch.linalg.vector_norm(g) for g in gradient])))
        losses.append(loss)
        norms.append(norm)
        diverged = not (loss < plan.divergence_threshold and math.isfinite(norm))
        if not diverged:
            for p, g in zip(state.theta.values(), gradient, strict=True):
                p.grad = g * min(1.0, plan.clip / (norm + 1e-12))
            state.adam.step()
            state.adam.zero_grad()
    if diverged:
        state.go(state.good)
    else:
        state.good = start
    steps = len(losses)
    return {
        "meta_loss": sum(losses) / steps,
        "gradient": sum(norms) / steps,
        "steps": steps,
        "stepped_back": int(diverged),
    }


def _scores(log: list[dict[str, Any]]) -> list[float]:
    """The mean of clean and robust accuracy each time that someone looked."""
    return [(row["clean"] + row["robust"]) / 2 for row in log if "clean" in row]


def _over(plan: MetaTrainConfig, done: Progress) -> bool:
    """Whether all episodes are over, or the last looks brought nothing better. The log alone decides: it is stored."""
    scores = _scores(done.log)
    waited = len(scores) - 1 - scores.index(max(scores)) if scores else 0
    return done.episode >= plan.episodes or 0 < plan.patience <= waited


def _refuse_too_many(log: list[dict[str, Any]]) -> None:
    back = sum(row["stepped_back"] for row in log)
    if back > max(10, len(log) / 10):
        raise InputError(
            f"{back} of {len(log)} episodes diverged: lower the meta learning rate or the truncation, "
            f"or raise the ceiling where such a meta-loss is no surprise"
        )


def _shown(log: list[dict[str, Any]]) -> dict[str, str]:
    """What stands beside the progress bar: the last meta-loss, the last look, and how often it stepped back."""
    shown = {"meta-loss": f"{log[-1]['meta_loss']:.3f}"}
    looks = [row for row in log if "clean" in row]
    if looks:
        shown |= {f"held-out {name}": f"{100 * looks[-1][name]:.1f}%" for name in ("clean", "robust")}
    if back := sum(row["stepped_back"] for row in log):
        shown["stepped back"] = str(back)
    return shown
