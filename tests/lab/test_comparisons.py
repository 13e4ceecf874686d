"""The parts of a comparison: marks on the way, fewer images, other data, other attacks, rules of another part."""

from __future__ import annotations

from dataclasses import replace
from itertools import product

import pytest
import test_transfer
import torch
from test_transfer import CODE, PLAN, UNSEEN

from metarobust.data import Dataset, Split, load
from metarobust.errors import InputError
from metarobust.family import Training
from metarobust.lab import catalogue, results
from metarobust.lab.ablation import ablation
from metarobust.lab.attacked import confined, several, speaking
from metarobust.lab.comparison import SEARCHES
from metarobust.lab.experiments import EXPERIMENTS
from metarobust.lab.fit import together, under_quick
from metarobust.lab.results import load_results
from metarobust.lab.run_folder import Run
from metarobust.lab.scrutiny import checked, lowered, overstated
from metarobust.lab.spec import ALL, FAMILY, NEW, VALIDATION, OptimizerConfig, Part
from metarobust.lab.spec import UNSEEN as FIRST_UNSEEN
from metarobust.lab.stages import Stages
from metarobust.lab.table import FLAGS, LEARNED, over, pick, title
from metarobust.lab.tuning import best_point, kind
from metarobust.objectives import Adversarial, Mixed, clean
from metarobust.storage import read_json
from metarobust.training import over_models

CPU = torch.device("cpu")
FEATURES = OptimizerConfig(LEARNED, "features", PLAN)
BOTH = ("score", "again")
EMPTY = Split(torch.zeros(35_000, 1, 1, 1), torch.arange(35_000) % 10)
LARGE = Dataset("large", EMPTY, EMPTY, 10, "drawn")
WORST = "worst of pgd-2-ce, pgd-2-margin, apgd-50-ce, apgd-50-dlr-targeted, square-500"
SIZE = {"steps": 3, "batch_size": 8, "attack_steps": 2, "unseen": UNSEEN[:1]}


def tiny(*parts):
    """A spec of these parts, with tiny numbers."""
    return replace(test_transfer.tiny(), parts=parts, meta_seeds=(0, 1), training=Training(100, 16, 0.01))


@pytest.fixture
def compare(tmp_path, monkeypatch):
    """Runs the experiment `patch` with these parts, and other numbers where given, and returns its rows."""

    def execute(*parts, **numbers):
        spec = replace(tiny(*parts), **numbers)
        monkeypatch.setattr(results, "code", lambda: CODE)
        monkeypatch.setattr("metarobust.storage.os.fsync", lambda file: None)
        monkeypatch.setattr(catalogue, "make", lambda *_: spec)
        run = Run(tmp_path / "run", spec.as_dict(), resume=False, about={})
        EXPERIMENTS["patch"].execute(spec.as_dict(), run, load("digits"), CPU)
        return load_results(tmp_path / "run")[1]

    return execute


def stages(part):
    return Stages(tiny(part), part, None, load("digits"), CPU)


def test_marks_are_steps_on_the_same_way(compare):
    rows = compare(Part("patch", rules=(FEATURES,), methods=("adam", "PGD-7 training"), marks=(1, 2, 3), **SIZE))
    for method, seeds in (("adam", 1), (LEARNED, 2), ("PGD-7 training", 1)):
        mine = pick(rows, "patch", UNSEEN[0], method)
        made = {row["step"]: row["value"] for row in mine if row["metric"] == "adversarial examples"}
        assert made == {step: 8 * 2 * step * (method[:3] == "PGD") for step in (1, 2, 3)}
        assert len([row for row in mine if row["metric"] == "clean accuracy" and row["step"] == 1]) == 2 * seeds
        last = [row for row in mine if row["step"] == 3]
        assert over(mine, "robust accuracy") == over(last, "robust accuracy")  # a table shows the end
    assert {row["step"] for row in pick(rows, "patch", UNSEEN[0], "before")} == {0}


def test_a_later_part_uses_what_an_earlier_one_has_learned(compare, tmp_path):
    later = Part("patch, 2 images a class", uses=(FEATURES,), home="patch", methods=("adam",), per_class=2, **SIZE)
    rows = compare(Part("patch", rules=(FEATURES,), methods=("adam",), **SIZE), later)
    lessons = {path.stem for path in (tmp_path / "run" / "checkpoints").iterdir()}
    assert lessons == {"patch.learned.0", "patch.learned.1"}
    assert {row["part"] for row in rows if row["method"] == LEARNED} == {"patch", later.name}
    tasks = stages(later).tasks(UNSEEN[0], (0, 1))
    assert tasks.train.shape == (2, 20)
    assert title(later.name) == "Patching trained models, 2 images a class"


