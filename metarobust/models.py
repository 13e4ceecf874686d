"""The networks that get attacked, trained and patched: small MLPs, small CNNs, a ResNet.

A network is named by a string, so that a frozen experiment can list it: `mlp-20-sigmoid` (one hidden layer of 20, the
optimizee of Andrychowicz et al. 2016), `mlp-64-64-relu`, `cnn-8-16-relu`, `resnet-16-1-relu` (width 16, one block per
stage; He et al. 2016 with group normalisation, which needs no running statistics). One has a fixed name: `madry-cnn`,
the network of Madry et al. 2018 (arXiv 1706.06083) for MNIST, as in their released code. Images come in [0, 1];
normalisation is the first layer of every network, so eps is always in pixel units.
"""

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.func import functional_call, vmap

from metarobust.errors import InputError, choose
from metarobust.params import ParamSpec

ACTIVATIONS: dict[str, type[nn.Module]] = {
    "sigmoid": nn.Sigmoid,
    "tanh": nn.Tanh,
    "relu": nn.ReLU,
    "elu": nn.ELU,
    "gelu": nn.GELU,
    "softplus": nn.Softplus,
}
KINDS = ("mlp", "cnn", "resnet")
# T models in one call make of a convolution one with T groups. A processor is quick at that while no more than FAST
# channels go into a group. Beyond, with MANY images a model or more, the models are done sooner one after the other.
FAST, MANY = 8, 32
MADRY = "madry-cnn"


class Normalise(nn.Module):
    """(x - mean) / std, as the first layer of a network: the attack works on pixels in [0, 1], outside of it."""

    def __init__(self, mean: float, std: float):
        super().__init__()
        self.mean, self.std = mean, std

    def forward(self, x: Tensor) -> Tensor:
        if (self.mean, self.std) == (0, 1):  # no pass over the images: they take long in a small network
            return x
        return (x - self.mean) / self.std


class Residual(nn.Module):
    """x + f(x), with a 1x1 convolution on the short cut where the shape changes."""

    def __init__(self, cin: int, cout: int, stride: int, activation: type[nn.Module]):
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(cin, cout, 3, stride, 1), nn.GroupNorm(math.gcd(8, cout), cout), activation(),
            nn.Conv2d(cout, cout, 3, 1, 1), nn.GroupNorm(math.gcd(8, cout), cout),
        )  # fmt: skip
        same = stride == 1 and cin == cout
        self.short = nn.Identity() if same else nn.Conv2d(cin, cout, 1, stride)
        self.activation = activation()

    def forward(self, x: Tensor) -> Tensor:
        return self.activation(self.body(x) + self.short(x))


def build(name: str, shape: tuple[int, int, int], classes: int, mean: float = 0.0, std: float = 1.0) -> nn.Module:
    """The network called `name` for images of `shape` (C, H, W), which it normalises by mean and std.

    Returns a module that maps `[n, C, H, W]` in [0, 1] to logits `[n, classes]`.
    Raises InputError for a name that is neither `madry-cnn` nor `KIND-NUMBERS-ACTIVATION`.
    """
    if name == MADRY:
        return nn.Sequential(Normalise(mean, std), *_madry(shape, classes))
    kind, *numbers, activation = name.split("-") if name.count("-") >= 2 else (name, "", "")
    choose(kind, KINDS, f"kind of network (a name is {MADRY} or KIND-WIDTHS-ACTIVATION, such as mlp-20-sigmoid)")
    act = ACTIVATIONS[choose(activation, ACTIVATIONS, "activation")]
    if not all(n.isdecimal() and int(n) > 0 for n in numbers):
        raise InputError(f"network {name!r}: widths must be whole numbers above 0, as in mlp-64-64-relu")
    widths = [int(n) for n in numbers]
    channels, height, width = shape
    if kind == "mlp":
        sizes = [channels * height * width, *widths]
        hidden = [m for a, b in itertools.pairwise(sizes) for m in (nn.Linear(a, b), act())]
        return nn.Sequential(Normalise(mean, std), nn.Flatten(), *hidden, nn.Linear(sizes[-1], classes))
    if kind == "cnn":
        sizes = [channels, *widths]
        convs = [m for a, b in itertools.pairwise(sizes) for m in (nn.Conv2d(a, b, 3, 2, 1), act())]
        for _ in widths:
            height, width = (height + 1) // 2, (width + 1) // 2
        return nn.Sequential(
            Normalise(mean, std), *convs, nn.Flatten(), nn.Linear(widths[-1] * height * width, classes)
        )
    if len(widths) > 2:
        raise InputError(f"network {name!r}: a resnet has a width and, where wanted, blocks, as in resnet-16-1-relu")
    base, blocks = (*widths, 1)[:2]
    stages: list[nn.Module] = [nn.Conv2d(channels, base, 3, 1, 1), act()]
    cin = base
    for stage in range(3):
        for block in range(blocks):
            cout = base * 2**stage
            stages.append(Residual(cin, cout, 2 if stage and not block else 1, act))
            cin = cout
    return nn.Sequential(Normalise(mean, std), *stages, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(cin, classes))


