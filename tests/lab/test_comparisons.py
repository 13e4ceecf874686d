"""The comparisons, very small: who sees which images, what is counted, tuned and measured, and what is in the table."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, replace
from itertools import product

import pytest
import torch

from metarobust.data import Dataset, Split, load
from metarobust.errors import InputError
from metarobust.evaluation import quick
from metarobust.family import Family, Training
from metarobust.lab import attacked, catalogue, engine
from metarobust.lab import spec as specs
from metarobust.lab.adaptive import by_hand
from metarobust.lab.attacked import confined, informative, several, together
from metarobust.lab.baselines import methods
from metarobust.lab.comparison import Comparison
from metarobust.lab.engine import Worker
from metarobust.lab.experiments import EXPERIMENTS
from metarobust.lab.results import FLAGS, LEARNED, as_rows
from metarobust.lab.results import load as load_run
from metarobust.lab.run_folder import Run, Units
from metarobust.lab.spec import OptimizerConfig, Part, Spec, check_data, from_dict, network_kind, sizes, slug
from metarobust.lab.stages import evaluate, meta_train, tune
from metarobust.lab.stages.context import Context
from metarobust.meta import MetaTrainConfig
from metarobust.objectives import Adversarial, Mixed, clean
from metarobust.tasks import Tasks
from metarobust.training import over_models

CPU = torch.device("cpu")
MODELS = ("mlp-5-sigmoid", "cnn-2-tanh")
PLAN = MetaTrainConfig(episodes=4, horizons=(4,), truncation=2, tasks=2, batch_size=8, held_out=8, warmup=2)
FEATURES = OptimizerConfig(LEARNED, "features", PLAN)
SIZE = {"steps": 3, "batch_size": 8, "meta_eps": 0.1, "attack_steps": 2, "unseen": MODELS[:1]}
SOME = ("adam", "std-prune", "PGD-7 training")


def tiny(*parts, **numbers):
    """A spec of these parts, with tiny numbers."""
    whole = Spec(
        "patch", "smoke", "digits", (0, 1), (0,), parts, meta_images=150, per_class=5, test_images=20,
        tuning_seeds=(100,), attack_steps=2, family=("mlp-4-tanh", "cnn-2-relu"),
        validation=("mlp-3-relu", "cnn-2-relu"), unseen=MODELS, victims=2, training=Training(10, 16, 0.01),
        wide_grids=False, validated=False,
    )  # fmt: skip
    return replace(whole, **numbers)


def context(part, **numbers):
    """What the stages of a part work with, without a folder."""
    return Context(tiny(part, **numbers), part, Worker(None, load("digits"), CPU))


def execute(out, spec):
    """Runs what is missing of a comparison, and returns the manifest and the rows."""
    dataset = load("digits")
    run = Run(out, asdict(spec), resume=out.exists(), about={"data_sha256": dataset.sha256, "device": "cpu"})
    engine.complete(Comparison("patch"), run, dataset, CPU)
    manifest, frame = load_run(out)
    return manifest, as_rows(frame)


@pytest.fixture
def compare(tmp_path):
    """Runs these parts and returns the rows of the table."""
    return lambda *parts, **numbers: execute(tmp_path / "run", tiny(*parts, **numbers))[1]


def pick(rows, method, **columns):
    return [row for row in rows if row["method"] == method and all(row[k] == v for k, v in columns.items())]


WHOLE = tiny(
    Part("patch", rules=(FEATURES,), methods=SOME, **SIZE | {"unseen": ()}),
    Part("train", rules=(FEATURES,), methods=SOME[::2], trained=False, **SIZE | {"unseen": ()}),
)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A whole tiny run of both kinds: folder, manifest, rows, and what each unit looked at.

    looked: by unit, the batches (images as bytes, in order), measured images, meta-training pools, hyperparameters.
    """
    with pytest.MonkeyPatch.context() as patch:
        looked, now = {}, []
        call, batch, sample = engine._call, Tasks.batch, Family.sample
        fit, accuracy, quickly = evaluate.fit_baseline, attacked.accuracy, tune.under_quick

        def spy_call(unit, worker):
            now[:] = [looked.setdefault(unit.name, {"batches": [], "measured": [], "sampled": [], "hyper": []})]
            return call(unit, worker)

        def spy_batch(tasks, rows, size, generator):
            drawn = batch(tasks, rows, size, generator)
            now[0]["batches"].append((len(rows), prints(drawn[0])))
            return drawn

        def spy_measure(measure):
            def spied(tasks, params, test, **options):
                now[0]["measured"].append(prints(test.images))
                return measure(tasks, params, test, **options)

            return spied

        def spy_fit(tasks, method, hyper, *rest):
            now[0]["hyper"].append({name: values.flatten().tolist() for name, values in hyper.items()})
            return fit(tasks, method, hyper, *rest)

        def spy_sample(family, tasks, generator):
            now[0]["sampled"].append(prints(family.pool.images))
            return sample(family, tasks, generator)

        patch.setattr(engine, "_call", spy_call)
        patch.setattr(Tasks, "batch", spy_batch)
        patch.setattr(Family, "sample", spy_sample)
        patch.setattr(evaluate, "fit_baseline", spy_fit)
        patch.setattr(attacked, "accuracy", spy_measure(accuracy))
        patch.setattr(tune, "under_quick", spy_measure(quickly))
        out = tmp_path_factory.mktemp("comparison") / "run"
        return out, *execute(out, WHOLE), looked


