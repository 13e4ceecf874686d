"""The transfer experiment, very small: what it counts, what it keeps apart, and that a kill changes nothing.

`python tests/test_transfer.py DIR CODE` runs it into a folder, or goes on with the run that is there.
"""

from __future__ import annotations

import csv
import json
import math
import os
import resource
import signal
import subprocess
import sys
import time
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch

from metarobust.data import Dataset, Split, load
from metarobust.family import Family, Training
from metarobust.lab import catalogue, learning, measuring, results, tuning
from metarobust.lab import stages as staging
from metarobust.lab.catalogue import FROM_DIGITS
from metarobust.lab.comparison import Comparison
from metarobust.lab.learning import slug
from metarobust.lab.results import load_results
from metarobust.lab.run_folder import Run
from metarobust.lab.scrutiny import lowered
from metarobust.lab.spec import OptimizerConfig, Part, Spec, check_size
from metarobust.lab.stages import Stages
from metarobust.lab.table import BEFORE, LEARNED, STANDARD, brief, table
from metarobust.lab.tuning import kind
from metarobust.learned.features import NAMES
from metarobust.meta import MetaTrainConfig
from metarobust.objectives import Adversarial
from metarobust.tasks import Tasks

ROOT = Path(__file__).parents[2]
CODE = results.code()  # once: asking git at every start would take long
CPU = torch.device("cpu")
UNSEEN = ("mlp-5-sigmoid", "cnn-2-tanh")
VALIDATION = ("mlp-3-relu", "cnn-2-relu")
SOME = ("adam", "std-prune", "PGD-7 training")
METHODS = partial(tuning.methods, wide=False)


PLAN = MetaTrainConfig(episodes=4, horizons=(4,), truncation=2, tasks=2, batch_size=8, held_out=8, warmup=2)
RULES = (OptimizerConfig(LEARNED, "features", PLAN),)


def part(name, rules=RULES):
    how = {"steps": 3, "batch_size": 8, "meta_eps": 0.1, "weight": 0.5, "attack_steps": 2}
    return Part(name, rules=rules, trained=name == "patch", **how)


def tiny(name="patch", scale="smoke", dataset="digits", seeds=None, eps=None, parts=("patch",), rules=RULES):
    parts = tuple(part(each, rules) for each in parts)
    return Spec(
        name, scale, dataset, seeds or (0, 1), (0,), parts, meta_images=150, per_class=5, test_images=20,
        tuning_seeds=(100,), attack_steps=2, family=("mlp-4-tanh", "cnn-2-relu"), validation=VALIDATION,
        unseen=UNSEEN, victims=2, training=Training(10, 16, 0.01), wide_grids=False, validated=False,
    )  # fmt: skip


def prepare(monkeypatch, few=False, parts=("patch",), rules=RULES):
    """The tiny numbers in place of the real ones; checkpoints after every episode; where asked for, few methods."""
    monkeypatch.setattr(catalogue, "make", partial(tiny, parts=parts, rules=rules))
    monkeypatch.setattr(learning, "SAVE_EVERY", 1)
    if few:

        def some(eps, *, patching, wide):
            return [method for method in METHODS(eps, patching=patching) if method.name in SOME]

        monkeypatch.setattr(tuning, "methods", some)


