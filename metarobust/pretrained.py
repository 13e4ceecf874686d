"""Learned optimizers that come with the package, each with a card: what it learned from, and what it is good for.

weights/NAME.safetensors    theta, the parameters of a learned optimizer
weights/NAME.json           its card, with the digest of the weights and of itself

They are those of the recorded runs, and commands in this repository make them:

    metarobust run patch --scale small --dataset mnist --out runs/mnist
    metarobust export runs/mnist patch                            # patch-mnist.safetensors and its card
    metarobust export runs/mnist patch --rule "learned, joint"    # patch-mnist-joint.safetensors

and the same with `--dataset digits`, and with `train`. The one that trains fresh models on MNIST is of a run that was
recorded when the experiments `patch` and `train` were one, `transfer`. Of a run's meta-seeds the first, 0, is shipped,
whatever its test results. The state of the Adam that trained theta is left out: it is needed to go on with
meta-training, not to use what was learned.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from metarobust.checkpoints import Checkpoints
from metarobust.errors import InputError, choose
from metarobust.results import load_results
from metarobust.storage import load_tensors, read_json, save_tensors

if TYPE_CHECKING:
    from metarobust.learned.rule import Learned

FOLDER = Path(__file__).parent / "weights"
DEFAULT = "patch-mnist"
META_SEED = 0
GOALS = {"patch": "patches a trained model", "train": "trains a fresh model"}
UNTRIED = [
    "images other than handwritten digits of one channel",
    "networks with normalisation layers, attention or more than some 100,000 parameters",
    "another radius or norm of the attack than the one it was meta-trained against",
    "another number of steps or another batch size than in meta-training",
]


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
    names for each other network the rules that were ahead. `results` are taken out of the recorded run `run` now:
    clean/robust accuracy in per cent, ± 95 % over seeds, of this optimizer and what it is held against; what it costs
    in clean accuracy is seen there. `quotes` name the same for `metarobust.quote`, as a mean over all meta-seeds.
    Raises InputError for another name, a damaged card, or an installation without the recorded run.
    """
    from metarobust import quote

    about = _about(name)
    _, rows = quote.recorded(about["run"])
    return about | {"results": _results(rows, about["part"], about.get("rule", "learned"), about["meta_seed"])}


