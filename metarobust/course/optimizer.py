"""Assignment 3, a learned optimizer from scratch: features, update, unroll, finite_difference and meta_step."""

from __future__ import annotations

import torch
from torch import Tensor

from metarobust.book.properties import Holds, begun, near, parts, tensor
from metarobust.course.calls import Reply
from metarobust.course.question import Ask, Judged
from metarobust.course.toys import Momentum, Quadratic, uniform, whole

ZERO = torch.zeros(())


def quadratic(curvature: Tensor = ZERO, centre: Tensor = ZERO, slope: Tensor = ZERO, cubic: Tensor = ZERO) -> Quadratic:
    return Quadratic(curvature=curvature, centre=centre, slope=slope, cubic=cubic)


def numbers(g: torch.Generator, *ends: tuple[float, float]) -> Tensor:
    """Random numbers, each between two ends."""
    return torch.tensor([float(uniform(g, *one)) for one in ends])


def features(g: torch.Generator, ask: Ask) -> Judged:
    n = whole(g, 7, 12)
    signs = torch.randint(0, 2, (3, n), generator=g) * 2 - 1
    slope, m, w = given = uniform(g, 0.2, 1.5, 3, n) * signs * torch.tensor([[1.0], [1.0], [0.3]])
    factor, order = float(uniform(g, 300, 3000)), torch.arange(n).roll(whole(g, 1, n - 1))
    out = ask(slope, m, w).tensor(n, 3)
    begun(not near(out, given.T), "it gives back what it was given.")
    begun(float(out.std()) > 1e-4, "every feature that it returns is the same.")
    louder, mixed = ask(factor * slope, factor * m, w), ask(*given[:, order])
    ratios = out[:, :2] / given[:2].T
    even = (ratios - ratios[0]).abs().amax(0) <= 1e-2 * ratios.abs().amax(0)
    sized = bool((even & ratios.any(0)).all())

    def scale() -> Holds:
        alike = near(out[:, :2], louder.tensor(n, 3)[:, :2], 1e-2)
        begun(alike, f"gradients {factor:.0f} times as large give other features.")
        one, two = out[:, :2].square().mean(0).sqrt().tolist()
        good = max(abs(one - 1), abs(two - 1)) < 1e-2 or not sized or not moves()
        return Holds(good, f"the root mean squares of the first two columns are {one:.2f} and {two:.2f}, not 1.")

    def moves() -> bool:
        return near(mixed.tensor(n, 3), out[order], 1e-3)

    def finite() -> bool:
        found = ask(torch.zeros(n), torch.zeros(n), w).tensor(n, 3, finite=False)
        begun(found.isfinite().all(), "gradients of 0 give features that are not finite.")
        return near(found[:, :2], ZERO)

    yield scale, "scale"
    weight = near(out[:, 2], w / w.square().mean().sqrt(), 1e-2)
    yield weight, "the third column is not the weight over its own root mean square.", "weight"
    yield finite, "gradients of 0 give features that are not 0.", "finite"
    yield sized, "the sizes of the entries of the gradient, or of the momentum, are lost.", "sizes"
    yield moves, "coordinates in another order get other features.", "order"


def update(g: torch.Generator, ask: Ask) -> Judged:
    n, theta = whole(g, 4, 8), numbers(g, (-2.5, -1.5), (0.02, 0.1), (0.3, 1.2))
    slope, v, w = uniform(g, 0.3, 1.5, 3, n)
    none = torch.zeros(n)

    def pair(reply: Reply) -> list[Tensor]:
        return [tensor(part, (n,)) for part in parts(reply.value(), 2, "a pair, the step and the new velocity")]

    # Of weights at 0 nothing is given up; and without gradient and velocity nothing else moves.
    (_, velocity), (step, light), (still, _) = (
        pair(ask(theta, *given)) for given in ((slope, v, w), (slope, v, none), (none, none, w))
    )
    right = near(velocity, theta[2].sigmoid() * v + slope)
    pace, decay = near(step, -theta[0].exp() * light), near(still, -theta[1] * w)
    begun(right or pace or decay, "neither the velocity nor the step is right.")
    yield right, "the new velocity is not sigmoid(theta[2]) * v + g.", "velocity"
    yield pace, "of weights at 0, the step is not -exp(theta[0]) times the new velocity.", "pace"
    yield decay, "where gradient and velocity are 0, the step is not -theta[1] * w.", "decay"
    slopes = ask(theta.clone().requires_grad_(), slope, v, w, slope=0).slopes(3)
    # The momentum may show in the velocity only, which the step after this one goes down.
    missing = [i for i in range(3) if not any(float(one[i]) for one in slopes[: 1 + (i == 2)])]
    yield not missing, f"the step has no gradient with respect to theta{missing[:1]}.", "graph"


