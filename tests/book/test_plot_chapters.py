"""Figures of the chapters on attacks and defences: what they draw is what they were given, and can be read."""

import itertools
import math

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import pytest
import torch
from torch import nn

from metarobust.attacks.losses import margin
from metarobust.attacks.threat import length, steepest
from metarobust.book.figures import balls, shares, surface
from metarobust.errors import InputError

EPS = 0.1


@pytest.fixture(autouse=True)
def _close_figures():
    yield
    plt.close("all")


@pytest.fixture
def model():
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(16, 3)).requires_grad_(False)


@pytest.fixture
def image():
    return torch.rand(1, 1, 4, 4, generator=torch.Generator().manual_seed(1)) * 0.6 + 0.2


@pytest.fixture
def cut(image):
    mask = torch.zeros(1, 1, 4, 4)
    mask[..., :2] = 1
    return surface.Slice(image, mask, mask - 1)


class TestBalls:
    @pytest.mark.parametrize("p", balls.NORMS)
    def test_worst_point_is_on_the_ball_and_no_point_of_the_ball_is_worse(self, p):
        w = torch.tensor([2.0, -1.0])
        best = balls.worst(w, p)
        assert float(torch.linalg.vector_norm(best, p)) == pytest.approx(1, abs=1e-5)
        assert float((balls.outline(p) @ w).max()) <= float(w @ best) + 1e-5
        q = 1.0 if math.isinf(p) else math.inf if p == 1 else p / (p - 1)
        assert float(w @ best) == pytest.approx(float(torch.linalg.vector_norm(w, q)), rel=1e-5)

    @pytest.mark.parametrize(("p", "norm"), [(2.0, "l2"), (math.inf, "linf")])
    def test_worst_point_is_the_steepest_step_of_the_library(self, p, norm):
        w = torch.tensor([0.3, -4.0, 1.0, 2.0])
        assert torch.allclose(balls.worst(w, p), steepest(w[None], norm)[0], atol=1e-6)

    def test_with_l1_one_pixel_takes_all(self):
        assert balls.worst(torch.tensor([1.0, -3.0, 2.0]), 1).tolist() == [0, -1, 0]

    @pytest.mark.parametrize(("w", "p", "said"), [([1.0, 2.0], 0.5, "no norm"), ([0.0, 0.0], 2, "0 everywhere")])
    def test_bad_input_is_refused(self, w, p, said):
        with pytest.raises(InputError, match=said):
            balls.worst(torch.tensor(w), p)

    def test_frame_says_what_it_draws(self):
        w = torch.tensor([2.0, 1.0])
        drawing = balls.ball_of(w, math.inf)
        assert drawing.says == "L∞: pixel 1 moves by 1.00, pixel 2 by 1.00, and the score by 3.00"
        assert drawing.says in drawing.alt
        assert "score moves by 3.00" in drawing.figure.axes[0].get_title("left")

    def test_three_balls_are_three_norms(self):
        titles = [axes.get_title() for axes in balls.three_balls(torch.tensor([2.0, 1.0])).axes]
        assert titles == ["L1", "L2", "L∞"]


