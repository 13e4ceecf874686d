"""Answers to assignment 3: features, update, unroll, finite_difference, meta_step."""

import numpy as np
import torch

from . import answers, in_double


def size(part):
    return part.square().mean().sqrt() + 1e-8


def scaled(by=size, columns=lambda parts: torch.stack(parts, 1)):
    return lambda g, m, w: columns([part / by(part) for part in (g, m, w)])


def gradients_by(by):
    return lambda g, m, w: torch.stack([g / by(g), m / by(m), w / size(w)], 1)


def normal(g, m, w, filled=0.0):
    return torch.nan_to_num(scaled(lambda part: part.square().mean().sqrt())(g, m, w), nan=filled)


FEATURES = answers(
    3, "q1", plain=scaled(), in_double=in_double(scaled()), nan_to_num=normal,
    norm_over_root=scaled(lambda part: part.norm() / len(part) ** 0.5 + 1e-8),
    inside_the_root=scaled(lambda part: (part.square().mean() + 1e-16).sqrt()),
    clamped=scaled(lambda part: part.square().mean().sqrt().clamp(min=1e-12)),
    power=scaled(lambda part: part.pow(2).mean().pow(0.5) + 1e-10),
    dot=scaled(lambda part: (part @ part / part.numel()).sqrt() + 1e-9),
    columns=scaled(columns=lambda parts: torch.cat([part[:, None] for part in parts], 1)),
    transposed=scaled(columns=lambda parts: torch.stack(parts).T), array=lambda *given: scaled()(*given).numpy(),
    as_a_table=lambda *given: (t := torch.stack(given, -1)) / (t.square().mean(0, keepdim=True).sqrt() + 1e-8),
    scale__raw_gradient=lambda g, m, w: torch.stack([g, m, w / size(w)], 1),
    scale__of_length_one=gradients_by(lambda part: part.norm() + 1e-8),
    scale__by_the_largest_entry=gradients_by(lambda part: part.abs().max() + 1e-8),
    weight__forgets_the_weight=lambda g, m, w: scaled()(g, m, 0 * w),
    weight__raw_weight=lambda g, m, w: torch.stack([g / size(g), m / size(m), w], 1),
    weight__weight_of_length_one=lambda g, m, w: torch.stack([g / size(g), m / size(m), w / w.norm()], 1),
    scale_and_weight__the_gradients_measure_for_all=lambda g, m, w: torch.stack([p / size(g) for p in (g, m, w)], 1),
    finite__divides_by_zero=scaled(lambda part: part.square().mean().sqrt()),
    finite__one_where_the_gradient_is_zero=lambda *given: normal(*given, filled=1.0),
    sizes__signs_only=lambda g, m, w: torch.stack([g.sign(), m.sign(), w / size(w)], 1),
    order__divides_by_the_first_entry=gradients_by(lambda part: part[0].abs() + 1e-8),
)  # fmt: skip


def stepped(velocity=lambda theta, g, v: theta[2].sigmoid() * v + g, pace=torch.exp, decay=1.0, along="new", sign=-1.0):
    def update(theta, g, v, w):
        new = velocity(theta, g, v)
        return sign * pace(theta[0]) * (new if along == "new" else v) - decay * theta[1] * w, new

    return update


UPDATE = answers(
    3, "q2", plain=stepped(), in_double=in_double(stepped()),
    unbound=lambda theta, *given: stepped()(theta.unbind(), *given),
    reordered=lambda t, g, v, w: (-(t[1] * w) - (new := g + v * t[2].sigmoid()) * t[0].exp(), new),
    a_list=lambda *given: list(stepped()(*given)), written_out=stepped(lambda t, g, v: v / (1 + (-t[2]).exp()) + g),
    by_tanh=stepped(lambda t, g, v: (1 + (t[2] / 2).tanh()) / 2 * v + g), power_of_e=stepped(pace=lambda r: np.e**r),
    of_softmax=stepped(lambda t, g, v: torch.stack([t[2], 0 * t[2]]).softmax(0)[0] * v + g),
    of_logsigmoid=stepped(lambda t, g, v: g.add(torch.nn.functional.logsigmoid(t[2]).exp() * v)),
    slices=lambda t, g, v, w: (-(t[:1].exp() * (new := t[2:].sigmoid() * v + g)) - t[1:2] * w, new),
    on_copies=lambda t, g, v, w: stepped()(t.clone(), g.clone(), v.clone(), w.clone()),
    **{f"graph__theta_{i}_as_a_number": lambda t, *given, i=i:
        stepped()([one.detach() if i == j else one for j, one in enumerate(t)], *given) for i in range(3)},
    velocity__running_average=stepped(lambda t, g, v: t[2].sigmoid() * v + (1 - t[2].sigmoid()) * g),
    velocity__momentum_without_the_sigmoid=stepped(lambda t, g, v: t[2] * v + g),
    velocity__no_gradient=stepped(lambda t, g, v: t[2].sigmoid() * v - g), pace__climbs=stepped(sign=1.0),
    pace__step_along_the_old_velocity=stepped(along="old"), pace__no_exponential=stepped(pace=lambda rate: rate),
    decay__weights_that_grow=stepped(decay=-1.0), decay__no_decay=stepped(decay=1e-9),
    graph__theta_as_plain_numbers=lambda theta, *given: stepped()(theta.detach(), *given),
)  # fmt: skip


