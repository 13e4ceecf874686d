"""What was learned, very small: what is looked at, that explanations find what was put in, and what is printed."""

from __future__ import annotations

import json
import math
from dataclasses import asdict, replace

import pandas as pd
import pytest
import torch
from toy import generator, scatter, tasks

from metarobust import pretrained
from metarobust.data import load
from metarobust.errors import InputError
from metarobust.family import Training
from metarobust.lab import engine, results, what_was_learned
from metarobust.lab.experiments import EXPERIMENTS
from metarobust.lab.run_folder import COLUMNS, Run
from metarobust.lab.spec import from_dict
from metarobust.lab.what_was_learned import inquiry, responses
from metarobust.lab.what_was_learned.column_decay import ColumnDecay
from metarobust.lab.what_was_learned.dissection import Look, moved, watch, weights
from metarobust.lab.what_was_learned.explained import explain, left, share
from metarobust.lab.what_was_learned.imitation import fit_to_steps
from metarobust.lab.what_was_learned.inquiry import Spec, best_fit
from metarobust.lab.what_was_learned.kept import kept, percent
from metarobust.lab.what_was_learned.knockouts import PARTS, Knockout
from metarobust.learned import make
from metarobust.learned.features import NAMES, features
from metarobust.meta import MetaTrainConfig
from metarobust.optimizers import SGD, Adam
from metarobust.params import ParamSpec
from metarobust.training import Inner, fit_learned

CPU = torch.device("cpu")
HOW = Inner(4, 8)


def rule(seed=0, dtype=torch.float64):
    return scatter(make("features", generator(seed)), seed).to(dtype)


# The imitating rule


def test_column_decay_is_what_its_docstring_says():
    param_spec = ParamSpec(("a.weight", "a.bias"), ((2, 3), (2,)))
    rng = generator(1)
    params, grads = (torch.randn(8, generator=rng, dtype=torch.float64) for _ in range(2))
    optimizer = ColumnDecay(0.1, 0.3, 0.5, 2.0)
    step, state = optimizer.update(grads, optimizer.init(params, param_spec, 5), params)
    _, adam = Adam(1.0, beta2=0.99).update(grads, Adam(1.0).init(params, param_spec, 5), params)
    direction = grads.sign()  # Adam's first
    w, v = params[:6].view(2, 3), adam.square[:6].view(2, 3)
    for i in range(2):
        for j in range(3):
            r = math.sqrt(v[:, j].mean() / v.mean())
            q = 1 / (1 + (r / 0.5) ** 2)
            size = w.square().mean().sqrt()
            wanted = -0.1 * (1 - q) * size * direction[3 * i + j] - 0.3 * q * w[i, j]
            assert step.view(-1)[3 * i + j] == pytest.approx(float(wanted), abs=1e-6)
    assert state[0].step == 1


def test_column_decay_gives_up_what_sees_no_gradient_and_trains_the_rest():
    param_spec = ParamSpec(("a.weight",), ((4, 2),))
    params = torch.ones(8)
    grads = torch.tensor([1.0, 0.0] * 4)
    step, _ = ColumnDecay(0.1, 0.3, 0.2, 4.0).update(grads, ColumnDecay(0, 0, 1, 1).init(params, param_spec, 1), params)
    kept_column, given_up = step.view(4, 2).unbind(1)
    assert torch.allclose(given_up, torch.tensor(-0.3), atol=1e-4)
    assert (kept_column > -0.11).all()
    assert (kept_column < -0.09).all()


def test_a_value_for_each_model_is_the_same_as_one_model_at_a_time():
    """With all constants tensors `[T, 1]`, as in a grid; a convolution and a vector among the parameters."""
    param_spec = ParamSpec(("a.weight", "a.bias"), ((2, 1, 2, 2), (2,)))
    rng = generator(2)
    params, grads = (torch.randn(3, 10, generator=rng, dtype=torch.float64) for _ in range(2))
    constants = [torch.rand(3, 1, generator=rng, dtype=torch.float64) + 0.1 for _ in range(4)]
    together = ColumnDecay(*constants)
    step, _ = together.update(grads, together.init(params, param_spec, 2), params)
    for t in range(3):
        alone = ColumnDecay(*(float(constant[t]) for constant in constants))
        one, _ = alone.update(grads[t], alone.init(params[t], param_spec, 2), params[t])
        assert torch.allclose(step[t], one)


