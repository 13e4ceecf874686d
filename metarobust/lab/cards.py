"""The card of a learned optimizer: what it learned from, and what it is good for, out of the run that made it."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from metarobust import pretrained
from metarobust.errors import InputError, choose
from metarobust.lab import results
from metarobust.lab.run_folder import Units
from metarobust.lab.spec import sizes, slug
from metarobust.lab.summary import Cells
from metarobust.learned import TIERS, make
from metarobust.learned import describe as shape
from metarobust.meta import theta_of

META_SEED = 0
"""Of a run's meta-seeds the first is shipped, whatever its test results."""
FROM = ("patch", "train", "transfer-data", "frontier")
"""The experiments whose learned optimizers may be shipped: they learn as one would use them."""
GOALS = {True: ("patch", "patches a trained model"), False: ("train", "trains a fresh model")}
"""What an optimizer is good for, by whether the models it learned on were trained: a verb and its words."""
UNTRIED = [
    "networks with normalisation layers, attention or more than some 100,000 parameters",
    "another radius or norm of the attack than the one it was meta-trained against",
    "another number of steps or another batch size than in meta-training",
]


def learned_on(spec: Mapping[str, Any], rule: Mapping[str, Any]) -> str:
    """The data set that an optimizer was meta-trained on, the one that is measured on where there are several."""
    return (rule["source"] or spec["dataset"]).removeprefix("folder:")


def describe(
    run: results.Results, part: Mapping[str, Any], rule: Mapping[str, Any], log: Sequence[Mapping[str, Any]]
) -> dict[str, Any]:
    """All that the card says, as a JSON object, but for its results, which are read when they are asked for.

    Args:
        run: that is finished. Where only baselines were searched and measured again, its manifest names under `learned`
            the run that everything learned was kept from.
        part: an entry of its spec, whose networks and baselines the card names.
        rule: an entry of the part: the learned optimizer.
        log: of its meta-training, `meta_loss` for each outer step.
    """
    manifest, frame = run
    spec, name, dataset = manifest["spec"], part["name"], learned_on(manifest["spec"], rule)
    numbers, made = spec if rule["source"] is None else vars(sizes(rule["source"])), manifest.get("learned", manifest)
    # Parts that use what was learned in the same one: another part may have learned by the same name.
    home = {each["name"]: each.get("home") or each["name"] for each in spec["parts"]}
    by_part = {part: found for part, found in ahead(frame, rule["name"], META_SEED).items() if home[part] == home[name]}
    seen = [each.removeprefix("folder:") for each in results.names(frame, "dataset")]
    past = {
        "dataset": dataset,
        **({"beside": list(rule["beside"])} if rule.get("beside") else {}),
        "images": numbers["meta_images"] + sum(sizes(each).meta_images for each in rule.get("beside", ())),
        "images_of_one_task": "per_class of each class",
        "per_class": numbers["per_class"],
        "family": family(part, rule) or spec["family"],
        "models_of_each": spec["victims"],
        "their_training": spec["training"] if part["trained"] else None,
        "attack": {
            "norm": "linf",
            "eps": part["meta_eps"] * (numbers["eps"] / spec["eps"]),
            "steps": part["attack_steps"],
            "weight": part["weight"],
        },
        "plan": rule["plan"],
        "begins": rule["begins"],
        "meta_loss": [log[0]["meta_loss"], log[-1]["meta_loss"]],
    }
    # Its kind and the numbers outside theta are as the library makes it, which is how experiments do.
    return shape(make(rule["kind"])) | {
        "summary": f"{GOALS[part['trained']][1]} in {part['steps']} steps; meta-trained on "
        + " and ".join([dataset, *rule.get("beside", ())])
        + {"0": "", "1": f" ({rule['kind']}, tier 1)", "2": " (tier 2)"}[TIERS[rule["kind"]]],
        "rule": rule["name"],
        "run": "-".join((spec["experiment"], spec["dataset"].replace(":", "-"), spec["scale"])),
        "part": name,
        "meta_seed": META_SEED,
        "why_this_meta_seed": "the first of the run, whatever its test results",
        "meta_trained_on": past,
        "steps": part["steps"],
        "batch_size": part["batch_size"],
        "made_by": {
            **{key: made[key] for key in ("command", "code", "versions", "device", "threads", "started")},
            **{key: made[key] for key in ("spec_sha256", "data_sha256")},
            "seconds_of_the_whole_run": made["wall_seconds"],
        },
        **by_part[name],
        "elsewhere": {each: networks for each, networks in by_part.items() if each != name},
        "untried": [f"images other than those of {', '.join(seen)}", *UNTRIED],
        "licence": "MIT",
    }


def family(part: Mapping[str, Any], rule: Mapping[str, Any]) -> list[str]:
    """The networks that an optimizer learned on, those of the one that it goes on from too; none where not its own."""
    before = [each for each in part.get("rules", ()) if each["name"] == rule["begins"]]
    return [*(network for each in before for network in family(part, each)), *rule["family"]]