def taken(loss, w, second=True):
    return torch.autograd.grad(loss(w), w, create_graph=second)[0]


def run(gradient=taken, state=True, more=0, begin=torch.zeros_like, first=lambda w: w.clone().requires_grad_()):
    def unroll(loss, update, w, theta, steps):
        w, v = first(w), begin(w)
        for _ in range(steps + more):
            step, v = update(theta, gradient(loss, w), v if state else v.detach(), w)
            w = w + step
        return w

    return unroll


UNROLL = answers(
    3, "q3", plain=run(), in_double=in_double(run()), no_velocity_yet=run(begin=lambda w: w * 0),
    zeros_by_length=run(begin=lambda w: torch.zeros(len(w), dtype=w.dtype)),
    functional=run(lambda loss, w: torch.func.grad(loss)(w)), a_number_for_the_velocity=run(begin=lambda w: 0.0),
    vector_jacobian=run(lambda loss, w: torch.autograd.functional.vjp(loss, w, create_graph=True)[1]),
    retained=run(lambda loss, w: torch.autograd.grad([loss(w)], [w], retain_graph=True, create_graph=True)[0]),
    two_sums=run(lambda loss, w: taken(lambda w: loss(w) / 2 + loss(w) / 2, w)),
    new_zeros=run(begin=lambda w: w.new_zeros(len(w))), without_clone=run(first=lambda w: w.detach().requires_grad_()),
    times_one=run(first=lambda w: (w * 1).requires_grad_()), weights__one_step_too_few=run(more=-1),
    weights__one_step_too_many=run(more=1), state__detached_state=run(state=False),
    second_order__first_order_shortcut=run(lambda loss, w: taken(loss, w.detach().requires_grad_(), False)),
    second_order__no_create_graph=run(lambda loss, w: taken(loss, w).detach()),
    state_and_second_order__no_graph_at_all=lambda *given: run()(*given).detach(),
    state_and_second_order__theta_detached=lambda loss, update, w, theta, steps:
        run()(loss, update, w, theta.detach(), steps),
    weights_and_state__no_velocity=lambda loss, update, w, theta, steps: run()(loss, lambda theta, g, v, w:
        (update(theta, g, 0 * v, w)[0], v), w, theta, steps),
    start__moves_the_weights_it_was_given=lambda loss, update, w, *given:
        (end := run()(loss, update, w, *given), w.copy_(end.detach()))[0],
    start__asks_for_the_gradient_of_w_itself=run(first=lambda w: w.requires_grad_()),
)  # fmt: skip


def both_ways(f, at, move, h):
    return (f(at + h * move) - f(at - h * move)) / (2 * h)


def differences(over=both_ways, unit=lambda theta: torch.eye(len(theta), dtype=theta.dtype)):
    return lambda f, theta, h: torch.stack([over(f, theta, move, h) for move in unit(theta)])


def moved_and_put_back(f, theta, h, back=True):
    theta, found = theta.clone() if back else theta, torch.zeros_like(theta)
    for i in range(len(theta)):
        theta[i] += h
        found[i] = f(theta)
        theta[i] -= 2 * h
        found[i] = (found[i] - f(theta)) / (2 * h)
        if back:
            theta[i] += h
    return found