def test_without_any_gradient_nothing_is_divided_by_zero():
    param_spec = ParamSpec(("a.weight",), ((2, 2),))
    step, _ = ColumnDecay(0.1, 0.3, 0.2, 4.0).update(
        torch.zeros(4), ColumnDecay(0, 0, 1, 1).init(torch.zeros(4), param_spec, 1), torch.ones(4)
    )
    assert step.isfinite().all()


# Watching


def test_what_is_watched_is_what_happens_in_a_run():
    here, optimizer = tasks(), rule()
    looks = watch(here, optimizer, HOW, generator(5))
    params, made = fit_learned(here, optimizer, HOW, generator(5))
    assert torch.allclose(here.params + moved(looks), params)
    assert [look.number for look in looks] == [1, 2, 3, 4]
    assert made == 0


def test_weights_are_named_and_biases_left_out():
    param_spec = ParamSpec(
        ("a.weight", "a.bias", "b.weight", "b.bias", "c.weight"), ((3, 2), (3,), (4, 3), (4,), (2, 4))
    )
    found = [(name, where.start, where.stop) for name, where, _ in weights(param_spec)]
    assert found == [("first layer", 0, 6), ("layer 2", 9, 21), ("last layer", 25, 33)]


# Response curves


def seen(optimizer, here):
    look = watch(here, optimizer, HOW, generator(5))[1]
    return look, features(look.grads, look.state.accumulators, look.params, here.param_spec, look.number, HOW.steps)


def test_the_answer_is_the_step_that_the_rule_takes():
    optimizer, here = rule(), tasks()
    look, found = seen(optimizer, here)
    _, where, _ = next(weights(here.param_spec))
    size = look.params[:, where].square().mean(1, keepdim=True).sqrt()
    assert torch.allclose(responses.answer(optimizer, found[:, where]).step * size, look.step[:, where], atol=1e-9)


@pytest.mark.parametrize("name", responses.SPANS)
def test_a_curve_goes_through_where_the_input_really_is(name):
    """One coordinate whose input is put to the value that it has anyway gets the features that it has anyway."""
    _, found = seen(rule(), tasks())
    feature = {
        "gradient": "gradient", "momentum": "momentum 0.9", "weight": "weight over tensor", "progress": "progress",
        "row": "log gradient^2 of the row", "column": "log gradient^2 of the column",
    }[name]  # fmt: skip
    one = found[0, 3:4]
    if name == "momentum":  # all three averages move together
        one[:, NAMES.index("momentum 0.5")] = one[:, NAMES.index("momentum 0.99")] = one[:, NAMES.index(feature)]
    there = responses.moved(one, name, float(one[0, NAMES.index(feature)]))
    assert torch.allclose(there, one, atol=1e-5)
    elsewhere = responses.moved(one, name, responses.SPANS[name][1])
    assert not torch.allclose(elsewhere, one, atol=1e-3)


def test_moving_one_input_leaves_the_others():
    _, found = seen(rule(), tasks())
    changed = {
        name: {NAMES[i] for i in (responses.moved(found, name, 0.37) != found).flatten(0, 1).any(0).nonzero()[:, 0]}
        for name in responses.SPANS
    }
    assert changed["weight"] == {"weight over tensor", "weight times root fan-in", "log |weight|"}
    assert changed["column"] == {"log gradient^2 of the column", "log gradient^2"}
    assert changed["progress"] == {"progress", "log step"}
    assert changed["gradient"] == {"gradient", "factored gradient"}
    with pytest.raises(InputError, match=r"unknown input of a response curve 'colum'.*did you mean 'column'"):
        responses.moved(found, "colum", 0.0)


# Explanations


def looks_of(change, start, param_spec, grads=None):
    """A run of one step that changes the weights just so."""
    grads = torch.zeros_like(start) if grads is None else grads
    return [Look(1, start, grads, change, None)]


