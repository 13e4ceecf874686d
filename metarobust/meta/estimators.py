"""Three ways to estimate the meta-gradient of a truncation, some steps of an inner run.

With L(theta) the meta-loss of the truncation, e_p directions drawn from N(0, I) and P antithetic pairs of candidates:

    backprop   dL/dtheta, through the steps of the truncation
    ES         1 / (2 P sigma)    sum_p  ( L(theta + sigma e_p) - L(theta - sigma e_p) )  e_p
    PES        1 / (2 P sigma^2)  sum_p  ( L+_p - L-_p )  xi_p,     xi_p <- xi_p + sigma e_p

Backprop is exact for the truncation, and knows nothing of what earlier steps led to (truncation bias); through many
steps its gradients explode. ES asks for values alone, so it may take the whole run as one truncation. PES gives every
candidate an inner run of its own, from the first step to the horizon; with xi, the sum of all its perturbations so
far, the estimate has no truncation bias. Candidates of a pair see the same tasks, batches and starts of attacks.

ES and PES are of the meta-loss averaged over N(theta, sigma^2 I), which for a small sigma is close to that at theta.
What an optimizer's `init` returns may not depend on theta: candidates begin from the same state.

Sources: ES: Salimans et al. 2017 (arXiv 1703.03864), section 2; for learned optimizers Metz et al. 2019
(arXiv 1810.10180). PES: Vicol, Metz and Sohl-Dickstein 2021 (arXiv 2112.13835), algorithm 1.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.utils import parameters_to_vector, vector_to_parameters

from metarobust.learned.protocol import LearnedOptimizer
from metarobust.meta.config import generator_of
from metarobust.meta.problem import Point, Problem


class GradientEstimate(NamedTuple):
    """An estimate for one truncation.

    Attributes:
        loss: the meta-loss of the truncation.
        gradient: for each parameter of theta.
        carried: what the estimator wants back for the next truncation.
    """

    loss: float
    gradient: list[Tensor]
    carried: Any


class Backprop:
    """Through the steps of the truncation; where the config says so, with gradients of gradients."""

    def begin(self, optimizer: LearnedOptimizer, problem: Problem) -> Point:
        """What is carried into the first truncation."""
        return problem.start(optimizer)

    def step(
        self, optimizer: LearnedOptimizer, problem: Problem, carried: Point, generator: torch.Generator
    ) -> GradientEstimate:
        """The meta-gradient of the next truncation."""
        meta_loss, after = problem.truncation_loss(optimizer, carried, generator)
        theta = list(optimizer.parameters())
        # A parameter may have no part in it: without gradients of gradients, a noise level has none.
        gradient = torch.autograd.grad(meta_loss, theta, allow_unused=True, materialize_grads=True)
        return GradientEstimate(meta_loss.item(), list(gradient), after.detach())


class ES:
    """Evolution strategies. Where the run is longer than a truncation, the next begins where theta itself led."""

    def begin(self, optimizer: LearnedOptimizer, problem: Problem) -> tuple[Point, int]:
        """The start of the inner run, and 0 steps that are done."""
        return problem.start(optimizer), 0

    @torch.no_grad()
    def step(
        self, optimizer: LearnedOptimizer, problem: Problem, carried: tuple[Point, int], generator: torch.Generator
    ) -> GradientEstimate:
        """The meta-gradient of the next truncation."""
        (at, done), config = carried, problem.config
        theta, noise_rng = parameters_to_vector(optimizer.parameters()), directions(generator)
        total, losses = torch.zeros_like(theta), []
        for _ in range(config.pairs):
            move = config.sigma * normal(theta, noise_rng)
            (plus, minus), _ = antithetic(optimizer, problem, theta, move, (at, at), generator)
            total += (plus - minus) * move
            losses += [plus, minus]
        done += config.truncation
        if done < problem.horizon:
            at = problem.truncation_loss(optimizer, at, clone_rng(generator))[1].detach()
        split_rng(generator)
        gradient = total / (2 * config.pairs * config.sigma**2)
        return GradientEstimate(sum(losses) / len(losses), split(gradient, optimizer), (at, done))


class PES:
    """Persistent evolution strategies: every candidate lives through the whole inner run."""

    def begin(self, optimizer: LearnedOptimizer, problem: Problem) -> tuple[list[Point], list[Tensor]]:
        """The start of the inner run for each candidate, and for each pair the sum of its perturbations."""
        theta, pairs = parameters_to_vector(optimizer.parameters()).detach(), problem.config.pairs
        return [problem.start(optimizer) for _ in range(2 * pairs)], [torch.zeros_like(theta)] * pairs

    @torch.no_grad()
    def step(
        self,
        optimizer: LearnedOptimizer,
        problem: Problem,
        carried: tuple[list[Point], list[Tensor]],
        generator: torch.Generator,
    ) -> GradientEstimate:
        """The meta-gradient of the next truncation."""
        (points, sums), config = carried, problem.config
        theta, noise_rng = parameters_to_vector(optimizer.parameters()), directions(generator)
        total, losses, points_after, sums_after = torch.zeros_like(theta), [], [], []
        for pair, moved in enumerate(sums):
            move = config.sigma * normal(theta, noise_rng)
            start = points[2 * pair : 2 * pair + 2]
            (plus, minus), ends = antithetic(optimizer, problem, theta, move, start, generator)
            points_after += ends
            sums_after.append(moved + move)
            total += (plus - minus) * sums_after[-1]
            losses += [plus, minus]
        split_rng(generator)
        gradient = total / (2 * config.pairs * config.sigma**2)
        return GradientEstimate(sum(losses) / len(losses), split(gradient, optimizer), (points_after, sums_after))


ESTIMATORS = {"backprop": Backprop, "es": ES, "pes": PES}


def antithetic(
    optimizer: LearnedOptimizer,
    problem: Problem,
    theta: Tensor,
    move: Tensor,
    points: Sequence[Point],
    generator: torch.Generator,
) -> tuple[list[float], list[Point]]:
    """Meta-losses of theta + move and theta - move, with the same random numbers, and where their steps lead."""
    losses, ends = [], []
    for candidate, point in zip((theta + move, theta - move), points, strict=True):
        with perturbed(optimizer, candidate):
            meta_loss, end = problem.truncation_loss(optimizer, point, clone_rng(generator))
        losses.append(bounded(meta_loss, problem.config.divergence_threshold))
        ends.append(end.detach())
    return losses, ends


def normal(like: Tensor, generator: torch.Generator) -> Tensor:
    """A direction from N(0, I)."""
    return torch.randn(like.shape, generator=generator, device=generator.device, dtype=like.dtype).to(like.device)


def directions(generator: torch.Generator) -> torch.Generator:
    """The stream of a truncation's directions, apart from that of its batches and from those of other groups."""
    return generator_of(generator.device, generator.initial_seed(), 0)