class TestSurface:
    def test_knobs_move_their_own_pixels_and_stay_images(self, cut):
        moved = cut.at(torch.tensor([[0.1, 0.0], [0.0, 0.1], [5.0, 0.0]]))
        change = (moved - cut.image)[:2]
        assert bool((change[0][..., 2:] == 0).all())
        assert bool((change[1][..., :2] == 0).all())
        assert float(moved.max()) <= 1

    def test_corners_of_the_square_are_eps_away(self, cut):
        corner = cut.at(torch.tensor([[EPS, EPS], [-EPS, EPS], [0.3 * EPS, -EPS]]))
        assert length(corner - cut.image, "linf").tolist() == pytest.approx([EPS] * 3, abs=1e-6)

    def test_one_pixel_on_two_knobs_is_refused(self, image):
        with pytest.raises(InputError, match="disjoint"):
            surface.Slice(image, torch.ones_like(image), torch.ones_like(image))

    def test_between_holds_the_first_at_a_corner_and_the_second_at_another(self, image):
        sign = torch.ones(1, 1, 4, 4)
        other = sign.clone()
        other[..., 0] = -1
        cut = surface.between(image, image + EPS * sign, image + EPS * other, EPS)
        found = cut.at(torch.tensor([[EPS, EPS], [EPS, -EPS]]))
        assert torch.allclose(found[:1], image + EPS * sign, atol=1e-6)
        assert torch.allclose(found[1:], image + EPS * other, atol=1e-6)

    def test_between_two_that_agree_is_refused(self, image):
        with pytest.raises(InputError, match="one knob moves nothing"):
            surface.between(image, image + EPS, image + EPS, EPS)

    def test_heights_are_margins_and_rows_go_up(self, model, cut):
        label = torch.tensor([1])
        knob, height = surface.heights(model, label, cut, 0.2, points=5)
        there = cut.at(torch.stack([knob[1:2], knob[4:5]], 1))
        assert float(height[4, 1]) == pytest.approx(float(margin(model(there), label)), abs=1e-5)

    def test_surface_draws_balls_and_walks(self, model, cut):
        walk = torch.tensor([[0.0, 0.0], [0.05, 0.05], [0.1, 0.1]])
        figure = surface.surface(model, torch.tensor([1]), cut, eps=EPS, l2=0.4, paths={"a walk": ("robust", walk)})
        axes = figure.axes[0]
        square, ellipse = axes.patches
        assert square.get_width() == pytest.approx(2 * EPS)
        assert ellipse.get_width() * float(cut.across.norm()) == pytest.approx(0.8)
        edge = torch.tensor([[ellipse.get_width() / 2, 0.0]])
        assert float((cut.at(edge) - cut.image).norm()) == pytest.approx(0.4, abs=0.05)  # clipping may shorten it
        assert "a walk" in {text.get_text() for text in axes.texts}

    def test_frame_shows_the_walk_up_to_its_step_and_says_where_it_stands(self, model, cut):
        label, walk = torch.tensor([1]), torch.tensor([[0.0, 0.0], [0.05, 0.05], [0.1, 0.1]])
        drawing = surface.at_step(model, label, cut, {"one": ("robust", walk)}, 1, eps=EPS)
        assert drawing.says.startswith("step 1; one: margin ")
        assert f"{float(margin(model(cut.at(walk[1:2])), label)):+.1f}" in drawing.says
        drawn = [line for line in drawing.figure.axes[0].lines if len(line.get_xdata()) == 2]
        assert len(drawn) == 1
        late = surface.at_step(model, label, cut, {"one": ("robust", walk)}, 9, eps=EPS)
        assert late.says.startswith("step 9")


CURVES = {"a": ("clean", [0.9, 0.9]), "b": ("weaker", [0.8, 0.31]), "c": ("robust", [0.7, 0.3])}


class TestShares:
    def test_every_line_has_its_label_and_no_two_overlap(self):
        axes = shares.shares([1, 10], CURVES, xlabel="steps", log=True).axes[0]
        labels = {text.get_text(): text.xy[1] for text in axes.texts}
        assert set(labels) == {"a", "b", "c"}
        assert labels["c"] < labels["b"] < labels["a"]
        assert min(abs(p - q) for p, q in itertools.combinations(labels.values(), 2)) > 0.08
        assert [text.get_text() for text in axes.get_xticklabels()] == ["1", "10"]

    def test_zoomed_axis_holds_all_points_and_little_more(self):
        axes = shares.shares([1, 2], {"a": ("clean", [0.4, 0.5])}, xlabel="x", zoom=True).axes[0]
        low, high = axes.get_ylim()
        assert low < 0.4 < 0.5 < high
        assert high - low < 0.2

    def test_curve_of_another_length_is_refused(self):
        with pytest.raises(InputError, match="1 shares for 2 places"):
            shares.shares([1, 2], {"a": ("clean", [0.4])}, xlabel="x")

    def test_straight_or_bent_draws_both(self):
        axes = shares.straight_or_bent([0, 0.1], [0, 5], [0, 4]).axes[0]
        assert [line.get_ydata()[-1] for line in axes.lines] == [5, 4]

    def test_turned_into_writes_every_pair(self):
        share = torch.tensor([[math.nan, 0.25, 0.05], [1.0, math.nan, 0.1], [0.0, 0.5, math.nan]])
        texts = [text.get_text() for text in shares.turned_into(share).axes[0].texts]
        assert texts == ["·", "25", "", "100", "·", "10", "", "50", "·"]

    def test_claimed_and_found_marks_both_ends_and_the_line(self):
        axes = shares.claimed_and_found({"one": (0.9, 0.2), "two": (0.8, 0.7)}, honest=0.4).axes[0]
        marks = [(line.get_xdata()[0], line.get_ydata()[0]) for line in axes.lines if len(line.get_xdata()) == 1]
        assert marks == [(0.9, 0), (0.2, 0), (0.8, 1), (0.7, 1)]
        assert [text.get_text() for text in axes.get_yticklabels()] == ["one", "two"]
        assert axes.lines[-1].get_xdata()[0] == 0.4

    def test_along_a_line_has_a_panel_for_each(self):
        figure = shares.along_a_line([0, 1], {name: [0, k] for k, name in enumerate("abcd")}, mark=0.5)
        assert [axes.get_title("left") for axes in figure.axes] == list("abcd")
        assert [axes.lines[0].get_ydata()[-1] for axes in figure.axes] == [0, 1, 2, 3]

    def test_along_a_line_needs_as_many_panels_as_it_has_room_for(self):
        with pytest.raises(InputError, match="room for 4"):
            shares.along_a_line([0, 1], {"a": [0, 1]})