LAYOUT = ParamSpec(("a.weight", "b.weight"), ((12, 16), (3, 12)))


def made(kind, size=12 * 16 + 36):
    """A change of the first layer that is of one kind and no other."""
    rng = generator(3)
    start, grads = (torch.randn(1, size, generator=rng, dtype=torch.float64) for _ in range(2))
    w = start[:, :192].view(12, 16)
    spread = torch.rand(16, generator=rng)
    per = torch.rand(16, generator=rng, dtype=torch.float64)
    changes = {
        "decay": -0.3 * w,
        "constant shrink": -w.sign() * w.abs().clamp_max(float(w.abs().quantile(0.5))),
        "rows": -w * per[:12, None],
        "columns": -w * per,
        "sign steps": -0.1 * grads[:, :192].sign().view(12, 16),
    }
    change = torch.cat([changes[kind].reshape(1, -1), torch.zeros(1, 36, dtype=torch.float64)], 1)
    return explain(looks_of(change, start, LAYOUT, grads), LAYOUT, spread)["first layer"]


@pytest.mark.parametrize("kind", ["decay", "constant shrink", "rows", "columns", "sign steps"])
def test_an_explanation_finds_what_was_put_in_and_the_others_less(kind):
    found = {name: float(part) for name, part in made(kind).items()}
    assert found[kind] > 0.999
    general = {"decay": {"rows", "columns", "pixel spread", "decay + Adam", "columns + Adam"}}
    same = {"sign steps": {"Adam", "decay + Adam", "columns + Adam"}}  # Adam's first step is the sign
    more = {"columns": {"columns + Adam"}}
    others = {kind, "all together"} | general.get(kind, set()) | same.get(kind, set()) | more.get(kind, set())
    assert all(part < 0.97 for name, part in found.items() if name not in others), found


def test_chance_explains_nothing_however_many_factors_it_has():
    rng = generator(4)
    values = []
    for _ in range(200):
        y, x = (torch.randn(4, 8, generator=rng, dtype=torch.float64) for _ in range(2))
        values.append(share(y, [(x, torch.arange(8).expand(4, 8)), (x.sign(), torch.zeros(4, 8, dtype=torch.long))]))
    assert abs(float(torch.stack(values).mean())) < 0.05


def test_factors_taken_out_one_by_one_are_those_of_least_squares():
    rng = generator(5)
    y, x, z = (torch.randn(5, 4, generator=rng, dtype=torch.float64) for _ in range(3))
    group = torch.arange(4).expand(5, 4)
    design = torch.cat([torch.block_diag(*x.unbind(1)).T.reshape(-1, 4), z.T.reshape(-1, 1)], 1)
    solution = torch.linalg.lstsq(design, y.T.reshape(-1, 1)).solution
    rest = (y.T.reshape(-1, 1) - design @ solution).square().sum() / (20 - 5)
    wanted = 1 - rest / (y.square().sum() / 20)
    assert float(share(y, [(x, group), (z, torch.zeros_like(group))])) == pytest.approx(float(wanted))


def test_weights_left_on_pixels_that_vary_alike():
    spread = torch.arange(16).float()
    before = torch.ones(2, 3 * 16)
    after = before.view(2, 3, 16) * torch.where(spread < 4, 0.0, 0.5)
    found = list(left(before, after.flatten(1), spread))
    assert [pixels for pixels, _ in found] == sorted(pixels for pixels, _ in found)
    assert [float(shares[1]) for _, shares in found] == [0.0, 0.0] + [0.5] * 6


# Imitation and knock-outs


def test_the_constants_that_made_the_steps_are_found():
    here = tasks(architecture="mlp-6-tanh", shape=(1, 3, 3))
    teacher = ColumnDecay(0.02, 0.25, 0.4, 3.0)
    points = fit_to_steps([(watch(here, teacher, HOW, generator(5)), here.param_spec)])
    best = best_fit(points)
    assert (best["threshold"], best["slope"]) == (0.4, 3.0)
    assert best["lr"] == pytest.approx(0.02, rel=1e-3)
    assert best["strength"] == pytest.approx(0.25, rel=1e-3)
    assert best["explained"] == pytest.approx(1, abs=1e-6)
    other = fit_to_steps([(watch(here, SGD(0.1), HOW, generator(5)), here.param_spec)])
    assert max(point["explained"] for point in other) < 0.9


