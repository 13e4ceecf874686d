"""The card of a learned optimizer: what it learned from, and what it is good for, out of the run that made it."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from metarobust import checkpoints, pretrained
from metarobust.errors import InputError, choose
from metarobust.lab.quote import recorded
from metarobust.lab.results import load_results
from metarobust.lab.spec import sizes, slug
from metarobust.lab.table import ADAM, BEFORE, REFERENCE, best_plain, cell, names, over, pick, trained
from metarobust.learned import TIERS, make
from metarobust.learned import describe as shape

META_SEED = 0
"""Of a run's meta-seeds the first is shipped, whatever its test results."""
FROM = ("patch", "train", "transfer-data")
"""The experiments whose learned optimizers may be shipped: they learn as one would use them."""
GOALS = {True: ("patch", "patches a trained model"), False: ("train", "trains a fresh model")}
"""What an optimizer is good for, by whether the models it learned on were trained: a verb and its words."""
UNTRIED = [
    "networks with normalisation layers, attention or more than some 100,000 parameters",
    "another radius or norm of the attack than the one it was meta-trained against",
    "another number of steps or another batch size than in meta-training",
]


def school(spec: Mapping[str, Any], rule: Mapping[str, Any]) -> str:
    """The data set that a rule learned on."""
    return (rule["source"] or spec["dataset"]).removeprefix("folder:")


def describe(
    manifest: Mapping[str, Any],
    rows: Sequence[Mapping[str, Any]],
    part: Mapping[str, Any],
    rule: Mapping[str, Any],
    meta_seed: int,
    log: Sequence[Mapping[str, Any]],
) -> dict[str, Any]:
    """All that the card says, but for its results, which are read when they are asked for: a JSON object.

    manifest, rows: of the finished run. Where rivals alone were searched and measured again, the manifest names under
    `learned` the run that everything learned was kept from. part, rule: entries of its spec; networks and rivals are
    those of the part. meta_seed: of the theta that is shipped. log: of its meta-training, a dictionary with `meta_loss`
    an episode.
    """
    spec, name, learned_on = manifest["spec"], part["name"], school(manifest["spec"], rule)
    run = "-".join((spec["experiment"], spec["dataset"].replace(":", "-"), spec["scale"]))
    numbers, made = spec if rule["source"] is None else vars(sizes(rule["source"])), manifest.get("learned", manifest)
    ahead = {each: _ahead(rows, each, rule["name"], meta_seed) for each in _parts(rows, rule["name"])}
    models, methods = names([row for row in rows if row["part"] == name], "model"), [rule["name"]]
    methods += [BEFORE] * part["trained"]
    seen = [each.removeprefix("folder:") for each in names(rows, "dataset")]
    # Its kind and the numbers outside theta are as the library makes it, which is how experiments do.
    return shape(make(rule["kind"])) | {
        "summary": f"{GOALS[part['trained']][1]} in {part['steps']} steps; meta-trained on {learned_on}"
        + (f" ({rule['kind']}, tier 1)" if TIERS[rule["kind"]] == "1" else ""),
        "rule": rule["name"],
        "run": run,
        "part": name,
        "meta_seed": meta_seed,
        "why_this_meta_seed": "the first of the run, whatever its test results",
        "meta_trained_on": {
            "dataset": learned_on, "images": numbers["meta_images"], "images_of_one_task": "per_class of each class",
            "per_class": numbers["per_class"], "family": spec["family"], "models_of_each": spec["victims"],
            "their_training": spec["training"] if part["trained"] else None,
            "attack": {
                "norm": "linf", "eps": part["meta_eps"] * (numbers["eps"] / spec["eps"]),
                "steps": part["attack_steps"], "weight": part["weight"],
            },
            "plan": rule["plan"], "begins": rule["begins"], "meta_loss": [log[0]["meta_loss"], log[-1]["meta_loss"]],
        },
        "steps": part["steps"],
        "batch_size": part["batch_size"],
        "made_by": {
            **{key: made[key] for key in ("command", "code", "versions", "device", "threads", "started")},
            **{key: made[key] for key in ("spec_sha256", "data_sha256")},
            "seconds_of_the_whole_run": made["wall_seconds"],
        },
        **ahead[name],
        "elsewhere": {each: found for each, found in ahead.items() if each != name},
        "untried": [f"images other than those of {', '.join(seen)}", *UNTRIED],
        "quotes": [f"{run} {name} {m} {how} {what}" for m in models for how in methods for what in ("clean", "robust")],
        "licence": "MIT",
    }  # fmt: skip


