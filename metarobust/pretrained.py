"""Learned optimizers that come with the package, each with a card: what it learned from, and what it is good for.

weights/NAME.safetensors    theta, the parameters of a learned optimizer
weights/NAME.json           its card, with the digest of the weights and of itself

They are those of the recorded runs, and commands in this repository make them:

    metarobust run patch --scale small --dataset mnist --out runs/mnist
    metarobust export runs/mnist patch                            # patch-mnist.safetensors and its card
    metarobust export runs/mnist patch --rule "learned, joint"    # patch-mnist-joint.safetensors

and the same with `--dataset digits`, and with `train`. The one that trains fresh models on MNIST is of a run that was
recorded when the experiments `patch` and `train` were one, `transfer`. A run of `transfer-data` learns on several data
sets, and a part of it patches networks of one:

    metarobust export runs/data "patch, fashion-mnist" --rule "learned on fashion-mnist"    # patch-fashion-mnist

Of a run's meta-seeds the first, 0, is shipped, whatever its test results. The state of the Adam that trained theta is
left out: it is needed to go on with meta-training, not to use what was learned.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from metarobust.errors import InputError, choose
from metarobust.storage import load_tensors, read_json

if TYPE_CHECKING:
    from metarobust.learned.protocol import LearnedOptimizer

FOLDER = Path(__file__).parent / "weights"
DEFAULT = "patch-mnist"


def available() -> list[str]:
    """The names that `load` takes."""
    return sorted(path.stem for path in FOLDER.glob("*.safetensors"))


def load(name: str = DEFAULT) -> LearnedOptimizer:
    """The learned optimizer of this name, on the CPU. Raises InputError for another name or a damaged file."""
    import torch

    from metarobust.learned import SHAPES, make

    path = _path(name)
    try:
        theta, about = load_tensors(path)
        with torch.random.fork_rng(devices=[]):  # PyTorch's layers draw first values, which are replaced
            kind = about.get("kind", "features")
            optimizer = make(kind, **{number: about[number] for number in SHAPES[kind]})
        optimizer.load_state_dict(theta)
    except (InputError, KeyError, RuntimeError) as error:
        raise InputError(f"pretrained optimizer {name!r} is damaged; install metarobust anew ({error})") from error
    return optimizer


def summaries() -> dict[str, str]:
    """A line for each name, out of its card."""
    return {name: card(name)["summary"] for name in available()}


def card(name: str = DEFAULT) -> dict[str, Any]:
    """All that was written down of a pretrained optimizer when it was made, as a JSON object.

    `works` are the unseen networks where it was more robust than every rule that makes no adversarial example; `fails`
    names for each other network the rules that were ahead. Its results, out of the recorded run `run`, are in
    `metarobust.lab.cards.card`. Raises InputError for another name and for a damaged card.
    """
    path = _path(name).with_suffix(".json")
    try:
        return read_json(path)["about"]
    except (InputError, KeyError) as error:
        raise InputError(f"the card of {name!r} is damaged; install metarobust anew ({error})") from error


def _path(name: str) -> Path:
    return FOLDER / f"{choose(name, available(), 'pretrained optimizer')}.safetensors"