def export(
    run: str | Path, part: str, out: str | Path = ".", *, rule: str = "learned", meta_seed: int = META_SEED
) -> Path:
    """Writes an optimizer that a finished run meta-trained to `PART-DATASET.safetensors` in the folder out.

    rule: its name in the run's tables; all but `learned` add the kind to the file's name. Raises InputError for a run
    that is unfinished, of another experiment, or without its checkpoints.
    """
    from metarobust.experiments.learning import slug

    manifest, rows = load_results(run)
    spec = manifest["spec"]
    if spec["experiment"] not in GOALS:
        raise InputError(
            f"the run in {run} is of {spec['experiment']}, which learns no optimizer; give one of {' or '.join(GOALS)}"
        )
    parts = {each["name"]: each for each in spec["parts"]}
    rules = {each["name"]: each for each in parts[choose(part, parts, "part of the run")]["rules"]}
    found = rules[choose(rule, rules, "learned rule of the run")]
    if meta_seed not in spec["meta_seeds"]:
        raise InputError(f"meta-seed {meta_seed} is not in the run; give one of {spec['meta_seeds']}")
    stored = Checkpoints(
        Path(run) / "checkpoints", f"{part}.{slug(found['name'])}.{meta_seed}", manifest["spec_sha256"]
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
    own = "" if rule == "learned" else f"-{found['kind']}"
    path = Path(out) / f"{part}-{spec['dataset']}{own}.safetensors"
    save_tensors(
        path, theta, _shape(found["kind"]) | _describe(manifest, rows, parts[part], found, meta_seed, about["log"])
    )
    return path


def _shape(kind: str) -> dict[str, Any]:
    """The kind and its numbers outside theta: as the library makes it, which is how experiments do."""
    from metarobust.learned import describe, make

    return describe(make(kind))


def _describe(
    manifest: Mapping[str, Any],
    rows: Sequence[Mapping[str, Any]],
    part: Mapping[str, Any],
    rule: Mapping[str, Any],
    meta_seed: int,
    log: Sequence[Mapping[str, Any]],
) -> dict[str, Any]:
    """What the card says beside the optimizer's size: a JSON object."""
    from metarobust.learned import TIERS

    spec, name = manifest["spec"], part["name"]
    run = f"{spec['experiment']}-{spec['dataset']}-{spec['scale']}"
    models = [model for model in spec["unseen"] if any(row["model"] == model for row in rows)]
    ahead = {model: _ahead(rows, name, model, rule["name"], meta_seed) for model in models}
    methods = [rule["name"], *(["before"] if name == "patch" else [])]
    return {
        "summary": f"{GOALS[name]} in {part['steps']} steps; meta-trained on {spec['dataset']}"
        + (f" ({rule['kind']}, tier 1)" if TIERS[rule["kind"]] == "1" else ""),
        "rule": rule["name"],
        "run": run,
        "part": name,
        "meta_seed": meta_seed,
        "why_this_meta_seed": "the first of the run, whatever its test results",
        "meta_trained_on": {
            "dataset": spec["dataset"], "images": spec["meta_images"], "images_of_one_task": "per_class of each class",
            "per_class": spec["per_class"], "family": spec["family"], "models_of_each": spec["victims"],
            "their_training": spec["training"] if name == "patch" else None,
            "attack": {
                "norm": "linf", "eps": part["meta_eps"], "steps": part["attack_steps"], "weight": part["weight"],
            },
            "plan": rule["plan"], "begins": rule["begins"], "meta_loss": [log[0]["meta_loss"], log[-1]["meta_loss"]],
        },
        "steps": part["steps"],
        "batch_size": part["batch_size"],
        "made_by": {
            **{key: manifest[key] for key in ("command", "code", "versions", "device", "threads", "started")},
            **{key: manifest[key] for key in ("spec_sha256", "data_sha256")},
            "seconds_of_the_whole_run": manifest["wall_seconds"],
        },
        "works": [model for model, others in ahead.items() if not others],
        "fails": {model: others for model, others in ahead.items() if others},
        "untried": UNTRIED,
        "quotes": [f"{run} {name} {m} {how} {what}" for m in models for how in methods for what in ("clean", "robust")],
        "licence": "MIT",
    }  # fmt: skip


def _own(rows: Sequence[Mapping[str, Any]], part: str, model: str, rule: str, meta_seed: int) -> list[Any]:
    from metarobust.experiments.table import pick

    return [row for row in pick(rows, part, model, rule) if row["meta_seed"] == meta_seed]


def _ahead(rows: Sequence[Mapping[str, Any]], part: str, model: str, rule: str, meta_seed: int) -> list[str]:
    """The rules without learning and without adversarial examples that were more robust here."""
    from metarobust.experiments.table import names, over, pick

    own, _ = over(_own(rows, part, model, rule, meta_seed), "robust accuracy")
    here = [row for row in rows if (row["part"], row["model"]) == (part, model)]
    plain = names([row for row in here if row["tier"] in ("0", "1", "2") and row["meta_seed"] is None], "method")
    return [other for other in plain if over(pick(here, part, model, other), "robust accuracy")[0] >= own]


def _results(rows: Sequence[Mapping[str, Any]], part: str, rule: str, meta_seed: int) -> dict[str, dict[str, str]]:
    """For each unseen network clean/robust accuracy of this optimizer and of what it is held against."""
    from metarobust.experiments.table import ADAM, BEFORE, REFERENCE, best_plain, cell, names, pick

    found = {}
    for model in names([row for row in rows if row["part"] == part], "model"):
        methods = [*([BEFORE] if part == "patch" else []), ADAM, best_plain(rows, part, model), REFERENCE]
        found[model] = {"this": cell(_own(rows, part, model, rule, meta_seed))}
        found[model] |= {method: cell(pick(rows, part, model, method)) for method in methods}
    return found


def _path(name: str) -> Path:
    return FOLDER / f"{choose(name, available(), 'pretrained optimizer')}.safetensors"


def _about(name: str) -> dict[str, Any]:
    path = _path(name).with_suffix(".json")
    try:
        return read_json(path)["about"]
    except (InputError, KeyError) as error:
        raise InputError(f"the card of {name!r} is damaged; install metarobust anew ({error})") from error