def prints(images):
    """Each image's bytes: no two digits are alike."""
    return [image.numpy().tobytes() for image in images]


def test_no_test_image_is_learned_from_or_tuned_on(whole):
    data = load("digits")
    parts = {"pool": data.train.images[:150], "rest": data.train.images[150:], "test": data.test.images}
    images = {name: set(prints(part)) for name, part in parts.items()}
    assert len(set.union(*images.values())) == 1797
    trained = set()
    for name, seen in whole[3].items():
        used = {image for _, batch in seen["batches"] for image in batch}
        measured = {image for part in seen["measured"] for image in part}
        trained |= used
        kind = name.split(".")[1]
        if kind == "learned":
            assert used | {image for pool in seen["sampled"] for image in pool} <= images["pool"]
            assert used
            assert not measured
        elif kind == "tune":
            assert measured
            assert measured <= images["pool"]
            assert not measured & used, "a model is tuned on images that it was trained on"
        else:
            assert len(measured) == 20
            assert measured <= images["test"]
            # Vulnerable models are made from the pool; what is patched or trained sees the rest alone.
            assert used <= (images["pool"] | images["rest"] if name.startswith("patch") else images["rest"])
    assert not trained & images["test"]
    compared = [
        tuple(each) for name, seen in whole[3].items() if name.split(".")[1] in MODELS for each in seen["measured"]
    ]
    assert len(compared) == 2 * (5 + 4)
    assert len(set(compared)) == 1


@pytest.mark.parametrize("part", WHOLE.parts, ids=lambda part: part.name)
@pytest.mark.parametrize("model", MODELS)
def test_learned_and_plain_rules_see_the_same_batches(whole, part, model):
    seen = {name: found["batches"] for name, found in whole[3].items() if name.startswith(f"{part.name}.{model}.")}
    # The vulnerable models are made once, in ten batches, and all methods get the same.
    assert len(seen.pop(f"{part.name}.{model}.start")) == (10 if part.trained else 0)
    assert set(seen) == {f"{part.name}.{model}.{slug(name)}" for name in (*part.methods, LEARNED)}
    first = next(iter(seen.values()))
    assert len(first) == len({tuple(batch) for _, batch in first}) == 3
    assert all(batches == first for batches in seen.values())


