"""The recorded results, and everything that quotes them: README, landing page, headline figure."""

import csv
import importlib.util
import json
import math
import re
from pathlib import Path
from statistics import fmean

import pytest
import torch
from PIL import Image

from metarobust.errors import InputError
from metarobust.lab import published, quote, table
from metarobust.lab.baselines import methods
from metarobust.lab.comparison import Comparison
from metarobust.lab.experiments import EXPERIMENTS
from metarobust.lab.run_folder import COLUMNS
from metarobust.lab.running import default_folder
from metarobust.lab.spec import slug
from metarobust.meta import generator_of
from metarobust.storage import read_json

ROOT = Path(__file__).parents[2]
RUN = "patch-mnist-small"
SEARCHES = "searches.json"
SINCE = {"deciding_seeds", "elsewhere", "finalists", "strong_images", "strong_seeds"}
"""What specs have said, or not said any more, since some of the runs were recorded."""
TRANSFER = [name for name in quote.available() if name.startswith(("transfer-", "patch-", "train-"))]
TRAINING = [name for name in TRANSFER if "train" in table.names(quote.recorded(name)[1], "part")]
THREE = {"patch", "train", "transfer-architecture"}
SCORED_AGAIN = ("transfer-data-folder-cifar10-jpeg-small", "attack-transfer-digits-small", "ablation-digits-small")
SEARCHED_ON_A_GPU = ("patch-mnist-small", "train-mnist-small")
FADING = {"lr", "sigma", "weight", "decay", "last_decay", "first_decay", "l1", "beta"}
ANCHORS = [name for name in quote.available() if name.startswith("anchor-")]