@torch.no_grad()
def test_a_knock_out_switches_off_its_part_and_no_other():
    here, whole = tasks(), rule()
    start = whole.init(here.params, here.param_spec, 4)
    grads = torch.randn(here.params.shape, generator=generator(6), dtype=torch.float64)
    step, _ = whole.update(grads, start, here.params)
    steps = {part: Knockout(whole, part).update(grads, start, here.params)[0] for part in PARTS}
    found = features(grads, whole.update(grads, start, here.params)[1].accumulators, here.params, here.param_spec, 1, 4)
    answer = responses.answer(whole, found)
    assert torch.allclose(steps["decay"] - step, answer.share * here.params, atol=1e-6)
    _, where, _ = next(weights(here.param_spec))
    size = here.params[:, where].square().mean(1, keepdim=True).sqrt()
    turned = (answer.rate * answer.turn)[:, where] * size
    assert torch.allclose((steps["turn"] - step)[:, where], turned, atol=1e-6)
    mean = answer.share[:, where].mean(1, keepdim=True)
    assert torch.allclose((steps["columns"] - step)[:, where], (answer.share[:, where] - mean) * here.params[:, where])
    with pytest.raises(InputError, match="unknown part of the learned rule 'row'"):
        Knockout(whole, "row")


def test_a_knock_out_moves_nobody_elses_chance():
    whole = rule()
    torch.manual_seed(7)
    wanted = torch.rand(1)
    torch.manual_seed(7)
    Knockout(whole, "turn")
    assert torch.equal(torch.rand(1), wanted)


# The specification


@pytest.mark.parametrize("scale", what_was_learned.SCALES)
@pytest.mark.parametrize("dataset", inquiry.SETS)
def test_a_scale_is_a_whole_specification(scale, dataset):
    stored = json.loads(json.dumps(what_was_learned.make_spec(scale, dataset, None)))
    spec = from_dict(Spec, stored)
    assert json.loads(json.dumps(asdict(spec))) == stored
    assert spec.experiment == spec.setting.experiment == "what-was-learned"
    assert len(spec.seeds) >= (3 if scale == "smoke" else 10)
    assert spec.seeds == spec.setting.seeds
    assert spec.at <= spec.setting.parts[0].steps
    assert what_was_learned.make_spec(scale, dataset, [7])["seeds"] == (7,)
    assert not set(spec.setting.unseen) & {*spec.setting.family, *spec.setting.validation}


@pytest.mark.parametrize("dataset", inquiry.SETS)
def test_the_counterpart_learns_as_the_shipped_rule_did(dataset):
    learned_as = pretrained.card(f"patch-{dataset}")["meta_trained_on"]
    spec = json.loads(json.dumps(what_was_learned.make_spec("small", dataset, None)))
    assert spec["control"]["plan"] == {"beta2": 0.999} | learned_as["plan"]  # older than that number
    assert spec["setting"]["family"] == learned_as["family"]


@pytest.mark.parametrize("dataset", ["cifar10", "fashion-mnist"])
def test_a_data_set_without_a_pretrained_rule_is_refused(dataset):
    assert EXPERIMENTS["what-was-learned"] is what_was_learned
    with pytest.raises(InputError, match=f"on '{dataset}': no pretrained optimizer .* take --dataset digits or mnist"):
        what_was_learned.make_spec("small", dataset, None)
    with pytest.raises(InputError, match="unknown scale of what-was-learned 'huge'"):
        what_was_learned.make_spec("huge", "digits", None)


# The run


