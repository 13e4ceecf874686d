"""Figures of long inner runs: what is drawn is what was given, and names do not lie upon each other."""

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import pytest
import torch

from metarobust.book.figures import horizons
from metarobust.errors import InputError


@pytest.fixture(autouse=True)
def closed():
    yield
    plt.close("all")


def traces(**more):
    ends = [("one", "reference", [1.0, 10.0, 100.0]), ("other", "learned", [2.0, 0.0, 100.0])]
    curves = [*ends, ("", "learned", [0.0, 0.0, 50.0])]
    return horizons.traces([1, 2, 4], curves, xlabel="horizon", ylabel="length", **more).axes[0]


def test_traces_draw_what_they_are_given():
    axes = traces(level=5.0)
    level, one, other, _ = axes.lines
    assert list(level.get_ydata()) == [5.0, 5.0]
    assert list(one.get_xdata()) == [1, 2, 4]
    assert list(one.get_ydata()) == [1, 10, 100]
    assert other.get_linestyle() != one.get_linestyle() or other.get_marker() != one.get_marker()


def test_a_logarithmic_axis_draws_zero_at_its_foot():
    axes = traces(logs="xy")
    assert (axes.get_xscale(), axes.get_yscale()) == ("log", "log")
    assert min(axes.lines[1].get_ydata()) == horizons.LEAST


def test_names_are_pushed_apart():
    one, other = traces().texts  # and none for the curve without a name
    assert {one.get_text(), other.get_text()} == {"one", "other"}
    assert abs(one.xy[1] - other.xy[1]) >= horizons.GAP - 1e-9


def test_a_curve_of_another_length_is_refused():
    with pytest.raises(InputError, match="2 values for 3 places"):
        horizons.traces([1, 2, 3], [("one", "learned", [1.0, 2.0])], xlabel="", ylabel="")


def test_surfaces_has_a_panel_for_each_horizon():
    steps = torch.linspace(0, 1, 5)
    figure = horizons.surfaces(steps, {5: steps, 20: steps**2}, mark=0.5)
    assert [axes.get_title(loc="left") for axes in figure.axes] == ["after 5 steps", "after 20 steps"]
    assert figure.axes[1].lines[1].get_ydata()[-2] == pytest.approx(0.75**2)
    assert figure.axes[0].lines[0].get_xdata()[0] == 0.5


def test_a_frame_tells_the_longest_slopes():
    steps = torch.linspace(0, 1, 5)
    slopes = torch.tensor([0.0, -3e7, 2.0, 1.0, 0.5])
    drawing = horizons.at_horizon(40, steps, steps, slopes, (steps[:3], 2 * steps[:3]), ceiling=0.5, longest=1e4)
    assert "40 steps" in drawing.says
    assert "3.0e+07" in drawing.says
    assert "curve 2.0" in drawing.says
    top, bottom = drawing.figure.axes
    assert top.get_ylim()[1] == 0.5
    assert list(top.lines[1].get_xdata()) == steps[:3].tolist()
    assert max(bottom.lines[0].get_ydata()) == 1e4  # cut off, so that all frames have the same axes
    assert "40 steps" in drawing.alt