@pytest.fixture(scope="module")
def writer():
    """`.ci/results.py`, which writes the README's block and the figure."""
    spec = importlib.util.spec_from_file_location("ci_results", ROOT / ".ci" / "results.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_no_file_of_a_record_is_large():
    assert not [path for path in quote.FOLDER.rglob("*") if path.stat().st_size > 2**20], "gzip -n9 packs a table"


@pytest.mark.parametrize("name", quote.available())
def test_recorded_run_is_whole_and_of_a_known_experiment(name):
    manifest, rows = quote.recorded(name)
    spec = manifest["spec"]
    assert spec["experiment"] in EXPERIMENTS
    assert name == default_folder(spec["experiment"], spec["dataset"], spec["scale"]).name
    assert rows
    assert set(rows[0]) == set(COLUMNS)
    assert len(spec["seeds"]) >= (3 if name in ANCHORS else 10)
    if "meta_seeds" in spec:  # fewer where many rules are learned that differ in one thing, see book/deviations.md
        assert len(spec["meta_seeds"]) >= (3 if spec["experiment"] in THREE else 2)
    assert manifest["code"]["commit"], "record it from a checkout"
    assert not manifest["code"]["changed"], "record it from a clean commit"
    assert "/" not in manifest["command"], "a path of one machine is in the command"


@pytest.mark.parametrize("name", quote.available())
def test_the_code_makes_the_numbers_that_were_recorded(name):
    """What a page says of an experiment's setting is read from the code; the results are of the manifest's."""
    spec = quote.recorded(name)[0]["spec"]
    radius = [spec["eps"]] if isinstance(EXPERIMENTS[spec["experiment"]], Comparison) else []
    made = json.loads(
        json.dumps(EXPERIMENTS[spec["experiment"]].make_spec(spec["scale"], spec["dataset"], spec["seeds"], *radius))
    )
    assert numbers(made) == numbers(spec)


def numbers(spec):
    """A spec without what has come or gone since."""
    return {key: numbers(value) if key == "setting" else value for key, value in spec.items() if key not in SINCE}


def test_the_standard_ensemble_looked_at_every_figure():
    for name in quote.available():
        manifest, rows = quote.recorded(name)
        if manifest["spec"]["experiment"] == "trade-off":  # beside the table
            robust = [row["attack"] for row in rows if row["attack"].startswith(table.STANDARD)]
            assert len(robust) == len(manifest["spec"]["parts"]) * 5 * 4 * 10, "parts, networks, methods, seeds"
        else:
            robust = [row["attack"] for row in table.measured(rows, "robust accuracy")]
        assert robust, name
        assert all({"apgd", "square"} <= set(re.findall("[a-z]+", attack)) for attack in robust), name


def test_the_page_says_how_many_test_images_of_mnist_a_trial_had_seen():
    taken = torch.randperm(10_000, generator=generator_of("cpu", 7))[-500:]  # as `Measured` draws them
    seen = int((taken < 500).sum())
    assert f"but for {seen} of the five hundred" in (ROOT / "book" / "deviations.md").read_text()


def test_both_runs_that_the_book_needs_are_recorded():
    assert {"patch-digits-small", RUN} <= set(quote.available())


def test_learned_beats_clean_adam_under_attack_on_every_unseen_network():
    _, rows = quote.recorded(RUN)
    models = table.names(rows, "model")
    assert len(models) == 5
    for model in models:
        learned, adam = (
            table.over(table.pick(rows, "patch", model, m), "robust accuracy") for m in ("learned", "adam")
        )
        assert learned[0] - learned[1] > adam[0] + adam[1], f"{model}: the intervals overlap"


def test_learned_beats_clean_adam_when_fresh_models_are_trained_too():
    for name in TRAINING:
        _, rows = quote.recorded(name)
        for model in table.names(rows, "model"):
            learned, adam = (
                table.over(table.pick(rows, "train", model, m), "robust accuracy") for m in ("learned", "adam")
            )
            assert learned[0] - learned[1] > adam[0] + adam[1], f"{name}, {model}: the intervals overlap"


def test_learned_optimizers_made_no_adversarial_example():
    for name in TRANSFER:
        made = [row for row in quote.recorded(name)[1] if row["metric"] == "adversarial examples"]
        assert {row["value"] for row in made if row["method"].startswith("learned")} == {0.0}
        assert all(row["value"] > 0 for row in made if row["tier"] == "adversarial")


@pytest.mark.parametrize("name", ANCHORS)
def test_an_anchor_holds(name):
    """Adversarial training is far above clean training, no seed has failed, and no check raised a flag."""
    manifest, rows = quote.recorded(name)
    methods = {row["method"]: row["tier"] for row in rows}
    assert set(methods.values()) == {"0", "adversarial"}
    robust = {m: table.over(table.pick(rows, "train", "madry-cnn", m), "robust accuracy") for m in methods}
    plain, trained = (next(m for m, tier in methods.items() if tier == kind) for kind in ("0", "adversarial"))
    assert robust[trained][0] - robust[trained][1] > robust[plain][0] + robust[plain][1]
    assert manifest["spec"]["attacks"] == "standard"
    assert not any(manifest["summary"]["flags"][f"adversarial.{seed}"] for seed in manifest["spec"]["seeds"])
    if published.comparable(rows):
        low, high = published.spread([row for row in rows if row["method"] == trained])
        # The published figures of one model lie between 82.9 and 92.5, by training and attack.
        assert 0.8 < low <= high < 0.95
        assert quote.quote(f"{name} train madry-cnn {trained} robust") == f"{100 * robust[trained][0]:.1f}"


def test_a_setting_that_masked_the_gradient_is_in_no_grid_any_more():
    """What an earlier search chose is kept as a lesson; no recorded search has chosen anything of the kind since."""
    found = read_json(quote.FOLDER / "patch-digits-small" / "masked.json")
    (method,) = (each for each in methods(0.1, patching=True) if each.name == found["method"])
    assert not method.sound({"lr": found["lr"], "decay": found["decay"]})
    for one in found["measured"]:
        assert one["square-5000"] < 0.5 * one["apgd-100-ce"], (
            "the attack without a gradient finds what the other cannot"
        )
    for name in quote.available():
        for point in quote.recorded(name)[0].get("summary", {}).get("tuned", {}).values():
            assert point["lr"] * point.get("decay", 0.0) < 1, name


def test_quote_is_the_mean_of_the_table():
    _, rows = quote.recorded(RUN)
    wanted = {"part": "patch", "model": "mlp-64-sigmoid", "method": "learned", "metric": "clean accuracy"}
    values = [row["value"] for row in rows if wanted.items() <= row.items()]
    assert len(values) == 30
    assert quote.quote(f"{RUN} patch mlp-64-sigmoid learned clean") == f"{100 * fmean(values):.1f}"
    # A method of several words is named as it stands in the table, and so is a part.
    crossed = "transfer-data-folder-cifar10-jpeg-small patch, mnist mlp-80-gelu learned on fashion-mnist"
    before = crossed.replace("learned on fashion-mnist", "before")
    assert float(quote.quote(f"{crossed} robust")) > float(quote.quote(f"{before} robust")) > 0
    assert 0 < float(quote.quote(f"{RUN} patch cnn-6-12-elu falling noise + last-layer decay spread")) < 100


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ("", "RUN PART"),
        ("patch-mnist-smal patch mlp-64-sigmoid learned clean", "did you mean 'patch-mnist-small'"),
        (f"{RUN} patching mlp-64-sigmoid learned clean", "did you mean 'patch'"),
        (f"{RUN} patch mlp-63-sigmoid learned clean", "mlp-64-sigmoid"),
        (f"{RUN} patch mlp-64-sigmoid lerned clean", "learned"),
        (f"{RUN} patch mlp-64-sigmoid learned fast", "clean, robust, spread"),
    ],
)
def test_quote_of_what_is_not_there(words, says):
    with pytest.raises(InputError, match=re.escape(says)):
        quote.quote(words)


