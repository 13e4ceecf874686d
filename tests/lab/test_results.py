"""What is asked of results: statistics held against scipy and against all signs written out; the rest on toy tables."""

import random
import re
from itertools import product
from statistics import fmean

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from metarobust.errors import InputError
from metarobust.lab import compare
from metarobust.lab.paired import holm, paired, signed_rank
from metarobust.lab.report import against_baselines
from metarobust.lab.results import (
    BEFORE,
    LEARNED,
    accuracy,
    as_rows,
    best_baseline,
    best_baselines,
    interval,
    intervals,
    lowered,
    names,
    recorded,
    select,
    to_markdown,
    to_text,
)
from metarobust.lab.run_folder import COLUMNS

RUN = "patch-mnist-small"


def rows_of(method, tier, robust, clean=0.9, *, model="net", meta_seed=None, step=20, split="test", seeds=4):
    """Rows of a method; robust is a function of the seed."""
    common = {"part": "patch", "model": model, "method": method, "meta_seed": meta_seed, "tier": tier, "step": step,
              "split": split, "n": 100, "learned": int(method == LEARNED), "start": "trained"}  # fmt: skip
    return [
        dict.fromkeys(COLUMNS) | common | values
        for seed in range(seeds)
        for values in (
            {"seed": seed, "eps": 0.1, "metric": "robust accuracy", "scope": "worst case", "value": robust(seed)},
            {"seed": seed, "eps": 0.0, "metric": "clean accuracy", "scope": "", "value": clean},
        )
    ]


def toy(model="net", ahead=0.1, more=()):
    """Two meta-seeds of a learned optimizer, whose mean is ahead of the best baseline, give or take a little."""

    def bumpy(seed):
        return 0.3 + 0.1 * seed

    rows = [
        *rows_of(BEFORE, "", lambda seed: 0.01, step=0, model=model),
        *rows_of("sgd", "0", lambda seed: 0.2, model=model),
        *rows_of("prune", "0", bumpy, model=model),
        *rows_of("noise", "1", lambda seed: 0.25, model=model),
        *rows_of("attack training", "adversarial", lambda seed: 0.9, model=model),
        *rows_of(LEARNED, "0", lambda seed: bumpy(seed) + 2 * ahead + 0.01 * (seed % 2), meta_seed=0, model=model),
        *rows_of(LEARNED, "0", bumpy, meta_seed=1, model=model),
        *more,
    ]
    return pd.DataFrame(rows).astype({name: "Int64" for name, kind in COLUMNS.items() if kind is int})


@pytest.mark.parametrize("n", [2, 3, 5, 10, 15])
def test_paired_agrees_with_scipy(n):
    rng = random.Random(n)
    a, b = ([rng.gauss(mean, 1) for _ in range(n)] for mean in (0.5, 0))
    test, student = paired(a, b), stats.ttest_rel(a, b)
    assert test.seeds == n
    assert test.difference == pytest.approx(fmean(a) - fmean(b))
    assert test.p_t == pytest.approx(student.pvalue)
    low, high = student.confidence_interval(0.95)
    assert (test.difference - test.half, test.difference + test.half) == pytest.approx((low, high))
    assert test.p_wilcoxon == pytest.approx(stats.wilcoxon(a, b, method="exact").pvalue)


def test_signed_rank_counts_ties_over_all_signs_and_leaves_zeros_out():
    differences = np.array([0.002, 0.002, -0.002, 0.004, 0.004, 0.006, 0.0])
    ranks = [2, 2, 2, 4.5, 4.5, 6]
    sums = [sum(rank for rank, sign in zip(ranks, signs, strict=True) if sign) for signs in product((0, 1), repeat=6)]
    middle, seen = sum(ranks) / 2, 2 + 2 + 4.5 + 4.5 + 6
    expected = fmean(abs(total - middle) >= abs(seen - middle) for total in sums)
    assert signed_rank(differences) == pytest.approx(expected)
    # Shares of images that went through float32 are a hair apart, and tied all the same.
    assert signed_rank(differences + 1e-9) == pytest.approx(expected)


def test_no_difference_and_the_same_difference():
    assert paired([1, 2, 3], [1, 2, 3])[3:] == (1.0, 1.0)
    steady = paired([2, 3, 4], [1, 2, 3])
    assert steady[1:4] == (1.0, 0.0, 0.0)
    assert steady.p_wilcoxon == 0.25  # three seeds cannot show more


@pytest.mark.parametrize(("a", "b", "says"), [([1, 2], [1], "2 and 1 values"), ([1], [2], "at least two seeds")])
def test_what_are_no_pairs_is_refused(a, b, says):
    with pytest.raises(InputError, match=says):
        paired(a, b)


def test_pairs_are_of_the_seeds_that_both_have():
    a, b = pd.Series([0.5, 0.6, 0.9], index=[3, 1, 2]), pd.Series([0.4, 0.6], index=[1, 3])
    assert paired(a, b)[:2] == (2, pytest.approx(0.05))


def test_holm_raises_the_smallest_most_and_keeps_the_order():
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.6, 0.9]) == [1.0, 1.0]
    assert holm([]) == []


def test_an_interval_of_one_value_is_infinite_and_of_none_is_refused():
    assert interval([0.5]) == (0.5, np.inf)
    with pytest.raises(InputError, match="at least one seed"):
        interval([])
    values = accuracy(toy())
    each = intervals(values)
    assert tuple(each.loc["patch", "net", LEARNED]) == pytest.approx(interval(values["patch", "net", LEARNED]))


