"""Meta-training: the optimizer's own parameters theta learn from how its optimizees turn out.

    theta <- theta - Adam( grad_theta  mean over tasks  meta( phi_K(theta) ) )

where phi_K are an optimizee's parameters after K steps of the optimizer. An episode is one inner run from start to
horizon, cut into truncations of K steps; after each, theta moves, and the next begins where it ended. Gradients of
gradients are left out (first order) unless asked for.

A truncation that diverged would teach theta nonsense. It ends its episode, and theta and its Adam step back to where
the last episode that went well began: from there a whole episode is known to go well.

Source: Andrychowicz et al. 2016 (arXiv 1606.04474), section 2. An adversarial meta-objective over clean inner
gradients is the idea of Serban et al. 2020 (arXiv 2008.05247), of which we have the abstract; every choice of set-up
is ours.
"""

import math
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence

import torch
from torch import Tensor
from tqdm.auto import tqdm

from metarobust.errors import InputError
from metarobust.learned.protocol import LearnedOptimizer
from metarobust.meta.checkpoint import pack, restore, with_prefix
from metarobust.meta.config import MetaTrainConfig, generator_of
from metarobust.meta.estimators import ESTIMATORS
from metarobust.meta.problem import Problem
from metarobust.objectives import Objective
from metarobust.tasks import Tasks

Sample = Callable[[int, torch.Generator], Tasks]
Record = dict[str, float]