def _madry(shape: tuple[int, int, int], classes: int) -> list[nn.Module]:
    """Two 5x5 convolutions, each halved by pooling, and a dense layer of 1024: on 28x28 images 3.3 million weights."""
    channels, height, width = shape
    layers: list[nn.Module] = []
    for cin, cout in ((channels, 32), (32, 64)):
        # Rounding up is what TensorFlow's SAME does, and it keeps images of odd sizes.
        layers += [nn.Conv2d(cin, cout, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2, ceil_mode=True)]
        height, width = (height + 1) // 2, (width + 1) // 2
    return [*layers, nn.Flatten(), nn.Linear(64 * height * width, 1024), nn.ReLU(), nn.Linear(1024, classes)]


def fresh(model: nn.Module, tasks: int, generator: torch.Generator) -> Tensor:
    """PyTorch's default initialisation, drawn from an explicit generator: `[tasks, N]`.

    Weights and biases are uniform in ±1/sqrt(fan-in); scales of normalisation layers are 1, their shifts 0.
    """
    param_spec, parts = ParamSpec.of(model), []
    for name, shape, (fan_in, _) in zip(param_spec.names, param_spec.shapes, param_spec.fans, strict=True):
        owner, _, kind = name.rpartition(".")
        size = (tasks, math.prod(shape))
        if isinstance(model.get_submodule(owner), nn.GroupNorm):
            parts.append(torch.full(size, float(kind == "weight"), device=generator.device))
        else:
            bound = fan_in**-0.5
            parts.append(torch.rand(size, generator=generator, device=generator.device) * 2 * bound - bound)
    return torch.cat(parts, -1)


@dataclass(frozen=True)
class Predictor:
    """Prediction with parameters passed in: images to logits, for one model or for T models at once.

    params: `[N]`, or `[T, N]` for T models of one architecture. With T models the images `[T * n, C, H, W]` are T equal
    stretches, one a model, and so are the logits `[T * n, classes]`. Attacks and objectives need not know.
    """

    model: nn.Module
    param_spec: ParamSpec
    params: Tensor

    def __call__(self, x: Tensor) -> Tensor:
        if self.params.ndim == 1:
            return functional_call(self.model, self.param_spec.split(self.params), (x,))
        tasks = len(self.params)
        if len(x) % tasks:
            raise InputError(f"{len(x)} images cannot be shared out to {tasks} models: give a multiple of {tasks}")
        each = len(x) // tasks
        wide = max((m.in_channels for m in self.model.modules() if isinstance(m, nn.Conv2d)), default=0) > FAST
        return self.in_turn(x, each) if wide and each >= MANY and not x.is_cuda else self.at_once(x, each)

    def at_once(self, x: Tensor, each: int) -> Tensor:
        """All T models in one call, `each` images for one: `[T * each, C, H, W]` to logits `[T * each, classes]`."""
        run: Callable = vmap(lambda p, xs: functional_call(self.model, self.param_spec.split(p), (xs,)))
        return run(self.params, x.reshape(len(self.params), each, *x.shape[1:])).flatten(0, 1)

    def in_turn(self, x: Tensor, each: int) -> Tensor:
        """The same, one model after the other: quicker on a processor for wide convolutions, see FAST and MANY."""
        own = zip(self.params, x.split(each), strict=True)
        return torch.cat([functional_call(self.model, self.param_spec.split(p), (xs,)) for p, xs in own])