def test_accuracy_is_the_mean_over_meta_seeds_after_the_last_step_on_test_images():
    more = rows_of(LEARNED, "0", lambda seed: 0.0, meta_seed=0, step=5)
    more += rows_of(LEARNED, "0", lambda seed: 1.0, meta_seed=0, split="train")
    frame = toy(more=more)
    assert accuracy(frame).equals(accuracy(toy()))
    assert accuracy(frame)["patch", "net", LEARNED].tolist() == pytest.approx([0.4, 0.505, 0.6, 0.705])
    assert accuracy(frame, step=5).tolist() == [0.0] * 4
    assert accuracy(frame, split="train")["patch", "net", LEARNED].tolist() == [1.0] * 4
    assert set(accuracy(frame, "clean")) == {0.9}
    with pytest.raises(InputError, match="robust"):
        accuracy(frame, "robustness")


def test_learned_meets_the_best_baseline_of_each_tier_and_networks_are_corrected_together():
    frame = pd.concat([toy("a", ahead=0.001), toy("b")])
    assert best_baselines(frame).to_dict() == {("patch", "a"): "prune", ("patch", "b"): "prune"}
    assert best_baseline(frame, "patch", "a", ("1",)) == "noise"
    with pytest.raises(InputError, match="another part or tier"):
        best_baseline(frame, "patch", "a", ("2",))
    head, *lines = against_baselines(frame, LEARNED)
    assert [line[:3] for line in lines] == [
        [model, tier, rival]
        for tier, rival in (("0", "prune"), ("1", "noise"), ("adversarial", "attack training"))
        for model in ("a", "b")
    ]
    assert re.fullmatch(r"\+10\.[23] ±0\.5", lines[1][3])
    assert lines[1][4:] == ["+0.0 ±0.0", "< 0.001", "< 0.001", "0.125"]  # no finite number of seeds shows a 0
    column = {name: i for i, name in enumerate(head)}
    p, raised = (float(lines[0][column[name]]) for name in ("p, t-test", "p, Holm"))
    assert p == raised > 0.001, "the larger of two is not raised"
    with pytest.raises(InputError, match="did you mean 'learned'"):
        against_baselines(frame, "lerned")


def test_how_far_stronger_attacks_lower_what_two_pgds_left():
    more = [row | {"scope": "pair", "value": row["value"] + 0.02} for row in rows_of("sgd", "0", lambda seed: 0.2)]
    more = [row for row in more if row["metric"] == "robust accuracy"]
    wider = [row | {"eps": 0.2, "value": 0.1} for row in more]
    falls = lowered(toy(more=more + wider))
    assert falls["value"].tolist() == pytest.approx([0.02] * 4), "at the same radius, of the same models"
    assert lowered(toy()).empty


def test_rows_are_chosen_by_column_and_what_is_not_there_is_named():
    frame = toy()
    assert names(select(frame, method=["sgd", "noise"], learned=0), "method") == ["sgd", "noise"]
    assert len(select(frame, method=None)) == len(frame)
    assert as_rows(frame)[0]["meta_seed"] is None
    for columns, says in (
        ({"mehtod": "sgd"}, "did you mean 'method'"),
        ({"method": "sdg"}, "did you mean 'sgd'"),
        ({"step": 7}, "hold no step 7; there are 0, 20"),
    ):
        with pytest.raises(InputError, match=says):
            select(frame, **columns)


def test_lines_as_text_and_as_markdown():
    lines = [["a", "number"], ["longer", "1"]]
    assert to_text(lines, right=True) == "a       number\nlonger       1"
    assert to_text(lines).splitlines()[1] == "longer  1     "
    assert to_markdown(lines) == "| a | number |\n| --- | --- |\n| longer | 1 |"


def test_a_run_that_is_not_there_is_refused():
    with pytest.raises(InputError, match=f"did you mean '{RUN}'"):
        recorded("patch-mnist-smal")


def test_numbers_for_claims_are_those_of_the_table():
    _, frame = recorded(RUN)
    values = select(frame, part="patch", model="mlp-64-sigmoid", method=LEARNED, metric="clean accuracy")["value"]
    assert len(values) == 30
    part = {"part": "patch"}
    assert compare.acc(RUN, LEARNED, "clean", model="mlp-64-sigmoid", **part).item() == pytest.approx(
        100 * fmean(values)
    )
    dense = compare.acc(RUN, LEARNED, network="dense", **part)
    assert len(dense) == 4
    gap = compare.gap(RUN, LEARNED, BEFORE, network="dense", **part)
    assert (dense - compare.acc(RUN, BEFORE, network="dense", **part)).tolist() == pytest.approx(gap.tolist())
    assert compare.p_value(RUN, LEARNED, BEFORE, **part).max() < 0.001
    rivals = compare.best(RUN, by="robust", tier=["0", "1", "2", "adversarial"], learned=True, **part)
    assert (rivals >= compare.best(RUN, by="robust", **part)).all()
    assert (rivals >= compare.acc(RUN, LEARNED, **part)).all()
    assert compare.made(RUN, LEARNED) == 0 < compare.made(RUN, "PGD-7 training")
    assert 0 < compare.lowered(RUN, LEARNED, **part).mean() < 6
    assert compare.fact(RUN, "spec", "parts", 0, "steps") == 20
    assert compare.value("bench/peers", "n") > 0
    with pytest.raises(InputError, match="entry of manifest"):
        compare.fact(RUN, "specs")