def test_rows_are_tidy_and_say_what_they_are_of(whole):
    _, manifest, rows, _ = whole
    assert manifest["status"] == "complete"
    keys = [tuple(row[name] for name in row if name != "value") for row in rows]
    assert len(set(keys)) == len(rows)
    for part, model in product(WHOLE.parts, MODELS):
        here = [row for row in rows if (row["part"], row["model"]) == (part.name, model)]
        assert list(dict.fromkeys(row["method"] for row in here)) == ["before", *part.methods, LEARNED]
        for row in here:
            assert row["step"] == (0 if row["method"] == "before" else 3)
            assert row["learned"] == (row["method"] == LEARNED) == (row["meta_seed"] == 0)
            assert row["start"] == ("trained" if part.trained else "fresh")
            assert (row["network"], row["images_per_class"]) == (network_kind(model), 5)
        for method, seed in product(part.methods, (0, 1)):
            value = {row["attack"]: row["value"] for row in pick(here, method, seed=seed)}
            assert list(value) == ["none", "pgd-2-ce", "pgd-2-margin", "worst of pgd-2 ce, margin"]
            worst = value["worst of pgd-2 ce, margin"]
            assert 0 <= worst <= min(value["pgd-2-ce"], value["pgd-2-margin"]) <= value["none"] <= 1
            assert all(math.isclose(v * 20, round(v * 20), abs_tol=1e-5) for v in value.values())
    assert {(row["metric"], row["eps"], row["scope"]) for row in rows} == {
        ("clean accuracy", 0.0, ""), ("robust accuracy", 0.1, "single"), ("robust accuracy", 0.1, "worst case"),
        ("adversarial examples", None, ""), ("points visited", None, ""), ("passes", None, ""),
    }  # fmt: skip


def test_a_shipped_rule_is_compared_as_it_is_and_its_cost_is_counted(compare):
    """Nothing is learned; a step looks at each image and at a point beside it: two forward passes, and six backward."""
    rule = OptimizerConfig("learned, shipped", "penalties", PLAN, pretrained="train")
    rows = compare(Part("train", uses=(rule,), methods=("adam",), trained=False, **SIZE))
    mine = pick(rows, rule.name)
    assert {row["meta_seed"] for row in mine} == {0}
    assert {row["tier"] for row in mine} == {"2"}
    took = {row["metric"]: row["value"] for row in mine if row["seed"] is None}
    seen = 2 * 3 * 8  # models, steps and images of a step
    assert took == {"adversarial examples": 0, "points visited": seen, "passes": 8 * seen}
    plain = {row["metric"]: row["value"] for row in pick(rows, "adam") if row["seed"] is None}
    assert plain == {"adversarial examples": 0, "points visited": 0, "passes": 2 * seen}


def test_learned_generates_no_adversarial_example_and_adversarial_training_does(whole, monkeypatch):
    made = [row for row in whole[2] if row["metric"] == "adversarial examples"]
    assert len(made) == 2 * (5 + 4)
    for row in made:
        assert row["value"] == (2 * 3 * 8 if row["tier"] == "adversarial" else 0)
        assert (row["tier"] == "adversarial") == (row["method"] == "PGD-7 training")
    # It is a measurement: were the learned optimizer given adversarial gradients, its count would say so.
    monkeypatch.setattr(meta_train, "clean", Adversarial(0.1, 2))
    worker = Worker(whole[0], load("digits"), CPU)
    rows = evaluate.compare_learned(Context.of(worker, 0), MODELS[0], LEARNED)
    assert [row["value"] for row in rows if row["metric"] == "adversarial examples"] == [2 * 3 * 8]


def test_every_baseline_is_tuned_over_its_whole_grid_and_compared_at_its_best(whole):
    out, manifest, _, looked = whole
    for part in WHOLE.parts:
        for method in methods(0.1, patching=part.trained, wide=False):
            if method.name not in part.methods:
                continue
            search = f"{part.name}.tune.{slug(method.name)}"
            points = Units(out).rows(search)
            assert len(points) == math.prod(map(len, method.grid.values()))
            assert all(set(point) == {*method.grid, "score dense", "score convolutional"} for point in points)
            for model in MODELS:  # both seeds are given the best point for networks of this kind
                score = f"score {network_kind(model)}"
                best = max(points, key=lambda point, score=score: point[score])
                assert manifest["summary"]["tuned"][f"{search}.{network_kind(model)}"] == best
                (hyper,) = looked[f"{part.name}.{model}.{slug(method.name)}"]["hyper"]
                assert hyper == {key: pytest.approx([best[key]] * 2) for key in method.grid}


