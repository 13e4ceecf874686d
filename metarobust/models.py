"""The networks that get attacked, trained and patched: small MLPs, small CNNs, a ResNet.

A network is named by a string, so that a frozen experiment can list it: `mlp-20-sigmoid` (one hidden layer of 20, the
optimizee of Andrychowicz et al. 2016), `mlp-64-64-relu`, `cnn-8-16-relu`, `gncnn-8-16-relu` (the same with group
normalisation, which needs no running statistics, after each convolution), `resnet-16-1-relu` (width 16, one block per
stage; He et al. 2016, with group normalisation). One has a fixed name: `madry-cnn`, the network of Madry et al. 2018
(arXiv 1706.06083) for MNIST, as in their released code. Images come in [0, 1], so eps is always in pixel units: a
network of your own that normalises does so in its first layer.
"""

import itertools
import math
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
Shape = tuple[int, int, int]
MADRY = "madry-cnn"


class Residual(nn.Module):
    """x + f(x), with a 1x1 convolution on the short cut where the shape changes."""

    def __init__(self, channels: int, out: int, stride: int, activation: type[nn.Module]):
        super().__init__()
        groups = math.gcd(8, out)
        first = [nn.Conv2d(channels, out, 3, stride, 1), nn.GroupNorm(groups, out), activation()]
        self.body = nn.Sequential(*first, nn.Conv2d(out, out, 3, 1, 1), nn.GroupNorm(groups, out))
        same = stride == 1 and channels == out
        self.short = nn.Identity() if same else nn.Conv2d(channels, out, 1, stride)
        self.activation = activation()

    def forward(self, x: Tensor) -> Tensor:
        return self.activation(self.body(x) + self.short(x))


def build(name: str, shape: Shape, classes: int) -> nn.Module:
    """The network of this name.

    Args:
        name: `madry-cnn`, or KIND-WIDTHS-ACTIVATION, such as `mlp-20-sigmoid`.
        shape: (channels, height, width) of an image.
        classes: the number of logits.

    Returns:
        A module that maps images `[n, C, H, W]` in [0, 1] to logits `[n, classes]`.

    Raises:
        InputError: the name is neither of the two.
    """
    if name == MADRY:
        return nn.Sequential(*_madry(shape, classes))
    kind, *numbers, activation = name.split("-") if name.count("-") >= 2 else (name, "", "")
    choose(kind, KINDS, f"kind of network (a name is {MADRY} or KIND-WIDTHS-ACTIVATION, such as mlp-20-sigmoid)")
    act = ACTIVATIONS[choose(activation, ACTIVATIONS, "activation")]
    if not all(n.isdecimal() and int(n) > 0 for n in numbers):
        raise InputError(f"network {name!r}: widths must be whole numbers above 0, as in mlp-64-64-relu")
    widths = [int(n) for n in numbers]
    if kind == "resnet" and len(widths) > 2:
        raise InputError(f"network {name!r}: a resnet has a width and, where wanted, blocks, as in resnet-16-1-relu")
    return nn.Sequential(*KINDS[kind](shape, classes, widths, act))


def _mlp(shape: Shape, classes: int, widths: list[int], act: type[nn.Module]) -> list[nn.Module]:
    sizes = [math.prod(shape), *widths]
    hidden = [layer for a, b in itertools.pairwise(sizes) for layer in (nn.Linear(a, b), act())]
    return [nn.Flatten(), *hidden, nn.Linear(sizes[-1], classes)]


def _cnn(shape: Shape, classes: int, widths: list[int], act: type[nn.Module]) -> list[nn.Module]:
    sizes, shrink = [shape[0], *widths], 2 ** len(widths)
    convolutions = [layer for a, b in itertools.pairwise(sizes) for layer in (nn.Conv2d(a, b, 3, 2, 1), act())]
    pixels = math.ceil(shape[1] / shrink) * math.ceil(shape[2] / shrink)
    return [*convolutions, nn.Flatten(), nn.Linear(sizes[-1] * pixels, classes)]


def _gncnn(shape: Shape, classes: int, widths: list[int], act: type[nn.Module]) -> list[nn.Module]:
    layers: list[nn.Module] = []
    for layer in _cnn(shape, classes, widths, act):
        layers.append(layer)
        if isinstance(layer, nn.Conv2d):
            layers.append(nn.GroupNorm(math.gcd(4, layer.out_channels), layer.out_channels))
    return layers


def _resnet(shape: Shape, classes: int, widths: list[int], act: type[nn.Module]) -> list[nn.Module]:
    """Three stages; each doubles the channels of the one before and halves height and width."""
    base, blocks = (*widths, 1)[:2]
    layers: list[nn.Module] = [nn.Conv2d(shape[0], base, 3, 1, 1), act()]
    channels = base
    for stage, block in itertools.product(range(3), range(blocks)):
        layers.append(Residual(channels, base * 2**stage, 2 if stage and not block else 1, act))
        channels = base * 2**stage
    return [*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, classes)]


def _madry(shape: Shape, classes: int) -> list[nn.Module]:
    """Two 5x5 convolutions, each halved by pooling, and a dense layer of 1024: on 28x28 images 3.3 million weights."""
    layers: list[nn.Module] = []
    for channels, out in ((shape[0], 32), (32, 64)):
        # Rounding up is what TensorFlow's SAME does, and it keeps images of odd sizes.
        layers += [nn.Conv2d(channels, out, 5, padding=2), nn.ReLU(), nn.MaxPool2d(2, ceil_mode=True)]
    pixels = math.ceil(shape[1] / 4) * math.ceil(shape[2] / 4)
    return [*layers, nn.Flatten(), nn.Linear(64 * pixels, 1024), nn.ReLU(), nn.Linear(1024, classes)]


KINDS = {"mlp": _mlp, "cnn": _cnn, "gncnn": _gncnn, "resnet": _resnet}


def fresh(model: nn.Module, tasks: int, generator: torch.Generator) -> Tensor:
    """Parameters `[tasks, N]` by PyTorch's default initialisation, drawn from an explicit generator.

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

    With T models the images `[T * n, C, H, W]` are T equal parts, one a model, and so are the logits
    `[T * n, classes]`. Attacks and objectives need not know.

    Attributes:
        model: The architecture; its own parameters are not used.
        param_spec: Of the model.
        params: `[N]`, or `[T, N]` for T models.
    """

    model: nn.Module
    param_spec: ParamSpec
    params: Tensor

    def __call__(self, x: Tensor) -> Tensor:
        if self.params.ndim == 1:
            return self._predict(self.params, x)
        tasks = len(self.params)
        if len(x) % tasks:
            raise InputError(f"{len(x)} images cannot be shared out to {tasks} models: give a multiple of {tasks}")
        each = len(x) // tasks
        # T models in one call make of a convolution one with T groups, of which a processor is slow at wide ones.
        widest = max((m.in_channels for m in self.model.modules() if isinstance(m, nn.Conv2d)), default=0)
        if each >= 32 and widest > 8 and not x.is_cuda:
            return torch.cat([self._predict(p, xs) for p, xs in zip(self.params, x.split(each), strict=True)])
        return vmap(self._predict)(self.params, x.reshape(tasks, each, *x.shape[1:])).flatten(0, 1)

    def _predict(self, params: Tensor, x: Tensor) -> Tensor:
        return functional_call(self.model, self.param_spec.split(params), (x,))
