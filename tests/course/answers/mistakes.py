"""Answers to assignment 4: meta_loss, split, patch, paired."""

import math
from statistics import fmean, stdev

import numpy as np
import torch
from scipy import stats
from torch.nn import functional as F

from . import answers, in_double, slope
from .attacks import backward


def fgsm(model, x, y, eps, slope=slope, sign=1.0, clip=True):
    moved = x + sign * eps * slope(model, x, y).sign()
    return (moved.clamp(0, 1) if clip else moved).detach()


def mixed(attack=fgsm, loss=lambda model, x, y: F.cross_entropy(model(x), y), mix=lambda a, b, s: (1 - s) * a + s * b):
    return lambda model, x, y, eps, share: mix(loss(model, x, y), loss(model, attack(model, x, y, eps), y), share)


def by(slope=slope, **kept):
    return mixed(lambda *given: fgsm(*given, slope=slope, **kept))


def at_once(model, x, y, eps, share):
    each = F.cross_entropy(model(torch.cat([x, fgsm(model, x, y, eps)])), torch.cat([y, y]), reduction="none")
    return (1 - share) * each[: len(x)].mean() + share * each[len(x) :].mean()


LOSS = answers(
    4, "q1", plain=mixed(), in_double=in_double(mixed()), at_once=at_once,
    backward_to_the_images=by(lambda *given: backward(*given, model_too=False)),
    functional=by(lambda model, x, y: torch.func.grad(lambda leaf: F.cross_entropy(model(leaf), y))(x)),
    lerp=mixed(mix=torch.lerp), difference=mixed(mix=lambda a, b, s: a + s * (b - a)),
    log_softmax=mixed(loss=lambda model, x, y: F.nll_loss(model(x).log_softmax(1), y)),
    sum_over_n=mixed(loss=lambda model, x, y: F.cross_entropy(model(x), y, reduction="sum") / len(y)),
    by_image=mixed(loss=lambda model, x, y:
        sum(F.cross_entropy(model(x[i:][:1]), y[i:][:1]) for i in range(len(x))) / len(x)),
    of_shape_one=mixed(loss=lambda model, x, y: F.cross_entropy(model(x), y)[None]),
    attack_in_batches=by(lambda model, x, y:
        torch.cat([slope(model, x[i:][:2], y[i:][:2]) for i in range(0, len(x), 2)])),
    clean__clean_part_on_brightened_images=lambda net, x, y, *given: mixed(lambda *_:
        fgsm(net, x, y, given[0]))(net, (x + 0.1).clamp(0, 1), y, *given), attacked__leaves_the_range=by(clip=False),
    attacked__descent_for_ascent=by(sign=-1.0), attacked__half_of_eps=by(sign=0.5),
    attacked__never_attacks=mixed(lambda model, x, y, eps: x),
    attacked__no_sign=mixed(lambda model, x, y, eps: x + eps * slope(model, x, y)),
    shares__shares_exchanged=mixed(mix=lambda a, b, s: s * a + (1 - s) * b),
    shares__always_half_and_half=mixed(mix=lambda a, b, s: torch.lerp(a, b, s if s in (0, 1) else 0.5)),
    shares__squared_share=mixed(mix=lambda a, b, s: torch.lerp(a, b, s**2)),
    graph__a_number_without_a_graph=lambda *given: mixed()(*given).item(), graph__backward_into_the_model=by(backward),
    graph__wipes_the_gradients=by(lambda net, x, y: (net.zero_grad(), slope(net, x, y))[1]),
    graph__train_mode=lambda model, *given: mixed()(model.train(), *given),
    graph__clean_part_cut_off=mixed(mix=lambda a, b, s: (1 - s) * a.detach() + s * b),
)  # fmt: skip


def pieces(order, sizes):
    return list(order[: sum(sizes)].split(list(sizes)))


def ordered(order, cut=pieces):
    return lambda n, sizes, generator: cut(order(n, generator), sizes)


def permuted(n, generator):
    return torch.randperm(n, generator=generator)