def test_the_learned_optimizer_is_the_meta_trained_one(whole):
    worker = Worker(whole[0], load("digits"), CPU)
    thetas = []
    for number, part in enumerate(WHOLE.parts):
        thetas.append(meta_train.learned_optimizer(Context.of(worker, number), FEATURES, 0).state_dict())
        tensors, about = worker.restore(f"{part.name}.learned.0")
        assert about["episode"] == 4
        assert all(torch.equal(value, tensors[f"theta.{name}"]) for name, value in thetas[-1].items())
    last = list(thetas[0])[-2]
    assert bool(thetas[0][last].any()), "it was 0 before it learned"
    assert not torch.equal(thetas[0][last], thetas[1][last])


class Killed(BaseException):
    pass


def test_killed_again_and_again_it_ends_with_the_same_bytes(whole, tmp_path, monkeypatch):
    """Every few files that are written, the run dies before the file is in place, in the middle of any unit."""
    calls, kills, put = iter(range(1, 10_000)), 0, engine.os.replace

    def dying(source, target):
        if next(calls) % 7 == 0:
            raise Killed
        put(source, target)

    monkeypatch.setattr(meta_train, "SAVE_EVERY", 1)
    monkeypatch.setattr("metarobust.storage.os.replace", dying)
    for _ in range(100):
        try:
            manifest, _ = execute(tmp_path / "run", WHOLE)
            break
        except Killed:
            kills += 1
    assert kills >= 4
    assert (tmp_path / "run" / "results.csv").read_bytes() == (whole[0] / "results.csv").read_bytes()
    assert manifest["summary"] == whole[1]["summary"]


def test_what_is_frozen_is_what_runs(whole, tmp_path, monkeypatch):
    """The catalogue may have changed since: the manifest alone says what to do."""
    monkeypatch.setattr(catalogue, "make", lambda *_: pytest.fail("looked up again"))
    assert from_dict(Spec, json.loads(json.dumps(asdict(WHOLE)))) == WHOLE
    assert from_dict(Spec, whole[1]["spec"]) == WHOLE
    units = Comparison("patch").units(whole[1]["spec"], load("digits"))
    assert {unit.name for unit in units} == {path.stem for path in (whole[0] / "units").iterdir()}


def test_marks_fewer_images_and_what_an_earlier_part_has_learned(compare, tmp_path):
    first = Part("patch", rules=(FEATURES,), methods=("adam", "PGD-7 training"), marks=(1, 2, 3), **SIZE)
    later = Part("patch, 2 images a class", uses=(FEATURES,), home="patch", methods=("adam",), per_class=2, **SIZE)
    rows = compare(first, later)
    assert [path.stem for path in (tmp_path / "run" / "checkpoints").iterdir()] == ["patch.learned.0"]
    for method in ("adam", LEARNED, "PGD-7 training"):
        mine = pick(rows, method, part="patch")
        made = {row["step"]: row["value"] for row in mine if row["metric"] == "adversarial examples"}
        assert made == {step: 8 * 2 * step * (method[:3] == "PGD") for step in (1, 2, 3)}
    assert {row["images_per_class"] for row in pick(rows, LEARNED, part=later.name)} == {2}
    assert context(later).tasks(MODELS[0], (0, 1)).train.shape == (2, 20)


def test_the_gap_is_measured_on_the_images_that_a_model_was_trained_on(compare):
    part = Part("5 images a class", methods=("adam",), trained=False, gap=True, **(SIZE | {"steps": 1500}))
    mine = pick(compare(part), "adam", metric="clean accuracy")
    train, test = ([row for row in mine if row["split"] == split] for split in ("train", "test"))
    assert (len(train), len(test)) == (2, 2)
    assert min(row["value"] for row in train) > max(row["value"] for row in test)  # 50 images are learned by heart
    assert {row["n"] for row in train} == {17}  # every third of 50, no more than 20


def test_with_all_images_a_model_has_every_one_that_no_meta_training_had():
    tasks = context(Part("all images", methods=("adam",), trained=False, per_class=specs.ALL, **SIZE)).tasks(
        MODELS[0], (0, 1)
    )
    left = load("digits").train[150:]
    assert torch.equal(tasks.images, left.images)
    assert torch.equal(tasks.train, torch.arange(len(left)).expand(2, -1))


