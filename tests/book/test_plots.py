"""Figures: a look that everybody can read, pictures that show what they say, a slider that a keyboard moves."""

import html
import io
import itertools
import shutil
import subprocess
import sys

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
import pytest
import torch
from bs4 import BeautifulSoup
from matplotlib.colors import to_rgb
from PIL import Image
from torch import nn

from metarobust.attacks import fgsm, pgd
from metarobust.book.figures import curves, images, slider, style
from metarobust.errors import InputError

# How colours look without one kind of cone: Machado, Oliveira and Fernandes 2009, severity 1, in linear RGB.
SEEN = {
    "all three": np.eye(3),
    "protanopia": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "deuteranopia": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.01182, 0.04294, 0.968881]],
    "tritanopia": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.3039]],
}
TO_XYZ = np.array(
    [[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.072175], [0.0193339, 0.119192, 0.9503041]]
)


def linear(colour):
    c = np.array(to_rgb(colour))
    return np.where(c <= 0.04045, c / 12.92, ((c + 0.055) / 1.055) ** 2.4)


def lab(rgb):
    t = TO_XYZ @ np.clip(rgb, 0, 1) / [0.95047, 1, 1.08883]
    x, y, z = np.where(t > (6 / 29) ** 3, np.cbrt(t), t / (3 * (6 / 29) ** 2) + 4 / 29)
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


def contrast_on_white(colour):
    return 1.05 / (linear(colour) @ [0.2126, 0.7152, 0.0722] + 0.05)


def pixels(figure):
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return np.asarray(Image.open(buffer).convert("RGB"))


@pytest.fixture(autouse=True)
def _close_figures():
    yield
    plt.close("all")


@pytest.fixture
def model():
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(16, 3))


@pytest.fixture
def batch():
    x = torch.rand(3, 1, 4, 4, generator=torch.Generator().manual_seed(1))
    return x, torch.tensor([0, 1, 2])


class TestStyle:
    @pytest.mark.parametrize("kind", SEEN)
    def test_colours_stay_apart_for_every_kind_of_sight(self, kind):
        seen = {name: lab(SEEN[kind] @ linear(role.colour)) for name, role in style.ROLES.items() if name != "weaker"}
        near = {(a, b): np.linalg.norm(seen[a] - seen[b]) for a, b in itertools.combinations(seen, 2)}
        assert {pair: gap for pair, gap in near.items() if gap < 14} == {}

    @pytest.mark.parametrize("kind", SEEN)
    def test_brighter_and_darker_pixels_stay_apart(self, kind):
        low, middle, high = (lab(SEEN[kind] @ linear(style.PERTURBATION(t)[:3])) for t in (0.0, 0.5, 1.0))
        assert min(np.linalg.norm(low - high), np.linalg.norm(low - middle), np.linalg.norm(high - middle)) > 30

    @pytest.mark.parametrize("name", style.ROLES)
    def test_lines_and_letters_are_seen_on_white(self, name):
        assert contrast_on_white(style.role(name).colour) >= 3
        assert contrast_on_white(style.role(name).ink) >= 4.5

    def test_line_and_marker_tell_roles_apart_without_colour(self):
        looks = [(str(role.line), role.marker) for role in style.ROLES.values()]
        assert len(set(looks)) == len(looks)

    def test_unknown_role_is_refused(self):
        with pytest.raises(InputError, match="did you mean 'learned'"):
            style.line("lerned")

    def test_what_is_set_outside_stays(self):
        before = dict(plt.rcParams)
        with style.style():
            assert plt.rcParams["axes.grid"]
        assert dict(plt.rcParams) == before

    def test_every_role_can_be_drawn(self):
        with style.style():
            figure, (top, bottom) = plt.subplots(2, figsize=(5, 6))
            for i, name in enumerate(style.ROLES):
                top.plot([0, 1], [i / 10, i / 10], **style.line(name))
                bottom.barh(i, i / 10, **style.bar(name))
                style.beside(top, 1, i / 10, name, name)
            style.percent(top)
            style.percent(bottom, "x")
        assert pixels(figure).std() > 0

    def test_percent_reads_shares(self):
        figure, axes = plt.subplots()
        style.percent(axes)
        figure.canvas.draw()
        assert [text.get_text() for text in axes.get_yticklabels()] == ["0 %", "25 %", "50 %", "75 %", "100 %"]

    def test_the_library_does_without_matplotlib(self):
        code = "import sys, metarobust.book.exercises.two_by_two; assert 'matplotlib' not in sys.modules"
        subprocess.run([sys.executable, "-c", code], check=True)


