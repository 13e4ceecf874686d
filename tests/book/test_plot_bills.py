"""Figures of bills and choices: what is drawn is what was given."""

import math

import matplotlib
import pytest

matplotlib.use("Agg")

import matplotlib.pyplot as plt

from metarobust.book.figures import bills
from metarobust.book.figures.style import role
from metarobust.errors import InputError
from metarobust.lab.cost.break_even import FIRST, SEARCH
from metarobust.lab.cost.text import value_of
from metarobust.lab.quote import recorded

MODEL = "mlp-72-elu"


@pytest.fixture(autouse=True)
def _close_figures():
    yield
    plt.close("all")


@pytest.fixture(scope="module")
def rows():
    return recorded("cost-digits-small")[1]


@pytest.mark.parametrize("metric", ["seconds", "model evaluations"])
def test_lines_of_the_bill_cross_where_meta_training_has_paid(rows, metric):
    (axes,) = bills.whole_bill(rows, MODEL, metric=metric).axes
    curves = [line for line in axes.lines if len(line.get_xdata()) > 1]
    dots = [line for line in axes.lines if len(line.get_xdata()) == 1]
    (own,) = [line for line in curves if line.get_color() == role("learned").colour]
    assert set(own.get_ydata()) == {1.0}
    reaching = [
        method for method in {row["method"] for row in rows} - {"before"}
        if (value_of(rows, "as-learned", MODEL, method, f"{metric} to reach it") or math.inf) < math.inf
    ]  # fmt: skip
    assert len(curves) == len(reaching) == len([text for text in axes.texts if text.get_text()])
    assert dots
    paid = [value_of(rows, "as-learned", MODEL, m, f"{FIRST} in {metric}, {SEARCH[True]}") for m in reaching]
    assert sorted(float(dot.get_xdata()[0]) for dot in dots) == sorted(n for n in paid if n and n <= bills.MOST)
    for dot in dots:  # there a line rises through the learned optimizer's
        assert list(dot.get_ydata()) == [1]
        ahead = [next(y for x, y in zip(*line.get_data(), strict=True) if x > dot.get_xdata()[0]) for line in curves]
        assert sum(1 <= y < 1.2 for y in ahead) >= 2  # the learned optimizer's own, and the one that has just crossed


def test_a_bill_refuses_what_it_cannot_draw(rows):
    with pytest.raises(InputError, match="does not reach 'most-gain'"):
        bills.whole_bill(rows, MODEL, "most-gain")
    with pytest.raises(InputError, match="unknown target"):
        bills.whole_bill(rows, MODEL, "half")
    with pytest.raises(InputError, match="unknown network"):
        bills.whole_bill(rows, "mlp-1")
    with pytest.raises(InputError, match="unknown cost of a bill"):
        bills.whole_bill(rows, MODEL, metric="adversarial examples")


def test_a_search_is_drawn_as_it_went():
    (axes,) = bills.search([1, 4, 16], [0.3, 0.4, 0.45], 0.5).axes
    found, level = axes.lines
    assert list(found.get_ydata()) == [0.3, 0.4, 0.45]
    assert set(level.get_ydata()) == {0.5}
    assert [text.get_text() for text in axes.get_xticklabels()] == ["1", "4", "16"]


def test_the_picked_one_is_marked_on_both_sets():
    (axes,) = bills.picked([0.3, 0.5, 0.4], [0.35, 0.31, 0.33], (0.3, 0.32), best=1).axes
    squares = [(line.get_xdata()[0], line.get_ydata()[0]) for line in axes.lines if line.get_marker() == "s"]
    assert squares == [(0.5, 1), (0.31, 0)]
    clouds = [line for line in axes.lines if line.get_marker() == "o"]
    assert [list(line.get_xdata()) for line in clouds] == [[0.3, 0.5, 0.4], [0.35, 0.31, 0.33]]
    assert [min(line.get_ydata()) > 0.5 for line in clouds] == [True, False]


def test_leads_stand_in_their_order_with_the_honest_one_apart():
    (axes,) = bills.told({"honest": -0.4, "against Adam": 12.0}, "honest").axes
    level, *marks = axes.lines
    assert set(level.get_xdata()) == {-0.4}
    assert [mark.get_xdata()[0] for mark in marks] == [-0.4, 12.0]
    assert [mark.get_color() for mark in marks] == [role("learned").colour, role("control").colour]
    assert [text.get_text() for text in axes.texts] == ["\u22120.4", "+12.0"]
    with pytest.raises(InputError, match="unknown way to tell it 'fair'"):
        bills.told({"honest": 0.0}, "fair")