def test_the_gap_is_measured_on_the_images_that_a_model_was_trained_on(compare, monkeypatch):
    part = Part("5 images a class", methods=("adam",), trained=False, gap=True, **(SIZE | {"steps": 1500}))
    rows = compare(part)
    mine = pick(rows, part.name, UNSEEN[0], "adam")
    by_split = {
        split: [row["value"] for row in mine if row["split"] == split and row["metric"] == "clean accuracy"]
        for split in ("train", "test")
    }
    assert [len(values) for values in by_split.values()] == [2, 2]
    assert min(by_split["train"]) > max(by_split["test"])  # 50 images are learned by heart
    assert {row["n"] for row in mine if row["split"] == "train"} == {17}  # every third of 50, no more than 20
    assert over(mine, "clean accuracy")[0] == pytest.approx(sum(by_split["test"]) / 2)


def test_with_all_images_a_model_has_every_one_that_no_school_had(compare):
    part = Part("all images", methods=("adam",), trained=False, gap=True, per_class=ALL, **SIZE)
    stage, rows = stages(part), compare(part)
    tasks = stage.tasks(UNSEEN[0], (0, 1))
    left = load("digits").train[150:]  # the tiny spec keeps 150 for its schools
    assert torch.equal(tasks.images, left.images)
    assert torch.equal(tasks.train, torch.arange(len(left)).expand(2, -1))
    mine = [row for row in pick(rows, part.name, UNSEEN[0], "adam") if row["split"] == "train"]
    assert {row["n"] for row in mine} == {20}  # no more of them are measured than test images
    assert title(part.name) == "Training fresh models with all images"


@pytest.mark.parametrize(("dataset", "sizes"), [("digits", [5, 10, 20, 40]), ("mnist", [10, 50, 100, 500, 1000])])
def test_low_data_ends_with_all_images(dataset, sizes):
    parts = catalogue.make("low-data", "full", dataset, None).parts
    assert [part.per_class for part in parts] == [*sizes, ALL]
    assert parts[-1].name == "all images"
    small = catalogue.make("low-data", "small", dataset, None).parts
    assert [part.per_class for part in small] == sizes[:4]


@pytest.mark.parametrize("dataset", ["digits", "mnist"])
def test_with_few_images_every_rule_is_searched_over_all_values_on_more_networks(dataset):
    few, patching = (catalogue.make(name, "small", dataset, None) for name in ("low-data", "patch"))
    assert few.wide_grids
    assert len(few.tuning_seeds) > len(patching.tuning_seeds)
    assert not {*few.tuning_seeds} & {*few.seeds}
    for part in few.parts:
        assert {"adam + weight decay", "input-gradient penalty", "curvature penalty", "TRADES"} < set(part.methods)


def test_another_data_set_has_its_own_images_and_numbers(compare, monkeypatch):
    dataset, numbers = load("digits"), {"meta_images": 300, "per_class": 4, "test_images": 25}
    monkeypatch.setattr("metarobust.lab.comparison.load", lambda name, *how: replace(dataset, name=name))
    monkeypatch.setattr("metarobust.lab.comparison.sizes", lambda name, scale: numbers)
    other = Part("patch, other", uses=(FEATURES,), home="patch", methods=("adam",), dataset="other", **SIZE)
    rows = compare(Part("patch", rules=(FEATURES,), methods=("adam",), **SIZE), other)
    found = {(row["part"], row["dataset"], row["n"]) for row in rows if row["metric"] == "clean accuracy"}
    assert found == {("patch", "digits", 20), ("patch, other", "other", 25)}


def test_many_attacks_are_told_apart(compare):
    rows = compare(Part("patch", methods=("adam",), measures="attacks", **SIZE))
    mine = [row for row in pick(rows, "patch", UNSEEN[0], "adam") if row["seed"] == 0]
    value = {(row["attack"], round(row["eps"], 4)): row["value"] for row in mine if row["attack"]}
    at = {name: found for (name, eps), found in value.items() if eps == 0.1}
    (worst,) = (name for name in at if name.startswith("worst"))
    assert at[worst] <= min(at.values())
    assert {name.split("-")[0] for name in at} == {"fgsm", "pgd", "apgd", "square", "worst of pgd"}
    radii = [value["pgd-2 ce, margin", eps] for eps in (0.025, 0.05, 0.15, 0.2)]
    assert radii == sorted(radii, reverse=True)
    assert radii[0] > radii[-1]
    assert ("pgd-2 ce, margin in l2", 0.4) in value
    assert over(mine, "robust accuracy")[0] == at[worst]


