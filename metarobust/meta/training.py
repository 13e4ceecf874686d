"""Meta-training: the optimizer's own parameters theta learn from how its optimizees turn out.

    theta <- theta - Adam( grad_theta  mean over tasks  meta( phi_K(theta) ) )

where phi_K are an optimizee's parameters after K steps of the optimizer. An episode is one inner run from start to
horizon, cut into stretches of K steps (truncation); after each stretch theta moves, and the next begins where it
ended. Gradients of gradients are left out (first order) unless asked for.

Source: Andrychowicz et al. 2016 (arXiv 1606.04474), section 2. An adversarial meta-objective over clean inner
gradients is the idea of Serban et al. 2020 (arXiv 2008.05247), of which we have the abstract; every choice of set-up
is ours.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from tqdm.auto import trange

from metarobust.errors import InputError
from metarobust.meta.estimators import ESTIMATORS
from metarobust.meta.plan import Plan, generator_of
from metarobust.meta.problem import Problem
from metarobust.meta.sharing import ALONE, Share
from metarobust.objectives import Objective
from metarobust.tasks import Tasks


@dataclass
class Progress:
    """What a checkpoint holds beside theta: the next episode, and a record of those that are over."""

    episode: int
    log: list[dict[str, Any]]


def meta_train(
    optimizer: nn.Module,
    sample: Callable[[int, torch.Generator], Tasks],
    plan: Plan,
    *,
    inner: Objective,
    meta: Objective,
    seed: int,
    device: torch.device | str = "cpu",
    save: Callable[[dict[str, Tensor], Progress], None] | None = None,
    resume: tuple[dict[str, Tensor], Progress] | None = None,
    every: int = 20,
    label: str = "meta-training",
    share: Share = ALONE,
) -> list[dict[str, Any]]:
    """Trains theta, the optimizer's parameters, in place, and returns a record of each episode.

    sample: number of tasks and a generator to tasks. save: is given all that a later `resume` needs, after each `every`
    episodes; a resumed meta-training ends with the same theta, to the bit, as one that was never stopped. A step whose
    meta-gradient is not finite is left out and counted; when more than a tenth of the steps are, InputError is raised.
    share: which of the groups are this process's; InputError where they cannot be shared evenly.
    """
    theta = dict(optimizer.named_parameters())
    adam = torch.optim.Adam(theta.values(), plan.lr)
    done = Progress(0, [])
    if resume is not None:
        done = Progress(resume[1].episode, list(resume[1].log))
        restore(theta, adam, resume[0])
    bar = trange(
        done.episode, plan.episodes, initial=done.episode, total=plan.episodes, desc=label, leave=False,
        disable=share.rank > 0,
    )  # fmt: skip
    for episode in bar:
        for group in adam.param_groups:
            group["lr"] = plan.rate(episode)
        record = _episode(optimizer, adam, sample, plan, inner, meta, device, (seed, episode), share)
        done.log.append({"episode": episode, **record})
        done.episode = episode + 1
        bar.set_postfix({"meta-loss": f"{record['meta_loss']:.3f}"})
        skipped = sum(row["skipped"] for row in done.log)
        if skipped > max(10, sum(row["steps"] for row in done.log) / 10):
            raise InputError(
                f"{skipped} meta-gradients were not finite: lower the meta learning rate or the truncation"
            )
        if save is not None and (done.episode % every == 0 or done.episode == plan.episodes):
            save(pack(theta, adam), Progress(done.episode, list(done.log)))
    return done.log


def _episode(
    optimizer: Any,
    adam: torch.optim.Adam,
    sample: Callable[[int, torch.Generator], Tasks],
    plan: Plan,
    inner: Objective,
    meta: Objective,
    device: torch.device | str,
    numbers: tuple[int, ...],
    share: Share,
) -> dict[str, Any]:
    """One inner run of every group, with a step of theta after each stretch. numbers: seed and episode."""
    draw = generator_of(device, *numbers)
    pick = int(torch.randint(len(plan.horizons), (1,), generator=draw, device=device))
    estimator, theta = ESTIMATORS[plan.estimator](), list(optimizer.parameters())
    problems, streams, carried = [], [], []
    for group in share.groups(plan.groups):
        stream = generator_of(device, *numbers, group)
        problem = Problem(sample(plan.tasks, stream), plan.horizons[pick], plan, inner, meta)
        problems.append(problem)
        streams.append(stream)
        carried.append(estimator.begin(optimizer, problem))
    losses, norms, skipped = [], [], 0
    for _ in range(plan.horizons[pick] // plan.truncation):
        grads, loss = [torch.zeros_like(p) for p in theta], 0.0
        for group, problem in enumerate(problems):
            found = estimator.step(optimizer, problem, carried[group], streams[group])
            carried[group] = found.carried
            grads = [g + one / plan.groups for g, one in zip(grads, found.gradient, strict=True)]
            loss += found.loss / plan.groups
        grads, loss = share.sum(grads, loss)
        norm = float(torch.linalg.vector_norm(torch.stack([torch.linalg.vector_norm(g) for g in grads])))
        losses.append(loss)
        norms.append(norm)
        if math.isfinite(norm):
            for p, g in zip(theta, grads, strict=True):
                p.grad = g * min(1.0, plan.clip / (norm + 1e-12))
            adam.step()
            adam.zero_grad()
        else:
            skipped += 1
    steps = len(losses)
    return {
        "meta_loss": sum(losses) / steps,
        "gradient": sum(norms) / steps,
        "steps": steps,
        "skipped": skipped,
    }


def pack(theta: dict[str, Tensor], adam: torch.optim.Adam) -> dict[str, Tensor]:
    """theta and the state of its Adam as named tensors, copied: the originals go on changing."""
    packed = {f"theta.{name}": p.detach().clone() for name, p in theta.items()}
    for name, p in theta.items():  # before the first step, Adam has no state
        packed |= {f"adam.{name}.{key}": torch.as_tensor(value).clone() for key, value in adam.state.get(p, {}).items()}
    return packed


def restore(theta: dict[str, Tensor], adam: torch.optim.Adam, packed: dict[str, Tensor]) -> None:
    """Takes up theta and its Adam, in place, where `pack` left them."""
    with torch.no_grad():
        for name, p in theta.items():
            p.copy_(packed[f"theta.{name}"])
    state = {}
    for number, (name, p) in enumerate(theta.items()):
        if f"adam.{name}.step" in packed:
            # Moments laid out in memory as the parameter is: another order rounds otherwise in the last bit.
            moments = {k: torch.empty_like(p).copy_(packed[f"adam.{name}.{k}"]) for k in ("exp_avg", "exp_avg_sq")}
            state[number] = {"step": packed[f"adam.{name}.step"].clone(), **moments}
    adam.load_state_dict({"state": state, "param_groups": adam.state_dict()["param_groups"]})