def execute(out, spec=None):
    """Runs what is missing, and returns the manifest and the rows."""
    spec = spec or catalogue.make("patch", "smoke", "digits", None).as_dict()
    dataset = load("digits")
    run = Run(out, spec, resume=Path(out).exists(), about={"data_sha256": dataset.sha256, "device": "cpu"})
    Comparison("patch").execute(spec, run, dataset, CPU)
    return load_results(out)


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    """No waiting for the disk, and git is asked once."""
    monkeypatch.setattr(results, "code", lambda: CODE)
    monkeypatch.setattr("metarobust.storage.os.fsync", lambda file: None)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A whole tiny run with all methods and both parts: its folder, manifest and rows, and what was looked at.

    looked: for each unit of work, in order, the batches (sets of image bytes, and their order) and measured images.
    """
    out = tmp_path_factory.mktemp("transfer") / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(results, "code", lambda: CODE)
        prepare(patch, parts=("patch", "train"))
        looked, now = {}, []
        unit, batch, accuracy, under_quick = Run.unit, Tasks.batch, measuring.accuracy, tuning.under_quick
        fit, start = tuning.fit_baseline, Family.sample

        def spy_unit(run, name, compute):
            now[:] = [looked.setdefault(name, {"batches": [], "measured": [], "sampled": [], "hyper": []})]
            return unit(run, name, compute)

        def spy_batch(tasks, rows, size, generator):
            found = batch(tasks, rows, size, generator)
            now[0]["batches"].append((len(rows), prints(found[0])))
            return found

        def spy_accuracy(tasks, params, test, **how):
            now[0]["measured"].append(prints(test.images))
            return accuracy(tasks, params, test, **how)

        def spy_under_quick(tasks, params, test, *rest, **how):
            now[0]["measured"].append(prints(test.images))
            return under_quick(tasks, params, test, *rest, **how)

        def spy_fit(tasks, method, hyper, *rest):
            now[0]["hyper"].append({name: values.flatten().tolist() for name, values in hyper.items()})
            return fit(tasks, method, hyper, *rest)

        def spy_sample(family, tasks, generator):
            now[0]["sampled"].append(prints(family.pool.images))
            return start(family, tasks, generator)

        patch.setattr(Run, "unit", spy_unit)
        patch.setattr(Tasks, "batch", spy_batch)
        patch.setattr(tuning, "under_quick", spy_under_quick)
        patch.setattr(measuring, "accuracy", spy_accuracy)
        patch.setattr(Family, "sample", spy_sample)
        for module in (staging, tuning):
            patch.setattr(module, "fit_baseline", spy_fit)
        manifest, rows = execute(out)
    return out, manifest, rows, looked


def prints(images):
    """Each image's bytes: no two digits are alike."""
    return [image.numpy().tobytes() for image in images]


def units(looked, start):
    return {name: seen for name, seen in looked.items() if name.startswith(start)}


@pytest.fixture(scope="module")
def images():
    """The bytes of the images of the meta-training pool, of the rest, and of the test split."""
    data, pool = load("digits"), tiny().meta_images
    parts = {"pool": data.train.images[:pool], "rest": data.train.images[pool:], "test": data.test.images}
    return {name: set(prints(part)) for name, part in parts.items()}


def test_pool_rest_and_test_share_no_image(images):
    sizes = [len(part) for part in images.values()]
    assert sizes == [150, 1297 - 150, 500]
    assert len(set.union(*images.values())) == 1797


def test_no_test_image_is_learned_from_or_tuned_on(whole, images):
    _, _, _, looked = whole
    trained = set()
    for name, seen in looked.items():
        kind = name.split(".")[1]
        used = {image for _, batch in seen["batches"] for image in batch}
        measured = {image for part in seen["measured"] for image in part}
        trained |= used
        if kind == "learned":
            assert used
            assert used | {image for pool in seen["sampled"] for image in pool} <= images["pool"]
            assert not measured
        elif kind == "tune":
            assert measured
            assert measured <= images["pool"]
            assert not measured & used, "a model is tuned on images that it was trained on"
            assert used <= images["pool"] | images["rest"]
        else:
            assert len(measured) == 20
            assert measured <= images["test"]
            # Vulnerable models are made from the pool; what is patched or trained sees the rest alone.
            assert used <= (images["pool"] | images["rest"] if name.startswith("patch") else images["rest"])
    assert not trained & images["test"]


def test_all_are_measured_on_the_same_test_images(whole):
    _, _, _, looked = whole
    measured = [tuple(p) for n, seen in looked.items() if n.split(".")[1] in UNSEEN for p in seen["measured"]]
    assert len(measured) == 2 * 2 * (1 + 14 + 1) + 2  # std-prune in one of the parts
    assert len(set(measured)) == 1