def test_another_data_set_has_its_own_images_and_numbers(compare, monkeypatch):
    dataset = load("digits")
    monkeypatch.setattr("metarobust.lab.stages.context.load", lambda name, *_: replace(dataset, name=name))
    other = Part("patch, other", uses=(FEATURES,), home="patch", methods=("adam",), dataset="other", **SIZE)
    elsewhere = {"other": replace(sizes("digits"), meta_images=300, per_class=4, test_images=25)}
    rows = compare(Part("patch", rules=(FEATURES,), methods=("adam",), **SIZE), other, elsewhere=elsewhere)
    found = {(row["part"], row["dataset"], row["n"]) for row in rows if row["metric"] == "clean accuracy"}
    assert found == {("patch", "digits", 20), ("patch, other", "other", 25)}


def test_a_rule_learns_on_the_images_of_its_source_at_their_radius(monkeypatch):
    part = Part("patch", rules=(FEATURES,), methods=("adam",), **SIZE | {"meta_eps": 1.2 * 8 / 255})
    here = context(part, eps=8 / 255, elsewhere={"mnist": sizes("mnist")})
    far = replace(FEATURES, source="mnist")
    assert meta_train.meta_objective(here, FEATURES) == Mixed(Adversarial(1.2 * 8 / 255, 2), 0.5)
    assert meta_train.meta_objective(here, far).adversarial.eps == pytest.approx(0.12)
    assert meta_train.radius(here, far) == 0.1
    asked = []
    monkeypatch.setattr(meta_train, "load", lambda name, *_: asked.append(name) or load("digits"))
    here.spec.elsewhere["mnist"] = replace(sizes("mnist"), meta_images=200, per_class=5)
    assert len(meta_train.family(here, "mnist", ("mlp-3-relu",)).pool) == 200
    assert asked == ["mnist"]


def test_rules_learn_from_what_they_are_given_and_are_judged_by_what_is_said():
    here = context(Part("patch", rules=(FEATURES,), weight=0.3, **SIZE | {"meta_eps": 0.12}))
    inner, meta = meta_train.inner_objective, meta_train.meta_objective
    assert inner(here, FEATURES) is meta(here, replace(FEATURES, meta="clean")) is clean
    assert inner(here, replace(FEATURES, inner="fgsm")) == Adversarial(0.1, 1)
    assert inner(here, replace(FEATURES, inner="pgd")) == Adversarial(0.1, 7)
    assert meta(here, replace(FEATURES, meta="fgsm")) == Mixed(Adversarial(0.12, 1), 0.3)
    assert meta(here, FEATURES) == Mixed(Adversarial(0.12, 2), 0.3)


def test_a_rule_that_learns_on_several_data_sets_draws_them_evenly():
    pool = load("digits").train[:20]
    some = [Family(("mlp-3-relu",), pool, 10, images).sample for images in (5, 3)]
    drawn = [meta_train.evenly(some)(1, torch.Generator().manual_seed(seed)).train.shape[1] for seed in range(40)]
    assert 10 < drawn.count(3) < 30
    assert meta_train.evenly(some[:1]) is some[0], "without a draw, so that older rules see what they saw"


def test_adversarial_gradients_inside_are_counted_and_a_rule_goes_on_from_another(compare):
    inside = replace(FEATURES, inner="fgsm")
    further = OptimizerConfig("learned, PGD-7 inside", "features", PLAN, begins=LEARNED, inner="pgd")
    rows = compare(Part("robust", rules=(inside, further), trained=False, robust=True, **SIZE))
    for name in (LEARNED, "learned, PGD-7 inside", "FGSM training, SGD", "TRADES"):
        mine = pick(rows, name)
        assert {row["tier"] for row in mine} == {"adversarial"}
        assert {row["value"] for row in mine if row["metric"] == "adversarial examples"} == {2 * 3 * 8}
    assert {"PGD-7 training, RMSprop", "adam"} <= {row["method"] for row in rows}
    assert not pick(rows, "PGD-7 training")


