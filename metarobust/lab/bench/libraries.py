"""Other libraries, and the same attack by them behind one signature: what ours is held against, in strength and speed.

`PGD[name](model, norm, eps=..., step_size=..., steps=..., seed=...)` is an attack `(images, labels) -> adversarial
images`: gradients of cross-entropy, images in [0, 1], the last point returned, no early stopping; from the image itself
where seed is None, else from a random point. It is built before it is run, so that only the attack is timed.

metarobust itself needs none of them. They are imported when they are used, and `need` says how to install one that is
missing.
"""

import os
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from importlib.metadata import PackageNotFoundError, version

import numpy as np
import torch
from torch import Tensor, nn

from metarobust.errors import InputError, choose

INSTALL = "pip install -c .ci/constraints.txt -e '.[peers]'"
"""Installs every library, from the folder of this project."""

Run = Callable[[Tensor, Tensor], Tensor]

PACKAGES = {
    "foolbox": "foolbox",
    "ART": "adversarial-robustness-toolbox",
    "torchattacks": "torchattacks",
    "AutoAttack": "pyautoattack",
}
"""By name: the package that is installed."""


def installed(name: str) -> str | None:
    """The version of a library that is installed, or None."""
    package = PACKAGES[choose(name, PACKAGES, "library")]
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def need(name: str) -> None:
    """Raises InputError, saying how to install it, where a library is missing."""
    if installed(name) is None:
        raise InputError(f"{name} ({PACKAGES[name]}) is not installed; install the libraries with: {INSTALL}")


def foolbox(model: nn.Module, norm: str, *, eps: float, step_size: float, steps: int, seed: int | None = None) -> Run:
    """foolbox: `LinfPGD`, `L2PGD`."""
    os.environ.setdefault("GIT_PYTHON_REFRESH", "quiet")  # it imports GitPython, which gives up where there is no git
    with _quiet():
        from foolbox import PyTorchModel
        from foolbox.attacks import L2PGD, LinfPGD
    attack = {"linf": LinfPGD, "l2": L2PGD}[norm](abs_stepsize=step_size, steps=steps, random_start=seed is not None)
    wrapped = PyTorchModel(model, bounds=(0, 1), device=_device(model))
    return _run(lambda x, y: attack.run(wrapped, x, y, epsilon=eps), seed)


def art(model: nn.Module, norm: str, *, eps: float, step_size: float, steps: int, seed: int | None = None) -> Run:
    """The Adversarial Robustness Toolbox: `ProjectedGradientDescentPyTorch`. It takes and returns NumPy arrays."""
    with _quiet():
        from art.attacks.evasion import ProjectedGradientDescentPyTorch
        from art.estimators.classification import PyTorchClassifier

    @cache  # it wants to know the shapes beforehand, so it is built at the first call
    def built(n: int, *shape: int) -> ProjectedGradientDescentPyTorch:
        device = _device(model)
        with torch.no_grad():
            classes = model(torch.zeros(1, *shape, device=device)).shape[1]
        classifier = PyTorchClassifier(
            model, loss=nn.CrossEntropyLoss(), input_shape=shape, nb_classes=classes, clip_values=(0, 1),
            device_type="gpu" if device.type == "cuda" else "cpu",
        )  # fmt: skip
        return ProjectedGradientDescentPyTorch(
            classifier, norm={"linf": np.inf, "l2": 2}[norm], eps=eps, eps_step=step_size, max_iter=steps,
            num_random_init=int(seed is not None), batch_size=n, verbose=False,
        )  # fmt: skip

    def attack(images: Tensor, labels: Tensor) -> Tensor:
        moved = built(*images.shape).generate(x=images.cpu().numpy(), y=labels.cpu().numpy())
        return torch.from_numpy(moved).to(images)

    return _run(attack, seed)


def torchattacks(
    model: nn.Module, norm: str, *, eps: float, step_size: float, steps: int, seed: int | None = None
) -> Run:
    """torchattacks: `PGD`, `PGDL2`."""
    with _quiet():
        from torchattacks import PGD, PGDL2
    attack = {"linf": PGD, "l2": PGDL2}[norm](
        model, eps=eps, alpha=step_size, steps=steps, random_start=seed is not None
    )
    return _run(attack, seed)


def autoattack(model: nn.Module, norm: str, *, eps: float, queries: int = 5000, seed: int = 0) -> Run:
    """pyautoattack: the whole "standard" AutoAttack, APGD-CE, APGD-T, FAB-T and Square, in a cascade."""
    with _quiet():
        from pyautoattack import AutoAttack
    attack = AutoAttack(
        model, eps=eps, norm={"linf": "Linf", "l2": "L2"}[norm], seed=seed, device=_device(model), version="standard"
    )
    attack.square.n_queries = queries
    return _run(lambda x, y: attack.run_standard_evaluation(x, y, batch_size=len(x))[0], seed)


PGD: dict[str, Callable[..., Run]] = {"foolbox": foolbox, "ART": art, "torchattacks": torchattacks}


def _device(model: nn.Module) -> torch.device:
    return next(model.parameters()).device


def _run(attack: Run, seed: int | None) -> Run:
    """The attack without its warnings, and with PyTorch's and NumPy's own chance left as they were."""

    def run(images: Tensor, labels: Tensor) -> Tensor:
        if seed is None:
            with _quiet():
                return attack(images, labels).detach()
        before = np.random.get_state()
        with torch.random.fork_rng(), _quiet():
            torch.manual_seed(seed)
            np.random.seed(seed)
            try:
                return attack(images, labels).detach()
            finally:
                np.random.set_state(before)

    return run


@contextmanager
def _quiet() -> Iterator[None]:
    """Their warnings are theirs: of names that NumPy or SciPy will drop, of points without a gradient."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