def unroll(g: torch.Generator, ask: Ask) -> Judged:
    """Of a loss with curvature without momentum, and one without curvature with momentum: the two ways apart."""
    n, steps = whole(g, 3, 6), whole(g, 3, 6)
    start, ways = uniform(g, -1, 1, n), {}
    bowl, plane = quadratic(uniform(g, 0.8, 1.6, n), uniform(g, 2, 3, n)), quadratic(slope=uniform(g, 0.5, 1.5, n))
    thetas = numbers(g, (-1.5, -1.0), (0.01, 0.05), (-40, -40)), numbers(g, (-2.5, -1.5), (0.01, 0.05), (0.3, 1.2))
    for name, loss, theta in zip(("curved", "carried"), (bowl, plane), thetas, strict=True):
        theta, w, v = theta.requires_grad_(), start.clone().requires_grad_(), torch.zeros(n)
        reply, ends = ask(loss, Momentum(), start, theta, steps, slope=3), []
        for _ in range(steps + 2):  # where the run is after each step, and the derivative of the sum of it by theta
            step, v = Momentum()(theta, torch.autograd.grad(loss(w), w, create_graph=True)[0], v, w)
            w = w + step
            ends.append((w.detach(), torch.autograd.grad(w.sum(), theta, retain_graph=True)[0]))
        ways[name] = reply, reply.tensor(n), ends

    def derivative(name: str, upto: int, by: int) -> Holds:
        """Whether it is the right one of the weights that came back, whatever the number of steps."""
        reply, end, ends = ways[name]
        found, right = reply.slopes(3)[0], min(ends, key=lambda one: float((one[0] - end).abs().max()))[1]
        begun(found.any(), "the last weights have no gradient with respect to theta.")
        differs = f"the derivative with respect to theta[{by}] is {found[by]:.3f}, and should be {right[by]:.3f}."
        return Holds(near(found[:upto], right[:upto], 1e-3), differs)

    nearest = min(float((one - end).abs().max()) for _, end, ends in ways.values() for one, _ in ends)
    begun(nearest < 1e-2, "the weights are where no number of steps leads.")
    arrives = all(near(end, ends[steps - 1][0], 1e-3) for _, end, ends in ways.values())
    yield arrives, f"after {steps} steps the weights are not where they should be.", "weights"
    yield lambda: derivative("carried", 3, by=2), "state"
    yield lambda: derivative("curved", 2, by=0), "second order"
    yield all(way[0].kept(2) for way in ways.values()), "the weights it was given are changed.", "start"


def finite_difference(g: torch.Generator, ask: Ask) -> Judged:
    n, sign, h = whole(g, 3, 6), float(whole(g, 0, 1) * 2 - 1), float(uniform(g, 0.05, 0.1))
    # No two alike, so that one number for all entries cannot be right for two of them.
    slope, theta = sign * (torch.arange(n) + uniform(g, 0.6, 1.2, n)), uniform(g, -1, 1, n).double()
    cubic, reply = uniform(g, 4, 8, n), ask(quadratic(slope=slope), theta, h)
    valley, out = ask(quadratic(uniform(g, 2, 4, n), theta, cubic=cubic), theta, h), reply.tensor(n)
    size, sign = near(out.abs(), slope.abs(), 1e-3), bool((out * slope > 0).all())
    begun(size or sign, "of a plane neither the sizes nor the signs of the slopes are right.")
    yield size, "of a function that is a plane, the slopes have the wrong size.", "size"
    yield sign, "it points down where the function rises.", "sign"

    def central() -> Holds:
        found, wanted = valley.tensor(n).abs(), cubic * h**2
        good = near(found, wanted, 5e-3) or (not size and float(found.max()) < 1)  # by a factor, as everywhere
        return Holds(good, f"at the lowest point of a valley it says {found[0]:.3f}, not {wanted[0]:.3f}.")

    yield central, "central"
    yield reply.kept(1), "the theta that it was given is changed.", "theta"


def meta_step(g: torch.Generator, ask: Ask) -> Judged:
    n, lr = whole(g, 3, 6), float(uniform(g, 0.01, 0.1))
    theta, centre = uniform(g, -1, 1, n), uniform(g, 2, 4, n)
    loss = quadratic(torch.ones(n), centre)
    reply = ask(loss, theta.clone().requires_grad_(), lr)
    move = reply.tensor(n) - theta
    descends, size = bool((move * (centre - theta) > 0).all()), near(move.abs(), lr * (theta - centre).abs())
    begun(descends or size, "theta neither goes down the meta-loss, nor by the right amount.")
    yield descends, "the meta-loss rises along this step.", "descent"
    yield size, "its size is not lr times the meta-gradient.", "size"
    yield not reply.chained(), "the new theta still carries the graph of the old one.", "cut"
    kept = reply.kept(1) and ask(loss, theta.clone().requires_grad_(), lr, used=True).kept(1)
    yield kept, "the theta that it was given is changed, or its .grad is another one.", "theta"
