"""Assignment 4, learning from mistakes: meta_loss, split, patch and paired."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from metarobust.book.properties import CLOSE, begun, near, number, parts
from metarobust.course.attacks import USED, images, linear
from metarobust.course.calls import Reply
from metarobust.course.optimizer import quadratic
from metarobust.course.question import Ask, Judged
from metarobust.course.toys import Watched, uniform, whole
from metarobust.lab.results import interval


def meta_loss(g: torch.Generator, ask: Ask) -> Judged:
    shape, classes, n = (1, whole(g, 3, 4), whole(g, 3, 4)), whole(g, 3, 5), whole(g, 5, 8)
    model, x = linear(g, shape, classes), images(g, n, shape)
    x = torch.where(uniform(g, 0, 1, *x.shape) < 0.4, x.round(), x)  # much black and white: there the range bites
    y = torch.randint(0, classes, (n,), generator=g)
    eps, s = float(uniform(g, 0.15, 0.25)), float(uniform(g, 0.2, 0.4))
    leaf = x.clone().requires_grad_()
    slope = torch.autograd.grad(F.cross_entropy(model(leaf), y, reduction="sum"), leaf)[0]
    losses = [F.cross_entropy(model(one), y) for one in (x, (x + eps * slope.sign()).clamp(0, 1))]
    clean, attacked = (float(loss.detach()) for loss in losses)
    (slope,) = torch.autograd.grad((1 - s) * losses[0] + s * losses[1], [model.weight])
    reply = ask(model, x, y, eps, s, slope=0, used=True)
    mixed, none, whole_ = (number(one.value()) for one in (reply, *(ask(model, x, y, eps, end) for end in (0.0, 1.0))))
    has_clean, has_attacked = (min(abs(none - one), abs(whole_ - one)) < CLOSE for one in (clean, attacked))
    begun(has_clean or has_attacked, "it says neither the loss on clean images nor that under FGSM.")
    yield has_clean, f"no share gives the loss on clean images, {clean:.3f}; {none:.3f} is that of 0.", "clean"
    yield has_attacked, f"no share gives the loss under FGSM, {attacked:.3f}; {whole_:.3f} is that of 1.", "attacked"
    turned = abs(none - clean) > abs(whole_ - clean) + CLOSE
    mixes = abs(mixed - (1 - s) * none - s * whole_) < CLOSE
    order = "a share of 1 gives the clean loss, and a share of 0 the other."
    yield mixes and not turned, order if turned else "between 0 and 1 it is not the mixture of the two.", "shares"
    found = reply.slopes(*slope.shape)[0]
    # Of a loss that is wrong in another way, the gradient is another one, too.
    part = has_clean and has_attacked and mixes and not turned and not near(found, slope)
    absent = "the loss has no gradient with respect to the model's parameters."
    lost = "a part of the gradient with respect to the model's parameters is missing." if part else ""
    said = (lost or ("" if reply.kept(0) else USED)) if found.any() else absent
    yield not said, said, "graph"


def split(g: torch.Generator, ask: Ask) -> Judged:
    sizes = [whole(g, 20, 40), whole(g, 10, 20), whole(g, 10, 20)]
    n, seed = sum(sizes) + whole(g, 5, 15), whole(g, 0, 10**6)

    def listed(part: Any) -> list[int]:
        found = part.tolist() if isinstance(part, Tensor) else part
        whole_numbers = isinstance(found, list) and all(isinstance(i, int) for i in found)
        begun(whole_numbers, "it does not return three tensors of whole numbers.")
        begun(all(0 <= i < n for i in found), f"it returns indices outside of 0 to {n - 1}.")
        return found

    def listed_parts(reply: Reply) -> list[list[int]]:
        return [listed(part) for part in parts(reply.value(), 3, "three tensors of whole numbers")]

    chances = (torch.Generator().manual_seed(one) for one in (seed, seed, seed + 1))
    out, again, other = (listed_parts(ask(n, sizes, one)) for one in chances)
    every = [i for part in out for i in part]
    begun(all(out), "a part is empty.")
    found, twice = [len(part) for part in out], len(every) - len(set(every))
    yield found == sizes, f"the parts have {found} images; {sizes} were asked for.", "sizes"
    yield not twice, f"{twice} images are in two places.", "disjoint"
    runs = [part for part in out if sorted(part) == list(range(min(part), max(part) + 1))]
    yield not runs, "a part is a stretch of neighbours: data that is sorted stays sorted.", "mixed"
    lead = "two generators with different seeds lead to the same parts."
    yield out == again != other, lead if out == again else "two with one seed lead to different parts.", "repeats"


def patch(g: torch.Generator, ask: Ask) -> Judged:
    n = whole(g, 4, 8)
    w, target, x = uniform(g, -1, 1, n), uniform(g, 2, 3, n), uniform(g, 0.2, 0.8, whole(g, 3, 5), 1, 2, 2)
    y, lr, steps = torch.randint(0, 3, (len(x),), generator=g), float(uniform(g, 0.05, 0.2)), whole(g, 3, 6)
    reply = ask(Watched(lr=lr), w, quadratic(torch.ones(n), target), x, y, steps)
    out = reply.tensor(n)
    total, *states = reply.notes(0) or [None]
    seen = reply.notes(2)
    begun(bool(states or seen), "neither the optimizer nor the loss is asked for anything.")
    arrives = near(out, target + (w - target) * (1 - lr) ** steps, 1e-3)
    yield arrives, f"after {steps} steps the weights are not where they should be.", "weights"
    clean = seen and all(one.shape == x.shape and near(one, x, 1e-6) for one in seen)
    yield clean, "the loss was asked about images that are not the ones it was given.", "clean"
    carried = states and states == list(range(len(states)))
    yield carried, "the optimizer does not get back the state that it returned.", "state"
    yield total == steps, f"init is told {str(total)[:20]}; the run has {steps} steps.", "total"
    graph = "the weights that it returns still carry a graph."
    yield reply.kept(1) and not reply.graph(), graph if reply.graph() else "the victim's weights are changed.", "victim"


def paired(g: torch.Generator, ask: Ask) -> Judged:
    n = (4, 5, 9, 10)[whole(g, 0, 3)]  # the root of none of them is near its t
    level, gain = uniform(g, 0.2, 0.6, n), uniform(g, 0.05, 0.15, n)  # models differ a lot, and the gain hardly
    before, after = level.tolist(), (level + gain).tolist()
    wanted, half = interval([b - a for a, b in zip(before, after, strict=True)])
    reply = ask(before, after)
    mean, low, high = map(number, parts(reply.value(), 3, "three numbers: the mean, and the ends of its interval"))
    right, wide = abs(abs(mean) - wanted) < CLOSE, abs(abs(high - low) - 2 * half) < 2 * CLOSE
    begun(right or wide, "neither the mean nor the width of the interval is right.")
    yield right, f"the mean change has size {abs(mean):.4f}, not {wanted:.4f}.", "mean"
    yield mean > 0, "a model that got better is said to have got worse.", "direction"
    yield wide, f"the interval is {high - low:.4f} wide, not {2 * half:.4f}.", "width"
    around = abs((low + high) / 2 - mean) < CLOSE and low < high
    yield around, "the ends of the interval do not lie around the mean, the lower one first.", "centre"