@pytest.mark.parametrize("part", ["patch", "train"])
@pytest.mark.parametrize("model", UNSEEN)
def test_learned_and_plain_rules_see_the_same_batches(whole, part, model):
    _, _, _, looked = whole
    seen = {name: found["batches"] for name, found in units(looked, f"{part}.{model}.").items()}
    fitted = {name: batches for name, batches in seen.items() if not name.endswith(".start")}
    names = [slug(method.name) for method in METHODS(0.1, patching=part == "patch")] + ["learned"]
    assert set(fitted) == {f"{part}.{model}.{name}" for name in names}
    # The vulnerable models are made once, in ten batches, and all methods get the same.
    assert len(seen[f"{part}.{model}.start"]) == (10 if part == "patch" else 0)
    first = next(iter(fitted.values()))
    assert len(first) == len({tuple(batch) for _, batch in first}) == 3
    assert all(batches == first for batches in fitted.values())


def test_learned_generates_no_adversarial_example_and_adversarial_training_does(whole):
    _, _, rows, _ = whole
    made = {
        (row["part"], row["model"], row["method"]): row["value"]
        for row in rows
        if row["metric"] == "adversarial examples"
    }
    tiers = {row["method"]: row["tier"] for row in rows}
    assert len(made) == 2 * 2 * (1 + 14 + 1) + 2
    for (_, _, method), value in made.items():
        assert value == (2 * 3 * 8 if tiers[method] == "adversarial" else 0), method
    assert tiers["learned"] == "0"
    assert {method for method, tier in tiers.items() if tier == "adversarial"} == {
        "FGSM training", "PGD-7 training", "PGD-7 training + L1 on layer 1", "TRADES",
    }  # fmt: skip


def test_the_count_is_a_measurement(whole, monkeypatch):
    """Were the learned optimizer given adversarial gradients, its count would say so."""
    out, _, _, _ = whole
    prepare(monkeypatch, parts=("patch", "train"))
    monkeypatch.setattr(learning, "clean", Adversarial(0.1, 2))
    spec = catalogue.make("patch", "smoke", "digits", None)
    dataset = load("digits")
    run = Run(out, spec.as_dict(), resume=True, about={"data_sha256": dataset.sha256, "device": "cpu"})
    rows = Stages(spec, spec.parts[0], run, dataset, CPU).compare_learned(UNSEEN[0], RULES[0])
    assert [row["value"] for row in rows if row["metric"] == "adversarial examples"] == [2 * 3 * 8]


def test_rows_are_tidy_and_complete(whole):
    out, manifest, rows, _ = whole
    assert manifest["status"] == "complete"
    keys = [tuple(row[k] for k in row if k != "value") for row in rows]
    assert len(set(keys)) == len(rows)
    methods = {
        p: ["before", *(m.name for m in METHODS(0.1, patching=p == "patch")), "learned"] for p in ("patch", "train")
    }
    for name, wanted in methods.items():
        for model in UNSEEN:
            here = [row for row in rows if (row["part"], row["model"]) == (name, model)]
            assert list(dict.fromkeys(row["method"] for row in here)) == wanted
            for method in wanted:
                mine = [row for row in here if row["method"] == method and row["metric"] != "adversarial examples"]
                assert {row["step"] for row in mine} == {0 if method == "before" else 3}
                assert {row["meta_seed"] for row in mine} == {0 if method == "learned" else None}
                for seed in (0, 1):
                    value = {row["attack"]: row["value"] for row in mine if row["seed"] == seed}
                    assert set(value) == {"none", "pgd-2-ce", "pgd-2-margin", "worst of pgd-2 ce, margin"}
                    worst = value["worst of pgd-2 ce, margin"]
                    assert 0 <= worst <= min(value["pgd-2-ce"], value["pgd-2-margin"]) <= value["none"] <= 1
                    assert all(math.isclose(v * 20, round(v * 20), abs_tol=1e-5) for v in value.values())
    assert {(row["metric"], row["eps"]) for row in rows} == {
        ("clean accuracy", 0.0), ("robust accuracy", 0.1), ("adversarial examples", None),
    }  # fmt: skip
    with open(out / "results.csv", newline="") as file:
        assert sum(1 for _ in csv.reader(file)) == 1 + len(rows)


