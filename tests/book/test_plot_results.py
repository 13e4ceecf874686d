"""Figures out of a results table: what is drawn is what was given, and what is missing is named."""

import math
import re

import matplotlib
import pytest
import torch

matplotlib.use("Agg")

import matplotlib.pyplot as plt

from metarobust.book.figures import learned, results
from metarobust.errors import InputError
from metarobust.lab import table
from metarobust.models import build
from metarobust.params import ParamSpec

# method: (tier, clean and robust accuracy of the two seeds, adversarial examples)
METHODS = {
    "before": ("", (0.94, 0.96), (0.30, 0.32), 0),
    "adam": ("0", (0.95, 0.97), (0.31, 0.33), 0),
    "std-prune": ("0", (0.90, 0.92), (0.50, 0.54), 0),
    "falling noise + last-layer decay": ("1", (0.91, 0.93), (0.40, 0.42), 0),
    "PGD-7 training": ("adversarial", (0.88, 0.90), (0.58, 0.60), 640),
    "learned": ("0", (0.92, 0.94), (0.55, 0.57), 0),
}
MODELS = ("mlp-20-sigmoid", "cnn-8-16-relu")


def make(methods=METHODS, models=MODELS, part="patch", seeds=(0, 1)):
    """Rows as a run writes them. The second network is robust by 0.1 less; a learned rule has two meta-seeds."""
    rows = []
    for number, model in enumerate(models):
        for method, (tier, clean, robust, made) in methods.items():
            common = {"experiment": "transfer", "dataset": "digits", "part": part, "model": model, "method": method}
            common |= {"tier": tier, "step": 20, "split": "test", "n": 500}
            for meta_seed in (0, 1) if method.startswith("learned") else (None,):
                for seed in seeds:
                    off = 0.02 * (meta_seed or 0) - 0.1 * number
                    for attack, kind, value in (
                        ("none", "clean", clean[seed]),
                        ("pgd-40-ce", "robust", 0.999),  # one attack alone is never what is drawn
                        ("worst of pgd-40 ce, margin", "robust", robust[seed] + off),
                    ):
                        found = {"seed": seed, "attack": attack, "eps": 0.1, "metric": f"{kind} accuracy"}
                        rows.append(common | found | {"value": value, "meta_seed": meta_seed})
                last = {"seed": None, "attack": "", "eps": None, "metric": "adversarial examples", "value": float(made)}
                rows.append(common | last | {"meta_seed": meta_seed})
    return rows


@pytest.fixture(autouse=True)
def _close_figures():
    yield
    plt.close("all")


def markers(axes):
    """(x, y) of every single marker that is drawn, with the colour of its face."""
    return [
        (float(one.get_xdata()[0]), float(one.get_ydata()[0]), one.get_markerfacecolor())
        for one in axes.lines
        if len(one.get_xdata()) == 1 and one.get_marker() not in ("|", "_", "None")
    ]


def test_points_are_means_over_seeds_with_their_t_interval():
    (found,) = (p for p in results.points(make()) if (p.model, p.method) == ("mlp-20-sigmoid", "std-prune"))
    assert (found.clean, found.robust) == pytest.approx((0.91, 0.52))
    # Two values that are 0.04 apart: 12.706 (t at 1 degree of freedom) times 0.04 / 2.
    assert found.robust_half == pytest.approx(12.7062 * 0.02, rel=1e-4)
    assert found.score == pytest.approx(0.715)
    assert (found.tier, found.made) == ("0", 0)


def test_learned_point_is_a_mean_over_meta_seeds_first():
    found = results.pick(results.points(make()), "mlp-20-sigmoid", "learned")
    assert found.robust == pytest.approx(0.57)
    assert found.robust_half == pytest.approx(12.7062 * 0.01, rel=1e-4)


def test_headline_draws_the_values_it_is_given():
    rows = make()
    figure = results.headline(rows)
    assert [axes.get_title(loc="left") or axes.get_title() for axes in figure.axes] == list(MODELS)
    for axes, model in zip(figure.axes, MODELS, strict=True):
        drawn = markers(axes)
        expected = results.shown(rows, "patch", model)
        assert [point.method for point in expected] == ["before", "adam", "std-prune", "learned", "PGD-7 training"]
        for y, point in enumerate(expected):
            filled = [x for x, at, face in drawn if at == y and face != "white"]
            hollow = [x for x, at, face in drawn if at == y and face == "white"]
            assert filled == pytest.approx([point.robust])
            assert hollow == pytest.approx([point.clean])
        assert [text.get_text() for text in axes.get_yticklabels()] == [point.label for point in expected]
        numbers = [text.get_text() for text in axes.texts if text.get_text().isdigit()]
        assert numbers == [f"{100 * x:.0f}" for point in expected for x in (point.robust, point.clean)]


def test_headline_is_narrow_enough_for_a_phone():
    assert results.headline(make()).get_size_inches()[0] <= 6
    assert results.frontier(make(), "patch", MODELS[0]).get_size_inches()[0] <= 6


def test_headline_shows_the_optimizer_from_other_data_where_there_is_one():
    rows = make(METHODS | {"learned on digits": ("0", (0.9, 0.9), (0.4, 0.4), 0)})
    methods = [point.method for point in results.shown(rows, "patch", MODELS[0])]
    assert methods[-3:] == ["learned on digits", "learned", "PGD-7 training"]
    assert "learned on digits" not in {table.best_plain(rows, "patch", model) for model in MODELS}