def test_many_attacks_are_told_apart(compare):
    part = Part("patch", methods=("adam",), measures="attacks", **SIZE)
    mine = pick(compare(part, training=Training(100, 16, 0.01)), "adam", seed=0)
    value = {(row["attack"], round(row["eps"], 4)): row["value"] for row in mine}
    at = {name: found for (name, eps), found in value.items() if eps == 0.1}
    (worst,) = (row["attack"] for row in mine if row["scope"] == "worst case")
    assert at[worst] <= min(at.values())
    assert {name.split("-")[0] for name in at} == {"fgsm", "pgd", "apgd", "square", "worst of pgd"}
    radii = [value["pgd-2 ce, margin", eps] for eps in (0.025, 0.05, 0.15, 0.2)]
    assert radii == sorted(radii, reverse=True)
    assert radii[0] > radii[-1]
    assert [row["eps"] for row in mine if row["scope"] == "pair"] == pytest.approx([0.025, 0.05, 0.15, 0.2])
    assert ("pgd-2 ce, margin in l2", 0.4) in value


def test_a_confined_attack_moves_no_other_pixel_and_still_does_harm(compare):
    data = load("digits")
    order = informative(data.train, 10)
    assert sorted(order.tolist()) == list(range(64))
    assert set(range(0, 64, 8)) <= set(order[-24:].tolist())  # the left edge is black in nearly every image
    pixels = torch.zeros(64, dtype=torch.bool)
    pixels[order[:32]] = True
    pixels = pixels.view(1, 8, 8)
    model, images = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 10)), data.test.images[:50]
    labels = model(images).argmax(1)  # what is misread as it is, nobody attacks
    for attack in confined(pixels, eps=0.1, steps=5):
        moved = attack.move(model, images, labels, generator=None)
        assert not (moved - images)[:, ~pixels].any()
        assert (moved - images).abs().max() == pytest.approx(0.1)
        assert (model(moved).argmax(1) == labels).float().mean() < 0.9
    rows = pick(compare(Part("patch", methods=("adam",), measures="pixels", **SIZE)), "adam", seed=0)
    at = {row["attack"]: row["value"] for row in rows if row["metric"] != FLAGS}
    fewer = [at[f"pgd-2 ce, margin on {few} pixels"] for few in (32, 19, 10)]
    assert [at["pgd-2 ce, margin"], *fewer, at["none"]] == sorted([at["pgd-2 ce, margin"], *fewer, at["none"]])


def test_attacks_by_hand_follow_a_slope_that_is_hidden_in_ripples(compare):
    data = load("digits")
    linear = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 10))
    images = data.test.images[:50]

    def rippled(x):  # what the gradient says is the ripple's alone
        return linear(x) + (0.01 * torch.sin(1000 * x)).flatten(1).sum(1, keepdim=True) * torch.linspace(-1, 1, 10)

    labels, left = rippled(images).argmax(1), {}
    for attack in [*quick(eps=0.1, steps=20), *by_hand(linear, eps=0.1, steps=20)]:
        moved = attack.move(rippled, images, labels, generator=torch.Generator().manual_seed(0))
        assert (moved - images).abs().max() <= 0.1 + 1e-6
        assert moved.min() >= 0
        assert moved.max() <= 1
        left[attack.name] = (rippled(moved).argmax(1) == labels).float().mean()
    assert max(left[name] for name in ("long-margin", "smoothed", "transfer-20")) < left["pgd-20-margin"]
    rows = pick(compare(Part("patch", methods=("adam",), measures="by hand", **SIZE)), "adam", seed=0)
    at = {(row["scope"], round(row["eps"], 3)): row["value"] for row in rows if row["metric"] == "robust accuracy"}
    falls = [at["pair", 0.1], at["worst case", 0.1], at["by hand", 0.1], at["pair", 0.4]]
    assert falls == sorted(falls, reverse=True)


def test_the_standard_measure_is_the_worst_case_and_one_model_of_each_method_is_checked(compare):
    part = Part("patch", rules=(FEATURES,), methods=("adam",), measures="standard", gap=True, marks=(1,), **SIZE)
    rows = compare(part, meta_seeds=(0, 1))
    for method, steps in (("before", {0}), ("adam", {1, 3}), (LEARNED, {1, 3})):
        mine = pick(rows, method)
        under = [row for row in mine if row["metric"].endswith("accuracy")]
        assert {row["step"] for row in under} == steps
        for step, split in {(row["step"], row["split"]) for row in under}:
            here = [row for row in under if (row["step"], row["split"], row["seed"]) == (step, split, 0)]
            at = {row["scope"]: row["value"] for row in here if row["meta_seed"] in (None, 0)}
            assert list(at) == ["", "single", "pair", "worst case"]
            assert at["worst case"] <= at["pair"] <= at["single"] <= at[""]
        flags = [(row["step"], row["seed"], row["meta_seed"]) for row in mine if row["metric"] == FLAGS]
        assert flags == [(max(steps), 0, None if method != LEARNED else 0)]