def test_every_baseline_is_tuned_over_its_whole_grid_and_compared_at_its_best(whole):
    out, manifest, _, looked = whole
    differ = 0
    for name in ("patch", "train"):
        for method in METHODS(0.1, patching=name == "patch"):
            unit = f"{name}.tune.{slug(method.name)}"
            points = results.read_json(out / "units" / f"{unit}.json")["rows"]
            assert len(points) == math.prod(map(len, method.grid.values()))
            scores = {f"score {kind(model)}" for model in VALIDATION}
            assert all(set(point) == {*method.grid, *scores} for point in points)
            for model in UNSEEN:  # both seeds are given the best point for networks of this kind
                key = f"score {kind(model)}"
                best = max(points, key=lambda point, key=key: point[key])
                differ += min(points, key=lambda point, key=key: point[key]) != best
                assert manifest["summary"]["tuned"][f"{unit}.{kind(model)}"] == best
                (hyper,) = looked[f"{name}.{model}.{slug(method.name)}"]["hyper"]
                assert hyper == {key: pytest.approx([best[key]] * 2) for key in method.grid}
    assert differ > 10  # for most methods some points of the grid are better than others


def test_the_table_names_every_method_and_network(whole):
    _, _, rows, _ = whole
    for text in (table(rows),):
        for model in UNSEEN:
            assert text.count(model) == 2
        for method in METHODS(0.1, patching=True):
            line = [line for line in text.splitlines() if line.startswith(method.name + "  ")]
            assert len(line) == (1 if method.name == "std-prune" else 2), method.name
        learned = [line for line in text.splitlines() if line.startswith("learned")]
        assert [line.split()[1:3] for line in learned] == [["0", "0"], ["0", "0"]]
        assert len([line for line in text.splitlines() if line.startswith("before")]) == 2
    short = brief(rows)
    assert all(model in short for model in UNSEEN)


def test_the_learned_optimizer_is_the_meta_trained_one(whole, monkeypatch):
    out, _, _, _ = whole
    prepare(monkeypatch, parts=("patch", "train"))
    spec, dataset = catalogue.make("patch", "smoke", "digits", None), load("digits")
    run = Run(out, spec.as_dict(), resume=True, about={"data_sha256": dataset.sha256, "device": "cpu"})
    found = [Stages(spec, part, run, dataset, CPU).learned(RULES[0], 0).state_dict() for part in spec.parts]
    for part, theta in zip(spec.parts, found, strict=True):
        tensors, about = run.restore(f"{part.name}.learned.0")
        assert about["episode"] == 4
        assert all(torch.equal(value, tensors[f"theta.{name}"]) for name, value in theta.items())
        assert theta["net.0.weight"].shape == (16, len(NAMES))
        assert bool(theta["net.4.weight"].any())  # it was 0 before it learned
    assert not torch.equal(found[0]["net.4.weight"], found[1]["net.4.weight"])


class Killed(BaseException):
    pass


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    """The bytes of results.csv and the summary of a run with few methods, never stopped."""
    out = tmp_path_factory.mktemp("uninterrupted") / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(results, "code", lambda: CODE)
        prepare(patch, few=True)
        manifest, _ = execute(out)
    return (out / "results.csv").read_bytes(), manifest["summary"]


