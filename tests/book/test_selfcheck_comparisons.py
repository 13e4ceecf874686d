"""Self-checks of the two-by-two and of few images: right answers pass, wrong ones fail with a useful hint."""

import json
import math
import re
from pathlib import Path
from statistics import fmean, stdev

import pytest
from scipy.stats import t

from metarobust.book.exercises import comparisons as selfcheck

NOTEBOOKS = Path(__file__).parents[2] / "notebooks"


def right(one, other):
    gaps = [one[seed] - other[seed] for seed in one]
    return fmean(gaps), t.ppf(0.975, len(gaps) - 1) * stdev(gaps) / math.sqrt(len(gaps))


def by_place(one, other):
    gaps = [a - b for a, b in zip(one.values(), other.values(), strict=True)]
    return fmean(gaps), t.ppf(0.975, 3) * stdev(gaps) / 2


def normal(one, other):
    mean, half = right(one, other)
    return mean, half * 1.959963985 / t.ppf(0.975, len(one) - 1)


def by_n(one, other):
    mean, half = right(one, other)
    return mean, half * math.sqrt((len(one) - 1) / len(one))


def no_root(one, other):
    mean, half = right(one, other)
    return mean, half * math.sqrt(len(one))


def unpaired(one, other):
    sides = [list(one.values()), list(other.values())]
    both = math.sqrt(sum(stdev(side) ** 2 for side in sides) / len(one))
    return right(one, other)[0], t.ppf(0.975, len(one) - 1) * both


def standard_error(one, other):
    mean, half = right(one, other)
    return mean, half / t.ppf(0.975, len(one) - 1)


def turned(one, other):
    return right(other, one)


def absolute(one, other):
    mean, half = right(one, other)
    return abs(mean), half


def mean_only(one, other):
    return right(one, other)[0]


def changes(one, other):
    found = right(one, other)
    one.clear()
    return found


def stub(*given): ...


def stops(one, other):
    return one - other


def fixed(one, other):
    return (0.02, right({0: 0.50, 1: 0.62, 2: 0.41, 3: 0.55}, {0: 0.50, 1: 0.58, 2: 0.40, 3: 0.52})[1])


def test_right_pairing_passes():
    assert selfcheck.paired(right)


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        (by_place, "another order"),
        (normal, "1.96"),
        (by_n, "n - 1"),
        (no_root, "square root"),
        (unpaired, "differences first"),
        (standard_error, "standard error"),
        (turned, "one minus other"),
        (absolute, "no abs"),
        (mean_only, "two numbers"),
        (changes, "changes what"),
        (stops, "TypeError"),
        (stub, "nothing is written"),
        (fixed, "keeps its sign"),
    ],
)
def test_wrong_pairings_fail_with_a_useful_hint(answer, says):
    verdict = selfcheck.paired(answer)
    assert not verdict
    assert says in str(verdict)
    assert verdict.hint


def best_held_out(held_out, test):
    place = held_out.index(max(held_out))
    return place, test[place]


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        (lambda held_out, test: (test.index(max(test)), max(test)), "test is best"),
        (lambda held_out, test: (4, test[4]), "later one"),
        (lambda held_out, test: (3, test[2]), "not at 2"),
        (lambda held_out, test: (2, held_out[2]), "what the test says"),
        (lambda held_out, test: best_held_out(held_out, test)[1], "a place and an accuracy"),
        (lambda held_out, test: (2, test[2]), "IndexError"),
        (lambda held_out, test: (held_out.sort(), 0), "changes the lists"),
        (lambda held_out, test: best_held_out(test, held_out)[::-1], "not at 2"),
        (stub, "nothing is written"),
    ],
)
def test_wrong_stops_fail_with_a_useful_hint(answer, says):
    assert selfcheck.stopped(best_held_out)
    verdict = selfcheck.stopped(answer)
    assert not verdict
    assert says in str(verdict)
    assert verdict.hint


def test_times_an_image_is_seen():
    assert selfcheck.times_seen(128)
    for wrong, says in ((None, "no number"), (6400, "fifty"), (640, "each class"), (896, "same image"), (7, "draws")):
        verdict = selfcheck.times_seen(wrong)
        assert not verdict
        assert says in str(verdict)


CORNERS = 0, 81_920, 217_600, 299_520


def test_examples_of_corners():
    assert selfcheck.examples_of_corners(CORNERS)
    for wrong, says in (
        (None, "no four numbers"),
        ((0, 1), "2 numbers"),
        ((1, *CORNERS[1:]), "clean / clean"),
        ((0, 94_720, *CORNERS[2:]), "nobody judges"),
        ((0, 20_480, *CORNERS[2:]), "four"),
        ((0, CORNERS[1], 204_800, CORNERS[3]), "at work, too"),
        ((*CORNERS[:3], 217_600), "judge attacks"),
        ((*CORNERS[:3], 7), "attacked / attacked"),
    ):
        verdict = selfcheck.examples_of_corners(wrong)
        assert not verdict
        assert says in str(verdict)


def test_count_of_a_corner_is_what_the_library_makes():
    """One lesson and one network to patch, in the corner where all is attacked."""
    from metarobust.attacks import counting
    from metarobust.data import load
    from metarobust.family import Family
    from metarobust.learned.mlp import FeatureMLP
    from metarobust.meta import MetaTrainConfig, generator_of, meta_train
    from metarobust.objectives import Adversarial, Mixed
    from metarobust.training import Inner, fit_learned

    family, inside = Family(("mlp-2-relu",), load("digits").train[:300], 10, images=100), Adversarial(0.1)
    optimizer = FeatureMLP(hidden=2)
    with counting() as school:
        meta_train(optimizer, family.sample, MetaTrainConfig(1), inner=inside, meta=Mixed(Adversarial(0.1)), seed=0)
    one = family.sample(1, generator_of("cpu", 0))
    _, work = fit_learned(one, optimizer, Inner(20, 64), generator_of("cpu", 1), inside)
    assert 40 * school.examples + 10 * work == CORNERS[3]


@pytest.mark.parametrize(
    ("notebook", "function", "check"),
    [("two-by-two", "paired", selfcheck.paired), ("few-images", "stop", selfcheck.stopped)],
)
def test_solution_in_the_notebook_passes(notebook, function, check):
    cells = json.loads((NOTEBOOKS / f"{notebook}.ipynb").read_text(encoding="utf-8"))["cells"]
    text = "\n".join("".join(cell["source"]) for cell in cells)
    (code,) = re.findall(rf"```python\n((?:(?!```).)*?def {function}\(.*?)```", text, flags=re.S)
    names = {}
    exec(code, names)
    assert check(names[function])