def test_models_attacked_together_stand_as_they_do_alone():
    """The random numbers that fall to an image are others, so that a few may differ; and no model has another's."""
    tasks = context(Part("patch", **SIZE), training=Training(100, 16, 0.01)).tasks(MODELS[0], tuple(range(6)))
    spread = tasks.params * torch.linspace(0.2, 3, 6)[:, None]  # so that they do not all stand alike
    images, options, rng = load("digits").test[:100], {"eps": 0.05, "steps": 5, "classes": 10}, torch.Generator()
    alone = over_models(tasks, spread, images, several(**options), rng.manual_seed(0), independent=False)
    once = together(tasks, spread, images, several(**options, early_exit=False), rng)
    assert list(alone) == list(once)
    assert once["clean"] == pytest.approx(alone["clean"])
    assert once["robust"] == pytest.approx(alone["robust"], abs=0.04)
    assert max(once["robust"]) > min(once["robust"]) + 0.1


def test_a_model_that_hides_its_gradient_is_flagged():
    """What the ensemble says of it is low, and the row of its checks says why not to trust a gradient alone."""
    here = context(Part("patch", measures="standard", **SIZE))
    tasks = here.tasks(MODELS[0], (0, 1))
    row = evaluate.checks(here, tasks, tasks.params[0] * 1e4)  # logits so far apart that cross-entropy is flat
    assert row["metric"] == FLAGS
    assert row["value"] == len(row["attack"].split(", ")) >= 1
    assert "saturated logits" in row["attack"]


def test_baselines_are_tuned_for_the_weight_of_the_meta_loss():
    part = Part("patch", rules=(FEATURES,), methods=("adam",), **SIZE)
    none, quarter, all_of_it = (tune.tune(context(replace(part, weight=w)), "adam")[0] for w in (0.0, 0.25, 1.0))
    for kind in ("score dense", "score convolutional"):
        assert none[kind] > all_of_it[kind]
        assert quarter[kind] == pytest.approx(0.75 * none[kind] + 0.25 * all_of_it[kind], abs=1e-6)


def test_the_best_settings_of_a_search_are_scored_again_on_networks_that_did_not_choose_them(tmp_path):
    part = Part("patch", methods=("adam",), **SIZE)
    here = context(part, finalists=2, deciding_seeds=(110, 111))
    first, points = tune.tune(context(part), "adam"), tune.tune(here, "adam")
    for kind in ("dense", "convolutional"):
        score, again = f"score {kind}", f"again {kind}"
        assert [point[score] for point in points] == [point[score] for point in first]
        chosen = sorted((point for point in points if again in point), key=lambda point: -point[score])
        assert len(chosen) == 2
        assert chosen[-1][score] >= max(point[score] for point in points if again not in point)
        networks = [name for name in here.spec.validation if network_kind(name) == kind]
        wanted = tune.scored(here, here.baselines["adam"], chosen, networks, (110, 111))[kind]
        assert [point[again] for point in chosen] == wanted
        assert tune.best_point(points, kind)[again] == max(wanted)
    lucky = [{"lr": 1, "score dense": 0.9, "again dense": 0.5}, {"lr": 2, "score dense": 0.8, "again dense": 0.6}]
    assert tune.best_point([*lucky, {"lr": 3, "score dense": 0.7}], "dense")["lr"] == 2
    manifest, _ = execute(tmp_path / "run", tiny(part, finalists=2, deciding_seeds=(110,)))
    for name, points in manifest["summary"]["finalists"].items():
        assert points[0]["score"] >= points[1]["score"]
        taken = manifest["summary"]["tuned"][name][f"again {name.rpartition('.')[2]}"]
        assert taken == pytest.approx(max(point["again"] for point in points), abs=1e-4)