def _own(rows: Sequence[Mapping[str, Any]], part: str, model: str, rule: str, meta_seed: int) -> list[Any]:
    return [row for row in pick(rows, part, model, rule) if row["meta_seed"] == meta_seed]


def _parts(rows: Sequence[Mapping[str, Any]], rule: str) -> list[str]:
    """The parts of a run where a rule was measured."""
    return list(dict.fromkeys(row["part"] for row in rows if row["method"] == rule))


def _ahead(rows: Sequence[Mapping[str, Any]], part: str, rule: str, meta_seed: int) -> dict[str, Any]:
    """`works`: unseen networks of a part where no rule without learning and without adversarial examples was as robust;
    `fails`: for each other network those that were."""
    works, fails = [], {}
    for model in names([row for row in rows if row["part"] == part], "model"):
        own, _ = over(_own(rows, part, model, rule, meta_seed), "robust accuracy")
        here = [row for row in rows if (row["part"], row["model"]) == (part, model)]
        plain = names([row for row in here if row["tier"] in ("0", "1", "2") and row["meta_seed"] is None], "method")
        others = [each for each in plain if over(pick(here, part, model, each), "robust accuracy")[0] >= own]
        if others:
            fails[model] = others
        else:
            works.append(model)
    return {"works": works, "fails": fails}


def results(rows: Sequence[Mapping[str, Any]], part: str, rule: str, meta_seed: int) -> dict[str, dict[str, str]]:
    """For each unseen network of a part what it is held against: `this`, and methods by name; see `table.cell`.

    Clean and robust accuracy in per cent, ± half the width of robust's 95 % interval over seeds. Raises InputError
    where the rows lack one of the methods.
    """
    found = {}
    for model in names([row for row in rows if row["part"] == part], "model"):
        methods = [*([BEFORE] if trained(part) else []), ADAM, best_plain(rows, part, model), REFERENCE]
        found[model] = {"this": cell(_own(rows, part, model, rule, meta_seed))}
        found[model] |= {method: cell(pick(rows, part, model, method)) for method in methods}
    return found


def card(name: str = pretrained.DEFAULT) -> dict[str, Any]:
    """All that is known of a pretrained optimizer, as a JSON object.

    `works` are the unseen networks where it was more robust than every rule that makes no adversarial example; `fails`
    names for each other network the rules that were ahead; `elsewhere` has both for the other parts of its run, with
    fewer images or on other data sets. `results` are taken out of the recorded run `run` now:
    clean/robust accuracy in per cent, ± 95 % over seeds, of this optimizer and what it is held against; what it costs
    in clean accuracy is seen there. `quotes` name the same for `metarobust.lab.quote`, as a mean over all meta-seeds.
    Raises InputError for another name, a damaged card, or an installation without the recorded run.
    """

    about = pretrained.card(name)
    _, rows = recorded(about["run"])
    return about | {"results": results(rows, about["part"], about.get("rule", "learned"), about["meta_seed"])}


def export(
    run: str | Path, part: str, out: str | Path = ".", *, rule: str = "learned", meta_seed: int = META_SEED
) -> Path:
    """Writes an optimizer that a finished run meta-trained to `patch-DATASET.safetensors` in the folder out, or to
    `train-...`; DATASET is the one that it learned on.

    part: of the run, where the card's results are taken. rule: its name in the run's tables; a kind other than
    `features` is added to the file's name. Raises InputError for a run that is unfinished, of another experiment, or
    without its checkpoints.
    """

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
    stored = Path(run) / "checkpoints" / f"{slug(home)}.{slug(found['name'])}.{meta_seed}.safetensors"
    held = checkpoints.load(stored, manifest["spec_sha256"])
    if held is None:
        raise InputError(f"{stored} is missing; run the meta-training again in another folder")
    tensors, about = held
    # A run that is complete has the checkpoint of its end last.
    if about["episode"] != found["plan"]["episodes"]:
        raise InputError(f"{stored} is not the end of this run's meta-training; run it again in another folder")
    # Sorted: safetensors reads them in any order, and the card should be the same to the byte each time.
    theta = {n.removeprefix("theta."): tensors[n] for n in sorted(tensors) if n.startswith("theta.")}
    own = "" if found["kind"] == "features" else f"-{found['kind']}"
    path = Path(out) / f"{GOALS[here['trained']][0]}-{school(spec, found)}{own}.safetensors"
    pretrained.save(path, theta, describe(manifest, rows, here, found, meta_seed, about["log"]))
    return path