SPLIT = answers(
    4, "q2", plain=ordered(permuted),
    by_numpy=ordered(lambda n, g: torch.from_numpy(np.random.default_rng(g.initial_seed()).permutation(n))),
    sorted_noise=ordered(lambda n, g: torch.rand(n, generator=g).argsort()),
    multinomial=ordered(lambda n, g: torch.multinomial(torch.ones(n), n, generator=g)),
    noise_of_normals=ordered(lambda n, g: torch.randn(n, generator=g).topk(n).indices),
    int32=ordered(lambda n, g: permuted(n, g).int()),
    slices=ordered(permuted, lambda o, s: (o[: s[0]], o[s[0] : s[0] + s[1]], o[s[0] + s[1] : sum(s)])),
    arrays=ordered(permuted, lambda o, s: np.split(o.numpy(), np.cumsum(s))[:3]),
    lists=ordered(permuted, lambda o, s: [part.tolist() for part in pieces(o, s)]),
    a_generator=ordered(permuted, lambda o, s: (part for part in pieces(o, s))),
    from_the_end=ordered(permuted, lambda o, s: pieces(o.flip(0), s)),
    taken_one_by_one=ordered(permuted, lambda o, s: [[int(o[sum(s[:i]) + j]) for j in range(s[i])] for i in range(3)]),
    sizes__the_rest_to_the_last=ordered(permuted, lambda o, s: [*pieces(o, s[:2]), o[sum(s[:2]) :]]),
    sizes__equal_parts=ordered(permuted, lambda o, s: list(o.tensor_split(3))),
    disjoint__parts_drawn_apart=lambda n, sizes, g: [permuted(n, g)[:size] for size in sizes],
    disjoint__drawn_with_replacement=ordered(lambda n, g: torch.randint(n, (n,), generator=g)),
    disjoint__tested_on_the_training_set=ordered(permuted, lambda o, s: [*pieces(o, s)[:2], o[: s[2]]]),
    disjoint__one_in_two_parts=ordered(permuted, lambda o, s: [o[: s[0]], o[s[0] - 1 : s[0] + s[1] - 1], o[-s[2] :]]),
    mixed__rolled=ordered(lambda n, g: torch.arange(n).roll(int(torch.randint(n, (), generator=g)))),
    mixed_and_repeats__not_mixed=ordered(lambda n, g: torch.arange(n)),
    repeats__chance_without_the_generator=ordered(lambda n, g: torch.randperm(n)),
    repeats__always_the_same_parts=ordered(lambda n, g: permuted(n, torch.Generator().manual_seed(0))),
)  # fmt: skip


def taken(loss, w, x, y):
    leaf = w.detach().clone().requires_grad_()
    return torch.autograd.grad(loss(leaf, x, y), leaf)[0]


def run(
    gradient=taken,
    total=lambda steps: steps,
    few=0,
    again=True,
    keep=True,
    images=lambda x: x,
    end=torch.Tensor.detach,
    sign=1,
):
    def patch(optimizer, w, loss, x, y, steps):
        state = first = optimizer.init(w, total(steps))
        x, g = images(x), None
        for _ in range(steps - few):
            g = gradient(loss, w, x, y) if again or g is None else g
            step, state = optimizer.update(g, state if keep else first, w)
            w = w + sign * step
        return end(w)

    return patch


def leaned(loss, w, x, y):
    leaf = torch.nn.Parameter(w.detach().clone())
    loss(leaf, x, y).backward()
    return leaf.grad