@pytest.mark.parametrize("every", [7, 12])
def test_killed_again_and_again_it_ends_with_the_same_bytes(tmp_path, monkeypatch, uninterrupted, every):
    """Every few files that are written, the run dies before the file is in place, in the middle of any unit."""
    prepare(monkeypatch, few=True)
    calls, kills, replace = iter(range(1, 10_000)), 0, os.replace

    def dying(source, target):
        if next(calls) % every == 0:
            raise Killed
        replace(source, target)

    monkeypatch.setattr("metarobust.storage.os.replace", dying)
    for _ in range(100):
        try:
            manifest, _ = execute(tmp_path / "run")
            break
        except Killed:
            kills += 1
    assert kills >= 4
    assert (tmp_path / "run" / "results.csv").read_bytes() == uninterrupted[0]
    assert manifest["summary"] == uninterrupted[1]


def test_killed_from_outside_it_ends_with_the_same_bytes(tmp_path, monkeypatch, uninterrupted):
    out = tmp_path / "run"
    environment = os.environ | {"OMP_NUM_THREADS": str(torch.get_num_threads()), "PYTHONPATH": str(ROOT)}
    process = subprocess.Popen(
        [sys.executable, __file__, str(out), json.dumps(CODE)],
        env=environment,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    )
    try:
        until = time.monotonic() + 300
        while len(list(out.glob("units/*.json"))) < 3:
            assert time.monotonic() < until
            assert process.poll() is None, process.stderr.read().decode()
            time.sleep(0.01)
    finally:
        process.send_signal(signal.SIGKILL)
        process.communicate()
    assert not (out / "results.csv").exists()
    prepare(monkeypatch, few=True)
    manifest, _ = execute(out)
    assert (out / "results.csv").read_bytes() == uninterrupted[0]
    assert manifest["summary"] == uninterrupted[1]


def test_a_lost_checkpoint_is_one_clear_line(whole, tmp_path, monkeypatch):
    prepare(monkeypatch, few=True)
    spec, dataset = catalogue.make("patch", "smoke", "digits", None), load("digits")
    run = Run(tmp_path / "run", spec.as_dict(), resume=False, about={})
    stages = Stages(spec, spec.parts[0], run, dataset, CPU)
    with pytest.raises(results.InputError, match=r"patch\.learned\.0\.0\.safetensors is missing.*delete"):
        stages.learned(RULES[0], 0)


def test_a_data_set_that_is_too_small_is_refused(tmp_path, monkeypatch):
    prepare(monkeypatch)
    monkeypatch.setattr(catalogue, "make", lambda *args: Spec(**vars(tiny()) | {"meta_images": 1290}))
    with pytest.raises(
        results.InputError, match=r"'digits' has 1297 training images; scale .* needs 1340: give at least"
    ):
        execute(tmp_path / "run")


def test_on_another_data_set_an_optimizer_learned_on_digits_is_compared_too(tmp_path, monkeypatch):
    prepare(monkeypatch, few=True, rules=(*RULES, OptimizerConfig(FROM_DIGITS, "features", PLAN, source="digits")))
    digits = load("digits")
    train, test = (Split(part.images.repeat_interleave(2, 3), part.labels) for part in (digits.train, digits.test))
    wide = Dataset("wide", train, test, 10, "digest")
    spec = catalogue.make("patch", "smoke", "wide", None)
    run = Run(tmp_path / "run", spec.as_dict(), resume=False, about={})
    Comparison("patch").execute(spec.as_dict(), run, wide, CPU)
    _, rows = load_results(tmp_path / "run")
    assert {row["dataset"] for row in rows} == {"wide"}
    for model in UNSEEN:
        mine = [row for row in rows if (row["model"], row["method"]) == (model, "learned on digits")]
        assert {row["metric"]: row["value"] for row in mine}["adversarial examples"] == 0
        assert len(mine) == 2 * 4 + 1
    own, theirs = (run.restore(f"patch.{name}.0")[0]["theta.net.4.weight"] for name in ("learned", "learned-on-digits"))
    assert not torch.equal(own, theirs)


