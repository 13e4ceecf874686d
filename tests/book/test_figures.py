"""Figures: each public one as a line of a table, the numbers that they show, the look, and what a reader can move."""

import html
import io
import itertools
import math
import sys

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import torch
import toy
from bs4 import BeautifulSoup
from matplotlib.colors import to_rgb
from PIL import Image

from metarobust import evaluate
from metarobust.attacks import fgsm
from metarobust.book.figures import (
    adversarial_training,
    broken_defences,
    costs_and_limits,
    exploding_meta_gradients,
    few_images,
    fooling_a_classifier,
    geometry_of_attacks,
    grid,
    images,
    learned_optimizers,
    learning_a_step_size,
    learning_from_mistakes,
    learning_penalties,
    lines,
    matrix,
    new_data,
    optimizers_as_functions,
    results,
    slider,
    style,
    two_by_two,
    what_was_learned,
)
from metarobust.errors import InputError
from metarobust.lab.results import recorded
from metarobust.learned import make
from metarobust.params import ParamSpec

# How colours look without one kind of cone: Machado, Oliveira and Fernandes 2009, severity 1, in linear RGB.
SEEN = {
    "all three": np.eye(3),
    "protanopia": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "deuteranopia": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.01182, 0.04294, 0.968881]],
    "tritanopia": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.3039]],
}
TO_XYZ = [[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.072175], [0.0193339, 0.119192, 0.9503041]]
NETWORKS = ("mlp-80-gelu", "cnn-10-14-tanh")


@pytest.fixture(autouse=True)
def _close_figures():
    yield
    plt.close("all")


def linear(colour):
    c = np.array(to_rgb(colour))
    return np.where(c <= 0.04045, c / 12.92, ((c + 0.055) / 1.055) ** 2.4)


def lab(rgb):
    t = TO_XYZ @ np.clip(rgb, 0, 1) / [0.95047, 1, 1.08883]
    x, y, z = np.where(t > (6 / 29) ** 3, np.cbrt(t), t / (3 * (6 / 29) ** 2) + 4 / 29)
    return np.array([116 * y - 16, 500 * (x - y), 200 * (y - z)])


def contrast_on_white(colour):
    return 1.05 / (linear(colour) @ [0.2126, 0.7152, 0.0722] + 0.05)


@pytest.mark.parametrize("kind", SEEN)
def test_colours_stay_apart_for_every_kind_of_sight(kind):
    seen = {name: lab(SEEN[kind] @ linear(one.colour)) for name, one in style.ROLES.items() if name != "weaker"}
    near = {(a, b): np.linalg.norm(seen[a] - seen[b]) for a, b in itertools.combinations(seen, 2)}
    assert {pair: gap for pair, gap in near.items() if gap < 14} == {}
    for colours in (style.PERTURBATION, matrix.CHANGE):
        low, middle, high = (lab(SEEN[kind] @ linear(colours(t)[:3])) for t in (0.0, 0.5, 1.0))
        assert min(np.linalg.norm(low - high), np.linalg.norm(low - middle), np.linalg.norm(high - middle)) > 30


def test_roles_are_seen_on_white_and_told_apart_without_colour():
    for one in style.ROLES.values():
        assert contrast_on_white(one.colour) >= 3
        assert contrast_on_white(one.ink) >= 4.5
    looks = [(str(one.line), one.marker) for one in style.ROLES.values()]
    assert len(set(looks)) == len(looks)
    with pytest.raises(InputError, match="did you mean 'learned'"):
        style.line("lerned")


def test_what_is_set_outside_stays():
    before = dict(plt.rcParams)
    with style.style():
        assert plt.rcParams["axes.grid"]
    assert dict(plt.rcParams) == before


def draws(seed, *shape):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