def test_best_plain_rule_is_never_learned_nor_adversarial():
    for name in TRANSFER:
        _, rows = quote.recorded(name)
        for model in table.names(rows, "model"):
            method = table.best_plain(rows, table.names(rows, "part")[0], model)
            tier = {row["tier"] for row in rows if row["method"] == method}
            assert tier < {"0", "1", "2"}
            assert not method.startswith("learned")


def test_headline_figure_is_drawn_from_the_recorded_results(writer):
    with Image.open(writer.FIGURE) as picture:
        assert picture.info["Source"] == writer.source(), "make results draws the figure anew"
        assert min(picture.size) > 600


def test_the_page_says_how_many_searches_with_few_images_ended_at_an_end_of_their_grid():
    known = {slug(method.name): method for method in methods(0.1, patching=False)}
    total, fading, largest, shorter = 0, 0, 0, 0
    for name in ("low-data-digits-small", "low-data-mnist-small"):
        for search, point in quote.recorded(name)[0]["summary"]["tuned"].items():
            grid = known[search.split(".")[2]].grid
            low = {key for key, values in grid.items() if point[key] == min(values)}
            high = {key for key, values in grid.items() if point[key] == max(values)}
            assert "lr" not in low | high, search
            total += 1
            fading += bool(low & {"decay", "last_decay", "l1"})
            largest += bool(high & {"beta"})
            shorter += "far" in low
            assert low <= {"decay", "last_decay", "l1", "far"}, search
            assert high <= {"beta"}, search
    words = " ".join((ROOT / "book" / "deviations.md").read_text().split())
    assert (
        f"Of the {total} searches with few images {fading + largest} ended at an end of a grid: {fading} where a decay"
        in words
    )
    assert largest == 2
    assert f"all {shorter} searches took the shorter one" in words


