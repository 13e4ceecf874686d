"""Figures about hand-written rules: the best step size is where it is said to be, and nothing is drawn that was not."""

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import pytest
import torch

from metarobust.book.figures import rules
from metarobust.errors import InputError


@pytest.fixture(autouse=True)
def _close_figures():
    yield
    plt.close("all")


SIZES = torch.logspace(-3, 1, 9)


def bowl(centre):
    return 0.1 + (SIZES.log10() - centre) ** 2


class TestOverStepSizes:
    def test_best_of_each_curve_is_marked_and_named(self):
        curves = {"one": ("control", bowl(-1)), "two": ("rule", bowl(0)), "three": ("clean", bowl(-2))}
        axes = rules.over_step_sizes(SIZES, curves).axes[0]
        marks = sorted(float(mark.get_xdata()[0]) for mark in axes.lines if len(mark.get_xdata()) == 1)
        assert marks == pytest.approx([0.01, 0.1, 1.0])
        labels = {text.get_text(): text.xy for text in axes.texts}
        assert labels["two"] == pytest.approx((1.0, 0.1))

    def test_labels_side_by_side_do_not_cover_each_other(self):
        curves = {"SGD": ("control", bowl(0)), "momentum": ("rule", bowl(-0.5)), "Adam": ("clean", bowl(-1))}
        figure = rules.over_step_sizes(SIZES, curves)
        figure.canvas.draw()
        boxes = [text.get_window_extent() for text in figure.axes[0].texts]
        assert not any(a.overlaps(b) for i, a in enumerate(boxes) for b in boxes[:i])

    def test_what_diverged_is_drawn_at_the_top(self):
        losses = bowl(-1)
        losses[-1], losses[-2], losses[-3] = float("nan"), float("inf"), 1e9
        drawn = rules.over_step_sizes(SIZES, {"one": ("clean", losses)}, top=5.0).axes[0].lines[0].get_ydata()
        assert [float(y) for y in drawn[-3:]] == [5.0, 5.0, 5.0]

    def test_guessing_is_a_line(self):
        axes = rules.over_step_sizes(SIZES, {"one": ("clean", bowl(-1))}, guess=2.3).axes[0]
        assert axes.lines[0].get_ydata() == [2.3, 2.3]

    def test_a_slope_may_hang_on_the_losses(self):
        losses = bowl(-1).requires_grad_()
        rules.over_step_sizes(SIZES, {"one": ("clean", losses)})

    def test_other_lengths_are_refused(self):
        with pytest.raises(InputError, match="'one' has 3 numbers for 9"):
            rules.over_step_sizes(SIZES, {"one": ("clean", torch.ones(3))})

    def test_ticks_are_plain_numbers(self):
        axes = rules.over_step_sizes(SIZES, {"one": ("clean", bowl(-1))}).axes[0]
        assert [text.get_text() for text in axes.get_xticklabels()] == ["0.001", "0.01", "0.1", "1", "10"]
        assert "0.1" in [text.get_text() for text in axes.get_yticklabels()]


def test_valley_draws_each_path_over_level_lines():
    path = torch.tensor([[-4.0, 0.7], [-3.0, -0.5], [-2.0, 0.2]])
    figure = rules.valley((1.0, 25.0), {"SGD": ("control", path), "Adam": ("clean", 0.5 * path)})
    assert [axes.get_title("left") for axes in figure.axes] == ["SGD", "Adam"]
    drawn = figure.axes[1].lines[0]
    assert torch.tensor(drawn.get_xydata()).float().allclose(0.5 * path)
    levels = figure.axes[0].collections[0]
    assert len(levels.get_paths()) > 3


def test_answers_are_below_their_gradients():
    given = {"a": torch.tensor([1.0, 0.0]), "b": torch.tensor([1.0, -1.0])}
    steps = {title: {"SGD": ("control", -g), "half": ("rule", -g / 2)} for title, g in given.items()}
    figure = rules.answers(given, steps)
    assert len(figure.axes) == 6
    drawn = [list(axes.lines[-1].get_ydata()) for axes in figure.axes]
    assert drawn == [[1, 0], [1, -1], [-1, 0], [-1, 1], [-0.5, 0], [-0.5, 0.5]]


@pytest.mark.parametrize("wrong", [{"b": {}}, {"a": {"SGD": ("control", torch.ones(1))}, "b": {}}])
def test_answers_to_other_gradients_are_refused(wrong):
    given = {"a": torch.ones(1), "b": torch.ones(1)}
    with pytest.raises(InputError, match="same rules for each"):
        rules.answers(given, wrong)
