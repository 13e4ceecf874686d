"""The anchor experiment, very small: what is trained and measured, what is printed, and that a stop changes nothing."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
import torch

from metarobust import attacks
from metarobust.data import load
from metarobust.evaluation import Flag
from metarobust.lab import anchor, engine
from metarobust.lab.anchor import Recipe
from metarobust.lab.results import as_rows
from metarobust.lab.results import load as load_run
from metarobust.lab.run_folder import COLUMNS, Run
from metarobust.lab.spec import from_dict
from metarobust.models import build

CPU = torch.device("cpu")
TINY = (Recipe("clean training", 0, 4, 8), Recipe("PGD-2 training", 2, 6, 8))
SPEC = anchor.make_spec("smoke", "digits", None) | {
    "recipes": [vars(recipe) for recipe in TINY], "test_images": 20, "checks": 0, "network": "cnn-2-relu",
}  # fmt: skip


def execute(out):
    """Runs what is missing, and returns the manifest and the rows."""
    dataset = load("digits")
    run = Run(out, SPEC, resume=Path(out).exists(), about={"data_sha256": dataset.sha256, "device": "cpu"})
    engine.complete(anchor, run, dataset, CPU)
    manifest, frame = load_run(out)
    return manifest, as_rows(frame)


@pytest.fixture(autouse=True)
def _often(monkeypatch):
    """A checkpoint after every second step."""
    monkeypatch.setattr(anchor, "EVERY", 2)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A whole tiny run, never stopped: its folder, manifest and rows."""
    out = tmp_path_factory.mktemp("anchor") / "run"
    return out, *execute(out)


# The specification


@pytest.mark.parametrize("scale", anchor.SCALES)
@pytest.mark.parametrize("dataset", ["digits", "mnist", "fashion-mnist", "cifar10", "folder:x"])
def test_a_scale_is_a_whole_specification(scale, dataset):
    spec = json.loads(json.dumps(anchor.make_spec(scale, dataset, None)))
    assert json.loads(json.dumps(vars(from_dict(anchor.Spec, spec)), default=vars)) == spec
    assert spec["eps"] == {"mnist": 0.3, "cifar10": 8 / 255}.get(dataset, 0.1)
    assert [recipe["attack_steps"] > 0 for recipe in spec["recipes"]] == [False, True]
    assert len(spec["seeds"]) >= (2 if scale == "smoke" else 3)  # a spread needs more than one
    assert anchor.make_spec(scale, dataset, [7])["seeds"] == (7,)
    assert spec["attacks"] == ("quick" if scale == "smoke" else "standard")
    assert spec["checks"] > 0


def test_full_is_near_the_released_code():
    spec = from_dict(anchor.Spec, anchor.make_spec("full", "mnist", None))
    recipe = spec.recipes[1]
    assert recipe.attack_steps == 40
    assert recipe.reach * spec.eps / recipe.attack_steps == pytest.approx(0.01)
    assert spec.test_images == 10_000


# Training


def train(recipe, eps=0.1, seed=0, resume=None, stop=None, network="cnn-2-relu"):
    """Weights after training, and all checkpoints; `stop` kills it after so many."""
    data, saved = load("digits"), []
    model = build(network, data.shape, data.classes)
    torch.nn.utils.vector_to_parameters(
        torch.linspace(-0.1, 0.1, sum(p.numel() for p in model.parameters())), model.parameters()
    )

    def save(tensors, about):
        saved.append((tensors, about))
        if len(saved) == stop:
            raise Killed

    try:
        made = anchor.train(model, data.train, recipe, eps, seed, save=save, resume=resume)
    except Killed:
        made = None
    return [p.detach().clone() for p in model.parameters()], saved, made


class Killed(BaseException):
    pass


