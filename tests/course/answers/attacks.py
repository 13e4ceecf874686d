"""Answers to assignment 1: project, fgsm, pgd, margin."""

import copy

import numpy as np
import torch
from torch.nn import functional as F

from . import answers, cross_entropy, in_double, slope


def projected(moved, x, eps):
    return (x + (moved - x).clamp(-eps, eps)).clamp(0, 1)


def bounds(x, eps):
    return (x - eps).clamp(min=0), (x + eps).clamp(max=1)


def in_place(moved, x, eps):
    return moved.sub_(x).clamp_(-eps, eps).add_(x).clamp_(0, 1)


def where(moved, x, eps):
    low, high = bounds(x, eps)
    return torch.where(moved < low, low, torch.where(moved > high, high, moved))


PROJECT = answers(
    1, "q1", one_line=projected, in_double=in_double(projected), where=where,
    minimum_and_maximum=lambda m, x, eps: torch.minimum(torch.maximum(m, x - eps), x + eps).clamp(0, 1),
    range_first=lambda m, x, eps: x + (m.clamp(0, 1) - x).clamp(-eps, eps),
    tensor_bounds=lambda m, x, eps: torch.clamp(m, *bounds(x, eps)),
    by_image=lambda m, x, eps: torch.stack([projected(a, b, eps) for a, b in zip(m, x, strict=True)]),
    by_numpy=lambda m, x, eps: torch.from_numpy(np.clip(np.clip(m, x - eps, x + eps), 0, 1).numpy()),
    a_numpy_array=lambda m, x, eps: projected(m, x, eps).numpy(),
    median=lambda m, x, eps: torch.stack([bounds(x, eps)[0], m, bounds(x, eps)[1]]).median(0).values,
    in_place_on_a_copy=lambda m, x, eps: in_place(m.clone(), x, eps),
    flat=lambda m, x, eps: projected(m.flatten(1), x.flatten(1), eps).view_as(x),
    ball__no_ball=lambda m, x, eps: m.clamp(0, 1),
    ball__cut_off_on_one_side=lambda m, x, eps: torch.minimum(m, x + eps).clamp(0, 1),
    ball__twice_the_ball=lambda m, x, eps: projected(m, x, 2 * eps),
    ball__ball_in_bytes=lambda m, x, eps: projected(m, x, 255 * eps),
    range__no_range=lambda m, x, eps: x + (m - x).clamp(-eps, eps),
    range__range_on_one_side=lambda m, x, eps: (x + (m - x).clamp(-eps, eps)).clamp(min=0),
    nearest__the_image_shrunk_as_a_whole=lambda m, x, eps: (x + (m - x) * eps / (m - x).abs().max()).clamp(0, 1),
    nearest__always_to_the_edge=lambda m, x, eps: (x + eps * (m - x).sign()).clamp(0, 1),
    nearest__half_way=lambda m, x, eps: projected((m + x) / 2, x, eps), inputs__in_place=in_place,
    inputs__x_in_place=lambda m, x, eps: x.add_((m - x).clamp(-eps, eps)).clamp(0, 1),
)  # fmt: skip


def stepped(slope, clip=True):
    def fgsm(model, x, y, eps):
        moved = x + eps * slope(model, x, y).sign()
        return (moved.clamp(0, 1) if clip else moved).detach()

    return fgsm


def backward(model, x, y, model_too=True):
    leaf = x.clone().requires_grad_()
    loss = cross_entropy(model, leaf, y)
    loss.backward() if model_too else loss.backward(inputs=[leaf])
    return leaf.grad


def in_mode(mode, back=True):
    def found(model, x, y):
        kept = model.training
        model.train(mode)
        result = slope(model, x, y)
        model.train(kept if back else mode)
        return result

    return found


def in_batches(model, x, y, size=2):
    return torch.cat([slope(model, x[i : i + size], y[i : i + size]) for i in range(0, len(x), size)])