def test_a_confined_attack_moves_no_other_pixel_and_still_does_harm(compare):
    data = load("digits")
    pixels = speaking(data.train, 10)
    assert 20 < int(pixels.sum()) < 60  # the digits have pixels of both kinds
    assert not pixels[0, :, 0].any()  # the left edge is black in nearly every image
    torch.manual_seed(0)
    model, images = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 10)), data.test.images[:50]
    labels = model(images).argmax(1)  # what is misread as it is, nobody attacks
    for attack in confined(pixels, eps=0.1, steps=5):
        moved = attack.move(model, images, labels, generator=None)
        change = moved - images
        assert not change[:, ~pixels].any()
        assert change.abs().max() == pytest.approx(0.1)
        assert (model(moved).argmax(1) == labels).float().mean() < 0.9

    rows = compare(Part("patch", methods=("adam",), measures="confined", **SIZE))
    at = {row["attack"]: row["value"] for row in pick(rows, "patch", UNSEEN[0], "adam") if row["seed"] == 0}
    assert at["worst of pgd-2 ce, margin"] <= at["pgd-2 ce, margin on speaking pixels"] <= at["none"]


def test_baselines_are_tuned_for_the_weight_of_the_judge():
    """A plain rule that may weigh robustness less is chosen by that measure, too."""
    part = Part("patch", rules=(FEATURES,), methods=("adam",), weight=0.25, **SIZE)
    adam = stages(part).methods[0]
    quarter, half = (stages(replace(part, weight=weight)).tune(adam) for weight in (0.25, 0.5))
    none, all_of_it = (stages(replace(part, weight=weight)).tune(adam) for weight in (0.0, 1.0))
    for name in ("score dense", "score convolutional"):
        if name in quarter[0]:
            clean, robust = none[0][name], all_of_it[0][name]
            assert clean > robust
            assert quarter[0][name] == pytest.approx(0.75 * clean + 0.25 * robust, abs=1e-6)
            assert half[0][name] == pytest.approx(0.5 * clean + 0.5 * robust, abs=1e-6)


def test_the_best_settings_of_a_search_are_scored_again_on_networks_that_did_not_choose_them():
    part = Part("patch", methods=("adam",), **SIZE)
    once, spec = stages(part), replace(tiny(part), finalists=2, deciding_seeds=(110, 111, 112))
    here = Stages(spec, part, None, load("digits"), CPU)
    (adam,) = here.methods
    first, points = once.tune(adam), here.tune(adam)
    for group in ("dense", "convolutional"):
        score, again = f"score {group}", f"again {group}"
        assert [point[score] for point in points] == [point[score] for point in first]
        finalists = sorted((p for p in points if again in p), key=lambda point: -point[score])
        others = [point[score] for point in points if again not in point]
        assert len(finalists) == 2
        assert finalists[-1][score] >= max(others)
        asked = [{key: point[key] for key in adam.grid} for point in finalists]
        networks = [name for name in here.spec.validation if kind(name) == group]
        wanted = here.scores(adam, asked, networks, (110, 111, 112))[group]
        assert [point[again] for point in finalists] == wanted
        assert best_point(points, group)[again] == max(wanted)
        assert best_point(first, group)[score] == max(point[score] for point in first)
    lucky = [{"lr": 1, "score dense": 0.9, "again dense": 0.5}, {"lr": 2, "score dense": 0.8, "again dense": 0.6}]
    other = {"lr": 3, "score dense": 0.7}
    assert best_point([*lucky, other], "dense")["lr"] == 2, "what won by luck loses the second time"


