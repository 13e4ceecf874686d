"""Wrong answers to assignment 3: features, update, unroll, finite_difference, meta_step."""

import torch

from . import wrong


def size(part):
    return part.square().mean().sqrt() + 1e-8


def raw_gradient(g, m, w):
    return torch.stack([g, m, w / size(w)], 1)


def forgets_the_weight(g, m, w):
    return torch.stack([g / size(g), m / size(m), torch.zeros_like(w)], 1)


def the_gradients_measure_for_all(g, m, w):
    return torch.stack([part / size(g) for part in (g, m, w)], 1)


def divides_by_zero(g, m, w):
    return torch.stack([part / part.square().mean().sqrt() for part in (g, m, w)], 1)


def signs_only(g, m, w):
    return torch.stack([g.sign(), m.sign(), w / size(w)], 1)


def divides_by_the_first_entry(g, m, w):
    return torch.stack([g / (g[0].abs() + 1e-8), m / (m[0].abs() + 1e-8), w / size(w)], 1)


FEATURES = wrong(
    3, "q1", scale=[raw_gradient], weight=[forgets_the_weight, the_gradients_measure_for_all],
    finite=[divides_by_zero], sizes=[signs_only], order=[divides_by_the_first_entry],
)  # fmt: skip


def velocity(theta, g, v):
    return theta[2].sigmoid() * v + g


def running_average(theta, g, v, w):
    v = theta[2].sigmoid() * v + (1 - theta[2].sigmoid()) * g
    return -theta[0].exp() * v - theta[1] * w, v


def momentum_without_the_sigmoid(theta, g, v, w):
    v = theta[2] * v + g
    return -theta[0].exp() * v - theta[1] * w, v


def climbs(theta, g, v, w):
    v = velocity(theta, g, v)
    return theta[0].exp() * v - theta[1] * w, v


def step_along_the_old_velocity(theta, g, v, w):
    return -theta[0].exp() * v - theta[1] * w, velocity(theta, g, v)


def no_exponential(theta, g, v, w):
    v = velocity(theta, g, v)
    return -theta[0] * v - theta[1] * w, v


def weights_that_grow(theta, g, v, w):
    v = velocity(theta, g, v)
    return -theta[0].exp() * v + theta[1] * w, v


def theta_as_plain_numbers(theta, g, v, w):
    return climbs(theta.detach(), -g, -v, w)[0], velocity(theta, g, v)


UPDATE = wrong(
    3, "q2", velocity=[running_average, momentum_without_the_sigmoid],
    pace=[climbs, step_along_the_old_velocity, no_exponential], decay=[weights_that_grow],
    graph=[theta_as_plain_numbers],
)  # fmt: skip


def run(loss, update, w, theta, steps, *, second=True, state=True):
    w = w.detach().clone().requires_grad_()
    v = torch.zeros_like(w)
    for _ in range(steps):
        if second:
            (g,) = torch.autograd.grad(loss(w), w, create_graph=True)
        else:
            leaf = w.detach().requires_grad_()
            (g,) = torch.autograd.grad(loss(leaf), leaf)
        step, v = update(theta, g, v if state else v.detach(), w)
        w = w + step
    return w


def one_step_too_few(loss, update, w, theta, steps):
    return run(loss, update, w, theta, steps - 1)


def one_step_too_many(loss, update, w, theta, steps):
    return run(loss, update, w, theta, steps + 1)


def detached_state(*given):
    return run(*given, state=False)


def first_order_shortcut(*given):
    return run(*given, second=False)


def moves_the_weights_it_was_given(loss, update, w, theta, steps):
    end = run(loss, update, w, theta, steps)
    w.copy_(end.detach())
    return end


UNROLL = wrong(
    3, "q3", weights=[one_step_too_few, one_step_too_many], state=[detached_state],
    second_order=[first_order_shortcut], start=[moves_the_weights_it_was_given],
)  # fmt: skip


def differences(f, theta, over):
    moves = torch.eye(len(theta), dtype=theta.dtype)
    return torch.stack([over(f, theta, move) for move in moves])


def forward_difference(f, theta, h):
    return differences(f, theta, lambda f, at, move: (f(at + h * move) - f(at)) / h)


def wrong_sign(f, theta, h):
    return differences(f, theta, lambda f, at, move: (f(at - h * move) - f(at + h * move)) / (2 * h))


def divided_by_h_alone(f, theta, h):
    return differences(f, theta, lambda f, at, move: (f(at + h * move) - f(at - h * move)) / h)


def all_coordinates_at_once(f, theta, h):
    return ((f(theta + h) - f(theta - h)) / (2 * h)).expand(len(theta)).clone()


def leaves_theta_moved(f, theta, h):
    found = torch.zeros_like(theta)
    for i in range(len(theta)):
        theta[i] += h
        found[i] = f(theta)
        theta[i] -= 2 * h
        found[i] = (found[i] - f(theta)) / (2 * h)
    return found


DIFFERENCE = wrong(
    3, "q4", size=[divided_by_h_alone, all_coordinates_at_once], sign=[wrong_sign], central=[forward_difference],
    theta=[leaves_theta_moved],
)  # fmt: skip


def meta_gradient(meta_loss, theta):
    leaf = theta.detach().clone().requires_grad_()
    return torch.autograd.grad(meta_loss(leaf), leaf)[0]


def wrong_sign_of_the_meta_gradient(meta_loss, theta, lr):
    return theta.detach() + lr * meta_gradient(meta_loss, theta)


def sign_in_place_of_the_gradient(meta_loss, theta, lr):
    return theta.detach() - lr * meta_gradient(meta_loss, theta).sign()


def no_learning_rate(meta_loss, theta, lr):
    return theta.detach() - meta_gradient(meta_loss, theta)


def episodes_chained_by_their_graph(meta_loss, theta, lr):
    return theta - lr * meta_gradient(meta_loss, theta)


def leaves_a_gradient_on_theta(meta_loss, theta, lr):
    meta_loss(theta).backward()
    return (theta - lr * theta.grad).detach()


def moves_theta_in_place(meta_loss, theta, lr):
    theta.data -= lr * meta_gradient(meta_loss, theta)
    return theta.detach().clone()


STEP = wrong(
    3, "q5", descent=[wrong_sign_of_the_meta_gradient], size=[sign_in_place_of_the_gradient, no_learning_rate],
    cut=[episodes_chained_by_their_graph], theta=[leaves_a_gradient_on_theta, moves_theta_in_place],
)  # fmt: skip

WRONG = [*FEATURES, *UPDATE, *UNROLL, *DIFFERENCE, *STEP]
