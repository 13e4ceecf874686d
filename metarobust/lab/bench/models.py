"""The trained models that attacks are compared on: one for each way in which a model here comes to be.

All are small and trained on the handwritten digits that come with scikit-learn, so that the comparison needs no
download. Patched models are why this is asked at all: a patch that only hides the gradient would look robust to a weak
attack.
"""

from dataclasses import replace
from functools import cache

import torch
from torch import Tensor, nn

from metarobust import pretrained
from metarobust.data import Split, load
from metarobust.family import Training, make_tasks, train_clean
from metarobust.lab.baselines import std_prune
from metarobust.meta import generator_of
from metarobust.models import build
from metarobust.objectives import Adversarial, clean
from metarobust.optimizers import Adam
from metarobust.training import Inner, fit, fit_learned

RADIUS = {"linf": 0.1, "l2": 0.5}
"""The eps of each norm at which the models are compared, in pixel units."""


def images(count: int | None = None) -> Split:
    """The first `count` test images of the digits: none of them trained any of the models."""
    return load("digits").test[slice(count)]


def module(name: str, params: Tensor) -> nn.Module:
    """The model of `MODELS` with the parameters `[N]`, as other libraries want it: a plain module, in eval mode."""
    model = build(MODELS[name][0], (1, 8, 8), 10)
    nn.utils.vector_to_parameters(params, model.parameters())
    return model.eval()


@cache
def train(name: str) -> Tensor:
    """The parameters `[N]` of a model of `MODELS`, in seconds, on all training images of the digits."""
    architecture, way = MODELS[name]
    data = load("digits")
    rows = torch.arange(len(data.train))[None]
    tasks = make_tasks(architecture, data.train, data.classes, rows, rows, generator_of("cpu", 0))
    if way == "adversarial":
        against = Adversarial(RADIUS["linf"], 7)
        return fit(tasks, Adam(0.01), lambda progress: against, Inner(300, 128), generator_of("cpu", 2))[0][0]
    tasks = replace(tasks, params=train_clean(tasks, Training(), generator_of("cpu", 1)).detach())
    if way == "pruned":
        cut = std_prune(tasks, {"threshold": torch.tensor([[0.2]]), "keep": torch.tensor([[0.6]])})
        return fit(cut, Adam(0.001), lambda progress: clean, Inner(20, 64), generator_of("cpu", 3))[0][0]
    if way == "patched":
        return fit_learned(tasks, pretrained.load("patch-digits"), Inner(20, 64), generator_of("cpu", 3))[0][0]
    return tasks.params[0]


MODELS = {
    "trained as usual": ("mlp-64-relu", "usual"),
    "trained against PGD": ("mlp-64-relu", "adversarial"),
    "patched by std-prune": ("mlp-64-relu", "pruned"),
    "patched by a learned optimizer": ("mlp-64-relu", "patched"),
    "CNN, trained against PGD": ("cnn-8-16-relu", "adversarial"),
}
"""By name: its architecture, and how its parameters come to be; see `train`."""
