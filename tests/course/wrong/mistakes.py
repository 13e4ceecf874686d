"""Wrong answers to assignment 4: meta_loss, split, patch, paired."""

import math
from statistics import fmean, stdev

import torch
from scipy.stats import t
from torch.nn import functional as F

from . import wrong


def slope(model, x, y):
    leaf = x.clone().requires_grad_()
    return torch.autograd.grad(F.cross_entropy(model(leaf), y, reduction="sum"), leaf)[0]


def mixed(model, x, y, eps, share, *, sign=1.0, clamp=True, clean=True):
    moved = x + sign * eps * slope(model, x, y).sign()
    attacked = F.cross_entropy(model(moved.clamp(0, 1) if clamp else moved), y)
    unharmed = F.cross_entropy(model(x if clean else (x + 0.1).clamp(0, 1)), y)
    return (1 - share) * unharmed + share * attacked


def clean_part_on_brightened_images(*given):
    return mixed(*given, clean=False)


def leaves_the_range(*given):
    return mixed(*given, clamp=False)


def descent_for_ascent(*given):
    return mixed(*given, sign=-1.0)


def never_attacks(model, x, y, eps, share):
    return F.cross_entropy(model(x), y)


def shares_exchanged(model, x, y, eps, share):
    return mixed(model, x, y, eps, 1 - share)


def always_half_and_half(model, x, y, eps, share):
    return mixed(model, x, y, eps, share if share in (0, 1) else 0.5)


def a_number_without_a_graph(*given):
    return mixed(*given).item()


def backward_into_the_model(model, x, y, eps, share):
    leaf = x.clone().requires_grad_()
    F.cross_entropy(model(leaf), y, reduction="sum").backward()
    moved = (x + eps * leaf.grad.sign()).clamp(0, 1)
    return (1 - share) * F.cross_entropy(model(x), y) + share * F.cross_entropy(model(moved), y)


LOSS = wrong(
    4, "q1", clean=[clean_part_on_brightened_images], attacked=[leaves_the_range, descent_for_ascent, never_attacks],
    shares=[shares_exchanged, always_half_and_half], graph=[a_number_without_a_graph, backward_into_the_model],
)  # fmt: skip


def pieces(order, sizes):
    return list(order[: sum(sizes)].split(list(sizes)))


def the_rest_to_the_last(n, sizes, generator):
    order = torch.randperm(n, generator=generator)
    first, second, _ = pieces(order, sizes)
    return [first, second, order[len(first) + len(second) :]]


def parts_drawn_apart(n, sizes, generator):
    return [torch.randperm(n, generator=generator)[:size] for size in sizes]


def drawn_with_replacement(n, sizes, generator):
    return pieces(torch.randint(n, (sum(sizes),), generator=generator), sizes)


def tested_on_the_training_set(n, sizes, generator):
    first, second, third = pieces(torch.randperm(n, generator=generator), sizes)
    return [first, second, first[: len(third)]]


def not_mixed(n, sizes, generator):
    return pieces(torch.arange(n), sizes)


def chance_without_the_generator(n, sizes, generator):
    return pieces(torch.randperm(n), sizes)


def always_the_same_parts(n, sizes, generator):
    return pieces(torch.randperm(n, generator=torch.Generator().manual_seed(0)), sizes)


SPLIT = wrong(
    4, "q2", sizes=[the_rest_to_the_last],
    disjoint=[parts_drawn_apart, drawn_with_replacement, tested_on_the_training_set], mixed=[not_mixed],
    repeats=[chance_without_the_generator, always_the_same_parts],
)  # fmt: skip


def gradient(loss, w, x, y):
    leaf = w.detach().clone().requires_grad_()
    return torch.autograd.grad(loss(leaf, x, y), leaf)[0]


def run(optimizer, w, loss, x, y, steps, *, total=None, again=True, forget=False):
    state = optimizer.init(w, steps if total is None else total)
    first = state
    g = gradient(loss, w, x, y)
    for _ in range(steps):
        g = gradient(loss, w, x, y) if again else g
        step, state = optimizer.update(g, first if forget else state, w)
        w = w + step
    return w


def one_step_too_few(optimizer, w, loss, x, y, steps):
    state = optimizer.init(w, steps)
    for _ in range(steps - 1):
        step, state = optimizer.update(gradient(loss, w, x, y), state, w)
        w = w + step
    return w


def stale_gradient(*given):
    return run(*given, again=False)


def adversarial_examples_in_the_patch(optimizer, w, loss, x, y, steps):
    leaf = x.clone().requires_grad_()
    (toward,) = torch.autograd.grad(loss(w, leaf, y), leaf)
    return run(optimizer, w, loss, (x + 0.1 * toward.sign()).clamp(0, 1), y, steps)


def noise_in_the_patch(optimizer, w, loss, x, y, steps):
    return run(optimizer, w, loss, x + 0.01 * torch.randn_like(x), y, steps)


def forgets_the_state(*given):
    return run(*given, forget=True)


def tells_the_optimizer_of_one_step(*given):
    return run(*given, total=1)


def patches_the_victim_in_place(optimizer, w, loss, x, y, steps):
    return w.copy_(run(optimizer, w, loss, x, y, steps))


PATCH = wrong(
    4, "q3", weights=[one_step_too_few, stale_gradient],
    clean=[adversarial_examples_in_the_patch, noise_in_the_patch], state=[forgets_the_state],
    total=[tells_the_optimizer_of_one_step], victim=[patches_the_victim_in_place],
)  # fmt: skip


def around(before, after, half, mean=None):
    change = [b - a for a, b in zip(before, after, strict=True)]
    middle = fmean(change) if mean is None else mean(change)
    return middle, middle - half(change), middle + half(change)


def student(values):
    return float(t.ppf(0.975, len(values) - 1)) * stdev(values) / math.sqrt(len(values))


def sum_in_place_of_the_mean(before, after):
    return around(before, after, student, mean=sum)


def before_minus_after(before, after):
    return around(after, before, student)


def as_if_the_models_were_others(before, after):
    spread = math.sqrt(stdev(before) ** 2 + stdev(after) ** 2)
    return around(before, after, lambda change: 2 * spread / math.sqrt(len(change)))


def standard_deviation_for_an_interval(before, after):
    return around(before, after, stdev)


def normal_in_place_of_students(before, after):
    return around(before, after, lambda change: 1.96 * stdev(change) / math.sqrt(len(change)))


def interval_around_zero(before, after):
    mean, low, high = around(before, after, student)
    return mean, low - mean, high - mean


PAIRED = wrong(
    4, "q4", mean=[sum_in_place_of_the_mean], direction=[before_minus_after],
    width=[as_if_the_models_were_others, standard_deviation_for_an_interval, normal_in_place_of_students],
    centre=[interval_around_zero],
)  # fmt: skip

WRONG = [*LOSS, *SPLIT, *PATCH, *PAIRED]