@pytest.mark.parametrize("network", ["cnn-2-relu", "madry-cnn"])
@pytest.mark.parametrize("recipe", TINY, ids=lambda recipe: recipe.method)
def test_a_resumed_training_ends_with_the_same_weights(monkeypatch, recipe, network):
    monkeypatch.setattr(anchor, "EVERY", 2)
    whole, saved, made = train(recipe, network=network)
    assert [about["step"] for _, about in saved] == list(range(2, recipe.steps + 1, 2))
    _, before, _ = train(recipe, network=network, stop=1)
    # As a checkpoint comes back from the disk: whatever its layout was, it is contiguous.
    tensors = {name: tensor.clone(memory_format=torch.contiguous_format) for name, tensor in before[0][0].items()}
    resumed, _, again = train(recipe, network=network, resume=(tensors, before[0][1]))
    assert all(map(torch.equal, whole, resumed))
    assert made == again == (recipe.steps * recipe.batch_size if recipe.attack_steps else 0)
    other, _, _ = train(recipe, network=network, seed=1)
    assert not all(map(torch.equal, whole, other))


def test_eps_grows_the_rate_falls_and_the_path_keeps_its_reach(monkeypatch):
    recipe = Recipe("PGD-4 training", 4, 10, 8, lr=1e-2, reach=2.0, growth=0.5)
    seen, rates = [], []
    adam = torch.optim.Adam.step

    def spy_pgd(*args, eps, steps, step_size, **how):
        seen.append((eps, steps, step_size * steps / eps))
        assert how["keep"] == "last", "as Madry et al. train"
        return attacks.pgd(*args, eps=eps, steps=steps, step_size=step_size, **how)

    def spy_adam(self):
        rates.append(self.param_groups[0]["lr"])
        return adam(self)

    monkeypatch.setattr(anchor, "pgd", spy_pgd)
    monkeypatch.setattr(torch.optim.Adam, "step", spy_adam)
    train(recipe)
    assert [eps for eps, _, _ in seen] == pytest.approx([0.02, 0.04, 0.06, 0.08] + [0.1] * 6)
    assert rates == pytest.approx([1e-2 * (1 - step / 10) for step in range(10)])
    assert seen[-1][1] == 4
    assert seen[-1][2] == pytest.approx(2.0)


def test_batches_come_from_the_training_images_and_differ(monkeypatch):
    data, seen = load("digits"), []

    def spy(predict, images, labels, **how):
        seen.append(images)
        return images

    monkeypatch.setattr(anchor, "pgd", spy)
    train(Recipe("PGD-1 training", 1, 5, 16))
    known = {image.numpy().tobytes() for image in data.train.images}
    assert {image.numpy().tobytes() for batch in seen for image in batch} <= known
    assert len({batch.numpy().tobytes() for batch in seen}) == 5


# The run


def test_rows_are_tidy_and_complete(whole):
    _, manifest, rows = whole
    assert manifest["status"] == "complete"
    assert set(rows[0]) == set(COLUMNS)
    keys = [tuple(row[k] for k in row if k != "value") for row in rows]
    assert len(set(keys)) == len(rows)
    worst = "worst of pgd-40-ce, pgd-40-margin"
    for recipe in TINY:
        for seed in (0, 1):
            mine = [row for row in rows if (row["method"], row["seed"]) == (recipe.method, seed)]
            found = {row["attack"]: row for row in mine if row["attack"]}
            assert list(found) == ["none", "up to pgd-40-ce", "up to pgd-40-margin", worst]
            values = [row["value"] for row in found.values()]
            assert values == sorted(values, reverse=True)
            assert values[-1] == values[-2]
            assert all(math.isclose(v * 20, round(v * 20), abs_tol=1e-5) for v in values)
            assert [row["eps"] for row in found.values()] == [0.0, 0.1, 0.1, 0.1]
            made = next(row["value"] for row in mine if row["metric"] == "adversarial examples")
            assert made == (6 * 8 if recipe.attack_steps else 0)
            assert {row["tier"] for row in mine} == {"adversarial" if recipe.attack_steps else "0"}
            assert {row["step"] for row in mine} == {recipe.steps}
    assert {row["n"] for row in rows} == {20}


