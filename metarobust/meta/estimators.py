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

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.utils import parameters_to_vector, vector_to_parameters

from metarobust.learned.protocol import LearnedOptimizer
from metarobust.meta.config import generator_of
from metarobust.meta.problem import Point, Problem
from metarobust.unroll import map_tensors


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


class Exact(Backprop):
    """Through all steps of the run at a cost that is linear in them: points are kept, and graphs are made again.

    The run is done once without a graph. Backwards, each step is done again, with one, from the point it began at:
    what is held at a time is the graph of one step. Where the optimizer can have a theta for each task, `for_tasks`,
    their meta-gradients are clipped one by one, so that a chaotic task does not drown the others; one that is not
    finite counts as 0. Source: recomputation is Chen et al. 2016 (arXiv 1604.06174).
    """

    def step(
        self, optimizer: LearnedOptimizer, problem: Problem, carried: Point, generator: torch.Generator
    ) -> GradientEstimate:
        """The meta-gradient of the whole run."""
        tasks, config = problem.tasks, problem.config
        each = optimizer.for_tasks(len(tasks))
        theta, points, streams = list(each.parameters()), [carried], []
        with torch.no_grad():
            for _ in range(problem.horizon):
                streams.append(generator.get_state())
                points.append(problem.run(each, points[-1], 1, generator).detach())
        end, leaves = as_leaves(points.pop())
        losses = problem.meta_losses(end, generator)
        after = generator.get_state()
        cotangents = torch.autograd.grad(losses.sum(), leaves, allow_unused=True, materialize_grads=True)
        gradient = [torch.zeros_like(p) for p in theta]
        for point, stream in zip(reversed(points), reversed(streams), strict=True):
            start, leaves = as_leaves(point)
            generator.set_state(stream)
            ends = tensors_of(problem.run(each, start, 1, generator, second_order=True))
            found = torch.autograd.grad(ends, [*leaves, *theta], cotangents, allow_unused=True, materialize_grads=True)
            cotangents = found[: len(leaves)]
            gradient = [total + g for total, g in zip(gradient, found[len(leaves) :], strict=True)]
        generator.set_state(after)
        if each is optimizer:
            gradient = [g / len(tasks) for g in gradient]
        else:
            gradient = mean_of_clipped(gradient, optimizer, config.clip)
        return GradientEstimate(float(losses.detach().mean()), gradient, end.detach())


class Candidates(NamedTuple):
    """Where ES and PES are in the inner run.

    Attributes:
        points: two for each pair, theta + move and theta - move. For ES they are all where theta itself led.
        sums: for each pair xi, the sum of its moves so far.
        done: steps of the inner run.
    """

    points: list[Point]
    sums: list[Tensor]
    done: int


class ES:
    """Evolution strategies. Where the run is longer than a truncation, the next begins where theta itself led."""

    persistent = False

    def begin(self, optimizer: LearnedOptimizer, problem: Problem) -> Candidates:
        """The start of the inner run, for each candidate."""
        theta, pairs = parameters_to_vector(optimizer.parameters()).detach(), problem.config.pairs
        return Candidates([problem.start(optimizer)] * 2 * pairs, [torch.zeros_like(theta)] * pairs, 0)

    @torch.no_grad()
    def step(
        self, optimizer: LearnedOptimizer, problem: Problem, carried: Candidates, generator: torch.Generator
    ) -> GradientEstimate:
        """The meta-gradient of the next truncation."""
        config, done = problem.config, carried.done + problem.config.truncation
        limit = config.divergence_threshold  # what a meta-loss above it, or one that is not finite, counts as
        theta, noise_rng = parameters_to_vector(optimizer.parameters()), directions(generator)
        total, losses, points, sums = torch.zeros_like(theta), [], [], []
        for pair, moved in enumerate(carried.sums):
            move = config.sigma * normal(theta, noise_rng)
            sums.append(moved + move if self.persistent else move)
            for side, candidate in enumerate((theta + move, theta - move)):
                with perturbed(optimizer, candidate):
                    at = carried.points[2 * pair + side]
                    meta_loss, after = problem.truncation_loss(optimizer, at, generator.clone_state())
                losses.append(float(meta_loss.nan_to_num(limit, limit, limit).clamp(max=limit)))
                points.append(after.detach())
            total += (losses[-2] - losses[-1]) * sums[-1]
        if not self.persistent and done < problem.horizon:
            led = problem.truncation_loss(optimizer, carried.points[0], generator.clone_state())[1].detach()
            points = [led] * len(points)
        # So that the next truncation draws other numbers than this one.
        generator.manual_seed(int(torch.randint(2**62, (), generator=generator, device=generator.device)))
        gradient = total / (2 * config.pairs * config.sigma**2)
        return GradientEstimate(sum(losses) / len(losses), split(gradient, optimizer), Candidates(points, sums, done))


class PES(ES):
    """Persistent evolution strategies: every candidate lives through the whole inner run."""

    persistent = True


ESTIMATORS = {"backprop": Backprop, "exact": Exact, "es": ES, "pes": PES}


def tensors_of(point: Point) -> list[Tensor]:
    """All tensors of a point, in order."""
    found: list[Tensor] = []
    map_tensors(lambda tensor: found.append(tensor) or tensor, point)
    return found


def as_leaves(point: Point) -> tuple[Point, list[Tensor]]:
    """The same point made of leaves of a new graph, and these."""
    point = map_tensors(lambda tensor: tensor.detach().requires_grad_(), point)
    return point, tensors_of(point)


def mean_of_clipped(gradient: list[Tensor], optimizer: nn.Module, longest: float) -> list[Tensor]:
    """The mean over tasks of meta-gradients `[T, ...]`, each clipped; one that is not finite counts as 0."""
    flat = torch.cat([g.flatten(1) for g in gradient], 1)
    norms = flat.norm(dim=1)
    share = torch.where(norms.isfinite(), longest / norms.clamp_min(longest), 0)
    flat = torch.where(share[:, None] > 0, flat, 0)
    return split((flat * share[:, None]).mean(0), optimizer)


def normal(like: Tensor, generator: torch.Generator) -> Tensor:
    """A direction from N(0, I)."""
    return torch.randn(like.shape, generator=generator, device=generator.device, dtype=like.dtype).to(like.device)


def directions(generator: torch.Generator) -> torch.Generator:
    """The stream of a truncation's directions, apart from that of its batches and from those of other groups."""
    return generator_of(generator.device, generator.initial_seed(), 0)


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
