"""Knock-outs: each changes what it names and nothing else, and is compared with the whole rule on the same models."""

import json
from dataclasses import asdict, replace

import pytest
import torch
from toy import generator, tasks

from metarobust import pretrained
from metarobust.data import load
from metarobust.errors import InputError
from metarobust.lab import catalogue
from metarobust.lab.engine import Worker
from metarobust.lab.results import PENALTIES
from metarobust.lab.spec import Spec, from_dict
from metarobust.lab.stages import evaluate
from metarobust.lab.stages.context import Context
from metarobust.lab.stages.meta_train import learned_optimizer
from metarobust.lab.what_was_learned import KNOCKOUTS, RATES, Knockout, turned
from metarobust.learned import make
from metarobust.learned.penalties import NAMES
from metarobust.learned.protocol import State
from metarobust.models import build
from metarobust.objectives import clean
from metarobust.params import ParamSpec
from metarobust.training import Inner, fit_learned

RULE = pretrained.load("train")
LAYOUT = ParamSpec.of(build("mlp-5-4-tanh", (1, 8, 8), 10))
STEPS = torch.arange(100) / 100


def curve(rule, progress=STEPS):
    with torch.no_grad():
        return dict(zip(NAMES, rule.curve(LAYOUT, 100, progress), strict=True))


@pytest.mark.parametrize("name", [name for name in KNOCKOUTS if name != "set by hand"])
def test_a_knock_out_changes_what_it_names_and_nothing_else(name):
    whole, found, shape = curve(RULE), curve(Knockout(RULE, **KNOCKOUTS[name])), KNOCKOUTS[name]
    ((how, changed),) = shape.items()
    for each in NAMES:
        if each not in changed:
            assert torch.equal(found[each], whole[each])
        elif how == "off":
            assert whole[each].min() > 0 == found[each].abs().max()
        elif how == "held":
            assert torch.allclose(found[each], (whole[each].log().sum() / 100).exp().expand(100))
            assert whole[each].max() > whole[each].min()
        else:
            assert torch.allclose(found[each] ** 3, whole[RATES[0]] * whole[RATES[1]] * whole[RATES[2]])


def test_what_is_held_is_the_same_whichever_step_is_asked_for():
    rule = Knockout(RULE, held=["slack"])
    assert torch.allclose(curve(rule, STEPS[90:])["slack"], curve(rule)["slack"][:10])


def test_set_by_hand_is_where_meta_training_began():
    found, begun = (curve(rule) for rule in (Knockout(RULE, **KNOCKOUTS["set by hand"]), make("penalties")))
    assert all(torch.equal(found[name], begun[name]) for name in NAMES)
    assert not torch.allclose(found["bend"], curve(RULE)["bend"])


def test_without_penalties_the_loss_is_cross_entropy_at_the_images():
    few, model = load("digits").test[:8], build("mlp-5-4-tanh", (1, 8, 8), 10)
    state = State(30, 100, LAYOUT, {}, {})
    plain = clean(model, few.images, few.labels, generator())
    for rule, same in ((RULE, False), (Knockout(RULE, **KNOCKOUTS["no penalties"]), True)):
        found = rule.objective(clean, state, 0.1)(model, few.images.clone(), few.labels, generator())
        assert torch.allclose(found, plain, atol=1e-5) == same


def test_with_nothing_knocked_out_it_is_the_rule():
    few = tasks(2, "mlp-5-4-tanh", dtype=torch.float32)
    whole, same, less = (
        fit_learned(few, rule, Inner(6, 8), generator(3))[0]
        for rule in (RULE, Knockout(RULE), Knockout(RULE, off=["bend"]))
    )
    assert torch.equal(whole, same)
    assert not torch.allclose(whole, less)


def test_a_hyperparameter_that_is_not_there_is_refused():
    with pytest.raises(InputError, match="did you mean 'bend'"):
        Knockout(RULE, off=["bends"])


def test_one_knot_is_turned():
    """At its own point of the run it counts whole, at the next knots not at all; the rule itself stays."""
    before, progress = curve(RULE), torch.tensor([0, 0.25, 0.5, 0.75, 1.0])
    found, whole = (curve(rule, progress) for rule in (turned(RULE, "bend", 1, 4.0), RULE))
    assert torch.allclose(found["bend"] / whole["bend"], torch.tensor([1, 2, 4, 2, 1.0]))
    assert torch.equal(found["slope"], whole["slope"])
    assert all(torch.equal(before[name], now) for name, now in curve(RULE).items())
    assert curve(turned(RULE, "rate first", 0, 1e6))["rate first"][0] == pytest.approx(0.04), "its bound"
    for wrong, says in (((3, 2.0), "knot is 3"), ((0, 0.0), "factor is 0.0"), ((0, float("nan")), "factor is nan")):
        with pytest.raises(InputError, match=says):
            turned(RULE, "bend", *wrong)
    with pytest.raises(InputError, match="hyperparameter 'bendy'"):
        turned(RULE, "bendy", 0, 2.0)


def test_every_knock_out_is_a_rule_of_the_experiment():
    """It stands in the spec as JSON, so that the manifest of a run says what was knocked out."""
    spec = catalogue.make("what-was-learned", "small", "digits", None)
    (part,) = from_dict(Spec, json.loads(json.dumps(asdict(spec)))).parts
    whole, *others = part.uses
    assert [rule.name for rule in others] == [f"{PENALTIES}, {name}" for name in KNOCKOUTS]
    assert all(replace(rule, name=whole.name, shape={}) == whole for rule in others)
    here = Context(spec, part, Worker(None, load("digits"), torch.device("cpu")))
    assert type(learned_optimizer(here, whole, 0)) is type(RULE)
    for rule, shape in zip(others, KNOCKOUTS.values(), strict=True):
        made = learned_optimizer(here, rule, 0)
        assert isinstance(made, Knockout)
        assert {how: getattr(made, how) for how in ("off", "held", "shared")} == {
            how: shape.get(how, ()) for how in ("off", "held", "shared")
        }


def test_it_is_compared_on_the_same_models_and_makes_no_adversarial_example():
    spec = catalogue.make("what-was-learned", "smoke", "digits", (0, 1))
    part = replace(spec.parts[0], steps=20, batch_size=16)
    here = Context(
        replace(spec, test_images=40, attack_steps=3), part, Worker(None, load("digits"), torch.device("cpu"))
    )
    found = {}
    for rule in (part.uses[0], *(rule for rule in part.uses if rule.name.endswith(("penalties", "constant")))):
        rows = evaluate.compare_learned(here, "mlp-5-relu", rule.name)
        assert {row["method"] for row in rows} == {rule.name}
        assert [row["value"] for row in rows if row["metric"] == "adversarial examples"] == [0]
        found[rule.name] = [row["value"] for row in rows if row["metric"] == "clean accuracy"]
    assert len(found) == len({tuple(values) for values in found.values()}) == 4