@pytest.mark.slow
def test_at_scale_smoke_the_learned_optimizer_beats_clean_adam(tmp_path):
    """The command as a reader types it: in a few minutes of a processor, and more robust on networks it never saw."""
    out, start = tmp_path / "run", resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime
    command = [sys.executable, "-m", "metarobust", "run", "patch", "--scale", "smoke", "--out", str(out)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=False)
    assert done.returncode == 0, done.stderr
    # Not the time on the clock: other work on the machine must not fail it.
    assert resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime - start < 240
    _, rows = load_results(out)

    def mean(method, metric="robust accuracy", worst="worst"):
        values = [
            row["value"]
            for row in rows
            if (row["part"], row["method"], row["metric"]) == ("patch", method, metric)
            and row["model"].startswith("mlp")
            and row["attack"].startswith(worst)
        ]
        assert len(values) >= 2 * 3
        return sum(values) / len(values)

    assert mean("learned") > mean("adam") + 0.05
    assert mean("learned", "clean accuracy", "none") > mean("adam", "clean accuracy", "none") - 0.05
    assert not any(
        row["value"] for row in rows if row["metric"] == "adversarial examples" and row["method"] == "learned"
    )
    assert "learned" in done.stdout


def test_the_ensemble_beside_a_table_measures_models_that_are_in_it(tmp_path, monkeypatch):
    """As in the trade-off: the same networks, methods and steps, so that what it lowers can be told."""
    prepare(monkeypatch, few=True)
    spec = replace(tiny(), strong_seeds=1, strong_images=20, unseen=UNSEEN[:1])
    monkeypatch.setattr(catalogue, "make", lambda *_: spec)
    _, rows = execute(tmp_path / "run")
    beside = [row for row in rows if row["attack"].startswith(STANDARD)]
    looked = {(row["method"], row["step"]) for row in beside}
    plain = {("adam", 3), ("std-prune", 3)}
    assert looked - plain == {(BEFORE, 0), ("PGD-7 training", 3), (LEARNED, 3)}
    assert len(looked & plain) == 1
    falls = lowered(rows)
    assert len(falls) == len(beside) == len(looked)
    # It has many times as many steps as the two PGDs; one image of the twenty may be luck.
    assert min(row["value"] for row in falls) >= -0.05 - 1e-6
    assert max(row["value"] for row in falls) >= 0


@pytest.mark.parametrize(
    ("images", "scale", "says"),
    [
        (5000, "small", r"5000 training images; scale small needs 20600: take --scale smoke, which needs 2600"),
        (1000, "smoke", r"1000 training images; scale smoke needs 2600: give at least 2600"),
        (1000, "small", r"1000 training images; scale small needs 20600: give at least 2600"),
    ],
)
def test_a_data_set_that_is_too_small_is_refused_with_what_is_enough(images, scale, says):
    spec, smallest = (catalogue.make("patch", each, "folder:mine", None) for each in (scale, "smoke"))
    with pytest.raises(results.InputError, match=says):
        check_size("folder:mine", images, 10, spec, smallest)
    check_size("folder:mine", 20_600, 10, spec, smallest)


def test_too_few_images_of_a_class_are_refused_before_anything_is_learned(tmp_path, monkeypatch):
    """A folder's images are mixed, so that the images behind the first few thousand need not hold enough of each."""
    prepare(monkeypatch)
    images = load("digits")
    rare = images.train.labels.clone()
    rare[150:][rare[150:] == 7] = 3
    rare[150:154] = 7
    few = Dataset("folder:mine", Split(images.train.images, rare), images.test, 10, "digest")
    spec = catalogue.make("patch", "smoke", "folder:mine", None)
    run = Run(tmp_path / "run", spec.as_dict(), resume=False, about={})
    with pytest.raises(results.InputError, match=r"there are 4 of class 7; scale smoke needs 5: add images"):
        Comparison("patch").execute(spec.as_dict(), run, few, CPU)
    assert not (tmp_path / "run" / "units").exists()


if __name__ == "__main__":
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(results, "code", lambda: json.loads(sys.argv[2]))
        prepare(patch, few=True)
        execute(sys.argv[1])