PATCH = answers(
    4, "q3", plain=run(), in_double=in_double(run()), backward=run(leaned), times_one=run(images=lambda x: x * 1),
    added=run(lambda loss, w, x, y: taken(lambda w, x, y: loss(w + 0, x, y), w, x, y)),
    functional=run(lambda loss, w, x, y: torch.func.grad(loss)(w, x, y)), copies=run(images=torch.clone),
    jacobian=run(lambda loss, w, x, y: torch.autograd.functional.jacobian(lambda w: loss(w, x, y), w)),
    mean_of_two=run(lambda *given: (taken(*given) + taken(*given)) / 2), cloned=run(end=lambda w: w.detach().clone()),
    array=run(end=lambda w: w.numpy()), whole_steps=run(total=lambda steps: int(steps)),
    weights__one_step_too_few=run(few=1), weights__stale_gradient=run(again=False),
    weights__one_step_too_many=run(few=-1), weights__climbs=run(sign=-1),
    clean__adversarial_examples_in_the_patch=run(images=lambda x: (x + 0.1 * (x - 0.5).sign()).clamp(0, 1)),
    clean__half_of_the_images=run(images=lambda x: x[:2]),
    clean__noise_in_the_patch=run(images=lambda x: x + 0.01 * torch.randn_like(x)),
    state__forgets_the_state=run(keep=False), total__tells_the_optimizer_of_one_step=run(total=lambda steps: 1),
    total__one_too_many=run(total=lambda steps: steps + 1),
    victim__patches_the_victim_in_place=lambda optimizer, w, *given: w.copy_(run()(optimizer, w, *given)).clone(),
    victim__returns_a_graph=run(end=lambda w: w.clone().requires_grad_()),
)  # fmt: skip


def student(change):
    return float(stats.t.ppf(0.975, len(change) - 1)) * stdev(change) / math.sqrt(len(change))


def around(half=student, mean=fmean, ends=lambda mean, half: (mean, mean - half, mean + half)):
    def paired(before, after):
        change = [b - a for a, b in zip(before, after, strict=True)]
        return ends(mean(change), half(change))

    return paired


def by_torch(before, after):
    d = torch.tensor(after) - torch.tensor(before)
    half = stats.t.ppf(0.975, len(d) - 1) * d.std() / len(d) ** 0.5
    return d.mean(), d.mean() - half, d.mean() + half


def given_as(kind):
    return around(ends=lambda mean, half: kind([mean, mean - half, mean + half]))


PAIRED = answers(
    4, "q4", plain=around(),
    by_scipy=lambda b, a:
        ((m := np.mean(d := np.subtract(a, b))), *stats.t.interval(0.95, len(d) - 1, m, stats.sem(d))),
    by_test=lambda b, a: [(low + high) / 2 for low, high in [stats.ttest_rel(a, b).confidence_interval()]] + list(
        stats.ttest_rel(a, b).confidence_interval()), by_torch=by_torch, list=given_as(list), array=given_as(np.array),
    tensor=given_as(torch.tensor), single=given_as(np.float32),
    series=given_as(lambda three: (value for value in three)), sum_over_n=around(mean=lambda d: sum(d) / len(d)),
    arrays_of_one=given_as(lambda three: [np.array(v) for v in three]),
    variance=around(lambda d:
        float(stats.t.ppf(0.975, len(d) - 1)) * (sum((v - fmean(d)) ** 2 for v in d) / (len(d) - 1) / len(d)) ** 0.5),
    lower_quantile=around(lambda d: -float(stats.t(len(d) - 1).ppf(0.025)) * stdev(d) / math.sqrt(len(d))),
    mean__sum_in_place_of_the_mean=around(mean=sum), mean__last_one=around(mean=lambda d: 2 * d[-1]),
    direction__before_minus_after=lambda before, after: around()(after, before),
    width__as_if_the_models_were_others=lambda b, a: around(lambda d:
        2 * math.hypot(stdev(b), stdev(a)) / math.sqrt(len(b)))(b, a),
    width__standard_deviation_for_an_interval=around(stdev),
    width__normal_in_place_of_students=around(lambda d: 1.96 * stdev(d) / math.sqrt(len(d))),
    width__divided_by_n=around(lambda d: student(d) * math.sqrt((len(d) - 1) / len(d))),
    width__one_sided=around(lambda d: float(stats.t.ppf(0.95, len(d) - 1)) * stdev(d) / math.sqrt(len(d))),
    width__n_degrees_of_freedom=around(lambda d: float(stats.t.ppf(0.975, len(d))) * stdev(d) / math.sqrt(len(d))),
    centre__interval_around_zero=around(ends=lambda mean, half: (mean, -half, half)),
    centre__upper_end_first=around(ends=lambda mean, half: (mean, mean + half, mean - half)),
)  # fmt: skip

ANSWERS = [*LOSS, *SPLIT, *PATCH, *PAIRED]
