"""Learned optimizers that come with the package, each with a card: what it learned from, and what it is good for.

weights/NAME.safetensors    theta, the parameters of a learned optimizer
weights/NAME.json           its card, with the digest of the weights

They are those of the recorded runs, and commands in this repository make them:

    metarobust run patch --scale small --dataset mnist --out runs/mnist
    metarobust export runs/mnist patch                            # patch-mnist.safetensors and its card
    metarobust export runs/mnist patch --rule "learned, joint"    # patch-mnist-joint.safetensors

Of a run's meta-seeds the first, 0, is shipped, whatever its test results.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from metarobust.errors import InputError, choose
from metarobust.learned import SHAPES, make
from metarobust.learned.penalties import KINDS, which
from metarobust.learned.protocol import LearnedOptimizer
from metarobust.params import ParamSpec
from metarobust.storage import load_tensors, read_bytes, read_json, save_tensors, sha256, write_json

FOLDER = Path(__file__).parent / "weights"
TRAIN, PATCH = "train", "patch"
"""The rules that serve by default: for fresh models and for trained ones."""
IMAGES = {"digits": (1, 8, 8), "mnist": (1, 28, 28), "fashion-mnist": (1, 28, 28)}
LARGE = 100_000  # more parameters than any network of the families has


def available() -> list[str]:
    """The names that `load` takes."""
    return sorted(path.stem for path in FOLDER.glob("*.safetensors"))


def load(name: str) -> LearnedOptimizer:
    """The learned optimizer of this name, on the CPU.

    Raises:
        InputError: there is none of this name, or its files are damaged.
    """
    about, path = card(name), FOLDER / f"{name}.safetensors"
    try:
        if sha256(read_bytes(path)) != about["weights_sha256"]:
            raise InputError(f"{path.name} is not what its card says")
        # PyTorch's layers draw first values, which are replaced, of its default type on its default device.
        with torch.random.fork_rng(devices=[]), torch.device("cpu"):
            optimizer = make(about["kind"], **{number: about[number] for number in SHAPES[about["kind"]]})
        optimizer.float().load_state_dict(load_tensors(path)[0])
    except (InputError, KeyError, RuntimeError) as error:
        raise InputError(f"pretrained optimizer {name!r} is damaged; install metarobust anew ({error})") from error
    return optimizer


def card(name: str) -> dict[str, Any]:
    """All that was written down of a pretrained optimizer when it was made, as a JSON object.

    `works` are the unseen networks where it was more robust than every rule that makes no adversarial example; `fails`
    names for each other network the rules that were ahead. Its results, out of the recorded run `run`, are in
    `metarobust.lab.cards.card`.

    Raises:
        InputError: there is none of this name, or its card is damaged.
    """
    choose(name, available(), "pretrained optimizer")
    try:
        return read_json(FOLDER / f"{name}.json")
    except InputError as error:
        raise InputError(f"the card of {name!r} is damaged; install metarobust anew ({error})") from error


def unfamiliar(name: str, param_spec: ParamSpec, shape: tuple[int, ...]) -> str:
    """What to be told of a network whose like an optimizer did not learn on, in a sentence; nothing where it did.

    Args:
        name: of a pretrained optimizer.
        param_spec: of the network that it is to move.
        shape: of one of its images.
    """
    learned, kind = card(name)["meta_trained_on"], list(KINDS)[which(param_spec)]
    met = {network.partition("-")[0] for network in learned["family"]}
    sizes = [IMAGES.get(dataset, shape) for dataset in (learned["dataset"], *learned.get("beside", ()))]
    differs = {
        KINDS[kind]: kind not in met,
        f"has {param_spec.size:,} parameters": param_spec.size > LARGE,
        f"reads images of {' x '.join(map(str, shape))}": shape not in sizes,
    }
    strange = " or ".join(text for text, so in differs.items() if so)
    return f"{name} learned on no network that {strange}: what it does here nobody has measured" if strange else ""


def summaries() -> dict[str, str]:
    """A line for each name, out of its card."""
    return {name: card(name)["summary"] for name in available()}


def save(path: Path, theta: Mapping[str, Tensor], about: Mapping[str, object]) -> None:
    """Writes theta to `path`, NAME.safetensors, and its card, with the digest of the weights, to NAME.json."""
    save_tensors(path, theta)
    write_json(path.with_suffix(".json"), {**about, "weights_sha256": sha256(path.read_bytes())})