WEIGHT = draws(1, 16, 3) * 6 - 3
X, Y = draws(2, 3, 1, 4, 4), torch.tensor([0, 1, 2])
SIZES = torch.logspace(-3, 1, 20)
W = torch.tensor([2.0, 1.0])
MODEL = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(16, 3)).eval()
TRACES = [("a", "clean", [1, 1e-20]), ("", "robust", [1, 2])]
RUN = {name: ("rule", (2 + draws(1, 6, 5)).tolist()) for name in "ab"}
CURVES = {"first": ("clean", [0.9, 0.8, 0.7]), "second": ("robust", [0.9, 0.3, 0.1])}
LOSSES = {"SGD": ("control", (SIZES.log() + 1).square() + 0.1), "Adam": ("rule", (SIZES.log() + 4).square() + 0.2)}
CUT = geometry_of_attacks.between(X[:1], X[:1] + 0.1, X[:1] + 0.1 * (draws(9, 1, 1, 4, 4) - 0.5).sign(), 0.1)
WALKS = {"one walk": ("control", 0.2 * draws(1, 5, 2) - 0.1), "another": ("robust", 0.2 * draws(2, 5, 2) - 0.1)}


def predict(x):
    return x.flatten(1) @ WEIGHT


def table(methods=("before", "adam", "falling noise + last-layer decay", "PGD-7 training", "learned"), **columns):
    """A row for each network, method, seed and metric: seed k is 0.1 k easier for everyone."""
    tiers = {"before": "", "PGD-7 training": "adversarial"}
    rows = []
    for i, (model, method, seed) in enumerate(itertools.product(NETWORKS, methods, (0, 1, 2))):
        learned = int("learned" in method)
        for meta_seed in (0, 1) if learned else (None,):
            for scope, metric, value in (
                ("", "clean accuracy", 0.9),
                ("single", "robust accuracy", 0.999),  # one attack alone is never what is drawn
                ("worst case", "robust accuracy", 0.1 + 0.1 * seed + 0.02 * (i // 3 % len(methods))),
            ):
                kind = "dense" if "mlp" in model else "convolutional"
                one = {"part": "patch", "model": model, "method": method, "meta_seed": meta_seed, "seed": seed}
                one |= {"tier": tiers.get(method, "0"), "step": 0 if method == "before" else 20, "split": "test"}
                one |= {"scope": scope, "metric": metric, "value": value, "learned": learned, "network": kind}
                rows.append(
                    one | {"start": "trained", "attack": "none", "eps": 0.1, "images_per_class": None} | columns
                )
    return pd.DataFrame(rows)


def few():
    parts = [table(part=f"{n} images", images_per_class=n, split=s) for n in (5, 20) for s in ("test", "train")]
    return pd.concat(parts)


def attacked():
    kinds = {"none": 0.0, "fgsm": 0.1, "pgd-40-ce": 0.1, "apgd-50-dlr-targeted": 0.1, "square-500": 0.1}
    kinds |= {"worst of pgd-40-ce, square-500": 0.1, "pgd-40 ce, margin in l2": 0.4}
    rows = [table(attack=attack, eps=eps) for attack, eps in kinds.items()]
    every = pd.concat(rows + [table(attack="pgd-40 ce, margin", eps=eps) for eps in (0.05, 0.2)])
    return every[every["scope"] == "worst case"]


METHODS = {"adam": "clean", "PGD-7 training": "reference", "learned": "learned"}
FIGURES = {
    "before_and_after": lambda: fooling_a_classifier.before_and_after(X, fgsm(predict, X, Y, eps=0.1), Y, predict),
    "row": lambda: images.row(X, ["a", "b", "c"], ["clean", None, "robust"]),
    "at_eps": lambda: fooling_a_classifier.at_eps(predict, X[:1], Y[:1], fgsm, 0.25),
    "ball_in_the_plane": lambda: fooling_a_classifier.ball_in_the_plane(eps=0.1),
    "random_against_aimed": lambda: fooling_a_classifier.random_against_aimed(draws(3, 100) - 0.5, -2.0),
    "three_balls": lambda: geometry_of_attacks.three_balls(W),
    "ball_of": lambda: geometry_of_attacks.ball_of(W, 1.4),
    "turned_into": lambda: geometry_of_attacks.turned_into(draws(4, 3, 3).fill_diagonal_(math.nan)),
    "borders": lambda: adversarial_training.borders({"plain": predict, "PGD": MODEL}, Y[:1], CUT, eps=0.1),
    "surface": lambda: geometry_of_attacks.surface(predict, Y[:1], CUT, eps=0.1, l2=0.3, paths=WALKS),
    "at_step": lambda: geometry_of_attacks.at_step(predict, Y[:1], CUT, WALKS, 2, eps=0.1),
    "along_a_line": lambda: broken_defences.along_a_line([0, 1], {name: [1, 2] for name in "abcd"}),
    "rounding": lambda: broken_defences.rounding(1.6),
    "claimed_and_found": lambda: broken_defences.claimed_and_found({"a": (0.9, 0.1), "b": (0.8, 0.3)}, 0.4),
    "shares": lambda: lines.shares([1, 2, 5], CURVES, xlabel="steps", log=True, zoom=True, mark=(2, "here")),
    "over_eps": lambda: lines.over_eps(evaluate(MODEL, X, Y, eps=0.1, attacks="quick", steps=5, checks=3)),
    "over_step_sizes": lambda: optimizers_as_functions.over_step_sizes(SIZES, LOSSES, guess=2.3),
    "valley": lambda: optimizers_as_functions.valley((1.0, 25.0), {"SGD": ("clean", draws(3, 9, 2) - 0.5)}),
    "answers": lambda: optimizers_as_functions.answers({"t": draws(1, 9)}, {"t": {"Adam": ("rule", draws(3, 9))}}),
    "unroll_graph": lambda: learning_a_step_size.unroll_graph(4, cut=2),
    "descent": lambda: learning_a_step_size.descent(SIZES, LOSSES["SGD"][1], [0.01, 0.1], [13, 1.8]),
    "over_horizons": lambda: learning_a_step_size.over_horizons(SIZES, [1, 9], torch.stack([SIZES, 1 / SIZES])),
    "at_horizon": lambda: learning_a_step_size.at_horizon(SIZES, lambda horizon: horizon * SIZES, 5, 0.3),
    "traces": lambda: lines.traces([1, 2], TRACES, xlabel="s", ylabel="w", logs="xy"),
    "surfaces": lambda: exploding_meta_gradients.surfaces(SIZES, {5: SIZES, 20: SIZES.sin()}, mark=1.0),
    "at_long_horizon": lambda: exploding_meta_gradients.at_horizon(
        8, SIZES, SIZES**2, 2 * SIZES, (SIZES, SIZES**1.5), 9.0, 100.0
    ),
    "two_inputs": lambda: learned_optimizers.two_inputs(torch.logspace(-10, 2, 60), draws(5, 2, 60)),
    "one_for_every_weight": learned_optimizers.one_for_every_weight,
    "runs": lambda: learned_optimizers.runs({"a": ("learned", 2 - draws(1, 40)), "b": ("rule", 3 + draws(2, 40))}),
    "kept_weights": lambda: learning_from_mistakes.kept_weights(draws(1, 64), {"Adam": ("clean", draws(2, 64))}),
    "by_pixels": lambda: learning_penalties.by_pixels(recorded("pixels-digits-small").frame),
    "two_by_two": lambda: two_by_two.two_by_two(X[0], X[1], dict.fromkeys(two_by_two.CORNERS, ("one", "two"))),
    "variants": lambda: two_by_two.variants(recorded("ablation-digits-small").frame, {"Meta-gradients": ["ES", "PES"]}),
    "matrix": lambda: matrix.draw(matrix.by_network(table(), {"learned": "all kinds"}, {"adam": "Adam"})),
    "by_attack": lambda: matrix.draw(new_data.by_attack(attacked(), {"learned": "meta: PGD", "adam": "Adam"})),
    "over_radii": lambda: new_data.over_radii(attacked(), {"learned": ("meta: PGD", "learned")}, learned_at=0.12),
    "over_images": lambda: few_images.over_images(few(), NETWORKS[0], METHODS),
    "learning_curves": lambda: few_images.learning_curves(table(), "patch", NETWORKS[0], METHODS),
    "gap": lambda: few_images.gap(few(), NETWORKS[0], METHODS),
    "curves": lambda: what_was_learned.curves({"one": (make("penalties"), toy.tasks().param_spec)}),
    "over_the_run": lambda: learning_penalties.over_the_run(learning_penalties.PANELS, RUN),
    "by_passes": lambda: learning_penalties.by_passes(
        recorded("frontier-digits-small").frame, ["train, 100 steps", "train, 200 steps"]
    ),
    "headline": lambda: results.headline(table()),
    "frontier": lambda: results.frontier(table(), "patch", NETWORKS[0]),
    "against_cost": lambda: costs_and_limits.against_cost(recorded("cost-digits-small").frame, "mlp-72-elu"),
    "whole_bill": lambda: costs_and_limits.whole_bill(recorded("cost-digits-small").frame, "mlp-72-elu"),
    "picked": lambda: costs_and_limits.picked([0.1, 0.5], [0.2, 0.3], (0.3, 0.4), 1),
    "told": lambda: costs_and_limits.told({"fair": 1.2, "proud": 8.1}, "fair"),
}
SHOWN = {  # what has to be read somewhere in the figure
    "before_and_after": ["at most 0.10"], "at_eps": ["eps 0.25"], "ball_in_the_plane": ["x + δ"],
    "shares": ["first", "second", "here"], "turned_into": ["·"], "claimed_and_found": ["no defence"],
    "rounding": ["1.6 levels"], "borders": ["plain", "PGD"], "one_for_every_weight": ["θ", "hₙ"],
    "surface": ["one walk", "another", "L2, radius 0.3"], "over_step_sizes": ["SGD", "Adam", "guessing"],
    "unroll_graph": ["θ", "w₄", "cut here"], "kept_weights": ["Adam"], "by_pixels": ["std-prune", "PGD-7 training"],
    "two_by_two": ["transfer mode", "meta-loss: attacked"], "variants": ["Meta-gradients", "PES"],
    "matrix": ["all kinds", "clean 0"], "by_attack": ["meta: PGD", "Square,\nno\ngradient"], "told": ["+1.2", "proud"],
    "over_images": ["Adam, clean", "learned", "20"], "gap": ["PGD-7 training"], "curves": ["one", "set by hand"],
    "headline": ["Adam, clean", "falling noise", "under attack"], "against_cost": ["before", "learned"],
}  # fmt: skip


def texts(figure):
    return " ".join(text.get_text() for text in figure.findobj(matplotlib.text.Text))


@pytest.mark.parametrize("name", FIGURES)
def test_every_figure_is_drawn_labelled_and_fits_a_phone(name):
    figure = FIGURES[name]()
    if isinstance(figure, slider.Drawing):
        assert len(figure.alt) > len(figure.says) > 10, "words for who cannot see it"
        figure = figure.figure
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=50)
    picture = np.asarray(Image.open(buffer).convert("RGB"))
    assert picture.std() > 0
    assert (picture[0, 0] == 255).all(), "white, on a dark page too"
    assert figure.get_size_inches()[0] <= 6
    read = texts(figure)
    assert len(read) > 10
    assert [text for text in SHOWN.get(name, ()) if text not in read] == []


def test_labels_at_the_ends_of_lines_do_not_overlap():
    given = {"a": ("clean", [1, 1]), "b": ("weaker", [1, 0.01]), "c": ("robust", [1, 0.0])}
    figure = lines.shares([0, 0.1], given, xlabel="eps")
    heights = [text.xy[1] for text in figure.axes[0].texts if text.get_text() in "abc"]
    assert min(abs(a - b) for a, b in itertools.combinations(heights, 2)) > 0.08


def test_images_are_drawn_from_black_to_white_and_no_change_is_white():
    _, axes = plt.subplots()
    images.show(axes, torch.full((1, 2, 2), 0.5))
    images.show_change(axes, torch.zeros(1, 2, 2), 0.1)
    grey, change = axes.images
    assert grey.get_clim() == (0, 1)
    assert change.get_clim() == (-0.1, 0.1)
    assert change.cmap(change.norm(0.0))[:3] == pytest.approx((1, 1, 1), abs=0.02)
    with pytest.raises(InputError, match="channels, height, width"):
        images.show(axes, torch.zeros(2, 4, 4))


def test_at_eps_says_what_the_model_says_of_the_attacked_image():
    drawing = fooling_a_classifier.at_eps(predict, X[:1], Y[:1], fgsm, 0.25)
    (answer,), (sure,) = images.says(predict, fgsm(predict, X[:1], Y[:1], eps=0.25))
    assert drawing.says.startswith(f"eps 0.25: the model says {answer}, {100 * sure:.0f} % sure")
    assert drawing.figure.axes[1].patches[answer].get_width() == pytest.approx(sure)


@pytest.mark.parametrize("p", geometry_of_attacks.NORMS)
def test_the_worst_point_of_a_ball_is_on_it_and_highest(p):
    best, around = geometry_of_attacks.worst(W, p), geometry_of_attacks.outline(p)
    assert float(torch.linalg.vector_norm(best, p)) == pytest.approx(1)
    assert float(W @ best) >= float((around @ W).max()) - 1e-5


def test_the_slice_holds_the_change_that_it_was_made_of():
    one = X[:1] + 0.1 * (draws(8, 1, 1, 4, 4) - 0.5).sign()
    other = X[:1] + 0.1 * (draws(9, 1, 1, 4, 4) - 0.5).sign()
    cut = geometry_of_attacks.between(X[:1], one, other, 0.1)
    assert torch.allclose(cut.at(torch.tensor([[0.1, 0.1]])), one.clamp(0, 1), atol=1e-6)
    with pytest.raises(InputError, match="agree on every pixel"):
        geometry_of_attacks.between(X[:1], one, one, 0.1)


def test_what_is_kept_of_the_first_layer():
    spec = ParamSpec(("w", "b"), ((2, 3), (2,)))
    before = torch.cat([torch.tensor([3.0, 1.0, 0.0, 4.0, 1.0, 2.0]), torch.zeros(2)])[None]
    after = before.clone()
    after[0, [0, 3]] /= 2
    assert learning_from_mistakes.kept(spec, before, after).tolist() == pytest.approx([0.5, 1, 1])


def test_points_are_means_over_seeds_and_the_best_rule_is_picked():
    every = results.points(table())
    learned = results.pick(every, NETWORKS[0], "learned")
    assert (learned.clean, learned.robust) == pytest.approx((0.9, 0.28))
    assert learned.robust_half == pytest.approx(4.3027 * 0.1 / 3**0.5, rel=1e-4)
    assert [point.role for point in every[:5]] == ["control", "clean", "rule", "reference", "learned"]
    order = ["before", "adam", "falling noise + last-layer decay", "learned", "PGD-7 training"]
    assert [point.method for point in results.shown(table(), "patch", NETWORKS[0])] == order
    first, _ = results.reading(table()).splitlines()
    assert first.startswith("- `mlp-80-gelu`: under attack 20 % before, 22 % after Adam, 24 % after falling noise")
    assert "+4.0 ± 0.0 points under attack, +0.0 ± 0.0 points on clean images" in first
    with pytest.raises(InputError, match="lerned"):
        results.pick(every, NETWORKS[0], "lerned")


def test_cells_of_a_matrix_are_paired_changes():
    found = matrix.by_network(table(), {"learned": "all"}, {"adam": "Adam"}, home={"all": "convolutional"})
    cell = found.at("all", NETWORKS[0])
    assert (cell.value, cell.half) == pytest.approx((0.08, 0), abs=1e-9)
    assert (cell.big, cell.small) == ("+8", "clean 0")
    changed = "under attack 20.0 → 28.0 % (+8.0 ± 0.0 points), on clean images"
    assert cell.words.startswith(f"all, used on {NETWORKS[0]}: {changed}")
    assert (found.gap, found.home) == (1, {(0, 1)})
    assert "best *all*, +8.0 ± 0.0 points under attack (clean: 0)" in matrix.reading(found)
    attacks = new_data.by_attack(attacked(), {"learned": "meta: PGD", "adam": "Adam"}, home={"meta: PGD": "pgd"})
    assert (attacks.gap, attacks.home, attacks.cells[0][0].big) == (1, {(0, 2)}, "28")
    with pytest.raises(InputError, match="column of this matrix"):
        found.at("all", "mlp-81-gelu")


def test_differences_of_variants_are_paired_and_noise_is_told_apart():
    frame = table(("learned", "learned, even", "learned, split"))
    frame = frame[frame["learned"] == 1].reset_index(drop=True)
    split = (frame["method"] == "learned, split") & (frame["scope"] == "worst case")
    frame.loc[split, "value"] += np.where(frame.loc[split, "meta_seed"] == 0, 0.1, -0.08)
    found = two_by_two.differences(frame)
    assert list(found) == ["even", "split"]
    renamed = frame.assign(method=frame["method"].str.replace("learned", "the rule"))
    assert two_by_two.differences(renamed, base="the rule") == found
    assert (found["even"].robust, found["split"].robust) == pytest.approx((0.02, 0.05))
    assert found["split"].by_meta_seed == pytest.approx((0.14, -0.04))
    assert found["even"].clear
    assert not found["split"].clear  # one meta-seed is on the other side
    words = two_by_two.verdicts(frame, {"Group": ["even", "split"]})
    differs = "+2.0 ± 0.0 points under attack, +0.0 ± 0.0 on clean images; **better**"
    assert words.startswith(f"**Group**\n\n- even: {differs}")
    assert "within the noise" in words
    with pytest.raises(InputError, match="evn"):
        two_by_two.verdicts(frame, {"Group": ["evn"]})


def test_few_images_are_compared_seed_by_seed():
    frame = few()
    assert few_images.numbers(frame) == {5: "5 images", 20: "20 images"}
    assert few_images.against(frame, "5 images", NETWORKS[0], "learned", "adam").startswith(
        "+6.0 ± 0.0 points under attack (ahead), +0.0 ± 0.0"
    )
    assert few_images.best(frame, ["5 images"], NETWORKS, ["adam", "PGD-7 training"]) == "PGD-7 training"
    with pytest.raises(InputError, match="sgd"):
        few_images.over_images(frame, NETWORKS[0], {"sgd": "clean"})
    with pytest.raises(InputError, match="images a class"):
        few_images.numbers(table())


def draw(value):
    with style.style():
        figure, axes = plt.subplots(figsize=(3, 2))
        axes.bar([0], [value])
        axes.set_ylim(0, 1)
    return slider.Drawing(figure, f'value {value:.1f} "so"', f"One bar of height {value:.1f} < 2")


def test_a_frame_is_a_small_png_the_same_each_time_and_its_figure_is_closed():
    one = slider.frame(draw, 0.5)
    assert Image.open(io.BytesIO(one.png)).width == one.width
    assert len(one.png) < 10_000
    assert not plt.get_fignums()
    assert one.png == slider.frame(draw, 0.5).png != slider.frame(draw, 0.6).png


def test_a_slider_has_alt_text_a_label_and_one_visible_frame():
    soup = BeautifulSoup(slider.slider(draw, [0.1, 0.2, 0.3], "height & so on", start=1)._repr_html_(), "html.parser")
    pictures = soup.find_all("img")
    assert [img["alt"] for img in pictures] == [f"One bar of height 0.{k} < 2" for k in (1, 2, 3)]
    assert ["display:block" in img["style"] for img in pictures] == [False, True, False]
    knob = soup.find("input")
    assert (knob["type"], knob["min"], knob["max"], knob["value"]) == ("range", "0", "2", "1")
    assert knob.find_parent("label").get_text().strip() == "height & so on"
    assert knob["aria-valuetext"] == soup.find("output").get_text() == 'value 0.2 "so"'
    with pytest.raises(InputError, match="starts at number"):
        slider.slider(draw, [0.1], "height", start=1)


@pytest.mark.parametrize("make", ["slider", "grid"])
def test_what_a_reader_moves_asks_nobody_for_anything_and_has_no_identifier(make):
    cells = matrix.by_network(table(), {"learned": "all"}, {"adam": "Adam"})
    made = slider.slider(draw, [0.1, 0.2], "height") if make == "slider" else grid.Grid(cells, "changes")
    text = made._repr_html_()
    soup = BeautifulSoup(text, "html.parser")
    assert not soup.find_all(["script", "link", "iframe", "style"])
    assert not soup.find_all(id=True)
    assert all(img["src"].startswith("data:image/png;base64,") for img in soup.find_all("img"))
    assert "http" not in text
    assert text == made._repr_html_()


def test_a_grid_is_a_table_of_buttons_with_words():
    cells = matrix.by_network(table(), {"learned": "all"}, {"adam": "Adam"})
    soup = BeautifulSoup(grid.Grid(cells, "changes")._repr_html_(), "html.parser")
    buttons = soup.find_all("button")
    assert [button["data-words"] for button in buttons] == [c.words for row in cells.cells for c in row]
    assert [button["tabindex"] for button in buttons] == ["0", "-1", "-1", "-1"]
    assert [head.get_text() for head in soup.find_all("th")] == [*NETWORKS, "all", "Adam"]
    assert soup.find("output").get_text() == cells.cells[0][0].words
    for shade in (-1.0, -0.3, 0.0, 0.3, 1.0):
        ground, ink = matrix.Cell(0, 0, "", "", shade, "").colours
        bright, dark = sorted((contrast_on_white(ground), contrast_on_white(ink)))
        assert dark / bright >= 4.5


def test_live_draws_what_is_chosen_and_says_what_it_needs(monkeypatch):
    pytest.importorskip("ipywidgets")
    knob, picture, words = slider.live(draw, 0.0, 1.0, 0.1, "height").children
    before = picture.value
    knob.value = 0.7
    assert words.value == 'value 0.7 "so"'
    assert picture.value != before
    assert html.escape("One bar of height 0.7 < 2") in picture.value
    monkeypatch.setitem(sys.modules, "ipywidgets", None)
    with pytest.raises(InputError, match="needs ipywidgets"):
        slider.live(draw, 0.0, 1.0, 0.1, "height")


BAD = {
    "4 panels|room for 4": lambda: broken_defences.along_a_line([0], {"a": [1]}),
    "no text for the corner": lambda: two_by_two.two_by_two(X[0], X[1], {}),
    "has 2 values for 3": lambda: lines.shares([1, 2, 3], {"a": ("clean", [1, 2])}, xlabel="x"),
    "below 1 it is no norm": lambda: geometry_of_attacks.worst(W, 0.5),
    "prefers no direction": lambda: geometry_of_attacks.worst(0 * W, 2),
    "give 1 to 2, or None": lambda: learning_a_step_size.unroll_graph(3, cut=3),
    "same rules for each": lambda: optimizers_as_functions.answers({"t": X}, {"u": {}}),
    "two for each gradient": lambda: learned_optimizers.two_inputs(SIZES, SIZES),
    "way to tell it": lambda: costs_and_limits.told({"a": 1}, "b"),
    "network in these results": lambda: costs_and_limits.whole_bill(recorded("cost-digits-small").frame, "mlp-1-elu"),
}


@pytest.mark.parametrize("says", BAD)
def test_what_cannot_be_drawn_is_refused_with_a_remedy(says):
    with pytest.raises(InputError, match=says):
        BAD[says]()
