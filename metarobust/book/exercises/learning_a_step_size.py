"""Exercises of "Learn a step size"."""

import torch

from metarobust.book.exercises.check import function, near, number

# f(w) = w^2, w0 = 1, alpha = 0.1: what is d f(w2) / d alpha?
two_steps = number(
    -4.096,
    {
        4.096: "the sign: a longer step would bring this run further down.",
        -3.2: "that is after one step. There are two.",
        -4.608: "you took both gradients as given. The second was asked for at a place that depends on alpha.",
        -0.4096: "that is by the logarithm of alpha: divide by alpha.",
    },
    first="w2 = (1 - 2 alpha)^2. Put that into the loss, then differentiate.",
    passed="f(w2) = (1 - 2α)⁴, and its slope is -8 (1 - 2α)³ = -4.096.",
)


@function(
    first="run the K steps with create_graph=True, then ask autograd for the slope of the last loss.",
    stops="w and alpha come in as plain tensors: make your own alpha with requires_grad_().",
)
def meta_gradient(answer):
    """`answer(loss, w, alpha, steps)`: d loss(w_K) / d alpha after K steps of gradient descent, all of it."""
    w, curvature = torch.tensor([[1.0, -0.5], [1.0, 3.0]], dtype=torch.float64)
    alpha = torch.tensor(0.2, dtype=torch.float64)
    result = answer(lambda at: 0.5 * (curvature * at * at).sum(), w, alpha, 3)
    yield result.numel() == 1, "it does not return one number.", "the slope by alpha is one number, not one per weight."
    grads = [curvature * w * (1 - 0.2 * curvature) ** k for k in range(4)]
    right = -(3 * curvature**2 * w**2 * (1 - 0.2 * curvature) ** 5).sum()
    yield not near(result, -right), "the sign is wrong.", "what is asked for is the slope, not the way down."
    hint = "the second gradient depends on alpha too, through w: keep its graph (create_graph=True), detach nothing."
    first_order, last = -(grads[3] * sum(grads[:3])).sum(), -(grads[3] * grads[2]).sum()
    yield not near(result, first_order), "it is the first-order slope.", hint
    yield not near(result, last), "only the last step counts.", "keep w's history: no w.detach()."
    yield not near(result, 0.2 * right), "it is alpha times too small.", "by alpha itself, and not by its logarithm."
    yield near(result, right), f"it is {float(result):.4g}, but {float(right):.4g} on a bowl.", "K steps, then f?"

    def waves(at):
        return at.sin().sum() + 0.3 * (at**4).sum()

    def after(size):
        at = w
        for _ in range(3):
            at = at - size * (at.cos() + 1.2 * at**3)
        return waves(at)

    slope = (after(0.2 + 1e-5) - after(0.2 - 1e-5)) / 2e-5
    hint = "nothing may be special to a bowl: differentiate the loss that comes in."
    yield near(answer(waves, w, alpha, 3), slope, 1e-4), "it fails for another loss.", hint
