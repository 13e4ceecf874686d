"""The card of a learned optimizer: what it learned from, and what it is good for, out of the run that made it."""

from collections.abc import Mapping, Sequence
from typing import Any

from metarobust.lab.running import default_folder
from metarobust.lab.spec import sizes
from metarobust.lab.table import ADAM, BEFORE, REFERENCE, best_plain, cell, names, over, pick, trained
from metarobust.learned import TIERS, make
from metarobust.learned import describe as shape

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
    run = default_folder(spec["experiment"], spec["dataset"], spec["scale"]).name
    numbers, made = spec if rule["source"] is None else sizes(rule["source"]), manifest.get("learned", manifest)
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