DIFFERENCE = answers(
    3, "q4", plain=differences(), moved_and_put_back=moved_and_put_back,
    backwards=lambda f, theta, h: differences()(f, theta, -h),
    vectorised=lambda f, theta, h: (torch.func.vmap(f)(theta + (m := h * torch.eye(len(theta),
        dtype=theta.dtype))) - torch.func.vmap(f)(theta - m)) / (2 * h),
    in_single=lambda f, theta, h: differences()(f, theta.float(), h),
    array=lambda *given: differences()(*given).numpy(),
    twice_half=differences(lambda f, at, move, h:
        (f(at + h * move) - f(at)) / (2 * h) + (f(at) - f(at - h * move)) / (2 * h)),
    items=differences(lambda f, at, move, h:
        torch.tensor((f(at + h * move).item() - f(at - h * move).item()) / (2 * h))),
    diagonal=differences(unit=lambda theta: torch.diag(torch.ones_like(theta))),
    one_hot=differences(unit=lambda theta: torch.nn.functional.one_hot(torch.arange(len(theta))).to(theta)),
    no_grad=lambda *given: torch.no_grad()(differences())(*given),
    filled=lambda f, theta, h: torch.tensor([both_ways(f, theta, torch.zeros_like(theta).index_fill(0, torch.tensor(
        i), 1), h) for i in range(len(theta))]),
    size__divided_by_h_alone=differences(lambda *given: 2 * both_ways(*given)),
    size__all_coordinates_at_once=lambda f, theta, h: both_ways(f, theta, 1, h).expand(len(theta)).clone(),
    size__not_divided=differences(lambda f, at, move, h: f(at + h * move) - f(at - h * move)),
    size__halved=differences(lambda *given: both_ways(*given) / 2),
    sign__wrong_sign=differences(lambda *given: -both_ways(*given)),
    central__forward_difference=differences(lambda f, at, move, h: (f(at + h * move) - f(at)) / h),
    central__backward_difference=differences(lambda f, at, move, h: (f(at) - f(at - h * move)) / h),
    central__autograd_in_its_place=lambda f, theta, h: torch.func.grad(f)(theta),
    central__half_the_distance=differences(lambda f, at, move, h: both_ways(f, at, move, h / 4)),
    theta__leaves_theta_moved=lambda *given: moved_and_put_back(*given, back=False),
)  # fmt: skip


def meta_gradient(meta_loss, theta):
    leaf = theta.detach().clone().requires_grad_()
    return torch.autograd.grad(meta_loss(leaf), leaf)[0]


def down(gradient=meta_gradient):
    return lambda meta_loss, theta, lr: theta.detach() - lr * gradient(meta_loss, theta)


def backward(meta_loss, theta):
    leaf = theta.detach().clone().requires_grad_()
    meta_loss(leaf).backward()
    return leaf.grad


STEP = answers(
    3, "q5", plain=down(), in_double=in_double(down()), backward=down(backward),
    difference=lambda loss, theta, lr: torch.sub(theta.detach(), meta_gradient(loss, theta), alpha=lr),
    functional=down(lambda loss, theta: torch.func.grad(loss)(theta.detach())),
    array=lambda *given: down()(*given).numpy(),
    of_theta_itself=down(lambda loss, theta: torch.autograd.grad(loss(theta), theta)[0]),
    with_a_graph_and_cut=lambda loss, theta, lr: (theta - lr * meta_gradient(loss, theta)).detach(),
    jacobian=down(lambda loss, theta: torch.autograd.functional.jacobian(loss, theta.detach())),
    ready_for_the_next=lambda *given: down()(*given).requires_grad_(),
    no_grad=lambda loss, theta, lr: torch.no_grad()(lambda g: theta - lr * g)(meta_gradient(loss, theta)),
    added=lambda loss, theta, lr: theta.detach().clone().add_(meta_gradient(loss, theta), alpha=-lr),
    descent__wrong_sign_of_the_meta_gradient=down(lambda *given: -meta_gradient(*given)),
    size__sign_in_place_of_the_gradient=down(lambda *given: meta_gradient(*given).sign()),
    size__no_learning_rate=lambda loss, theta, lr: down()(loss, theta, 1.0),
    size__learning_rate_twice=lambda loss, theta, lr: down()(loss, theta, lr**2),
    size__of_length_one=down(lambda *given: (g := meta_gradient(*given)) / g.norm()),
    cut__episodes_chained_by_their_graph=lambda loss, theta, lr: theta - lr * meta_gradient(loss, theta),
    theta__moves_theta_in_place=lambda loss, theta, lr: theta.data.copy_(down()(loss, theta, lr)).clone(),
    theta__wipes_the_gradient_that_was_there=down(lambda loss, theta:
        (meta_gradient(loss, theta), setattr(theta, "grad", None))[0]),
    theta__leaves_a_gradient_on_theta=lambda loss, theta, lr: (down()(loss, theta, lr), loss(theta).backward())[0],
    theta__theta_without_a_gradient=lambda loss, theta, lr: down()(loss, theta.requires_grad_(False), lr),
)  # fmt: skip

ANSWERS = [*FEATURES, *UPDATE, *UNROLL, *DIFFERENCE, *STEP]