def ahead(frame: pd.DataFrame, rule: str, meta_seed: int) -> dict[str, dict[str, Any]]:
    """For each part of a run where an optimizer was measured, the networks where it was ahead, and where it was not.

    Returns:
        By part `works`: unseen networks where it was more robust than every baseline that makes no adversarial example;
        and `fails`: for each other network the baselines that were as robust.
    """
    own = (
        results.accuracy(results.select(frame, method=rule, meta_seed=meta_seed))
        .groupby(level=results.GROUP, sort=False)
        .mean()
    )
    rivals = frame[(frame["learned"] == 0) & frame["tier"].isin(results.PLAIN)]
    others = results.accuracy(rivals).groupby(level=results.GROUP, sort=False).mean()
    by_part: dict[str, dict[str, Any]] = {}
    own = own[own.index.droplevel("method").isin(others.index.droplevel("method"))]  # where a plain rule was measured
    for (part, model, _), robust in own.items():
        networks = by_part.setdefault(part, {"works": [], "fails": {}})
        same = others.xs((part, model), level=("part", "model"))
        if (same >= robust).any():
            networks["fails"][model] = same[same >= robust].index.tolist()
        else:
            networks["works"].append(model)
    return by_part


def card(name: str) -> dict[str, Any]:
    """All that is known of a pretrained optimizer.

    Args:
        name: one of `pretrained.summaries()`.

    Returns:
        A JSON object. `works` are the unseen networks where it was more robust than every method that makes no
        adversarial example; `fails` names for each other network the methods that were ahead; `elsewhere` has both for
        the other parts of its run, with fewer images or on other data sets. `results` are taken out of the recorded run
        `run` now: for each unseen network of `this` optimizer and of the methods that it is held against, by name,
        clean/robust accuracy in per cent, ± half the width of robust's 95 % interval over seeds.

    Raises:
        InputError: another name, a damaged card, or an installation without the recorded run.
    """
    about = pretrained.card(name)
    part, rule, meta_seed = about["part"], about.get("rule", results.LEARNED), about["meta_seed"]
    rows = results.select(results.recorded(about["run"]).frame, part=part)
    cells = Cells(rows[(rows["method"] != rule) | (rows["meta_seed"] == meta_seed)])
    before = [results.BEFORE] if rows["start"].iloc[0] == "trained" else []
    attacked = [results.REFERENCE] if results.REFERENCE in results.names(rows, "method") else []
    by_model = {}
    for model in results.names(rows, "model"):
        methods = [*before, results.ADAM, results.best_baseline(rows, part, model), *attacked]
        by_model[model] = {"this": cells[part, model, rule]}
        by_model[model] |= {method: cells[part, model, method] for method in methods}
    return about | {"results": by_model}


def export(run: str | Path, part: str, out: str | Path = ".", *, rule: str = "learned") -> Path:
    """Writes an optimizer that a finished run meta-trained, with its card.

    Args:
        run: the folder of the run.
        part: of the run, where the card's results are taken.
        out: the folder to write to.
        rule: the optimizer's name in the run's tables.

    Returns:
        The file: `train.safetensors` or `patch.safetensors` for what learned on several data sets, the rules that serve
        by default; for others `patch-DATASET.safetensors`, where DATASET is the one that it learned on, and the kind
        after that where it is not `features`.

    Raises:
        InputError: the run is unfinished, of another experiment, or without its checkpoints.
    """
    finished = results.load(run)
    spec = finished.manifest["spec"]
    if spec["experiment"] not in FROM:
        raise InputError(
            f"the run in {run} is of {spec['experiment']}, which learns no optimizer; give one of {' or '.join(FROM)}"
        )
    parts = {each["name"]: each for each in spec["parts"]}
    here = parts[choose(part, parts, "part of the run")]
    rules = {each["name"]: each for each in (*here["rules"], *here["uses"])}
    config = rules[choose(rule, rules, "learned rule of the run")]
    home = here["home"] if config in here["uses"] else part
    units, learned = Units(Path(run)), f"{slug(home)}.{slug(rule)}.{META_SEED}"
    stored, held = units.checkpoint(learned), units.restore(learned)
    if held is None:
        raise InputError(f"{stored} is missing; run the meta-training again in another folder")
    tensors, about = held
    # A run that is complete has the checkpoint of its end last.
    if about["episode"] != config["plan"]["episodes"]:
        raise InputError(f"{stored} is not the end of this run's meta-training; run it again in another folder")
    # Sorted: safetensors reads them in any order, and the card should be the same to the byte each time.
    theta = dict(sorted(theta_of(tensors).items()))
    own = "" if config["kind"] == "features" else f"-{config['kind']}"
    name = "" if config.get("beside") else f"-{learned_on(spec, config)}{own}"
    path = Path(out) / f"{GOALS[here['trained']][0]}{name}.safetensors"
    pretrained.save(path, theta, describe(finished, here, config, about["log"]))
    return path
