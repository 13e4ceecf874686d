"""Three ways to find the meta-gradient of a stretch of inner steps.

With L(theta) the meta-loss of the stretch, e_p directions drawn from N(0, I) and P antithetic pairs of candidates:

    backprop   dL/dtheta, through the steps of the stretch
    ES         1 / (2 P sigma)    sum_p  ( L(theta + sigma e_p) - L(theta - sigma e_p) )  e_p
    PES        1 / (2 P sigma^2)  sum_p  ( L+_p - L-_p )  xi_p,     xi_p <- xi_p + sigma e_p

Backprop is exact for the stretch, and blind to what earlier stretches led to (truncation bias); through long stretches
its gradients explode. ES asks for values alone, so it may take the whole run as one stretch. PES gives every candidate
an inner run of its own, from the first step to the horizon; with xi, the sum of all its perturbations so far, the
estimate has no truncation bias. Candidates of a pair see the same tasks, batches and starts of attacks.

ES and PES are of the meta-loss averaged over N(theta, sigma^2 I), which for a small sigma is close to that at theta.
What an optimizer's `init` returns may not depend on theta: candidates begin from the same state.

Sources: ES: Salimans et al. 2017 (arXiv 1703.03864), section 2; for learned optimizers Metz et al. 2019
(arXiv 1810.10180). PES: Vicol, Metz and Sohl-Dickstein 2021 (arXiv 2112.13835), algorithm 1.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.utils import parameters_to_vector, vector_to_parameters

from metarobust.meta.config import generator_of
from metarobust.meta.problem import Point, Problem


class GradientEstimate(NamedTuple):
    """loss: the meta-loss of the stretch. gradient: for each parameter of theta. carried: for the next stretch."""

    loss: float
    gradient: list[Tensor]
    carried: Any


class Backprop:
    """Through the steps of the stretch: of second order or, where the plan says so, without gradients of gradients."""

    def begin(self, optimizer: Any, problem: Problem) -> Point:
        """What is carried from stretch to stretch."""
        return problem.start(optimizer)

    def step(self, optimizer: Any, problem: Problem, carried: Point, generator: torch.Generator) -> GradientEstimate:
        """The meta-gradient of the next stretch."""
        score, after = problem.stretch(optimizer, carried, generator)
        theta = list(optimizer.parameters())
        # A parameter may have no part in it: without gradients of gradients, a noise level has none.
        grads = torch.autograd.grad(score, theta, allow_unused=True, materialize_grads=True)
        return GradientEstimate(score.item(), list(grads), after.detach())


class ES:
    """Evolution strategies. Where the run is longer than a stretch, the next begins where theta itself led."""

    def begin(self, optimizer: Any, problem: Problem) -> tuple[Point, int]:
        return problem.start(optimizer), 0

    @torch.no_grad()
    def step(
        self, optimizer: Any, problem: Problem, carried: tuple[Point, int], generator: torch.Generator
    ) -> GradientEstimate:
        at, done = carried
        theta, plan = parameters_to_vector(optimizer.parameters()), problem.plan
        total, losses, found = torch.zeros_like(theta), [], None
        noise_rng = directions(generator)
        for _ in range(plan.pairs):
            move = plan.sigma * normal(theta, noise_rng)
            both = []
            for sign in (1, -1):
                with moved(optimizer, theta + sign * move):
                    found = problem.stretch(optimizer, at, again(generator))
                both.append(bounded(found[0], plan.divergence_threshold))
            total += (both[0] - both[1]) * move
            losses += both
        done += plan.truncation
        if done < problem.horizon:
            at = problem.stretch(optimizer, at, again(generator))[1].detach()
        advance(generator)
        gradient = total / (2 * plan.pairs * plan.sigma**2)
        return GradientEstimate(sum(losses) / len(losses), split(gradient, optimizer), (at, done))


class PES:
    """Persistent evolution strategies: every candidate lives through the whole inner run."""

    def begin(self, optimizer: Any, problem: Problem) -> tuple[list[Point], list[Tensor]]:
        theta = parameters_to_vector(optimizer.parameters()).detach()
        count = problem.plan.pairs
        return [problem.start(optimizer) for _ in range(2 * count)], [torch.zeros_like(theta)] * count

    @torch.no_grad()
    def step(self, optimizer: Any, problem: Problem, carried: Any, generator: torch.Generator) -> GradientEstimate:
        points, sums = carried
        theta, plan = parameters_to_vector(optimizer.parameters()), problem.plan
        total, losses, after, summed = torch.zeros_like(theta), [], [], []
        noise_rng = directions(generator)
        for pair in range(plan.pairs):
            move = plan.sigma * normal(theta, noise_rng)
            summed.append(sums[pair] + move)
            both = []
            for side, sign in enumerate((1, -1)):
                with moved(optimizer, theta + sign * move):
                    score, point = problem.stretch(optimizer, points[2 * pair + side], again(generator))
                both.append(bounded(score, plan.divergence_threshold))
                after.append(point.detach())
            total += (both[0] - both[1]) * summed[-1]
            losses += both
        advance(generator)
        gradient = total / (2 * plan.pairs * plan.sigma**2)
        return GradientEstimate(sum(losses) / len(losses), split(gradient, optimizer), (after, summed))


ESTIMATORS = {"backprop": Backprop, "es": ES, "pes": PES}


def normal(like: Tensor, generator: torch.Generator) -> Tensor:
    """A direction from N(0, I)."""
    return torch.randn(like.shape, generator=generator, device=generator.device, dtype=like.dtype).to(like.device)


def directions(generator: torch.Generator) -> torch.Generator:
    """The stream of a stretch's directions, apart from that of its batches and from those of other groups."""
    return generator_of(generator.device, generator.initial_seed(), 0)


def bounded(score: Tensor, divergence_threshold: float) -> float:
    """The meta-loss as a number; one that is not finite, or above the ceiling, counts as the ceiling."""
    return float(
        score.nan_to_num(divergence_threshold, divergence_threshold, divergence_threshold).clamp(
            max=divergence_threshold
        )
    )


@contextmanager
def moved(optimizer: nn.Module, theta: Tensor) -> Iterator[None]:
    """The optimizer with other numbers inside; outside, with its own, to the bit."""
    before = [p.detach().clone() for p in optimizer.parameters()]
    vector_to_parameters(theta, optimizer.parameters())
    try:
        yield
    finally:
        for p, old in zip(optimizer.parameters(), before, strict=True):
            p.data = old


def split(vector: Tensor, optimizer: nn.Module) -> list[Tensor]:
    """A vector over all of theta as one tensor a parameter."""
    sizes = [p.numel() for p in optimizer.parameters()]
    return [part.view_as(p) for part, p in zip(vector.split(sizes), optimizer.parameters(), strict=True)]


def again(generator: torch.Generator) -> torch.Generator:
    """Another generator that will draw the same numbers."""
    return generator.clone_state()


def advance(generator: torch.Generator) -> None:
    """Moves on, so that the next stretch draws other numbers than the last."""
    seed = int(torch.randint(2**62, (), generator=generator, device=generator.device))
    generator.manual_seed(seed)