def ends(names):
    """Of the searches of some runs: how many there are; how many took what had been best the first time; how many took
    the shorter of a penalty's two steps; how many ended at an end of a grid, by place; and in which a wider grid might
    hold something better."""
    known = {slug(method.name): method for method in methods(0.1, patching=True)}
    total, kept, shorter, outermost, better = 0, 0, 0, {}, []
    for name in names:
        manifest, kept_beside = quote.recorded(name)[0], read_json(quote.FOLDER / name / SEARCHES)
        spec, tuned = manifest["spec"], manifest["summary"]["tuned"]
        assert kept_beside["spec_sha256"] == manifest["spec_sha256"]
        assert kept_beside["finalists"].keys() == tuned.keys()
        for search, points in kept_beside["finalists"].items():
            grid, group = known[search.split(".")[2]].grid, search.split(".")[3]
            assert len(points) == min(spec["finalists"], math.prod(map(len, grid.values())))
            assert [point["score"] for point in points] == sorted((p["score"] for p in points), reverse=True)
            best = max(points, key=lambda point: point["again"])
            wanted = {key: tuned[search][key] for key in grid}
            assert {key: best[key] for key in grid} == wanted
            assert best["again"] == pytest.approx(tuned[search][f"again {group}"], abs=1e-4)
            total += 1
            kept += best == points[0]
            shorter += wanted.get("far") == 0.1
            # Without convolutions a threshold is of pixels; with them, std-prune has none.
            deaf = {"far"} | ({"threshold"} if group == "convolutional" else set())
            there = {key for key, values in grid.items() if wanted[key] in (min(values), max(values))} - deaf
            place = "photographs" if "cifar10" in search else "grey"
            outermost[place] = outermost.get(place, 0) + bool(there)
            # A step, noise, penalty or decay that is as small as can be, and a factor of 1, do next to nothing.
            faded = {key for key in there if key in FADING and wanted[key] == min(grid[key])}
            faded |= {"keep"} & {key for key in there if wanted[key] == 1.0}
            better += [f"{search.split('.')[2]}, {group}"] * bool(there - faded)
    return total, kept, shorter, outermost, better


def test_the_page_says_how_searches_ended_whose_best_settings_were_scored_again():
    total, kept, _, outermost, better = ends(SCORED_AGAIN)
    noise = read_json(quote.FOLDER / SCORED_AGAIN[1] / SEARCHES)["finalists"]
    first = {"lr": 0.01, "sigma": 0.4, "last_decay": 0.03}  # of falling noise, in the first recording
    assert not [p for p in noise["patch.tune.falling-noise-last-layer-decay.dense"] if first.items() <= p.items()]
    words = " ".join((ROOT / "book" / "deviations.md").read_text().split())
    assert f"Of these {total} searches {kept} took what had been best the first time" in words
    assert f"In {len(better)} searches a wider grid might have held something better" in words
    assert f"In {sum(outermost.values()) - len(better)} of them the smallest step won there" in words
    wanted = "{} on grey images and {} of the {} on photographs ended at an end of a grid"
    assert wanted.format(outermost["grey"], outermost["photographs"], 10) in words


def test_the_page_says_how_searches_ended_that_ran_on_a_gpu():
    total, kept, shorter, outermost, better = ends(SEARCHED_ON_A_GPU)
    words = " ".join((ROOT / "book" / "deviations.md").read_text().split())
    assert f"Of its {total} searches {kept} took what had been best the first time" in words
    assert f"{outermost['grey']} ended at an end of a grid, {len(better)} of them where a wider one might" in words
    assert f"all {shorter} searches for the curvature penalty took the shorter of two steps" in words
    assert {each: better.count(each) for each in better} == {
        "std-prune, convolutional": 3,
        "input-gradient-penalty, dense": 3,
        "adam-first-layer-decay, convolutional": 1,
    }
    unmoved = 0
    for name in SEARCHED_ON_A_GPU:
        manifest, rows = quote.recorded(name)
        first = manifest["learned"]["tuned"]
        assert first.keys() == manifest["summary"]["tuned"].keys()
        unmoved += sum(point.items() <= manifest["summary"]["tuned"][search].items() for search, point in first.items())
        for found in manifest["learned"].get("std_prune", ()):
            now = table.over(table.pick(rows, "patch", found["model"], "std-prune"), "robust accuracy")[0]
            assert now > found["robust"]
        searched = manifest["searched"]
        assert searched["device"]["type"] == "cuda"
        assert searched["data_sha256"] == manifest["data_sha256"]
        made = json.loads(json.dumps(EXPERIMENTS[manifest["spec"]["experiment"]].make_spec("full", "mnist", None)))
        same = ("tuning_seeds", "deciding_seeds", "finalists", "validation", "meta_images", "per_class", "training",
                "wide_grids", "eps", "family", "victims")  # fmt: skip
        assert {key: made[key] for key in same} == {key: manifest["spec"][key] for key in same}
    assert f"had taken the very same settings in {unmoved} of them" in words
    assert len(quote.recorded(SEARCHED_ON_A_GPU[0])[0]["learned"]["std_prune"]) == 5
    whole, mine = (quote.recorded(name)[0]["summary"]["tuned"] for name in ("patch-mnist-full", "patch-mnist-small"))
    assert whole.keys() < mine.keys()
    assert all(whole[search] == mine[search] for search in whole)