def tiny():
    """A few steps of two networks of each kind, and a counterpart that learns for two episodes; as JSON."""
    spec = from_dict(Spec, json.loads(json.dumps(what_was_learned.make_spec("smoke", "digits", [0, 1]))))
    plan = MetaTrainConfig(episodes=2, horizons=(4,), truncation=2, batch_size=8, held_out=8)
    control = replace(spec.control, plan=plan)
    setting = replace(
        spec.setting, parts=(replace(spec.setting.parts[0], steps=4, batch_size=8, rules=(control,)),), meta_images=150,
        per_class=5, test_images=20, tuning_seeds=(100,), attack_steps=2, family=("mlp-4-tanh",), victims=2,
        validation=("mlp-3-relu", "cnn-2-relu"), unseen=("mlp-5-sigmoid", "cnn-2-tanh"),
        training=Training(10, 16, 0.01),
    )  # fmt: skip
    return asdict(replace(spec, setting=setting, control=control, at=2, coordinates=20))


def execute(out):
    dataset = load("digits")
    run = Run(out, tiny(), resume=out.exists(), about={"data_sha256": dataset.sha256, "device": "cpu"})
    engine.complete(what_was_learned, run, dataset, CPU)
    return results.load(out)


def prepare(patch):
    """No waiting for the disk, and grids of a point or two."""
    patch.setattr("metarobust.storage.os.fsync", lambda file: None)
    known, tuned = inquiry.methods, inquiry.imitation.tuned
    few = {"threshold": (0.2,), "keep": (0.4, 1.0), "decay": (1.0,), "lr": (0.003,)}

    def cut(method):
        return replace(method, grid={name: few.get(name, values[:1]) for name, values in method.grid.items()})

    patch.setattr(inquiry, "methods", lambda *args, **how: [cut(method) for method in known(*args, **how)])
    patch.setattr(inquiry.imitation, "tuned", lambda *, wide: cut(tuned(wide=wide)))
    patch.setattr(inquiry.imitation, "THRESHOLDS", (0.1, 0.3))


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A whole tiny run, never stopped: its folder, manifest and table."""
    out = tmp_path_factory.mktemp("learned") / "run"
    with pytest.MonkeyPatch.context() as patch:
        prepare(patch)
        return out, *execute(out)


RULES = {
    "before", "adam", "adam + weight decay", "std-prune", "imitation, tuned", "learned", "learned without turn",
    "learned without decay", "learned without columns", "learned, clean outside", "imitation",
}  # fmt: skip


def test_rows_are_tidy_and_complete(whole):
    _, manifest, frame = whole
    assert manifest["status"] == "complete"
    assert list(frame) == list(COLUMNS)
    assert not frame.drop(columns="value").duplicated().any()
    assert frame["value"].map(math.isfinite).all()
    patched = frame[frame["part"] == "patch"]
    assert {*patched["method"]} == RULES
    assert {*patched["model"]} == {"mlp-5-sigmoid", "cnn-2-tanh"}
    made = patched.loc[patched["metric"] == "adversarial examples", "value"]
    assert len(made) == 2 * len(RULES)
    assert {*made} == {0.0}


def test_every_layer_has_its_curves_and_explanations(whole):
    _, _, frame = whole
    layers = {f"{network} {layer} layer" for network in ("mlp-3-relu", "cnn-2-relu") for layer in ("first", "last")}
    for moving in responses.SPANS:
        rows = frame[frame["part"] == f"response to {moving}"]
        assert {*rows["model"]} - {"every layer"} == layers
        assert {*rows["method"]} >= {"learned", "learned, clean outside"}
        one = rows.loc[(rows["metric"] == "step") & (rows["model"] == "mlp-3-relu last layer"), "eps"]
        assert list(one)[:13] == pytest.approx(responses.values(moving))
    explained = frame[frame["part"] == "explained"]
    assert {*explained["model"]} == layers
    assert {*explained.loc[explained["method"] == "pixel spread", "model"]} == {"mlp-3-relu first layer"}
    assert {*frame.loc[frame["part"] == "weight left", "model"]} == {"mlp-3-relu first layer"}


def test_the_imitation_has_the_constants_that_fit_best(whole):
    out, manifest, frame = whole
    points = json.loads((out / "units" / "patch.constants.json").read_text())["rows"]
    best = manifest["summary"]["tuned"]["patch.constants"]
    assert best["explained"] == max(point["explained"] for point in points)
    curve = frame[(frame["model"] == "every layer") & (frame["metric"] != "rate")]
    for log_ratio, value in zip(curve["eps"], curve["value"], strict=True):
        wanted = best["strength"] / (1 + (math.exp(log_ratio) / best["threshold"]) ** best["slope"])
        assert value == pytest.approx(wanted, rel=1e-4)


def test_stopped_and_resumed_it_ends_with_the_same_bytes(tmp_path, monkeypatch, whole):
    prepare(monkeypatch)
    keep, count = Run.keep, iter(range(1, 1000))

    def dying(run, name, rows):
        if next(count) == 9:
            raise KeyboardInterrupt
        return keep(run, name, rows)

    monkeypatch.setattr(Run, "keep", dying)
    with pytest.raises(KeyboardInterrupt):
        execute(tmp_path / "run")
    execute(tmp_path / "run")
    assert (tmp_path / "run" / "results.csv").read_bytes() == (whole[0] / "results.csv").read_bytes()


# What is printed


def frame_of(gains):
    """Robust accuracy for each method and seed, on two networks of which one is easier."""
    rows = []
    for method, values in gains.items():
        for model, easier in (("mlp-5-sigmoid", 0.0), ("cnn-2-tanh", 0.1)):
            for seed, value in enumerate(values):
                common = {
                    "dataset": "digits", "part": "patch", "model": model, "method": method, "seed": seed, "step": 20,
                    "split": "test", "eps": 0.1, "metric": "robust accuracy",
                }  # fmt: skip
                rows.append(common | {"scope": "worst case", "value": value + easier})
                rows.append(common | {"scope": "single", "value": 0.99})
    return pd.DataFrame(rows)


def test_the_share_that_is_kept_and_its_interval():
    gains = {"adam": (0.1, 0.2, 0.3), "learned": (0.5, 0.6, 0.7), "half": (0.3, 0.4, 0.5), "uneven": (0.3, 0.4, 0.8)}
    frame = frame_of(gains)
    assert kept(frame, "half") == pytest.approx((0.5, 0.0), abs=1e-9)  # the same half with every seed
    assert kept(frame, "learned") == pytest.approx((1.0, 0.0), abs=1e-9)
    # Residuals -0.1, -0.1, 0.2; t at 2 degrees of freedom 4.303.
    assert kept(frame, "uneven") == pytest.approx((0.75, 4.3027 * math.sqrt(0.03) / math.sqrt(3) / 0.4), rel=1e-3)


def test_where_nothing_is_gained_no_share_is_shown():
    frame = frame_of({"adam": (0.5, 0.5), "learned": (0.4, 0.5)})
    none = kept(frame, "adam", ["mlp-5-sigmoid"])
    assert math.isnan(none[0])
    assert none[1] == math.inf
    assert percent(none) == "-"
    with pytest.raises(InputError, match="unknown method 'noise'"):
        kept(frame, "noise")


def test_table_page_and_headline_of_a_run(whole):
    _, _, frame = whole
    text = what_was_learned.table(frame)
    for needed in (*RULES, "made 0 adversarial examples", "gain kept", "pixel spread", "every layer, imitation"):
        assert needed in text, needed
    head, _, *body = what_was_learned.markdown(frame, "explained").splitlines()
    assert all(line.count("|") == head.count("|") for line in body)
    assert len(what_was_learned.brief(frame).splitlines()) == 2 + len(RULES)
    with pytest.raises(InputError, match="choose one of patch, explained, response to column"):
        what_was_learned.markdown(frame, "weight left")


@pytest.mark.slow
def test_at_scale_smoke_columns_explain_and_the_imitation_keeps_most(tmp_path):
    from metarobust.lab.running import run

    out, *_ = run("what-was-learned", scale="smoke", device="cpu", out=tmp_path / "run")
    frame = results.load(out).frame
    assert kept(frame, "imitation")[0] > 0.5
    assert kept(frame, "learned without decay")[0] < 0.5
    rows = frame[(frame["part"] == "explained") & (frame["model"] == "mlp-20-sigmoid first layer")]
    explained = rows.groupby("method")["value"].mean()
    assert explained["columns"] > explained["decay"] + 0.2