class TestImages:
    def test_says_is_the_largest_probability(self, model, batch):
        classes, sure = images.says(model, batch[0])
        probabilities = model(batch[0]).softmax(1)
        assert classes == probabilities.argmax(1).tolist()
        assert sure == pytest.approx(probabilities.amax(1).tolist())

    def test_grey_is_drawn_from_black_to_white_whatever_is_in_the_image(self):
        _, axes = plt.subplots()
        images.show(axes, torch.full((1, 2, 2), 0.5))
        assert axes.images[0].get_clim() == (0, 1)

    def test_colour_images_are_drawn(self):
        _, axes = plt.subplots()
        images.show(axes, torch.rand(3, 4, 4), "a caption", name="robust")
        assert axes.images[0].get_array().shape == (4, 4, 3)

    @pytest.mark.parametrize("shape", [(4, 4), (2, 4, 4), (1, 1, 4, 4)])
    def test_other_shapes_are_refused(self, shape):
        with pytest.raises(InputError, match="channels, height, width"):
            images.show(plt.subplots()[1], torch.zeros(shape))

    def test_no_change_is_white_and_the_limit_is_symmetrical(self):
        _, axes = plt.subplots()
        images.show_change(axes, torch.zeros(1, 2, 2), 0.1)
        drawn = axes.images[0]
        assert drawn.get_clim() == (-0.1, 0.1)
        assert drawn.cmap(drawn.norm(0.0))[:3] == pytest.approx((1, 1, 1), abs=0.02)

    def test_row_has_a_caption_for_each(self, batch):
        figure = images.row(batch[0], ["a", "b", "c"], ["clean", "robust", None])
        assert [axes.get_title() for axes in figure.axes] == ["a", "b", "c"]

    def test_before_and_after_says_what_the_model_says(self, model, batch):
        x, y = batch
        moved = fgsm(model, x, y, eps=0.3)
        figure = images.before_and_after(x, moved, y, model)
        titles = [axes.get_title() for axes in figure.axes]
        assert [titles[0][1], titles[3][1], titles[6][1]] == [str(k) for k in images.says(model, x)[0]]
        assert [titles[2][1], titles[5][1], titles[8][1]] == [str(k) for k in images.says(model, moved)[0]]
        assert "at most 0.30" in titles[1]

    def test_before_and_after_of_nothing_changed(self, model, batch):
        assert pixels(images.before_and_after(batch[0], batch[0], batch[1], model)).std() > 0

    @pytest.mark.parametrize("attack", [fgsm, pgd])
    def test_at_eps_says_what_the_model_says_of_the_attacked_image(self, model, batch, attack):
        x, y = batch[0][:1], batch[1][:1]
        drawing = images.at_eps(model, x, y, attack, 0.25)
        (found,), (sure,) = images.says(model, attack(model, x, y, eps=0.25))
        assert drawing.says.startswith(f"eps 0.25: the model says {found}, {100 * sure:.0f} % sure")
        assert ("(right)" in drawing.says) == (found == 0)
        assert "0.25" in drawing.alt
        _, right = drawing.figure.axes
        assert len(right.patches) == 3
        assert right.patches[found].get_width() == pytest.approx(sure)


class TestCurves:
    def test_ball_in_the_plane_keeps_random_points_on_the_right_side(self):
        axes = curves.ball_in_the_plane(eps=0.1).axes[0]
        border, points = axes.lines[0], axes.lines[1]
        total = border.get_xdata()[0] + border.get_ydata()[0]
        assert (points.get_xdata() + points.get_ydata() < total).all()
        corner = axes.lines[-1]
        assert corner.get_xdata()[0] + corner.get_ydata()[0] > total

    def test_random_against_aimed_shows_all_changes(self):
        axes = curves.random_against_aimed(torch.randn(100), -5.0).axes[0]
        assert sum(bar.get_height() for bar in axes.patches) == 100
        assert axes.lines[0].get_xdata()[0] == -5

    def test_accuracy_against_eps_labels_every_line_and_no_two_overlap(self):
        given = {"a": ("clean", [1, 1]), "b": ("weaker", [1, 0.01]), "c": ("robust", [1, 0.0])}
        axes = curves.accuracy_against_eps([0, 0.1], given, mark=0.05).axes[0]
        labels = {text.get_text(): text.xy[1] for text in axes.texts if hasattr(text, "xy")}
        assert set(labels) == {"a", "b", "c"}
        assert labels["c"] < labels["b"] < labels["a"]
        assert min(abs(p - q) for p, q in itertools.combinations(labels.values(), 2)) > 0.08


def draw(value):
    with style.style():
        figure, axes = plt.subplots(figsize=(3, 2))
        axes.bar([0], [value])
        axes.set_ylim(0, 1)
    return slider.Drawing(figure, f'value {value:.1f} "so"', f"One bar of height {value:.1f} < 2")