def test_what_is_said_of_the_gpu_follows_from_what_was_sampled():
    with open(quote.FOLDER / "patch-mnist-full" / "gpu.csv", newline="") as file:
        samples = list(csv.DictReader(file))
    said = quote.recorded("patch-mnist-full")[0]["gpu"]
    assert len(samples) > 50  # every ten seconds of nine minutes
    assert round(fmean(int(one["busy_per_cent"]) for one in samples)) == said["busy_per_cent"]
    assert max(int(one["memory_mb"]) for one in samples) == said["memory_mb"]


@pytest.mark.parametrize("name", [SCORED_AGAIN[0], *SEARCHED_ON_A_GPU])
def test_networks_made_again_for_the_rivals_are_as_those_of_the_learned_rules(name):
    """What is learned was kept from a first recording, which the manifest names."""
    manifest, rows = quote.recorded(name)
    first, here = manifest["learned"]["code"]["commit"], manifest["code"]["commit"]
    assert first != here
    assert manifest["learned"]["data_sha256"] == manifest["data_sha256"]
    again = manifest["learned"]["before_again"]
    assert {(found["part"], found["model"]) for found in again} == {(row["part"], row["model"]) for row in rows}
    apart = [
        abs(found[kind] - table.over(table.pick(rows, found["part"], found["model"], "before"), f"{kind} accuracy")[0])
        for found in again
        for kind in ("clean", "robust")
    ]
    assert max(apart) < 1 / 200
    assert max(apart) > 0 or name.startswith("train")  # fresh networks are the same to the bit
    words = " ".join((ROOT / "book" / "deviations.md").read_text().split())
    assert "no mean of ten of them reads or withstands as much as one image in 200 more or fewer" in words


def test_earlier_searches_with_few_images_are_kept_beside_the_recorded_one():
    """They differ in what they searched; the rule that they are held against is the same one."""
    manifest, rows = quote.recorded("low-data-mnist-small")
    kept = read_json(quote.FOLDER / "low-data-mnist-small" / "searches.json")
    (method,) = (each for each in methods(0.1, patching=False) if each.name == kept["method"])
    assert (kept["steps"], kept["eps"]) == (manifest["spec"]["parts"][0]["steps"], manifest["spec"]["eps"])
    assert len(manifest["spec"]["tuning_seeds"]) > max(search["tuning_seeds"] for search in kept["searches"])
    parts = table.names(rows, "part")
    for search in kept["searches"]:
        assert [found["part"] for found in search["measured"]] == parts
        assert {found["weight"] for found in search["measured"]} <= set(method.grid["weight"])
    assert [found["part"] for found in kept["learned"]] == [found["part"] for found in kept["scored_again"]] == parts
    for found in kept["scored_again"]:
        search = f"{found['part'].replace(' ', '-')}.tune.input-gradient-penalty.dense"
        best = manifest["summary"]["tuned"][search]["score dense"]
        assert found["scores"][-1] == pytest.approx(best, abs=1e-4)
        assert max(found["scores"]) == found["scores"][-1], "no setting scores higher than the one that was taken"
    for found in kept["learned"]:
        for kind in ("clean", "robust"):
            again = table.over(table.pick(rows, found["part"], kept["model"], "learned"), f"{kind} accuracy")
            assert found[kind] == pytest.approx(again[0], abs=0.03)
