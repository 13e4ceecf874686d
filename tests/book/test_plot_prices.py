"""The figure of what a patch costs and buys: the weights in order, the two kinds of attack apart, names beside."""

import matplotlib.pyplot as plt
import pytest

from metarobust.book.figures import prices
from metarobust.errors import InputError

WORST, CONFINED = "worst of pgd-40 ce, margin", "pgd-40 ce, margin on speaking pixels"
METHODS = ("before", "learned", "std-prune", "PGD-7 training")


def rows():
    """Two weights, three seeds, two meta-seeds of the learned rule, and rows of the standard ensemble beside them."""
    found = []
    for part, lift in (("patch, weight 0.25", 0.0), ("patch, weight 0.5", 0.1)):
        for number, method in enumerate(METHODS):
            for seed in range(3):
                for meta in (0, 1) if method == "learned" else (None,):
                    base = {"part": part, "model": "net", "method": method, "seed": seed, "meta_seed": meta, "step": 20}
                    base |= {"metric": "robust accuracy", "split": "test"}
                    level = 0.1 * number + 0.01 * seed + lift
                    found.append(base | {"attack": WORST, "value": level + (0.02 if meta else 0.0)})
                    found.append(base | {"attack": CONFINED, "value": level + 0.3})
                    found.append(base | {"attack": "none", "metric": "clean accuracy", "value": 0.9 - lift})
                    found.append(base | {"attack": "standard: a, b", "value": 0.0})
    return found


def test_parts_are_ordered_by_their_weight():
    assert prices.weights(rows()) == {"patch, weight 0.5": 0.5, "patch, weight 0.25": 0.25}
    with pytest.raises(InputError, match="experiment trade-off"):
        prices.weights([row | {"part": "patch"} for row in rows()])


def test_values_are_means_over_seeds_of_one_kind_of_attack():
    at = ("patch, weight 0.25", "net", "learned")
    mean, half = prices.accuracy(rows(), *at, "worst")
    assert mean == pytest.approx(0.1 + 0.01 + 0.01)  # meta-seeds first, then seeds
    assert 0 < half < 0.05
    assert prices.accuracy(rows(), *at, prices.CONFINED)[0] == pytest.approx(0.41)
    assert prices.accuracy(rows(), *at, "none")[0] == pytest.approx(0.9)
    with pytest.raises(InputError, match=r"as they are.*'adam'"):
        prices.accuracy(rows(), *at[:2], "adam", "none")
    with pytest.raises(InputError, match="kind of attack"):
        prices.accuracy(rows(), *at, "wors")


def test_figure_has_a_panel_for_each_kind_and_a_name_for_each_method():
    figure = prices.prices(rows(), "net")
    assert figure.get_size_inches()[0] <= 6
    upper, lower = figure.axes
    assert "any pixel" in upper.get_title("left")
    assert "speaking pixels only" in lower.get_title("left")
    for axes, lift in ((upper, 0.0), (lower, 0.3)):
        assert {text.get_text() for text in axes.texts} == {*METHODS, "0.5", "0.25"}
        drawn = [line for line in axes.lines if len(line.get_xdata()) == 2 and line.get_marker() == "v"]
        assert len(drawn) == 1  # std-prune, from the larger weight to the smaller
        assert list(drawn[0].get_xdata()) == pytest.approx([0.8, 0.9])
        assert list(drawn[0].get_ydata()) == pytest.approx([0.31 + lift, 0.21 + lift])
    plt.close(figure)
    with pytest.raises(InputError, match="did you mean 'net'"):
        prices.prices(rows(), "nett")
