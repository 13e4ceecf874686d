"""The experiment cost, very small: what is counted, when meta-training pays, what is printed, what a stop changes."""

from __future__ import annotations

import json
import math
import shutil
from dataclasses import asdict, replace
from pathlib import Path

import pandas as pd
import pytest
import torch
from toy import generator

from metarobust import pretrained, storage
from metarobust.data import load
from metarobust.errors import InputError
from metarobust.family import Training, make_tasks
from metarobust.lab import cost, engine, results
from metarobust.lab import spec as specs
from metarobust.lab.baselines import as_hyper, fit_baseline, methods, settings
from metarobust.lab.cost.bill import COSTS, FIRST, LAST, TARGET, TARGETS, amount, derived, models
from metarobust.lab.cost.spec import NETWORKS, RIVALS, Spec, drawn, rivals
from metarobust.lab.passes import Passes, counted
from metarobust.lab.results import FLAGS
from metarobust.lab.run_folder import COLUMNS, Run
from metarobust.lab.spec import from_dict
from metarobust.training import Inner, fit_learned

CPU = torch.device("cpu")
MODELS = ("mlp-5-sigmoid", "cnn-2-tanh")


def tiny():
    """The tiny numbers in place of the real ones, as JSON."""
    spec = from_dict(Spec, json.loads(json.dumps(cost.make_spec("smoke", "digits", [0, 1]))))
    part = replace(spec.setting.parts[0], measures="standard")
    setting = replace(
        spec.setting, parts=(part,), per_class=5, validation=("mlp-3-relu", "cnn-2-relu"), victims=2, test_images=20,
        training=Training(10, 16, 0.01), unseen=MODELS, tuning_seeds=(100,), attack_steps=2,
    )  # fmt: skip
    return asdict(
        replace(spec, setting=setting, points=2, rounds=2, piece=1, horizons=(2, 4), marks=(1, 2, 4), batch_size=8)
    )


def prepare(patch):
    """Little to measure on."""
    patch.setattr("metarobust.lab.cost.stages.Setting.held_back", torch.arange(20))
    patch.setattr("metarobust.lab.stages.evaluate.CHECKED", 4)
    patch.setattr("metarobust.lab.attacked.SHORTER", {"steps": 2, "queries": 5})