class TestSlider:
    def test_a_frame_is_a_small_png_and_its_figure_is_closed(self):
        one = slider.frame(draw, 0.5)
        picture = Image.open(io.BytesIO(one.png))
        assert picture.format == "PNG"
        assert picture.width == one.width
        assert len(one.png) < 10_000
        assert not plt.get_fignums()

    def test_frames_differ_and_drawing_again_gives_the_same_bytes(self):
        assert slider.frame(draw, 0.5).png == slider.frame(draw, 0.5).png
        assert slider.frame(draw, 0.5).png != slider.frame(draw, 0.6).png

    def test_html_has_alt_text_a_label_and_one_visible_frame(self):
        made = slider.slider(draw, [0.1, 0.2, 0.3], "height & so on", start=1)
        soup = BeautifulSoup(made._repr_html_(), "html.parser")
        pictures = soup.find_all("img")
        assert [img["alt"] for img in pictures] == [f"One bar of height 0.{k} < 2" for k in (1, 2, 3)]
        assert ["display:block" in img["style"] for img in pictures] == [False, True, False]
        knob = soup.find("input")
        assert (knob["type"], knob["min"], knob["max"], knob["value"]) == ("range", "0", "2", "1")
        assert knob.find_parent("label").get_text().strip() == "height & so on"
        assert knob["aria-valuetext"] == soup.find("output").get_text() == 'value 0.2 "so"'
        assert knob["oninput"] == slider.SCRIPT.strip()

    def test_html_asks_nobody_for_anything_and_has_no_identifier(self):
        text = slider.slider(draw, [0.1, 0.2], "height")._repr_html_()
        soup = BeautifulSoup(text, "html.parser")
        assert not soup.find_all(["script", "link", "iframe", "style"])
        assert not soup.find_all(id=True)
        assert all(img["src"].startswith("data:image/png;base64,") for img in soup.find_all("img"))
        assert "http" not in text

    def test_drawn_again_it_is_the_same(self):
        first, second = (slider.slider(draw, [0.1, 0.2], "height") for _ in range(2))
        assert first._repr_html_() == second._repr_html_()
        assert repr(first) == "Slider(label='height', start=0)"

    @pytest.mark.parametrize(("values", "start"), [([], 0), ([0.1], 1), ([0.1], -1)])
    def test_bad_starts_are_refused(self, values, start):
        with pytest.raises(InputError, match="starts at number"):
            slider.slider(draw, values, "height", start)

    def test_a_heavy_slider_is_refused(self, monkeypatch):
        monkeypatch.setattr(slider, "MOST_BYTES", 1000)
        with pytest.raises(InputError, match="fewer or smaller"):
            slider.slider(draw, [0.1, 0.2], "height")

    @pytest.mark.slow
    def test_in_a_browser_the_arrow_shows_the_next_frame_of_its_own_slider(self, tmp_path):
        browser = shutil.which("chromium")
        if not browser:
            pytest.skip("no chromium on this machine")
        two = "".join(slider.slider(draw, [0.1, 0.2, 0.3], name)._repr_html_() for name in ("first", "second"))
        press = (
            "<script>const knob = document.querySelectorAll('input')[1]; knob.stepUp();"
            "knob.dispatchEvent(new Event('input'))</script>"
        )
        page = tmp_path / "page.html"
        page.write_text(f"<!doctype html><meta charset=utf-8>{two}{press}", encoding="utf-8")
        command = [
            browser, "--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking",
            f"--user-data-dir={tmp_path / 'profile'}", "--dump-dom", page.as_uri(),
        ]  # fmt: skip
        dom = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout
        first, second = BeautifulSoup(dom, "html.parser").select("[data-slider]")
        assert ["block" in img["style"] for img in first.find_all("img")] == [True, False, False]
        assert ["block" in img["style"] for img in second.find_all("img")] == [False, True, False]
        assert second.find("output").get_text() == second.find("input")["aria-valuetext"] == 'value 0.2 "so"'

    def test_live_draws_what_is_chosen(self):
        pytest.importorskip("ipywidgets")
        box = slider.live(draw, 0.0, 1.0, 0.1, "height")
        knob, picture, words = box.children
        assert "0.0" in words.value
        before = picture.value
        knob.value = 0.7
        assert words.value == 'value 0.7 "so"'
        assert picture.value != before
        assert html.escape("One bar of height 0.7 < 2") in picture.value

    def test_live_without_ipywidgets_says_so(self, monkeypatch):
        monkeypatch.setitem(sys.modules, "ipywidgets", None)
        with pytest.raises(InputError, match="needs ipywidgets"):
            slider.live(draw, 0.0, 1.0, 0.1, "height")
