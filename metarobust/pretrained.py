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

from metarobust.checkpoints import Checkpoints
from metarobust.errors import InputError, choose
from metarobust.lab.results import load_results
from metarobust.storage import load_tensors, read_json, save_tensors

if TYPE_CHECKING:
    from metarobust.learned.protocol import Learned

FOLDER = Path(__file__).parent / "weights"
DEFAULT = "patch-mnist"
META_SEED = 0
FROM = ("patch", "train", "transfer-data")
"""The experiments whose learned optimizers may be shipped: they learn as one would use them."""


def available() -> list[str]:
    """The names that `load` takes."""
    return sorted(path.stem for path in FOLDER.glob("*.safetensors"))


def load(name: str = DEFAULT) -> Learned:
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
    return {name: _about(name)["summary"] for name in available()}


def card(name: str = DEFAULT) -> dict[str, Any]:
    """All that is known of a pretrained optimizer, as a JSON object.

    `works` are the unseen networks where it was more robust than every rule that makes no adversarial example; `fails`
    names for each other network the rules that were ahead; `elsewhere` has both for the other parts of its run, with
    fewer images or on other data sets. `results` are taken out of the recorded run `run` now:
    clean/robust accuracy in per cent, ± 95 % over seeds, of this optimizer and what it is held against; what it costs
    in clean accuracy is seen there. `quotes` name the same for `metarobust.lab.quote`, as a mean over all meta-seeds.
    Raises InputError for another name, a damaged card, or an installation without the recorded run.
    """
    from metarobust.lab import cards, quote

    about = _about(name)
    _, rows = quote.recorded(about["run"])
    return about | {"results": cards.results(rows, about["part"], about.get("rule", "learned"), about["meta_seed"])}


def export(
    run: str | Path, part: str, out: str | Path = ".", *, rule: str = "learned", meta_seed: int = META_SEED
) -> Path:
    """Writes an optimizer that a finished run meta-trained to `patch-DATASET.safetensors` in the folder out, or to
    `train-...`; DATASET is the one that it learned on.

    part: of the run, where the card's results are taken. rule: its name in the run's tables; a kind other than
    `features` is added to the file's name. Raises InputError for a run that is unfinished, of another experiment, or
    without its checkpoints.
    """
    from metarobust.lab import cards
    from metarobust.lab.learning import slug

    manifest, rows = load_results(run)
    spec = manifest["spec"]
    if spec["experiment"] not in FROM:
        raise InputError(
            f"the run in {run} is of {spec['experiment']}, which learns no optimizer; give one of {' or '.join(FROM)}"
        )
    parts = {each["name"]: each for each in spec["parts"]}
    here = parts[choose(part, parts, "part of the run")]
    rules = {each["name"]: each for each in (*here["rules"], *here["uses"])}
    found = rules[choose(rule, rules, "learned rule of the run")]
    if meta_seed not in spec["meta_seeds"]:
        raise InputError(f"meta-seed {meta_seed} is not in the run; give one of {spec['meta_seeds']}")
    home = here["home"] if found in here["uses"] else part
    stored = Checkpoints(
        Path(run) / "checkpoints", f"{slug(home)}.{slug(found['name'])}.{meta_seed}", manifest["spec_sha256"]
    )
    held = stored.load()
    if held is None:
        raise InputError(f"{stored.paths[0]} is missing; run the meta-training again in another folder")
    tensors, about = held
    # A run that is complete has the checkpoint of its end last; patience may have ended it early.
    if about["episode"] != found["plan"]["episodes"] and not found["plan"]["patience"]:
        raise InputError(
            f"{stored.paths[0]} is not the end of this run's meta-training; run it again in another folder"
        )
    # Sorted: safetensors reads them in any order, and the card should be the same to the byte each time.
    theta = {n.removeprefix("theta."): tensors[n] for n in sorted(tensors) if n.startswith("theta.")}
    own = "" if found["kind"] == "features" else f"-{found['kind']}"
    path = Path(out) / f"{cards.GOALS[here['trained']][0]}-{cards.school(spec, found)}{own}.safetensors"
    save_tensors(path, theta, cards.describe(manifest, rows, here, found, meta_seed, about["log"]))
    return path


def _path(name: str) -> Path:
    return FOLDER / f"{choose(name, available(), 'pretrained optimizer')}.safetensors"


def _about(name: str) -> dict[str, Any]:
    path = _path(name).with_suffix(".json")
    try:
        return read_json(path)["about"]
    except (InputError, KeyError) as error:
        raise InputError(f"the card of {name!r} is damaged; install metarobust anew ({error})") from error
