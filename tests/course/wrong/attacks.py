"""Wrong answers to assignment 1: project, fgsm, pgd, margin."""

import torch
from torch.nn import functional as F

from . import wrong


def slope(model, x, y):
    leaf = x.detach().clone().requires_grad_()
    return torch.autograd.grad(F.cross_entropy(model(leaf), y, reduction="sum"), leaf)[0]


def projected(moved, x, eps):
    return (x + (moved - x).clamp(-eps, eps)).clamp(0, 1)


def no_ball(moved, x, eps):
    return moved.clamp(0, 1)


def cut_off_on_one_side(moved, x, eps):
    return torch.minimum(moved, x + eps).clamp(0, 1)


def no_range(moved, x, eps):
    return x + (moved - x).clamp(-eps, eps)


def the_image_shrunk_as_a_whole(moved, x, eps):
    return (x + (moved - x) * eps / (moved - x).abs().max()).clamp(0, 1)


def always_to_the_edge(moved, x, eps):
    return (x + eps * (moved - x).sign()).clamp(0, 1)


def in_place(moved, x, eps):
    moved -= x
    return moved.clamp_(-eps, eps).add_(x).clamp_(0, 1)


PROJECT = wrong(
    1, "q1", ball=[no_ball, cut_off_on_one_side], range=[no_range],
    nearest=[the_image_shrunk_as_a_whole, always_to_the_edge], inputs=[in_place],
)  # fmt: skip


def eps_in_normalised_units(model, x, y, eps):
    return (x + eps / 0.4 * slope(model, x, y).sign()).clamp(0, 1)


def eps_in_bytes(model, x, y, eps):
    return (x + 255 * eps * slope(model, x, y).sign()).clamp(0, 1)


def no_clamp(model, x, y, eps):
    return x + eps * slope(model, x, y).sign()


def no_sign(model, x, y, eps):
    return (x + eps * slope(model, x, y)).clamp(0, 1)


def divided_by_its_largest_entry(model, x, y, eps):
    gradient = slope(model, x, y)
    return (x + eps * gradient / gradient.flatten(1).abs().amax(1).view(-1, 1, 1, 1)).clamp(0, 1)


def descent_for_ascent(model, x, y, eps):
    return (x - eps * slope(model, x, y).sign()).clamp(0, 1)


def keeps_the_graph(model, x, y, eps):
    leaf = x.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(F.cross_entropy(model(leaf), y), leaf)
    return (leaf + eps * gradient.sign()).clamp(0, 1)


def asks_for_the_gradient_of_the_images_themselves(model, x, y, eps):
    x.requires_grad_()
    return projected(x + eps * slope(model, x, y).sign(), x, eps).detach()


def backward_into_the_model(model, x, y, eps):
    leaf = x.clone().requires_grad_()
    F.cross_entropy(model(leaf), y, reduction="sum").backward()
    return (x + eps * leaf.grad.sign()).clamp(0, 1).detach()


def train_mode(model, x, y, eps):
    model.train()
    return projected(x + eps * slope(model, x, y).sign(), x, eps)


FGSM = wrong(
    1, "q2", ball=[eps_in_normalised_units, eps_in_bytes], range=[no_clamp],
    full=[no_sign, divided_by_its_largest_entry], ascent=[descent_for_ascent],
    clean=[keeps_the_graph, asks_for_the_gradient_of_the_images_themselves],
    model=[backward_into_the_model, train_mode],
)  # fmt: skip


def walk(model, x, y, eps, steps, alpha, generator, *, back=projected, again=True, sign=1.0, start=True, stop=False):
    moved = x + eps * (2 * torch.rand(x.shape, generator=generator) - 1) if start else x
    moved = back(moved, x, eps)
    first = slope(model, moved, y)
    for _ in range(steps):
        if stop and bool((model(moved).argmax(1) != y).all()):
            break
        gradient = slope(model, moved, y) if again else first
        moved = back(moved + sign * alpha * gradient.sign(), x, eps)
    return moved


def no_projection(*given):
    return walk(*given, back=lambda moved, x, eps: moved.clamp(0, 1))


def ball_around_the_last_point(model, x, y, eps, steps, alpha, generator):
    moved = projected(x + eps * (2 * torch.rand(x.shape, generator=generator) - 1), x, eps)
    for _ in range(steps):
        moved = projected(moved + alpha * slope(model, moved, y).sign(), moved, eps)
    return moved


def leaves_the_range(*given):
    return walk(*given, back=no_range)


def stale_gradient(*given):
    return walk(*given, again=False)


def walks_downhill(*given):
    return walk(*given, sign=-1.0)


def no_random_start(*given):
    return walk(*given, start=False)


def chance_without_the_generator(model, x, y, eps, steps, alpha, generator):
    generator = torch.Generator()
    generator.seed()
    return walk(model, x, y, eps, steps, alpha, generator)


def starts_in_half_of_the_ball(model, x, y, eps, steps, alpha, generator):
    start = projected(x + eps * torch.rand(x.shape, generator=generator), x, eps)
    return walk(
        model, start, y, eps, steps, alpha, None, back=lambda moved, _, eps: projected(moved, x, eps), start=False
    )


def stops_when_all_are_fooled(*given):
    return walk(*given, stop=True)


PGD = wrong(
    1, "q3", ball=[no_projection, ball_around_the_last_point], range=[leaves_the_range], again=[stale_gradient],
    ascent=[walks_downhill], random=[no_random_start, chance_without_the_generator, starts_in_half_of_the_ball],
    alone=[stops_when_all_are_fooled],
)  # fmt: skip


def right_class_as_its_own_rival(logits, y):
    return logits.amax(1) - logits.gather(1, y[:, None])[:, 0]


def of_probabilities(logits, y):
    return right_minus_wrong(logits.softmax(1), y) * -1


def right_minus_wrong(logits, y):
    own = logits.gather(1, y[:, None])[:, 0]
    return own - logits.scatter(1, y[:, None], -torch.inf).amax(1)


def without_a_sign(logits, y):
    return right_minus_wrong(logits, y).abs()


def writes_into_the_logits(logits, y):
    rows = torch.arange(len(y))
    own = logits[rows, y].clone()
    logits[rows, y] = -torch.inf
    return logits.amax(1) - own


MARGIN = wrong(
    1, "q4", runner_up=[right_class_as_its_own_rival], size=[of_probabilities],
    sign=[right_minus_wrong, without_a_sign], inputs=[writes_into_the_logits],
)  # fmt: skip

WRONG = [*PROJECT, *FGSM, *PGD, *MARGIN]