def test_a_run_keeps_the_settings_that_were_scored_again_and_compares_the_best_of_them(compare, tmp_path):
    part = Part("patch", rules=(FEATURES,), methods=("adam", "std-prune"), **SIZE)
    compare(part, finalists=2, deciding_seeds=(110,))
    manifest, _ = load_results(tmp_path / "run")
    kept, tuned = read_json(tmp_path / "run" / SEARCHES), manifest["summary"]["tuned"]
    assert kept["spec_sha256"] == manifest["spec_sha256"]
    assert kept["finalists"].keys() == tuned.keys() == {
        f"patch.tune.{name}.{group}" for name in part.methods for group in ("dense", "convolutional")
    }  # fmt: skip
    for search, points in kept["finalists"].items():
        group = search.rpartition(".")[2]
        assert len(points) == 2
        assert points[0]["score"] >= points[1]["score"]
        (taken,) = (p for p in points if all(tuned[search][key] == p[key] for key in p if key not in BOTH))
        assert taken["again"] == max(point["again"] for point in points)
        assert [tuned[search][f"{word} {group}"] for word in BOTH] == pytest.approx([taken[w] for w in BOTH], abs=1e-4)


def test_a_run_that_scores_once_keeps_no_second_scores(compare, tmp_path):
    compare(Part("patch", rules=(FEATURES,), methods=("adam",), **SIZE))
    assert not (tmp_path / "run" / SEARCHES).exists()


ONCE = ("patch-digits", "train-digits", "trade-off", "robust-training", "low-data", "transfer-architecture")
"""Whose small records were made before there was a second round."""


def test_seeds_that_choose_decide_and_compare_are_others():
    for name, dataset in product(catalogue.PARTS, ("digits", "mnist")):
        for scale in ("small", "full"):
            spec = catalogue.make(name, scale, dataset, None)
            drawn = [*spec.seeds, *spec.tuning_seeds, *spec.deciding_seeds]
            assert len(set(drawn)) == len(drawn)
            again = scale == "full" or not {name, f"{name}-{dataset}"} & {*ONCE}
            assert bool(spec.deciding_seeds) == bool(spec.finalists) == again
            assert ("finalists" in spec.as_dict()) == ("deciding_seeds" in spec.as_dict()) == again
            assert spec.wide_grids


def test_rules_learn_from_what_they_are_given_and_are_judged_by_what_is_said():
    here = stages(Part("patch", rules=(FEATURES,), meta_eps=0.12, weight=0.3, **SIZE))
    assert here.inner(FEATURES) is clean
    assert here.inner(replace(FEATURES, inner="fgsm")) == Adversarial(0.1, 1)
    assert here.inner(replace(FEATURES, inner="pgd")) == Adversarial(0.1, 7)
    assert here.meta(replace(FEATURES, meta="clean")) is clean
    assert here.meta(replace(FEATURES, meta="fgsm")) == Mixed(Adversarial(0.12, 1), 0.3)
    assert here.meta(FEATURES) == Mixed(Adversarial(0.12, 2), 0.3)


def test_a_radius_may_be_given_and_is_part_of_the_spec():
    """Folders of photographs are attacked by less than digits, and nobody can tell by their name."""
    patch = EXPERIMENTS["transfer-data"]
    spec = patch.make_spec("small", "folder:photos", None, 8 / 255)
    assert spec["eps"] == 8 / 255
    assert {part["meta_eps"] for part in spec["parts"]} == {1.2 * 8 / 255}
    known = ["photos", "digits", "mnist", "fashion-mnist"]
    assert [part["name"] for part in spec["parts"]] == [f"patch, {name}" for name in known]
    assert [rule["name"] for rule in spec["parts"][0]["rules"]] == [f"learned on {name}" for name in known]
    assert patch.make_spec("small", "folder:a/b/photos", None, 0.2)["parts"][0]["name"] == "patch, photos"
    assert patch.make_spec("small", "mnist", None) == patch.make_spec("small", "mnist", None, 0.1)
    for eps in (-0.1, float("nan"), 8.0):
        with pytest.raises(InputError, match=str(eps)):
            patch.make_spec("small", "mnist", None, eps)


def test_every_data_set_has_its_own_radius_and_place(monkeypatch, tmp_path):
    """Pixels of photographs are attacked by less, whichever data set the run is of."""
    part = Part("patch", rules=(FEATURES,), meta_eps=1.2 * 8 / 255, weight=0.3, **SIZE)
    here = Stages(replace(tiny(part), dataset="cifar10", eps=8 / 255), part, None, load("digits"), CPU)
    assert here.meta(FEATURES) == Mixed(Adversarial(1.2 * 8 / 255, 2), 0.3)
    far = here.meta(replace(FEATURES, source="mnist"))
    assert far.adversarial.eps == pytest.approx(0.12)
    assert here.radius(replace(FEATURES, source="mnist")) == 0.1
    for name in catalogue.PARTS:
        for dataset, eps in (("cifar10", 8 / 255), ("mnist", 0.1), ("folder:mine", 0.1)):
            spec = catalogue.make(name, "small", dataset, None)
            assert spec.eps == eps
            assert {one.meta_eps for one in spec.parts} == {1.2 * eps}
    asked = []

    def at(name, root, device):
        asked.append((name, root))
        return LARGE

    monkeypatch.setattr("metarobust.lab.comparison.load", at)
    other = Part("patch, far", methods=("adam",), dataset="cifar10", **SIZE)
    found = EXPERIMENTS["patch"]._stages(tiny(other), other, None, replace(LARGE, root=tmp_path), CPU)
    assert asked == [("cifar10", tmp_path)]
    assert found.spec.eps == 8 / 255