def bounded(meta_loss: Tensor, threshold: float) -> float:
    """The meta-loss as a number; one that is not finite, or above the threshold, counts as the threshold."""
    return float(meta_loss.nan_to_num(threshold, threshold, threshold).clamp(max=threshold))


@contextmanager
def perturbed(optimizer: nn.Module, theta: Tensor) -> Iterator[None]:
    """The optimizer with another theta inside; outside, with its own, to the bit."""
    before = [p.detach().clone() for p in optimizer.parameters()]
    vector_to_parameters(theta, optimizer.parameters())
    try:
        yield
    finally:
        for p, old in zip(optimizer.parameters(), before, strict=True):
            p.data = old


def split(vector: Tensor, optimizer: nn.Module) -> list[Tensor]:
    """A vector over all of theta as one tensor for each parameter."""
    sizes = [p.numel() for p in optimizer.parameters()]
    return [part.view_as(p) for part, p in zip(vector.split(sizes), optimizer.parameters(), strict=True)]


def clone_rng(generator: torch.Generator) -> torch.Generator:
    """Another generator that will draw the same numbers."""
    return generator.clone_state()


def split_rng(generator: torch.Generator) -> None:
    """Moves the generator on, so that the next truncation draws other numbers than the last."""
    seed = int(torch.randint(2**62, (), generator=generator, device=generator.device))
    generator.manual_seed(seed)