class MetaTrainer:
    """A meta-training that can be stopped after any episode, and resumed: it ends with the same theta, to the bit.

        trainer = MetaTrainer(optimizer, family.sample, config, inner=clean, meta=Adversarial(0.1), seed=0)
        for record in trainer.episodes():
            save(trainer.state_dict(), trainer.log)

    Args:
        optimizer: its parameters theta learn, in place.
        sample: number of tasks and a generator to tasks.
        config: the numbers.
        inner: the objective of the inner runs.
        meta: the meta-objective, on images held out from the inner runs.
        seed: all random streams follow from it, the episode and the group, so none is stored.
        validate: the optimizer to its clean and robust accuracy on tasks that `sample` never draws, see
            `metarobust.meta.validation`. The theta with the best mean of the two is what stays in the end.

    Attributes:
        log: a record of each episode that is over.

    Raises:
        InputError: from an episode, when more than 10 of them and more than a tenth have diverged.
    """

    def __init__(
        self,
        optimizer: LearnedOptimizer,
        sample: Sample,
        config: MetaTrainConfig,
        *,
        inner: Objective,
        meta: Objective,
        seed: int,
        validate: Callable[[LearnedOptimizer], tuple[float, float]] | None = None,
    ):
        self.optimizer, self.sample, self.config, self.seed = optimizer, sample, config, seed
        self.inner, self.meta, self.validate = inner, meta, validate
        self.log: list[Record] = []
        self._theta = dict(optimizer.named_parameters())
        self._adam = torch.optim.Adam(self._theta.values(), config.lr, (0.9, config.beta2))
        self._last_good = pack(self._theta, self._adam)
        self._best: dict[str, Tensor] = {}

    @property
    def is_over(self) -> bool:
        """Whether all episodes are over."""
        return len(self.log) >= self.config.episodes

    def episodes(self, label: str | None = None) -> Iterator[Record]:
        """Records of the episodes that are left, each of which is run when its record is asked for.

        Args:
            label: what a bar of progress says; None for no bar.
        """
        total, done = self.config.episodes, len(self.log)
        with tqdm(total=total, initial=done, desc=label, leave=False, disable=label is None) as bar:
            while not self.is_over:
                record = self.step()
                if record["stepped_back"] and label is not None:
                    size = f"meta-loss {record['meta_loss']:.3g}, gradient {record['gradient']:.3g}"
                    line = f"{label}: episode {record['episode']} diverged ({size}): back to the last good state"
                    tqdm.write(line, sys.stderr)
                yield record
                bar.set_postfix(_shown(self.log))
                bar.update()

    def step(self) -> Record:
        """Runs one episode: an outer step for each truncation of an inner run."""
        config, episode, start = self.config, len(self.log), pack(self._theta, self._adam)
        self._adam.param_groups[0]["lr"] = config.lr_at(episode)
        losses, norms, diverged = [], [], False
        for loss, gradient in self._meta_gradients(episode):
            norm = float(torch.linalg.vector_norm(torch.stack([torch.linalg.vector_norm(g) for g in gradient])))
            losses.append(loss)
            norms.append(norm)
            diverged = not (loss < config.divergence_threshold and math.isfinite(norm))
            if diverged:
                break
            for p, g in zip(self._theta.values(), gradient, strict=True):
                p.grad = g * min(1.0, config.clip / (norm + 1e-12))
            self._adam.step()
            self._adam.zero_grad()
        if diverged:
            restore(self._theta, self._adam, self._last_good)
        else:
            self._last_good = start
        steps = len(losses)
        means = {"meta_loss": sum(losses) / steps, "gradient": sum(norms) / steps}
        record = {"episode": episode, **means, "steps": steps, "stepped_back": int(diverged)}
        self._validate(record)
        self.log.append(record)
        _refuse_too_many(self.log)
        if self.is_over and self._best:
            self.optimizer.load_state_dict(self._best, strict=False)
        return record

    def _meta_gradients(self, episode: int) -> Iterator[tuple[float, list[Tensor]]]:
        """Meta-loss and its gradient, means over groups, of each truncation of an episode; theta may move between."""
        config, device = self.config, next(self.optimizer.parameters()).device
        draw = generator_of(device, self.seed, episode)
        horizon = config.horizons[int(torch.randint(len(config.horizons), (1,), generator=draw, device=device))]
        estimator = ESTIMATORS[config.estimator]()
        streams = [generator_of(device, self.seed, episode, group) for group in range(config.groups)]
        samples = [self.sample(config.tasks, stream) for stream in streams]
        problems = [Problem(tasks, horizon, config, self.inner, self.meta) for tasks in samples]
        carried = [estimator.begin(self.optimizer, problem) for problem in problems]
        for _ in range(horizon // config.steps_between_moves(horizon)):
            loss, gradient = 0.0, [torch.zeros_like(p) for p in self._theta.values()]
            for group, problem in enumerate(problems):
                estimate = estimator.step(self.optimizer, problem, carried[group], streams[group])
                carried[group] = estimate.carried
                loss += estimate.loss / config.groups
                gradient = [total + g / config.groups for total, g in zip(gradient, estimate.gradient, strict=True)]
            yield loss, gradient

    def _validate(self, record: Record) -> None:
        """Adds accuracies on held-out tasks to every few records, and keeps the best theta."""
        done = int(record["episode"]) + 1
        if self.validate is None or (done % self.config.validate_every and done < self.config.episodes):
            return
        record["clean"], record["robust"] = self.validate(self.optimizer)
        if _scores([record])[0] > max(_scores(self.log), default=-math.inf):
            self._best = {name: p.detach().clone() for name, p in self._theta.items()}

    def state_dict(self) -> dict[str, Tensor]:
        """All that `load_state_dict` needs beside the log, copied: theta and its Adam as `pack` has them,
        the same at the last good state (`good.`), and the best theta so far (`best.`)."""
        good = {f"good.{name}": p.clone() for name, p in self._last_good.items()}
        best = {f"best.{name}": p.clone() for name, p in self._best.items()}
        return pack(self._theta, self._adam) | good | best

    def load_state_dict(self, tensors: Mapping[str, Tensor], log: Sequence[Record]) -> None:
        """Resumes, in place, where `state_dict` and the log were taken."""
        restore(self._theta, self._adam, tensors)
        self._last_good = {name: p.clone() for name, p in with_prefix(tensors, "good.").items()}
        self._best = {name: p.clone() for name, p in with_prefix(tensors, "best.").items()}
        self.log = list(log)


def meta_train(
    optimizer: LearnedOptimizer,
    sample: Sample,
    config: MetaTrainConfig,
    *,
    inner: Objective,
    meta: Objective,
    seed: int,
    validate: Callable[[LearnedOptimizer], tuple[float, float]] | None = None,
    label: str | None = "meta-training",
) -> list[Record]:
    """Trains theta, the optimizer's parameters, in place, with a bar of progress.

    Args:
        label: what the bar says; None for no bar. The other arguments are those of `MetaTrainer`.

    Returns:
        A record of each episode: `meta_loss` and `gradient`, means over its truncations; `steps`, how many there were;
        `stepped_back`, 1 where it diverged; and `clean` and `robust` accuracy where it was validated.

    Raises:
        InputError: as `MetaTrainer`.
    """
    trainer = MetaTrainer(optimizer, sample, config, inner=inner, meta=meta, seed=seed, validate=validate)
    for _ in trainer.episodes(label):
        pass
    return trainer.log


def _scores(log: Sequence[Record]) -> list[float]:
    """The mean of clean and robust accuracy of each validation."""
    return [(record["clean"] + record["robust"]) / 2 for record in log if "clean" in record]


def _refuse_too_many(log: Sequence[Record]) -> None:
    back = int(sum(record["stepped_back"] for record in log))
    if back > max(10, len(log) / 10):
        raise InputError(
            f"{back} of {len(log)} episodes diverged: lower the meta learning rate or the truncation, "
            f"or raise divergence_threshold where such a meta-loss is no surprise"
        )


def _shown(log: Sequence[Record]) -> dict[str, str]:
    """What stands beside the bar: the last meta-loss, the last validation, and how often it stepped back."""
    shown = {"meta-loss": f"{log[-1]['meta_loss']:.3f}"}
    if validated := [record for record in log if "clean" in record]:
        shown |= {f"held-out {name}": f"{100 * validated[-1][name]:.1f}%" for name in ("clean", "robust")}
    if back := int(sum(record["stepped_back"] for record in log)):
        shown["stepped back"] = str(back)
    return shown
