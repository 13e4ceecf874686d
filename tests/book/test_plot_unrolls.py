"""Figures about unrolled runs and learned rules: what they mark is what the numbers say."""

import itertools
import math

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import pytest
import torch
from matplotlib.colors import to_hex

from metarobust.book.figures import runs, unrolls
from metarobust.book.figures.slider import slider
from metarobust.errors import InputError
from metarobust.learned.lstm import log_and_sign


@pytest.fixture(autouse=True)
def _close_figures():
    yield
    plt.close("all")


def texts(figure):
    return [text.get_text() for text in figure.axes[0].texts]


def arrows(figure):
    return [to_hex(patch.get_edgecolor()).upper() for patch in figure.axes[0].patches]


class TestGraph:
    @pytest.mark.parametrize("steps", [1, 3, 12])
    def test_every_step_has_its_nodes_and_arrows(self, steps):
        figure = unrolls.unroll_graph(steps)
        assert {"w₀", "u₀", "g₀", "θ", "L"} <= set(texts(figure))
        assert sum(text.startswith("w") for text in texts(figure)) == steps + 1
        assert sum(text.startswith("u") for text in texts(figure)) == steps
        assert len(arrows(figure)) == 5 * steps + 1

    def test_numbers_of_two_digits_are_subscripts(self):
        assert "w₁₂" in texts(unrolls.unroll_graph(12))

    def test_only_the_paths_over_gradients_are_dashed(self):
        patches = unrolls.unroll_graph(3).axes[0].patches
        assert sum(patch.get_linestyle() not in ("-", "solid") for patch in patches) == 6

    def test_no_slope_comes_back_from_before_a_cut(self):
        assert arrows(unrolls.unroll_graph(4, cut=2)).count("#C4C4C4") == 10
        assert "#C4C4C4" not in arrows(unrolls.unroll_graph(4))
        assert "cut here" in texts(unrolls.unroll_graph(4, cut=3))

    @pytest.mark.parametrize("cut", [0, 4, -1])
    def test_a_cut_outside_of_the_run_is_refused(self, cut):
        with pytest.raises(InputError, match=f"a cut after step {cut} of 4"):
            unrolls.unroll_graph(4, cut=cut)


SIZES = torch.logspace(-2, 0, 21)


def bowls(centre):
    return 0.5 + (SIZES.log10() - centre) ** 2


def test_descent_marks_where_it_went():
    visited, met = [0.01, 0.1, 0.3], [1.5, 0.6, 0.52]
    axes = unrolls.descent(SIZES, bowls(-0.5), visited, met).axes[0]
    assert list(axes.lines[1].get_xdata()) == visited
    assert list(axes.lines[1].get_ydata()) == met
    assert [text.get_text() for text in axes.texts] == ["begins here", "ends here"]
    assert axes.texts[1].xy == (0.3, 0.52)


class TestHorizons:
    losses = torch.stack([bowls(-1.5), bowls(-1), bowls(-0.5)])

    def test_best_of_each_row_is_on_the_line(self):
        axes = unrolls.over_horizons(SIZES, [1, 5, 20], self.losses).axes[0]
        assert axes.lines[0].get_xdata().tolist() == pytest.approx([10**-1.5, 0.1, 10**-0.5], rel=1e-4)
        assert [text.get_text() for text in axes.get_yticklabels()] == ["1", "5", "20"]

    def test_each_row_is_relative_to_its_own_best(self):
        one = unrolls.over_horizons(SIZES, [1, 5, 20], self.losses).axes[0].collections[0].get_array()
        other = unrolls.over_horizons(SIZES, [1, 5, 20], 7 * self.losses).axes[0].collections[0].get_array()
        assert abs(one - other).max() < 1e-5
        assert one.min(1).tolist() == [0, 0, 0]

    def test_what_diverged_is_the_worst(self):
        losses = self.losses.clone()
        losses[0, -1], losses[1, -1] = float("nan"), float("inf")
        drawn = unrolls.over_horizons(SIZES, [1, 5, 20], losses).axes[0].collections[0].get_array()
        assert drawn[0, -1] == drawn[1, -1] == 3

    def test_other_shapes_are_refused(self):
        with pytest.raises(InputError, match=r"losses are \[3, 21\]; give \[2, 21\]"):
            unrolls.over_horizons(SIZES, [1, 5], self.losses)


def wandering(horizon):
    return bowls(-1.5 + 0.05 * horizon)


@pytest.mark.parametrize(("horizon", "best"), [(0, 10**-1.5), (10, 0.1), (20, 10**-0.5)])
def test_slider_over_the_horizon_says_the_best(horizon, best):
    drawing = unrolls.at_horizon(SIZES, wandering, horizon, long=0.1)
    assert drawing.says == f"horizon {horizon}: best step size {best:.2g}, {best / 0.1:.1f} times that of the long run"
    assert drawing.says in drawing.alt
    mark = drawing.figure.axes[0].lines[-1]
    assert mark.get_xdata()[0] == pytest.approx(best, rel=1e-4)


def test_slider_frames_differ_and_stay_small():
    made = slider(lambda k: unrolls.at_horizon(SIZES, wandering, int(k), long=0.1), [0, 10, 20], "horizon")
    assert len({frame.png for frame in made.frames}) == 3
    assert len(made._repr_html_()) < 60_000


def test_two_inputs_are_those_of_the_lstm():
    g = torch.logspace(-9, 1, 50)
    axes = runs.two_inputs(g, log_and_sign(g)).axes[0]
    assert axes.lines[0].get_xdata()[0] == pytest.approx(math.exp(-10))
    assert torch.tensor(axes.lines[1].get_ydata()).allclose(log_and_sign(g)[0])
    assert [text.get_text() for text in axes.texts] == ["size", "sign"]
    with pytest.raises(InputError, match="two for each gradient"):
        runs.two_inputs(g, log_and_sign(g)[:1])


CURVES = {
    "a": ("clean", torch.linspace(2, 0.2, 30)),
    "b": ("rule", torch.linspace(2, 0.21, 30)),
    "c": ("learned", torch.tensor([2.0, 0.5] + [1e9] * 26 + [float("nan"), float("inf")])),
    "d": ("robust", torch.linspace(2, 50.0, 30)),
}


class TestRuns:
    def test_what_went_above_the_top_is_drawn_there(self):
        axes = runs.runs(CURVES, mark=10, top=4.0).axes[0]
        drawn = axes.lines[3].get_ydata()
        assert drawn[1] == 0.5
        assert max(drawn) == 4.0
        assert list(drawn[-2:]) == [4.0, 4.0]
        assert axes.lines[0].get_xdata() == [10, 10]

    def test_labels_of_curves_that_end_together_are_apart_and_inside(self):
        figure = runs.runs(CURVES, top=4.0)
        figure.canvas.draw()
        axes = figure.axes[0]
        boxes = sorted((t.get_window_extent() for t in axes.texts), key=lambda box: box.y0)
        assert len(boxes) == 4
        assert all(a.y1 <= b.y0 + 1 for a, b in itertools.pairwise(boxes))
        frame = axes.get_window_extent()
        assert boxes[-1].y0 < frame.y1
        assert boxes[0].y1 > frame.y0