LOSSES = {
    "mean": lambda model, x, y: F.cross_entropy(model(x), y),
    "log_softmax": lambda model, x, y: F.nll_loss(model(x).log_softmax(1), y),
    "logsumexp": lambda model, x, y: (model(x).logsumexp(1) - model(x).gather(1, y[:, None])[:, 0]).sum(),
    "probabilities": lambda model, x, y: -model(x).softmax(1)[torch.arange(len(y)), y].log().sum(),
}
SLOPES = {
    **{name: lambda model, x, y, loss=loss: slope(model, x, y, loss) for name, loss in LOSSES.items()},
    "functional": lambda model, x, y: torch.func.grad(lambda leaf: cross_entropy(model, leaf, y))(x),
    "vector_jacobian": lambda net, x, y: torch.autograd.functional.vjp(lambda leaf: cross_entropy(net, leaf, y), x)[1],
    "on_a_copy": lambda model, x, y: backward(copy.deepcopy(model), x, y),
    "backward_to_the_images": lambda model, x, y: backward(model, x, y, model_too=False),
    "eval_mode_and_back": in_mode(False),
    "image_by_image": lambda model, x, y: in_batches(model, x, y, 1), "mini_batches": in_batches,
}  # fmt: skip
RIGHT = stepped(slope)
FGSM = answers(
    1, "q2", **{name: stepped(one) for name, one in SLOPES.items()}, in_double=in_double(RIGHT),
    ball__eps_in_normalised_units=lambda net, x, y, eps: RIGHT(net, x, y, eps / 0.4),
    ball__eps_in_bytes=lambda net, x, y, eps: RIGHT(net, x, y, 255 * eps), range__no_clamp=stepped(slope, clip=False),
    full__no_sign=lambda net, x, y, eps: (x + eps * slope(net, x, y)).clamp(0, 1),
    full__divided_by_its_largest_entry=lambda net, x, y, eps:
        (x + eps * (g := slope(net, x, y)) / g.flatten(1).abs().amax(1).view(-1, 1, 1, 1)).clamp(0, 1),
    full__half_of_eps=lambda net, x, y, eps: RIGHT(net, x, y, eps / 2),
    ascent__descent_for_ascent=lambda net, x, y, eps: RIGHT(net, x, y, -eps),
    clean__keeps_the_graph=lambda net, x, y, eps: RIGHT(net, x, y, eps) - x + x.clone().requires_grad_(),
    clean__asks_for_the_gradient_of_the_images_themselves=lambda net, x, y, eps: RIGHT(net, x.requires_grad_(), y, eps),
    clean__moves_the_images_in_place=lambda net, x, y, eps: x.copy_(RIGHT(net, x, y, eps)).clone(),
    model__backward_into_the_model=stepped(backward), model__train_mode=stepped(in_mode(True, back=False)),
    model__wipes_the_gradients_that_were_there=stepped(lambda net, x, y: (slope(net, x, y), net.zero_grad())[0]),
    model__leaves_eval_mode_on=stepped(in_mode(False, back=False)),
)  # fmt: skip


def noise(x, eps, generator):
    return eps * (2 * torch.rand(x.shape, generator=generator) - 1)


STARTS = {
    "in_place": lambda x, eps, g: torch.empty_like(x).uniform_(-eps, eps, generator=g),
    "by_image": lambda x, eps, g: torch.stack([noise(one, eps, g) for one in x]),
    "one_for_all": lambda x, eps, g: noise(x[:1], eps, g).expand_as(x),
    "in_double": lambda x, eps, g: eps * (2 * torch.rand(x.shape, generator=g, dtype=torch.float64) - 1),
    "shifted": lambda x, eps, g: 2 * eps * (torch.rand(x.shape, generator=g) - 0.5),
}


def walk(
    start=noise, slope=slope, back=projected, sign=1.0, again=True, stop=False, few=0, around_last=False, part=1.0
):
    def pgd(model, x, y, eps, steps, alpha, generator):
        moved = back(x + part * start(x, eps, generator), x, eps)
        first = slope(model, moved, y)
        for _ in range(steps - few):
            if stop and bool((model(moved).argmax(1) != y).all()):
                break
            gradient = slope(model, moved, y) if again else first
            moved = back(moved + sign * alpha * gradient.sign(), moved if around_last else x, eps)
        return moved.detach()

    return pgd