def test_adversarial_gradients_inside_are_counted_and_said(compare):
    """And a rule goes on from one of its own kind."""
    inside = replace(FEATURES, inner="fgsm")
    further = OptimizerConfig("learned, PGD-7 inside", "features", PLAN, begins=LEARNED, inner="pgd")
    rows = compare(Part("robust", rules=(inside, further), trained=False, robust=True, **SIZE))
    for name in (LEARNED, "learned, PGD-7 inside", "FGSM training, SGD", "TRADES"):
        mine = pick(rows, "robust", UNSEEN[0], name)
        assert {row["tier"] for row in mine} == {"adversarial"}
        assert {row["value"] for row in mine if row["metric"] == "adversarial examples"} == {2 * 3 * 8}
    names = {row["method"] for row in rows}
    assert {"PGD-7 training, RMSprop", "adam"} <= names
    assert "PGD-7 training" not in names


def test_an_unknown_baseline_is_refused():
    with pytest.raises(InputError, match="unknown baseline 'nothing'"):
        stages(Part("patch", methods=("nothing",), **SIZE))


@pytest.mark.parametrize("name", catalogue.PARTS)
@pytest.mark.parametrize("scale", ["smoke", "small", "full"])
@pytest.mark.parametrize("dataset", ["digits", "mnist", "cifar10", "folder:mine"])
def test_every_experiment_can_be_begun(name, scale, dataset):
    """Its baselines are known, no rule is missing, and names tell parts, rules and units apart."""
    spec = catalogue.make(name, scale, dataset, None)
    home = {part.name: part for part in spec.parts}
    assert len(home) == len(spec.parts)
    units = []
    for part in spec.parts:
        here = Stages(spec, part, None, LARGE, CPU)
        units += [unit.name for unit in (*here.lessons(), *here.tuning(), *here.comparisons())]
        assert all(rule in home[part.home].rules for rule in part.uses)
        assert all(rule.name.startswith(LEARNED) for rule in part.rules)
        assert all(rule.begins is None or rule.begins in [r.name for r in part.rules] for rule in part.rules)
        for rule in part.rules:
            assert not set(rule.family or spec.family) & set(here.unseen)
    assert len(set(units)) == len(units)
    assert len(spec.seeds) == (3 if scale == "smoke" else 10)


def test_families_never_mix():
    groups = [FAMILY, VALIDATION, FIRST_UNSEEN, NEW]
    assert len(set().union(*groups)) == sum(map(len, groups))


def test_an_ablation_changes_one_thing():
    (part,) = ablation("small", "digits")
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


def test_the_standard_measure_is_the_worst_case_and_one_model_of_each_method_is_checked(compare, monkeypatch):
    part = Part("patch", rules=(FEATURES,), methods=("adam",), measures="standard", gap=True, marks=(1,), **SIZE)
    rows = compare(part)
    names = ["none", "pgd-2-ce", "pgd-2 ce, margin"]
    for method, steps in (("before", {0}), ("adam", {1, 3}), (LEARNED, {1, 3})):
        mine = pick(rows, "patch", UNSEEN[0], method)
        under = [row for row in mine if row["metric"].endswith("accuracy")]
        assert {row["step"] for row in under} == steps
        for step, split in {(row["step"], row["split"]) for row in under}:
            here = [row for row in under if (row["step"], row["split"], row["seed"]) == (step, split, 0)]
            value = {row["attack"]: row["value"] for row in here if row["meta_seed"] in (None, 0)}
            assert [name for name in value if not name.startswith("worst")] == names
            worst = value[WORST]
            assert worst <= value["pgd-2 ce, margin"] <= value["pgd-2-ce"] <= value["none"]
        flags = [row for row in mine if row["metric"] == FLAGS]
        assert [(row["step"], row["seed"], row["meta_seed"]) for row in flags] == [
            (max(steps), 0, None if method != LEARNED else 0)
        ]
    assert {row["split"] for row in rows if row["method"] == "adam"} == {"train", "test"}
    falls = lowered(rows)
    assert len(falls) == 2 * (1 + 2 + 2 * 2)  # seeds; before, two marks of adam, two of each meta-seed
    assert min(row["value"] for row in falls) >= 0
    assert overstated(rows, "patch").startswith("Two PGDs alone would have said ")
    assert (
        checked(rows, "patch")
        == "The checks looked at 3 of these models, one of each line and network, and raised no flag."
    )