def test_a_data_set_that_cannot_be_shared_out_is_refused_before_anything_is_learned():
    spec, digits = tiny(Part("patch", **SIZE)), load("digits")
    with pytest.raises(InputError, match=r"1297 training images; scale small needs 1340: give as many; --scale smoke"):
        check_data(replace(spec, meta_images=1290, scale="small"), digits)
    rare = digits.train.labels.clone()
    rare[150:][rare[150:] == 7] = 3
    rare[150:154] = 7
    few = Dataset("folder:mine", Split(digits.train.images, rare), digits.test, 10, "digest")
    with pytest.raises(InputError, match=r"there are 4 of class 7; scale smoke needs 5: add images"):
        check_data(spec, few)
    with pytest.raises(InputError, match="unknown baseline 'nothing'"):
        context(Part("patch", methods=("nothing",), **SIZE)).baselines  # noqa: B018


@pytest.mark.parametrize("name", catalogue.PARTS)
@pytest.mark.parametrize("scale", specs.SCALES)
@pytest.mark.parametrize("dataset", ["digits", "mnist", "cifar10", "folder:mine"])
def test_every_experiment_can_be_begun(name, scale, dataset):
    """Its baselines are known, no rule is missing, and names tell parts, rules and units apart."""
    spec = catalogue.make(name, scale, dataset, None)
    assert from_dict(Spec, json.loads(json.dumps(asdict(spec)))) == spec
    labels = torch.arange(35_000) % 10
    large = Dataset(
        "large", Split(torch.zeros(35_000, 1, 1, 1), labels), Split(torch.zeros(9, 1, 1, 1), labels[:9]), 10, ""
    )
    done = set()
    for unit in Comparison(name).units(asdict(spec), large):
        assert unit.name not in done
        assert done.issuperset(unit.needs)
        done.add(unit.name)
    home = {part.name: part for part in spec.parts}
    assert len(home) == len(spec.parts)
    for part in spec.parts:
        assert all(rule.pretrained or rule in home[part.home].rules for rule in part.uses)
        assert not {name for rule in part.rules for name in rule.family or spec.family} & {
            *(part.unseen or spec.unseen)
        }
    drawn = [*spec.seeds, *spec.tuning_seeds, *spec.deciding_seeds]
    assert len(set(drawn)) == len(drawn)
    assert len(spec.seeds) == (3 if scale == "smoke" else 10)
    assert spec.eps == (8 / 255 if dataset == "cifar10" else 0.1)
    assert {part.meta_eps for part in spec.parts} == {1.2 * spec.eps}


def test_a_radius_may_be_given_and_is_part_of_the_spec():
    """Folders of photographs are attacked by less than digits, and nobody can tell by their name."""
    experiment = EXPERIMENTS["transfer-data"]
    spec = experiment.make_spec("small", "folder:a/photos", None, 8 / 255)
    assert (spec["eps"], {part["meta_eps"] for part in spec["parts"]}) == (8 / 255, {1.2 * 8 / 255})
    known = ["photos", "digits", "mnist", "fashion-mnist"]
    assert [part["name"] for part in spec["parts"]] == [f"patch, {name}" for name in known]
    assert experiment.make_spec("small", "mnist", None) == experiment.make_spec("small", "mnist", None, 0.1)
    for eps in (-0.1, float("nan"), 8.0):
        with pytest.raises(InputError, match=str(eps)):
            experiment.make_spec("small", "mnist", None, eps)


def test_families_never_mix():
    names = "FAMILY", "VALIDATION", "UNSEEN", "NEW", "FRESH", "DEEPER", "WIDER"
    groups = [getattr(specs, name) for name in names]
    assert len(set().union(*groups)) == sum(map(len, groups))


def test_an_ablation_changes_one_thing():
    (part,) = catalogue.ablation("small", "digits")
    base, *others = part.rules
    assert len(others) >= 15
    for rule in others:
        fields = ("kind", "family", "inner", "meta", "shape")
        changed = [name for name in fields if getattr(rule, name) != getattr(base, name)]
        changed += [name for name, value in vars(rule.plan).items() if value != getattr(base.plan, name)]
        two = {"learned, ES": {"estimator", "truncation"}, "learned, FGSM inside, clean outside": {"inner", "meta"}}
        assert set(changed) == two.get(rule.name, set(changed[:1])), rule.name
        assert changed
        assert rule.plan.episodes == base.plan.episodes