def test_training_shows_no_before():
    methods = [point.method for point in results.shown(make(part="train"), "train", MODELS[0])]
    assert methods[0] == "adam"
    results.headline(make(part="train"), "train")


def test_adam_that_is_the_best_rule_is_shown_once():
    fewer = {name: METHODS[name] for name in ("before", "adam", "learned", "PGD-7 training")}
    assert [p.method for p in results.shown(make(fewer), "patch", MODELS[0])] == list(fewer)


def test_one_seed_has_no_interval_and_is_drawn_without():
    rows = make(seeds=(0,))
    assert math.isinf(results.points(rows)[0].robust_half)
    results.headline(rows)
    results.frontier(rows, "patch", MODELS[0])
    assert "inf" not in results.reading(rows)
    assert "±" not in results.reading(rows)


@pytest.mark.parametrize("missing", ["before", "adam", "learned", "PGD-7 training"])
@pytest.mark.parametrize("draw", [results.headline, results.reading])
def test_missing_method_is_named(missing, draw):
    fewer = {name: value for name, value in METHODS.items() if name != missing}
    with pytest.raises(InputError, match=re.escape(repr(missing))) as caught:
        draw(make(fewer))
    assert "\n" not in str(caught.value)


def test_missing_part_and_network_are_named():
    with pytest.raises(InputError, match=r"'train'.*patch"):
        results.headline(make(), "train")
    with pytest.raises(InputError, match=r"'mlp-21-sigmoid'.*did you mean 'mlp-20-sigmoid'"):
        results.frontier(make(), "patch", "mlp-21-sigmoid")


def test_frontier_draws_a_point_a_method_and_names_each():
    figure = results.frontier(make(), "patch", MODELS[1])
    (axes,) = figure.axes
    wanted = [p for p in results.points(make()) if p.model == MODELS[1]]
    drawn = sorted((x, y) for x, y, _ in markers(axes))
    assert drawn == [pytest.approx(pair) for pair in sorted((p.clean, p.robust) for p in wanted)]
    named = {text.get_text(): text.xy for text in axes.texts}
    assert named == {p.label: pytest.approx((p.clean, p.robust)) for p in wanted}


def test_difference_is_paired():
    rows = make()
    # Seeds: 0.56 - 0.50 and 0.58 - 0.54.
    mean, half = results.difference(rows, "patch", MODELS[0], "learned", "std-prune")
    assert mean == pytest.approx(0.05)
    assert half == pytest.approx(12.7062 * 0.01, rel=1e-4)
    assert results.difference(rows, "patch", MODELS[0], "adam", "adam") == pytest.approx((0, 0))
    with pytest.raises(InputError, match="'noise'"):
        results.difference(rows, "patch", MODELS[0], "noise", "adam")


def test_difference_is_of_test_images_after_the_last_step():
    rows = make()
    learned_by_heart = [row | {"split": "train", "value": 1.0} for row in rows if row["method"] == "learned"]
    on_the_way = [row | {"step": 5, "value": 0.0} for row in rows if row["method"] == "std-prune"]
    again = results.difference([*learned_by_heart, *on_the_way, *rows], "patch", MODELS[0], "learned", "std-prune")
    assert again == results.difference(rows, "patch", MODELS[0], "learned", "std-prune")


def test_reading_says_the_figures_numbers():
    first, second = results.reading(make()).splitlines()
    assert first.startswith("- `mlp-20-sigmoid`: under attack 31 % before, 32 % after Adam, 52 % after std-prune, 57 %")
    assert "std-prune: +5.0 ± 12.7 points under attack, +2.0 ± 0.0 points as they are." in first
    assert "21 % before" in second


def test_no_two_roles_of_the_headline_look_alike():
    panel = results.shown(make(), "patch", MODELS[0])
    assert len({point.role for point in panel}) == len(panel)


def test_kept_is_the_share_of_each_inputs_weights():
    model = build("mlp-3-relu", (1, 2, 2), 3)
    layout = ParamSpec.of(model)
    before = torch.rand(2, layout.size, generator=torch.Generator().manual_seed(0)) + 0.1
    tensors = dict(layout.split(before.clone()))
    factors = torch.tensor([0.0, 0.5, 1.0, -2.0])
    tensors[layout.names[0]] = tensors[layout.names[0]] * factors
    share = learned.kept(layout, before, layout.flatten(tensors))
    assert torch.allclose(share, factors.abs())
    spread = learned.pixel_spread(torch.rand(5, 1, 2, 2, generator=torch.Generator().manual_seed(1)))
    figure = learned.kept_weights(spread, {"ours": ("learned", share), "Adam": ("clean", torch.ones(4))})
    drawn = [one for one in figure.axes[0].lines if one.get_marker() == "D"]
    assert torch.allclose(torch.tensor(drawn[0].get_ydata()), share)
    assert figure.axes[0].get_ylim()[1] > 2


def test_kept_refuses_a_convolution():
    layout = ParamSpec.of(build("cnn-2-relu", (1, 4, 4), 3))
    with pytest.raises(InputError, match="first layer"):
        learned.kept(layout, torch.ones(layout.size), torch.ones(layout.size))