def test_models_attacked_together_stand_as_they_do_alone():
    """The random numbers that fall to an image are others, so that a few may differ; and no model has another's."""
    here = stages(Part("patch", **SIZE))
    tasks = here.tasks(UNSEEN[0], tuple(range(6)))
    spread = tasks.params * torch.linspace(0.2, 3, 6)[:, None]  # so that they do not all stand alike
    images, how = load("digits").test[:100], {"eps": 0.05, "steps": 5, "classes": 10}
    rng = torch.Generator().manual_seed(0)
    alone = over_models(tasks, spread, images, several(**how), rng, independent=False)
    once = together(tasks, spread, images, several(**how, early_exit=False), rng)
    assert list(alone) == list(once)
    assert once["clean"] == pytest.approx(alone["clean"])
    assert once["robust"] == pytest.approx(alone["robust"], abs=0.04)
    assert max(once["robust"]) > min(once["robust"]) + 0.1
    for model in range(6):
        falls = [once[name][model] for name in once]
        assert falls == sorted(falls, reverse=True)


def test_searches_measure_many_models_at_once_as_one_by_one():
    """As a GPU does it: in batches, the last one smaller; random starts are other ones."""
    here = stages(Part("patch", methods=("adam",), **SIZE))
    tasks = here.tasks(UNSEEN[0], (0, 1, 2))
    how = {"eps": 0.1, "steps": 10}
    apart, batched, whole = (
        under_quick(tasks, tasks.params, here.test, **how, generator=torch.Generator().manual_seed(0), at_once=many)
        for many in (None, 2, 3)
    )
    assert apart.keys() == batched.keys() == whole.keys()
    assert apart["clean"] == batched["clean"] == whole["clean"]
    assert len(batched["robust"]) == 3
    for found in (batched, whole):
        assert found["robust"] == pytest.approx(apart["robust"], abs=0.1)
        assert found["robust"] < found["clean"]


def test_scale_full_is_wider_and_no_longer_than_small():
    """A GPU takes as long for an episode as a processor, however many optimizees it has."""
    for name in catalogue.PARTS:
        small, full = (catalogue.make(name, scale, "mnist", None) for scale in ("small", "full"))
        assert (full.test_images, small.test_images) == (2000, 500)
        assert len(full.meta_seeds) == 3
        by_name = {rule.name: rule.plan for part in small.parts for rule in part.rules}
        plans = {rule.name: rule.plan for part in full.parts for rule in part.rules}
        assert by_name.keys() <= plans.keys()  # a larger scale may learn on more data sets
        for rule, plan in by_name.items():
            assert plans[rule].tasks == 4 * plan.tasks
            assert plans[rule].groups == plan.groups
            assert 4 * plan.episodes <= 5 * plans[rule].episodes <= 5 * plan.episodes
            assert plans[rule].episodes >= plans[rule].validate_every


def test_a_model_that_hides_its_gradient_is_flagged():
    """What the ensemble says of it is low, and the row of its checks says why not to trust a gradient alone."""
    part = Part("patch", measures="standard", **SIZE)
    here = stages(part)
    tasks = here.tasks(UNSEEN[0], (0, 1))
    steep = tasks.params * 1e4  # logits so far apart that cross-entropy is flat
    row = here.checks(tasks, steep[0])
    assert row["metric"] == FLAGS
    assert row["value"] == len(row["attack"].split(", ")) >= 1
    assert "saturated logits" in row["attack"]
    rows = [here.common(UNSEEN[0], "adam", "0", None, 3) | row]
    assert checked(rows, "patch") == (
        f"The checks looked at 1 of these models, one of each line and network; flagged: adam on {UNSEEN[0]} "
        f"({row['attack']})."
    )