PGD = answers(
    1, "q3", plain=walk(),
    image_by_image=lambda net, x, y, *given:
        torch.cat([walk()(net, x[i:][:1], y[i:][:1], *given) for i in range(len(x))]), in_double=in_double(walk()),
    where=walk(back=where), **{f"start_{name}": walk(start) for name, start in STARTS.items()},
    **{f"slope_{name}": walk(slope=SLOPES[name]) for name in ("mean", "functional", "on_a_copy", "mini_batches")},
    ball__no_projection=walk(back=lambda m, x, eps: m.clamp(0, 1)),
    ball__ball_around_the_last_point=walk(around_last=True),
    range__leaves_the_range=walk(back=lambda m, x, eps: x + (m - x).clamp(-eps, eps)),
    again__stale_gradient=walk(again=False), ascent__walks_downhill=walk(sign=-1.0),
    random__no_random_start=walk(part=0.0),
    random__chance_without_the_generator=walk(lambda x, eps, g: noise(x, eps, None)),
    random__starts_in_the_upper_half=walk(lambda x, eps, g: noise(x, eps, g).abs()),
    random__start_in_half_of_the_width=walk(part=0.5),
    random__always_the_same_start=walk(lambda x, eps, g: noise(x, eps, torch.Generator().manual_seed(0))),
    alone__stops_when_all_are_fooled=walk(stop=True),
)  # fmt: skip


def scattered(z, y):
    return z.scatter(1, y[:, None], -torch.inf).amax(1) - own(z, y)


def own(z, y):
    return z.gather(1, y[:, None])[:, 0]


def hot(z, y):
    return F.one_hot(y, z.shape[1]).bool()


def writes(z, y):
    rows = torch.arange(len(y))
    kept = z[rows, y].clone()
    z[rows, y] = -torch.inf
    return z.amax(1) - kept


def filled(with_what):
    return lambda z, y: z.masked_fill(hot(z, y), with_what).amax(1) - own(z, y)


MARGIN = answers(
    1, "q4", scatter=scattered,
    two_best=lambda z, y: torch.where(z.argmax(1) == y, z.topk(2).values[:, 1], z.amax(1)) - own(z, y),
    in_double=in_double(scattered), on_a_copy=lambda z, y: writes(z.clone(), y), masked=filled(-torch.inf),
    a_large_number=filled(-1e9), where=lambda z, y: torch.where(hot(z, y), -1e9, z).max(1).values - own(z, y),
    differences=lambda z, y: (z - own(z, y)[:, None]).masked_fill(hot(z, y), -1e9).amax(1),
    of_log_probabilities=lambda z, y: scattered(z.log_softmax(1), y),
    only_the_others=lambda z, y: z[~hot(z, y)].view(len(y), -1).amax(1) - z[hot(z, y)],
    sorted=lambda z, y: scattered(z.sort(1).values, z.argsort(1).argsort(1).gather(1, y[:, None])[:, 0]),
    by_numpy=lambda z, y: torch.tensor([np.delete(r, k).max() - r[k] for r, k in zip(z.numpy(), y, strict=True)]),
    runner_up__right_class_as_its_own_rival=lambda z, y: z.amax(1) - own(z, y),
    size__of_probabilities=lambda z, y: scattered(z.softmax(1), y),
    size__minus_one_for_the_right_ones=lambda z, y: torch.where(scattered(z, y) < 0, -1.0, scattered(z, y)),
    size__sign_alone=lambda z, y: scattered(z, y).sign(), size__halved=lambda z, y: scattered(z, y) / 2,
    size__over_the_largest=lambda z, y: scattered(z, y) / z.abs().max(),
    sign__right_minus_wrong=lambda z, y: -scattered(z, y), sign__without_a_sign=lambda z, y: scattered(z, y).abs(),
    inputs__writes_into_the_z=writes, inputs__subtracts_in_place=lambda z, y: scattered(z.sub_(own(z, y)[:, None]), y),
)  # fmt: skip

ANSWERS = [*PROJECT, *FGSM, *PGD, *MARGIN]