def test_the_final_weights_are_kept_and_are_what_was_measured(whole):
    out, _, rows = whole
    digits = load("digits")
    run = Run(out, SPEC, resume=True, about={"data_sha256": digits.sha256, "device": "cpu"})
    tensors, about = run.restore("adversarial.1")
    assert about == {"step": 6, "made": 48}
    model = build("cnn-2-relu", digits.shape, 10)
    model.load_state_dict({n.removeprefix("theta."): t for n, t in tensors.items() if n.startswith("theta.")})
    order = torch.randperm(len(digits.test), generator=anchor.generator_of(CPU, 7))[:20]
    right = (model(digits.test.images[order]).argmax(1) == digits.test.labels[order]).float().mean()
    (row,) = [r for r in rows if (r["method"], r["seed"], r["attack"]) == ("PGD-2 training", 1, "none")]
    assert row["value"] == pytest.approx(float(right))


def test_flags_of_the_checks_are_counted_and_kept_in_words(tmp_path, monkeypatch):
    evaluate = anchor.evaluate

    def doubtful(*args, **how):
        return replace(evaluate(*args, **how), flags=(Flag("some check", "that is odd"),))

    monkeypatch.setattr(anchor, "evaluate", doubtful)
    manifest, rows = execute(tmp_path / "run")
    assert manifest["summary"]["flags"]["clean.0"] == ["some check: that is odd"]
    assert [row["value"] for row in rows if row["metric"] == "flags"] == [1.0] * 4
    assert "4 flags, see the manifest" in anchor.table(pd.DataFrame(rows))


# What is printed


def frame_of(dataset="mnist", eps=0.3):
    """Two seeds of two ways of training: 0.99/0.00, 0.98/0.86 and 0.97/0.90."""
    rows = []
    for method, seed, clean, robust in [
        ("clean training", 0, 0.99, 0.0), ("clean training", 1, 0.99, 0.0),
        ("PGD-5 training", 0, 0.98, 0.86), ("PGD-5 training", 1, 0.97, 0.90),
    ]:  # fmt: skip
        common = dict.fromkeys(COLUMNS) | {
            "experiment": "anchor", "dataset": dataset, "part": "train", "model": "madry-cnn", "method": method,
            "tier": "0", "seed": seed, "step": 9, "n": 500, "split": "test", "start": "fresh", "scope": "",
        }  # fmt: skip
        for attack, at, metric, value in [
            ("none", 0.0, "clean accuracy", clean), ("up to a", eps, "robust accuracy", 0.95),
            ("worst of a, b", eps, "robust accuracy", robust), ("", None, "adversarial examples", 1000.0),
            ("", None, "flags", 0.0),
        ]:  # fmt: skip
            scope = {"up to a": "single", "worst of a, b": "worst case"}.get(attack, "")
            rows.append(common | {"attack": attack, "eps": at, "metric": metric, "value": value, "scope": scope})
    return pd.DataFrame(rows)


def test_the_table_shows_clean_beside_robust_the_spread_and_what_is_published():
    text, page = anchor.table(frame_of()), anchor.markdown(frame_of(), "train").splitlines()
    for needed in ("mnist", "eps 0.3", "worst of a, b", "500 test images", "2 seeds", "0 flags"):
        assert needed in text, needed
    assert page[3] == "| ours, PGD-5 training | worst of a, b | 97.5 ±6.4 | 88.0 ±25.4 | 2 seeds, 86.0 to 90.0 |"
    published = [f"| {model} | {attack} | {clean:.2f} | {robust:.2f} | {source} |"
                 for model, attack, clean, robust, source in anchor.PUBLISHED]  # fmt: skip
    assert page[4:] == published


@pytest.mark.parametrize(("dataset", "eps"), [("digits", 0.1), ("fashion-mnist", 0.3), ("mnist", 0.1)])
def test_published_figures_stand_only_beside_what_compares(dataset, eps):
    assert "Madry et al." not in anchor.table(frame_of(dataset, eps))
    assert "88.0 ±25.4" in anchor.table(frame_of(dataset, eps))


def test_one_seed_shows_no_spread():
    frame = frame_of()
    assert "±inf" in anchor.table(frame[frame["seed"] == 0])
