"""Figures of a rule's answers: what is drawn is what was given, and words say what the lines do."""

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import pytest

from metarobust.book.figures import responses
from metarobust.errors import InputError


@pytest.fixture(autouse=True)
def closed():
    yield
    plt.close("all")


def test_response_curves_are_drawn_on_a_logarithmic_axis():
    curves = [("one", "learned", [0.02, 1.0], [0.25, 0.05]), ("other", "rule", [0.02, 1.0], [0.25, 0.01])]
    axes = responses.share_given_up(curves).axes[0]
    assert axes.get_xscale() == "log"
    drawn = {tuple(shown.get_ydata()) for shown in axes.lines[1:]}
    assert drawn == {(0.25, 0.05), (0.25, 0.01)}
    one, other = axes.texts
    assert abs(one.xy[1] - other.xy[1]) > 0.02  # not upon each other


@pytest.mark.parametrize("curves", [[], [("one", "learned", [], [])]])
def test_a_curve_without_places_is_refused(curves):
    with pytest.raises(InputError, match="at least one ratio"):
        responses.share_given_up(curves)


def test_a_frame_says_how_steep_the_lines_are():
    steps = {"learned": ("learned", [0.6, 0.0, -0.6]), "imitation": ("rule", [0.3, 0.0, -0.3])}
    drawing = responses.step_by_weight(0.05, [-3.0, 0.0, 3.0], steps, top=0.8)
    assert "0.05 of the usual" in drawing.says
    assert "learned takes 20 %" in drawing.says
    assert "imitation takes 10 %" in drawing.alt
    axes = drawing.figure.axes[0]
    assert axes.get_ylim() == (-0.8, 0.8)
    assert list(axes.lines[1].get_ydata()) == [0.6, 0.0, -0.6]


def test_bars_of_two_layers():
    layers = {
        "first layer": {"decay": 0.5, "columns": 0.9, "pixels": 0.8},
        "last layer": {"decay": -0.2, "columns": 0.4},
    }
    figure = responses.explained(layers, mark="columns")
    first, last = figure.axes
    assert [bar.get_width() for bar in first.patches] == [0.5, 0.9, 0.8]
    assert [bar.get_width() for bar in last.patches] == [0.0, 0.4]
    assert len({bar.get_facecolor() for bar in first.patches}) == 2  # one of them stands out
    assert "no pixels here" in [text.get_text() for text in last.texts]
    assert "-20" in [text.get_text() for text in last.texts]  # the number is told as it is
    assert [label.get_text() for label in first.get_yticklabels()] == ["decay", "columns", "pixels"]
