"""What the learned optimizer has to beat: plain ways to train or patch, each with the grid it is tuned on.

They differ in what they may look at, and are compared within a tier: 0, clean gradients and statistics of the data;
1, also gradients at randomly noised inputs; 2, also the gradient with respect to the input; and `adversarial`, the
reference, which generates adversarial examples. Hyperparameters are tensors `[T, 1]`, one row a task, so that a whole
grid trains as one batch of tasks.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product

import torch
from torch import Tensor

from metarobust.objectives import Adversarial, NoisyFGSM, Objective, clean
from metarobust.optimizers import SGD, Adam, Annealed, Optimizer, ProximalL1, RMSprop
from metarobust.params import ParamSpec
from metarobust.penalties import Curvature, InputGradient, Noise, Trades
from metarobust.tasks import Tasks
from metarobust.training import Inner, Watch, fit

Hyper = Mapping[str, Tensor]

# What is tried of each hyperparameter: (below, usual, above). A quick run tries the usual values. A recorded one tries
# all: a best value at the edge of its grid says that the rule was not tuned to the end.
LR_ADAM = (0.0003,), (0.001, 0.003, 0.01, 0.03), (0.1,)
LR_SGD = (0.003, 0.01), (0.03, 0.1, 0.3, 1.0), ()
LR_PRUNE = (0.0003,), (0.001, 0.003, 0.01), (0.03,)
DECAY = (0.1, 0.3), (1.0, 3.0, 10.0, 30.0), (100.0, 300.0)
LAST_DECAY = (0.001, 0.003), (0.01, 0.03, 0.1, 0.3), ()
L1 = (0.0001,), (0.0003, 0.001, 0.003, 0.01, 0.03), ()
THRESHOLD = (0.05,), (0.1, 0.2, 0.3, 0.35), (0.4, 0.45)
KEEP = (0.1, 0.2, 0.3), (0.4, 0.6, 1.0), ()
SIGMA = (0.05,), (0.1, 0.2, 0.4, 0.8), (1.2, 1.6)
FALLING_SIGMA = (0.1,), (0.2, 0.4, 0.8), (1.2, 1.6)
FALLING_DECAY = (0.003, 0.01), (0.03, 0.1), (0.3,)
PENALTY = (0.003, 0.01), (0.03, 0.1, 0.3, 1.0), ()
BEND = (), (0.01, 0.1, 1.0), (10.0, 100.0)
FAR = (), (0.1,), (0.3,)
BETA = (0.3,), (1.0, 3.0, 6.0), (12.0,)
FIRST_DECAY = (0.001, 0.003), (0.01, 0.03, 0.1, 0.3), ()
L1_BESIDE_PGD = (0.0001, 0.0003), (0.001, 0.003, 0.01), ()


@dataclass(frozen=True)
class Baseline:
    """name: as in the tables. tier: what it may look at. grid: the values tried of each hyperparameter.

    optimizer: hyperparameters and layout to an optimizer. inner: hyperparameters and progress in [0, 1] to an
    objective. prepare: what is done to the tasks before the first step.
    """

    name: str
    tier: str
    grid: Mapping[str, tuple[float, ...]]
    optimizer: Callable[[Hyper, ParamSpec], Optimizer]
    inner: Callable[[Hyper, float], Objective] = lambda hyper, progress: clean
    prepare: Callable[[Tasks, Hyper], Tasks] = lambda tasks, hyper: tasks

    def is_valid(self, point: Mapping[str, float]) -> bool:
        """Whether a point of the grid is what the method's name says.

        A decay that takes off more than the whole weight in a step turns it round. From a factor of 2 on, weights then
        double with every step, until outputs are so large that cross-entropy has no gradient for an attack to follow.
        """
        return point["lr"] * point.get("decay", 0.0) < 1


def layer_mask(param_spec: ParamSpec, layer: int, like: Tensor) -> Tensor:
    """1 at the weights (not biases) of one layer, counted from 0 or, if negative, from the last: `[N]`."""
    wanted = layer % (param_spec.layers[-1] + 1)
    pairs = zip(param_spec.shapes, param_spec.layers, strict=True)
    return param_spec.broadcast(like.new_tensor([float(at == wanted and len(shape) >= 2) for shape, at in pairs]))


def _adam(hyper: Hyper, param_spec: ParamSpec) -> Optimizer:
    adam = Adam(hyper["lr"], hyper.get("decay", 0.0))
    return Annealed(adam, hyper["anneal"]) if "anneal" in hyper else adam


def _adam_last(hyper: Hyper, param_spec: ParamSpec) -> Optimizer:
    # Adam's decay is lr * decay * w; dividing by lr makes `last_decay` the share of the weight lost in each step.
    decay = hyper["last_decay"] / hyper["lr"] * layer_mask(param_spec, -1, hyper["lr"])
    return Adam(hyper["lr"], decay)


def _adam_first(hyper: Hyper, param_spec: ParamSpec) -> Optimizer:
    decay = hyper["first_decay"] / hyper["lr"] * layer_mask(param_spec, 0, hyper["lr"])
    return Adam(hyper["lr"], decay)


def _adam_l1(hyper: Hyper, param_spec: ParamSpec) -> Optimizer:
    return ProximalL1(Adam(hyper["lr"]), hyper["l1"] * layer_mask(param_spec, 0, hyper["lr"]))


def _falling(hyper: Hyper, progress: float) -> Objective:
    """Noise that falls by two fifths over the run."""
    return Noise(hyper["sigma"] * (1 - 0.4 * progress))


def std_prune(tasks: Tasks, hyper: Hyper) -> Tasks:
    """Zeroes the first layer's weights on pixels that hardly vary, and shrinks the rest.

    threshold: standard deviation over a task's training images, in pixel units. keep: factor for what stays. For a
    convolution there is no weight that belongs to one pixel: all are shrunk and none is removed.
    """
    first = next(
        name for name, shape in zip(tasks.param_spec.names, tasks.param_spec.shapes, strict=True) if len(shape) >= 2
    )
    tensors = dict(tasks.param_spec.split(tasks.params))
    weight = tensors[first]
    keep = hyper["keep"].view(-1, *[1] * (weight.ndim - 1))
    if weight.ndim == 3:
        spread = tasks.images[tasks.train].flatten(2).std(1)
        keep = keep * (spread > hyper["threshold"])[:, None, :]
    tensors[first] = weight * keep
    return replace(tasks, params=tasks.param_spec.flatten(tensors))


def methods(eps: float, *, patching: bool, wide: bool = True, annealed: bool = False) -> list[Baseline]:
    """All baselines for an attack radius eps; std-prune only where there is a trained model to prune.

    wide: try all values of each hyperparameter, not the usual ones alone. annealed: of those by Adam, try each setting
    with a constant rate and with one that falls to 0; and N-FGSM, which is younger than the other experiments.
    """

    def grid(**names: tuple[tuple[float, ...], ...]) -> dict[str, tuple[float, ...]]:
        return {name: sum(parts, ()) if wide else parts[1] for name, parts in names.items()}

    found = [
        Baseline("sgd", "0", grid(lr=LR_SGD), lambda h, lay: SGD(h["lr"], 0.9)),
        Baseline("adam", "0", grid(lr=LR_ADAM), _adam),
        Baseline("adam + weight decay", "0", grid(lr=LR_ADAM, decay=DECAY), _adam),
        Baseline("adam + first-layer decay", "0", grid(lr=LR_ADAM, first_decay=FIRST_DECAY), _adam_first),
        Baseline("adam + last-layer decay", "0", grid(lr=LR_ADAM, last_decay=LAST_DECAY), _adam_last),
        Baseline("adam + L1 on layer 1", "0", grid(lr=LR_ADAM, l1=L1), _adam_l1),
        Baseline("noise", "1", grid(lr=LR_ADAM, sigma=SIGMA), _adam, lambda h, t: Noise(h["sigma"])),
        Baseline(
            "falling noise + last-layer decay", "1",
            grid(lr=LR_ADAM, sigma=FALLING_SIGMA, last_decay=FALLING_DECAY), _adam_last, _falling,
        ),
        Baseline(
            "input-gradient penalty", "2", grid(lr=LR_ADAM, weight=PENALTY), _adam,
            lambda h, t: InputGradient(h["weight"]),
        ),
        Baseline(
            "curvature penalty", "2", grid(lr=LR_ADAM, weight=BEND, far=FAR), _adam,
            lambda h, t: Curvature(h["weight"], h["far"]),
        ),
        Baseline("FGSM training", "adversarial", grid(lr=LR_ADAM), _adam, lambda h, t: Adversarial(eps, 1)),
        Baseline("PGD-7 training", "adversarial", grid(lr=LR_ADAM), _adam, lambda h, t: Adversarial(eps, 7)),
        Baseline(
            "PGD-7 training + L1 on layer 1", "adversarial", grid(lr=LR_ADAM, l1=L1_BESIDE_PGD), _adam_l1,
            lambda h, t: Adversarial(eps, 7),
        ),
        Baseline(
            "TRADES", "adversarial", grid(lr=LR_ADAM, beta=BETA), _adam, lambda h, t: Trades(h["beta"], eps)
        ),
    ]  # fmt: skip
    if annealed:
        found.append(Baseline("N-FGSM training", "adversarial", grid(lr=LR_ADAM), _adam, lambda h, t: NoisyFGSM(eps)))
        found = [
            replace(method, grid={**method.grid, "anneal": (0.0, 1.0)}) if method.optimizer is _adam else method
            for method in found
        ]
    if patching:
        wanted = grid(lr=LR_PRUNE, threshold=THRESHOLD, keep=KEEP)
        found.insert(6, Baseline("std-prune", "0", wanted, _adam, prepare=std_prune))
    return found


def robust_methods(eps: float, *, wide: bool = True) -> list[Baseline]:
    """Adversarial training by each of four optimizers and two attacks: what a learned optimizer has to beat, where it
    is given adversarial gradients too. wide: as in `methods`.
    """
    optimizers: dict[str, tuple[tuple[tuple[float, ...], ...], Callable[[Hyper, ParamSpec], Optimizer]]] = {
        "SGD": (LR_SGD, lambda h, lay: SGD(h["lr"])),
        "momentum": (LR_SGD, lambda h, lay: SGD(h["lr"], 0.9)),
        "RMSprop": (LR_ADAM, lambda h, lay: RMSprop(h["lr"])),
        "Adam": (LR_ADAM, _adam),
    }
    return [
        Baseline(
            f"{attack} training, {name}", "adversarial", {"lr": sum(rates, ()) if wide else rates[1]}, optimizer,
            lambda h, t, steps=steps: Adversarial(eps, steps),
        )
        for attack, steps in (("FGSM", 1), ("PGD-7", 7))
        for name, (rates, optimizer) in optimizers.items()
    ]  # fmt: skip


def fit_baseline(
    tasks: Tasks, method: Baseline, hyper: Hyper, inner: Inner, generator: torch.Generator, watch: Watch | None = None
) -> tuple[Tensor, int]:
    """Trains tasks by a baseline.

    Args:
        tasks: T tasks.
        method: The baseline.
        hyper: Its hyperparameters by name, `[T, 1]`.
        inner: Steps and batch size.
        generator: Of the batches.
        watch: As for `training.fit`.

    Returns:
        Parameters `[T, N]`, and how many adversarial examples were generated on the way.
    """
    tasks = method.prepare(tasks, hyper)
    optimizer = method.optimizer(hyper, tasks.param_spec)
    return fit(tasks, optimizer, lambda progress: method.inner(hyper, progress), inner, generator, watch)


def settings(method: Baseline) -> Iterator[dict[str, float]]:
    """Every valid point of a method's grid."""
    for values in product(*method.grid.values()):
        point = dict(zip(method.grid, values, strict=True))
        if method.is_valid(point):
            yield point


def repeat(tasks: Tasks, times: int) -> Tasks:
    """The same T tasks, `times` over: `[times * T, ...]`."""
    rows = {name: getattr(tasks, name).repeat(times, 1) for name in ("params", "train", "held_out")}
    return replace(tasks, **rows)


def as_hyper(points: Sequence[Mapping[str, float]], each: int, like: Tensor) -> dict[str, Tensor]:
    """Points of a grid as tensors `[len(points) * each, 1]`, one row a task."""
    return {
        name: like.new_tensor([point[name] for point in points]).repeat_interleave(each)[:, None] for name in points[0]
    }
