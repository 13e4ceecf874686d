"""Learned against plain, seed by seed, on small tables whose answer is known."""

import re

import pytest

from metarobust.errors import InputError
from metarobust.lab.pairing import TIERS, against_plain, learned_rule, markdown
from metarobust.lab.run_folder import COLUMNS

SEEDS = range(4)


def row(method, tier, seed, value, *, model="net", metric="robust accuracy", meta_seed=None, step=20, split="test"):
    attack = "none" if metric == "clean accuracy" else "worst of two"
    about = {"part": "patch", "model": model, "method": method, "meta_seed": meta_seed, "tier": tier, "seed": seed}
    return dict.fromkeys(COLUMNS) | about | {
        "step": step, "split": split, "attack": attack, "eps": 0.1, "metric": metric, "value": value, "n": 100
    }  # fmt: skip


def method(name, tier, robust, clean=0.9, **how):
    """Rows of a method: robust is a function of the seed."""
    return [
        one
        for seed in SEEDS
        for one in (
            row(name, tier, seed, robust(seed), **how),
            row(name, tier, seed, clean, metric="clean accuracy", **how),
        )
    ]


def table(model="net", ahead=0.1):
    def bumpy(seed):
        return 0.3 + 0.1 * seed

    return [
        *method("before", "", lambda seed: 0.01, step=0, model=model),
        *method("sgd", "0", lambda seed: 0.2, model=model),
        *method("prune", "0", bumpy, model=model),
        *method("noise", "1", lambda seed: 0.25, model=model),
        *method("attack training", "adversarial", lambda seed: 0.9, model=model),
        # Two meta-seeds, whose mean is what counts: ahead by `ahead`, give or take a little from seed to seed.
        *method("learned", "0", lambda seed: bumpy(seed) + 2 * ahead + 0.01 * (seed % 2), meta_seed=0, model=model),
        *method("learned", "0", lambda seed: bumpy(seed), meta_seed=1, model=model),
    ]


def test_learned_meets_the_best_rule_of_each_tier():
    found = against_plain(table(), "patch")
    assert [(one.tier, one.rival) for one in found] == [
        ("0", "prune"), ("1", "noise"), ("adversarial", "attack training")
    ]  # fmt: skip
    first = found[0]
    assert first.robust.difference == pytest.approx(0.1025)
    assert first.robust.seeds == 4
    assert first.robust.p_t < 0.001
    assert first.clean.difference == 0
    assert found[2].robust.difference < 0
    assert {one.tier for one in found} <= set(TIERS)


def test_networks_of_a_tier_are_corrected_together_and_tiers_apart():
    found = against_plain(table("a", ahead=0.001) + table("b", ahead=0.1), "patch")
    zero = {one.model: one for one in found if one.tier == "0"}
    assert zero["b"].p_holm == pytest.approx(2 * zero["b"].robust.p_t)
    assert zero["a"].p_holm == pytest.approx(zero["a"].robust.p_t)
    assert zero["a"].robust.p_t > zero["b"].robust.p_t


def test_earlier_steps_and_training_images_are_left_out():
    more = method("learned", "0", lambda seed: 0.0, meta_seed=0, step=5)
    more += method("learned", "0", lambda seed: 1.0, meta_seed=0, split="train")
    assert against_plain(table() + more, "patch") == against_plain(table(), "patch")


def test_markdown_never_shows_a_p_of_zero():
    text = markdown(against_plain(table(), "patch"))
    assert re.search(
        r"\| net \| 0 \| prune \| \+10\.[23] ±0\.5 \| \+0\.0 ±0\.0 \| < 0\.001 \| < 0\.001 \| 0\.125 \|", text
    )


def test_the_rule_to_compare_is_the_one_called_learned_or_the_first():
    assert learned_rule(table(), "patch") == "learned"
    others = [one | {"method": one["method"].replace("learned", "learned on digits")} for one in table()]
    assert learned_rule(others, "patch") == "learned on digits"
    assert learned_rule([one for one in table() if one["method"] != "learned"], "patch") is None


def test_a_method_that_is_not_there_is_refused():
    with pytest.raises(InputError, match="no method 'lerned'; there are before, sgd"):
        against_plain(table(), "patch", "lerned")