def execute(out):
    """Runs what is missing, and returns the manifest and the table."""
    dataset = load("digits")
    run = Run(out, tiny(), resume=Path(out).exists(), about={"data_sha256": dataset.sha256, "device": "cpu"})
    engine.complete(cost, run, dataset, CPU)
    return results.load(out)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The folder of a tiny run."""
    out = tmp_path_factory.mktemp("cost") / "run"
    with pytest.MonkeyPatch.context() as patch:
        prepare(patch)
        execute(out)
    return out


@pytest.fixture(scope="module")
def whole(folder):
    """Its manifest and table."""
    return results.load(folder)


def tasks(count=2, network="mlp-3-tanh"):
    data = load("digits")
    rows = torch.arange(10).expand(count, -1)
    return make_tasks(network, data.train, data.classes, rows, rows, generator())


# Counting


@pytest.mark.parametrize("network", ["mlp-3-tanh", "cnn-2-relu"])
@pytest.mark.parametrize(
    ("name", "passes"),
    [
        ("adam", 2),
        ("std-prune", 2),
        ("falling noise + last-layer decay", 2),
        ("input-gradient penalty", 4),  # forward, its slope, the slope of that slope, and the gradient
        ("FGSM training", 4),
        ("PGD-7 training", 16),
    ],
)
def test_passes_are_counted_and_change_nothing(name, passes, network):
    method = next(each for each in methods(0.1, patching=True) if each.name == name)
    tally, plain = Passes(), tasks(network=network)
    hyper = as_hyper([next(settings(method))], 2, plain.params)
    found = [fit_baseline(each, method, hyper, Inner(3, 5), generator(1))[0] for each in (plain, counted(plain, tally))]
    assert torch.equal(*found)
    assert tally.evaluations == 2 * 3 * 5 * passes
    assert tally.forward == 2 * 3 * 5 * {"PGD-7 training": 8, "FGSM training": 2}.get(name, 1)


def test_a_learned_step_takes_one_pass_in_each_direction():
    tally, seen = Passes(), []
    watch = lambda step, params, made: seen.append((step, params.clone(), tally.evaluations))  # noqa: E731
    rule = pretrained.load("patch-digits")
    params, made = fit_learned(counted(tasks(), tally), rule, Inner(3, 5), generator(1), watch=watch)
    assert [(step, passes) for step, _, passes in seen] == [(1, 20), (2, 40), (3, 60)]
    assert torch.equal(seen[-1][1], params)
    assert not torch.equal(seen[0][1], params)
    assert made == 0


def test_looking_without_a_gradient_is_a_forward_pass_alone():
    tally, some = Passes(), tasks()
    with torch.no_grad():
        counted(some, tally).predictor(some.params)(some.images[:6])
    assert (tally.forward, tally.backward) == (6, 0)


# The specification


@pytest.mark.parametrize("scale", cost.SCALES)
@pytest.mark.parametrize("dataset", ["digits", "mnist", "fashion-mnist"])
def test_a_scale_is_a_whole_specification(scale, dataset):
    stored = json.loads(json.dumps(cost.make_spec(scale, dataset, None)))
    spec = from_dict(Spec, stored)
    assert json.loads(json.dumps(asdict(spec))) == stored
    assert spec.optimizer == f"patch-{dataset}"
    assert len(spec.seeds) >= (3 if scale == "smoke" else 10)
    assert {len(drawn(method, spec.points)) for method in rivals(spec.setting.eps).values()} == {spec.points}
    assert tuple(mark for _, _, marks in spec.runs() for mark in marks) == spec.marks
    assert all(marks[-1] == steps for _, steps, marks in spec.runs())
    assert cost.make_spec(scale, dataset, [7])["seeds"] == (7,)


def test_nobody_has_looked_at_the_networks():
    assert not set(NETWORKS) & {*specs.FAMILY, *specs.VALIDATION, *specs.UNSEEN, *specs.NEW}
    for dataset in ("digits", "mnist"):
        assert not set(NETWORKS) & {*pretrained.card(f"patch-{dataset}")["meta_trained_on"]["family"]}
    small = cost.make_spec("small", "digits", None)["setting"]["unseen"]
    assert {specs.network_kind(name) for name in small} == {"dense", "convolutional"}


@pytest.mark.parametrize("dataset", ["cifar10", "folder:x", "mnist-joint"])
def test_a_data_set_without_a_learned_optimizer_is_refused(dataset):
    with pytest.raises(InputError, match=r"no learned optimizer.*give --dataset digits or mnist or fashion-mnist"):
        cost.make_spec("small", dataset, None)


def test_searches_are_of_equal_size_without_repeats_and_not_all_at_the_edge():
    for method in rivals(0.1).values():
        points = drawn(method, 16)
        assert points == drawn(method, 16)
        assert len({tuple(point.items()) for point in points}) == 16
        assert all(method.is_valid(point) and set(point) == set(method.grid) for point in points)
        assert len({point["lr"] for point in points}) > 2
    with pytest.raises(InputError, match="500 points of"):
        drawn(method, 500)


# After how many models it pays


@pytest.mark.parametrize("own_once", [0, 7, 30])
@pytest.mark.parametrize("own_each", [1, 2, 5])
@pytest.mark.parametrize("other_once", [0, 9, 30])
@pytest.mark.parametrize("other_each", [1, 2, 4])
def test_break_even_is_what_trying_every_number_finds(own_once, own_each, other_once, other_each):
    first, last = cost.break_even(own_once, own_each, other_once, other_each)
    paid = [n for n in range(1, 200) if own_once + n * own_each <= other_once + n * other_each]
    assert first == (paid[0] if paid else math.inf)
    assert last == (paid[-1] if paid and paid[-1] < 199 else math.inf)
    assert paid == list(range(paid[0], paid[-1] + 1)) if paid else True


def make_rows():
    """Rows of one network at steps 0, 2 and 4. Learned: 0.5 at 2. Pruning: as much at 4. PGD-7: 0.6, then 0.8.

    Before: 0.9 clean, 0.2 robust.
    """
    rows = []

    def add(part, model, method, step, **values):
        common = {"dataset": "digits", "part": part, "model": model, "method": method, "step": step, "n": 10}
        common |= {"network": "dense" if model else "", "scope": "", "seed": None}
        for metric, value in values.items():
            if metric not in ("clean", "robust"):
                rows.append(common | {"metric": metric.replace("_", " "), "value": value})
                continue
            attack = {"eps": 0.1, "attack": "worst of a, b", "scope": "worst case"} if metric == "robust" else {}
            for seed in (0, 1):
                one = {"seed": seed, "metric": f"{metric} accuracy", "value": value + 0.02 * seed - 0.01}
                rows.append(common | attack | one)

    def costs(seconds, evaluations, examples):
        return {"seconds": seconds, "model_evaluations": evaluations, "adversarial_examples": examples}

    add("meta-training", "", "learned", 9, **costs(100.0, 1000.0, 50.0))
    add("search", "dense", "std-prune", 4, **costs(10.0, 400.0, 0.0))
    add("search", "dense", "PGD-7 training", 4, **costs(50.0, 700.0, 80.0))
    add("before", "mlp-7-relu", "before", 0, clean=0.9, robust=0.2)
    add("short", "mlp-7-relu", "learned", 2, clean=0.88, robust=0.5, **costs(3.0, 10.0, 0.0))
    add("long", "mlp-7-relu", "learned", 4, clean=0.8, robust=0.75, **costs(6.0, 20.0, 0.0))
    add("short", "mlp-7-relu", "std-prune", 2, clean=0.9, robust=0.3, **costs(1.0, 10.0, 0.0))
    add("long", "mlp-7-relu", "std-prune", 4, clean=0.9, robust=0.5, **costs(2.0, 20.0, 0.0))
    add("short", "mlp-7-relu", "PGD-7 training", 2, clean=0.9, robust=0.6, **costs(8.0, 80.0, 5.0))
    add("long", "mlp-7-relu", "PGD-7 training", 4, clean=0.9, robust=0.8, **costs(16.0, 160.0, 10.0))
    return rows


ROWS = make_rows()
FRAME = pd.DataFrame([*ROWS, *derived(ROWS)])


def value(part, method, metric):
    return cost.payback(FRAME, part, "mlp-7-relu").loc[method, metric]


def test_the_recorded_table_is_derived_from_its_own_rows():
    frame = results.recorded("cost-digits-small").frame
    again = pd.DataFrame(derived(results.as_rows(frame[~frame["part"].isin(TARGETS)])), columns=list(COLUMNS))
    key = ["part", "model", "method", "metric"]
    both = frame[frame["part"].isin(TARGETS)].merge(again, on=key, how="left", suffixes=("", "_again"))
    assert len(both) > 300
    assert list(both["value_again"]) == pytest.approx(list(both["value"]))
    for column in ("step", "tier", "network", "learned"):
        assert list(both[f"{column}_again"].fillna(-1)) == list(both[column].fillna(-1))


def test_targets_are_shares_of_the_references_gain_and_what_is_learned():
    found = {part: cost.payback(pd.DataFrame(ROWS), part, "mlp-7-relu")[TARGET].iloc[0] for part in TARGETS}
    assert found == pytest.approx({"half-gain": 0.5, "most-gain": 0.74, "as-learned": 0.5})


def test_a_target_is_reached_at_the_first_mark_that_keeps_clean_accuracy():
    assert value("as-learned", "learned", "model evaluations to reach it") == 10
    assert value("as-learned", "std-prune", "model evaluations to reach it") == 20
    assert value("as-learned", "PGD-7 training", "adversarial examples to reach it") == 5
    assert value("most-gain", "PGD-7 training", "seconds to reach it") == 16
    # As robust as that after 4 steps, but at 10 points of clean accuracy.
    assert value("most-gain", "learned", "seconds to reach it") == math.inf
    assert value("most-gain", "std-prune", "seconds to reach it") == math.inf


def test_meta_training_pays_where_it_does_and_never_where_it_does_not():
    first = lambda m, *bill: value("as-learned", m, FIRST.format(*bill))  # noqa: E731
    assert first("PGD-7 training", "seconds", "search counted") == 10  # (100 - 50) / (8 - 3)
    assert first("PGD-7 training", "seconds", "search left out") == 20
    assert first("PGD-7 training", "model evaluations", "search counted") == 5  # 300 / 70, rounded up
    assert first("std-prune", "model evaluations", "search left out") == 100
    assert first("std-prune", "seconds", "search counted") == math.inf
    assert value("as-learned", "PGD-7 training", LAST.format("seconds", "search counted")) == math.inf
    most = FRAME[FRAME["part"] == "most-gain"]
    assert not most["metric"].str.startswith(FIRST[:20]).any()


# What is printed


@pytest.mark.parametrize(
    ("number", "words"),
    [
        (0, "0"), (0.0424, "0.0424"), (1.273, "1.27"), (153.2, "153"), (1280, "1280"), (20480, "20.5 k"),
        (8.352e6, "8.35 M"), (6.4e9, "6.40 G"), (math.inf, "never"),
    ],
)  # fmt: skip
def test_amounts_have_three_figures(number, words):
    assert amount(number) == words


def test_numbers_of_models_are_words():
    assert models(1234.0, math.inf) == "1,234"
    assert models(1.0, 12.0) == "1 to 12"
    assert models(math.inf, math.inf) == "never"


def test_the_table_shows_clean_beside_robust_and_says_never():
    text = cost.table(FRAME)
    assert max(map(len, text.splitlines())) <= 160
    needed = "Cost of patching: digits, 2 seeds", "90/20.0", "88/50.0", "to 74.0 % robust", "search std-prune dense"
    assert [each for each in needed if each not in text] == []
    part = text.split("what the learned optimizer reaches")[1].splitlines()
    lines = {line.split("  ")[0]: line.split()[-4:] for line in part[2:5]}
    assert lines["std-prune"] == ["60", "100", "never", "never"]
    assert lines["PGD-7 training"] == ["5", "15", "10", "20"]
    assert "5 points of clean accuracy" in text
    assert "mlp-7-relu: to 50.0 % robust" in cost.brief(FRAME)


def test_the_page_shows_the_same_and_refuses_another_part():
    head, rule, *lines = cost.markdown(FRAME, "as-learned").splitlines()
    assert head.count("|") == rule.count("|") == lines[0].count("|")
    assert lines[2] == "| PGD-7 training | 2 | 80.0 | 8.00 | 5.00 | 5 | 15 | 10 | 20 |"
    assert "| meta-training learned | 100 | 1000 | 50.0 |" in cost.markdown(FRAME, "meta-training")
    with pytest.raises(InputError, match="unknown part of this table 'patch'"):
        cost.markdown(FRAME, "patch")


# A whole run


def test_a_run_has_every_way_at_every_mark(whole):
    _, frame = whole
    assert list(frame) == list(COLUMNS)
    for model in MODELS:
        for method in ("learned", *RIVALS):
            steps = cost.curve(frame, model, method)
            assert steps.index.tolist() == [0, 1, 2, 4]
            assert steps["seconds"].is_monotonic_increasing
            a_step = {"PGD-7 training": 16, "FGSM training": 4, "input-gradient penalty": 4}.get(method, 2)
            assert steps["model evaluations"].tolist() == [8 * a_step * step for step in steps.index]
            made = 8 if method in ("PGD-7 training", "FGSM training") else 0
            assert steps["adversarial examples"].tolist() == [made * step for step in steps.index]
    reached = frame[(frame["metric"] == "adversarial examples to reach it") & (frame["learned"] == 1)]
    assert {*reached["value"]} <= {0.0, math.inf}


def test_meta_training_is_counted_to_the_pass(whole):
    """The piece, scaled up, is what its plan says."""
    manifest, frame = whole
    found = manifest["summary"]["meta-training"]["pieces"]
    past = pretrained.card("patch-digits")["meta_trained_on"]
    plan, attack, training = past["plan"], past["attack"], past["their_training"]
    networks = len(past["family"]) + 2  # two validation networks
    trained = networks * past["models_of_each"] * training["steps"] * training["batch_size"] * 2
    assert found["models to learn on"]["model evaluations"] == trained
    (horizon,) = plan["horizons"]
    looks = horizon // plan["truncation"] * 2 * plan["held_out"]  # half-way through a stretch, and at its end
    inner, outer = horizon * plan["batch_size"] * 2, looks * (2 + 2 * attack["steps"] + 2)
    runs = plan["episodes"] * plan["groups"] * plan["tasks"]
    assert found["episodes"]["model evaluations"] == runs * (inner + outer)
    assert found["episodes"]["adversarial examples"] == runs * looks
    assert found["validations"]["adversarial examples"] > 0
    total = cost.once(frame, "learned", "dense")
    for metric in COSTS:
        assert total[metric] == pytest.approx(sum(part[metric] for part in found.values()))


def test_searches_are_counted_and_recorded(whole):
    manifest, frame = whole
    for method in RIVALS:
        for kind in ("dense", "convolutional"):
            paid = cost.once(frame, method, kind)
            assert paid["model evaluations"] > 2 * 4 * 8 * 2
            assert paid["adversarial examples"] > 0  # every search measures robust accuracy
        tuned = [key for key in manifest["summary"]["tuned"] if specs.slug(method) in key]
        assert len(tuned) == 4


def test_what_is_done_again_gives_the_same_but_for_times(folder, whole, tmp_path, monkeypatch):
    prepare(monkeypatch)
    shutil.copytree(folder, tmp_path / "run")
    storage.write_json(tmp_path / "run" / "manifest.json", whole[0] | {"status": "running"})
    (tmp_path / "run" / "units" / "mlp-5-sigmoid.std-prune.json").unlink()
    frame = execute(tmp_path / "run").frame
    same = [each[~each["metric"].str.contains("seconds")].reset_index(drop=True) for each in (whole[1], frame)]
    pd.testing.assert_frame_equal(*same)
    assert not whole[1].equals(frame)


def test_every_figure_that_is_recorded_is_of_the_standard_ensemble_with_checks(whole):
    assert {
        cost.make_spec(scale, "digits", None)["setting"]["parts"][0]["measures"] for scale in ("small", "full")
    } == {"standard"}
    _, frame = whole
    robust = frame[frame["scope"] == "worst case"]
    assert robust["attack"].str.contains("apgd").all()
    assert {*frame.loc[frame["metric"] == FLAGS, "step"]} == {0, 2, 4}, "at the start and at the end of a run"


def test_a_run_can_be_printed(whole):
    _, frame = whole
    for text in (cost.table(frame), cost.brief(frame), cost.markdown(frame, "half-gain")):
        assert all(model in text for model in MODELS)
