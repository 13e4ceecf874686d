"""The self-checks of "Learn from mistakes once": right answers pass, wrong ones fail with a useful hint."""

import json
import re
from pathlib import Path

import pytest
import torch

from metarobust.book.exercises import first as selfcheck

NOTEBOOK = Path(__file__).parents[2] / "notebooks" / "learning-from-mistakes.ipynb"


def right(weight, images, threshold, keep):
    return weight * (images.flatten(1).std(0) > threshold) * keep


def by_mean(weight, images, threshold, keep):
    return weight * (images.flatten(1).mean(0) > threshold) * keep


def by_brightest(weight, images, threshold, keep):
    return weight * (images.flatten(1).amax(0) > threshold) * keep


def over_all_pixels(weight, images, threshold, keep):
    return weight * (images.std() > threshold) * keep


def turned_round(weight, images, threshold, keep):
    return weight * (images.flatten(1).std(0) <= threshold) * keep


def not_shrunk(weight, images, threshold, keep):
    return weight * (images.flatten(1).std(0) > threshold)


def in_place(weight, images, threshold, keep):
    weight[:, images.flatten(1).std(0) <= threshold] = 0
    return weight.mul_(keep)


def removes_columns(weight, images, threshold, keep):
    return weight[:, images.flatten(1).std(0) > threshold] * keep


def forgets_to_flatten(weight, images, threshold, keep):
    return weight * (images.std(0) > threshold) * keep


def returns_nothing(weight, images, threshold, keep):
    weight * keep


def stub(weight, images, threshold, keep): ...


def test_right_rule_passes():
    verdict = selfcheck.pruned(right)
    assert verdict
    assert str(verdict).startswith("Passed")


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        (by_mean, "standard deviation"),
        (by_brightest, "standard deviation"),
        (over_all_pixels, "black pixel"),
        (turned_round, "black pixel"),
        (not_shrunk, "keep"),
        (in_place, "changes the weights"),
        (removes_columns, "shape"),
        (forgets_to_flatten, "flatten"),
        (returns_nothing, "shape"),
        (stub, "nothing is written"),
    ],
)
def test_wrong_rules_fail_with_a_useful_hint(answer, says):
    verdict = selfcheck.pruned(answer)
    assert not verdict
    assert says in str(verdict)
    assert verdict.hint


def test_count_of_examples():
    assert selfcheck.examples_made(2048)
    for wrong, says in ((None, "no number"), (512, "four"), (1024, "stretches"), (8192, "one adversarial image")):
        verdict = selfcheck.examples_made(wrong)
        assert not verdict
        assert says in str(verdict)
    for wrong in (7168, 16, 3, -1, 2048.5):
        assert not selfcheck.examples_made(wrong)


def test_count_is_what_the_library_makes():
    """In the default plan, an episode makes what the exercise asks for."""
    from metarobust.attacks import counting
    from metarobust.data import load
    from metarobust.family import Family
    from metarobust.learned.mlp import FeatureMLP
    from metarobust.meta import MetaTrainConfig, meta_train
    from metarobust.objectives import Adversarial, Mixed, clean

    family = Family(("mlp-2-relu",), load("digits").train[:300], 10, images=100)
    with counting() as tally:
        judge = Mixed(Adversarial(0.1, steps=4))
        meta_train(FeatureMLP(hidden=2), family.sample, MetaTrainConfig(1), inner=clean, meta=judge, seed=0)
    assert selfcheck.examples_made(tally.examples)


def test_solution_in_the_notebook_passes():
    text = "\n".join("".join(cell["source"]) for cell in json.loads(NOTEBOOK.read_text())["cells"])
    (code,) = re.findall(r"```python\n(def prune.*?)```", text, flags=re.S)
    names = {"torch": torch}
    exec(code, names)
    assert selfcheck.pruned(names["prune"])
