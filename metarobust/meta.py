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
from metarobust.objectives import Objective
from metarobust.tasks import Tasks
from metarobust.unroll import detach, unroll


@dataclass(frozen=True)
class Plan:
    """The numbers of a meta-training.

    episodes: inner runs. horizons: their lengths in steps, one is drawn for each. truncation: steps between two moves
    of theta. tasks: optimizees in a batch. batch_size, held_out: images of an inner step, and of a meta-loss. lr:
    of Adam on theta, after a linear warm-up, falling to a tenth by a cosine. clip: longest meta-gradient. middle:
    share of the meta-loss that is taken half-way through a stretch; the rest is taken at its end.
    """

    episodes: int = 200
    horizons: tuple[int, ...] = (20,)
    truncation: int = 10
    tasks: int = 4
    batch_size: int = 64
    held_out: int = 128
    lr: float = 3e-3
    warmup: int = 10
    clip: float = 1.0
    second_order: bool = False
    middle: float = 0.3

    def __post_init__(self) -> None:
        whole = self.truncation >= 2 and all(h > 0 and h % self.truncation == 0 for h in self.horizons)
        if not whole or not self.horizons:
            raise InputError(
                f"horizons {list(self.horizons)} with truncation {self.truncation}: "
                f"each horizon is a whole number of stretches, and a stretch has at least 2 steps"
            )

        for name in ("episodes", "tasks", "batch_size", "held_out", "lr", "clip"):
            if not getattr(self, name) > 0:
                raise InputError(f"{name} of a meta-training is {getattr(self, name)}: give a number above 0")
        if not 0 <= self.middle <= 1:
            raise InputError(f"middle {self.middle}: give the share of the meta-loss taken half-way, from 0 to 1")

    def rate(self, episode: int) -> float:
        """The step of theta's Adam in an episode."""
        return (
            self.lr
            * min(1, (episode + 1) / max(1, self.warmup))
            * (0.55 + 0.45 * math.cos(math.pi * episode / self.episodes))
        )


@dataclass
class Progress:
    """What a checkpoint holds beside theta: the next episode, and a record of those that are over."""

    episode: int
    log: list[dict[str, Any]]


def generator_of(device: torch.device | str, *numbers: int) -> torch.Generator:
    """A generator whose stream depends on all the numbers.

    Each episode has its own, made from the seed and the episode's number: a resumed run needs no stored stream, and
    episodes can be shared out to processes.
    """
    seed = 0
    for number in numbers:
        seed = (seed * 1_000_003 + number + 1) % (2**63 - 25)
    return torch.Generator(device).manual_seed(seed)


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
) -> list[dict[str, Any]]:
    """Trains theta, the optimizer's parameters, in place, and returns a record of each episode.

    sample: number of tasks and a generator to tasks. save: is given all that a later `resume` needs, after each `every`
    episodes; a resumed meta-training ends with the same theta, to the bit, as one that was never stopped. A step whose
    meta-gradient is not finite is left out and counted; when more than a tenth of the steps are, InputError is raised.
    """
    theta = dict(optimizer.named_parameters())
    adam = torch.optim.Adam(theta.values(), plan.lr)
    done = Progress(0, [])
    if resume is not None:
        done = Progress(resume[1].episode, list(resume[1].log))
        restore(theta, adam, resume[0])
    bar = trange(done.episode, plan.episodes, initial=done.episode, total=plan.episodes, desc=label, leave=False)
    for episode in bar:
        for group in adam.param_groups:
            group["lr"] = plan.rate(episode)
        record = _episode(optimizer, adam, sample, plan, inner, meta, generator_of(device, seed, episode))
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
    generator: torch.Generator,
) -> dict[str, Any]:
    """One inner run, with a step of theta after each stretch."""
    tasks = sample(plan.tasks, generator)
    pick = int(torch.randint(len(plan.horizons), (1,), generator=generator, device=generator.device))
    horizon = plan.horizons[pick]
    params, state = tasks.params, optimizer.init(tasks.params, tasks.layout, horizon)
    theta = [p for group in adam.param_groups for p in group["params"]]
    losses, norms, skipped = [], [], 0
    halves = (plan.truncation // 2, plan.truncation - plan.truncation // 2)
    for _ in range(horizon // plan.truncation):
        score = tasks.params.new_zeros(())
        for weight, steps in zip((plan.middle, 1 - plan.middle), halves, strict=True):
            params, state = unroll(
                tasks, optimizer, params, state, steps=steps, batch_size=plan.batch_size, inner=inner,
                generator=generator, second_order=plan.second_order,
            )  # fmt: skip
            images, labels = tasks.batch(tasks.held_out, plan.held_out, generator)
            score = score + weight * meta(tasks.predictor(params), images, labels, generator).mean()
        grads = torch.autograd.grad(score, theta)
        norm = float(torch.linalg.vector_norm(torch.stack([torch.linalg.vector_norm(g) for g in grads])))
        losses.append(score.item())
        norms.append(norm)
        if math.isfinite(norm):
            for p, g in zip(theta, grads, strict=True):
                p.grad = g * min(1.0, plan.clip / (norm + 1e-12))
            adam.step()
            adam.zero_grad()
        else:
            skipped += 1
        params, state = params.detach(), detach(state)
    steps = horizon // plan.truncation
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
