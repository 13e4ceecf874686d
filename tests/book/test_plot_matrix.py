"""Matrices of transfer and of attacks: each cell says what the rows say, and a reader can walk through them."""

import html
import shutil
import subprocess
import sys

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
import pytest
from bs4 import BeautifulSoup
from test_plots import SEEN, contrast_on_white, lab, linear, pixels

from metarobust.book.figures import attacks, grid, matrix
from metarobust.errors import InputError

MODELS = ("mlp-24-24-24-24-softplus", "resnet-6-1-relu")
# method: robust accuracy of the seeds 0 and 1 on the first network; the second is robust by 0.1 less after it.
METHODS = {"before": (0.30, 0.32), "adam": (0.30, 0.34), "learned": (0.50, 0.54), "learned on convolutions": (0.2, 0.2)}


def line(method, model, seed, value, metric="robust accuracy", **more):
    attack, eps = ("none", 0.0) if metric == "clean accuracy" else ("worst of pgd-40 ce, margin", 0.1)
    common = {"part": "patch", "method": method, "model": model, "meta_seed": None, "step": 20, "split": "test"}
    return common | {"seed": seed, "attack": attack, "eps": eps, "metric": metric, "value": value} | more


def make():
    rows = []
    for j, model in enumerate(MODELS):
        for method, robust in METHODS.items():
            step = 0 if method == "before" else 20
            for seed in (0, 1):
                lost = 0.1 * j if method != "before" else 0.0
                for meta_seed in (0, 1, 2) if method.startswith("learned") else (None,):
                    off = 0.03 * (meta_seed - 1) if meta_seed is not None else 0.0  # three around the mean
                    more = {"step": step, "meta_seed": meta_seed}
                    rows.append(line(method, model, seed, robust[seed] + off - lost, **more))
                    rows.append(line(method, model, seed, 0.95 - 0.02 * (step > 0), "clean accuracy", **more))
                    rows.append(line(method, model, seed, 0.999, **more, attack="pgd-40-ce"))  # alone: never shown
                    rows.append(line(method, model, seed, 0.999, **more | {"split": "train"}))
                    if step:
                        rows.append(line(method, model, seed, 0.111, **more | {"step": 5}))  # on the way: not the end
            rows.append(line(method, model, None, 0.0, "adversarial examples", attack=""))
    return rows


LEARNED = {"learned": "learned on all", "learned on convolutions": "on convolutions"}


@pytest.fixture
def found():
    return matrix.by_network(make(), LEARNED, {"adam": "Adam"})


@pytest.fixture(autouse=True)
def _close_figures():
    yield
    plt.close("all")


def test_cells_are_paired_changes(found):
    cell = found.at("learned on all", MODELS[0])
    assert cell.value == pytest.approx(0.21)  # the mean of 0.20 and 0.22
    assert cell.half == pytest.approx(12.7062 * 0.01, rel=1e-4)
    assert (cell.big, cell.small) == ("+21", "clean −2")
    assert found.at("learned on all", MODELS[1]).value == pytest.approx(0.11)
    assert found.at("Adam", MODELS[0]).big == "+1"
    assert found.at("on convolutions", MODELS[1]).big == "−21"
    assert cell.words.startswith(
        f"learned on all, used on {MODELS[0]}: under attack 31.0 → 52.0 % (+21.0 ± 12.7 points), as they are 95.0"
    )


def test_rivals_stand_below_the_gap_and_frames_are_at_home(found):
    assert found.rows == ("learned on all", "on convolutions", "Adam")
    assert found.gap == 2
    assert found.home == {(1, 1)}


def test_one_seed_has_no_interval():
    rows = [row for row in make() if row["seed"] in (0, None)]
    assert "±" not in matrix.by_network(rows, LEARNED).cells[0][0].words


def test_several_networks_are_averaged_within_a_seed():
    used = {"digits": ("patch", MODELS), "first": ("patch", MODELS[:1])}
    found = matrix.transfer(make(), {"learned": "digits"}, {}, used)
    assert [cell.value for cell in found.cells[0]] == pytest.approx([0.16, 0.21])
    assert found.cells[0][0].half == pytest.approx(12.7062 * 0.01, rel=1e-4)
    assert found.home == {(0, 0)}


def test_what_is_missing_is_named(found):
    with pytest.raises(InputError, match="'learned by heart'"):
        matrix.by_network(make(), {"learned by heart": "x"})
    with pytest.raises(InputError, match="'train'"):
        matrix.by_network(make(), LEARNED, part="train")
    with pytest.raises(InputError, match=r"'Eve'.*choose one of learned on all, on convolutions, Adam"):
        found.at("Eve", MODELS[0])
    without = [row for row in make() if (row["method"], row["seed"]) != ("before", 1)]
    with pytest.raises(InputError, match="other seeds"):
        matrix.by_network(without, LEARNED)


def test_picture_shows_every_number_in_its_place(found):
    figure = matrix.draw(found)
    (axes,) = figure.axes
    shown = {(round(text.get_position()[0]), text.get_text()) for text in axes.texts}
    for row in found.cells:
        for j, cell in enumerate(row):
            assert {(j, cell.big), (j, cell.small)} <= shown
    assert [text.get_text() for text in axes.get_xticklabels()] == ["mlp\n24-24\n24-24\nsoftplus", "resnet\n6-1\nrelu"]
    heights = axes.get_yticks()
    assert heights[2] - heights[1] > heights[1] - heights[0]
    assert figure.get_size_inches()[0] <= 6
    assert pixels(figure).std() > 0


@pytest.mark.parametrize("kind", SEEN)
def test_better_and_worse_look_different_for_every_kind_of_sight(kind):
    low, middle, high = (lab(SEEN[kind] @ linear(matrix.CHANGE(t)[:3])) for t in (0.0, 0.5, 1.0))
    assert min(np.linalg.norm(low - high), np.linalg.norm(low - middle), np.linalg.norm(high - middle)) > 30


@pytest.mark.parametrize("shade", np.linspace(-2, 2, 21))
def test_letters_are_read_on_their_ground(shade):
    ground, ink = (contrast_on_white(c) for c in matrix.Cell(0, 0, "", "", float(shade), "").colours)
    assert max(ground / ink, ink / ground) >= 4.5


def test_grid_holds_every_number_as_text(found):
    soup = BeautifulSoup(grid.grid(found, "What & where")._repr_html_(), "html.parser")
    heads = [th.get_text() for th in soup.find_all("th", scope="col")]
    assert heads == list(MODELS)
    for tr, label, cells in zip(soup.find_all("tr")[1:], found.rows, found.cells, strict=True):
        assert tr.find("th", scope="row").get_text() == label
        buttons = tr.find_all("button")
        assert [one.find("b").get_text() for one in buttons] == [cell.big for cell in cells]
        assert [one["data-words"] for one in buttons] == [cell.words for cell in cells]
    assert soup.find("output").get_text() == found.cells[0][0].words
    assert [one["tabindex"] for one in soup.find_all("button")] == ["0"] + ["-1"] * 5
    framed = [i for i, one in enumerate(soup.find_all("button")) if "inset" in one["style"]]
    assert [divmod(i, len(MODELS)) for i in framed] == sorted(found.home)


def test_grid_asks_nobody_for_anything_and_is_the_same_each_time(found):
    text = grid.grid(found, "label")._repr_html_()
    soup = BeautifulSoup(text, "html.parser")
    assert not soup.find_all(["script", "link", "iframe", "style", "img"])
    assert not soup.find_all(id=True)
    assert "http" not in text
    assert text == grid.grid(found, "label")._repr_html_()


def test_reading_names_the_best_the_worst_and_the_rival(found):
    first, second = matrix.reading(found, ["Adam"]).splitlines()
    assert first.startswith(f"- `{MODELS[0]}`: best *learned on all*, +21.0 ± 12.7 points under attack (clean: −2); ")
    assert "worst *on convolutions*, −11.0" in first
    assert "best rival *Adam*, +1.0" in first
    assert "best *learned on all*, +11.0" in second
    assert "rival" not in matrix.reading(found)
    with pytest.raises(InputError, match="'Eve'"):
        matrix.reading(found, ["Eve"])


def test_learned_methods_are_found_in_order():
    assert matrix.learned_methods(make()) == ["learned", "learned on convolutions"]


def test_empty_grid_is_refused():
    with pytest.raises(InputError, match="without cells"):
        grid.grid(matrix.Matrix("", (), (), (), 0), "label")


@pytest.mark.slow
def test_in_a_browser_arrows_walk_through_one_grid_and_not_the_other(found, tmp_path):
    browser = shutil.which("chromium")
    if not browser:
        pytest.skip("no chromium on this machine")
    two = "".join(grid.grid(found, name)._repr_html_() for name in ("first", "second"))
    press = """<script>
    const at = () => document.querySelectorAll('[data-matrix]')[1].querySelector('[tabindex="0"]');
    for (const key of ['ArrowRight', 'ArrowDown', 'ArrowDown', 'ArrowDown', 'ArrowRight', 'ArrowUp'])
      at().dispatchEvent(new KeyboardEvent('keydown', {key, bubbles: true}));
    </script>"""
    page = tmp_path / "page.html"
    page.write_text(f"<!doctype html><meta charset=utf-8>{two}{press}", encoding="utf-8")
    command = [
        browser, "--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking",
        f"--user-data-dir={tmp_path / 'profile'}", "--dump-dom", page.as_uri(),
    ]  # fmt: skip
    dom = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout
    first, second = BeautifulSoup(dom, "html.parser").select("[data-matrix]")
    assert first.find("output").get_text() == found.cells[0][0].words
    assert second.find("output").get_text() == found.cells[1][1].words
    pressed = [one for one in second.find_all("button") if one["aria-pressed"] == "true"]
    assert [one["data-words"] for one in pressed] == [found.cells[1][1].words]
    assert [one["tabindex"] for one in pressed] == ["0"]


def test_live_says_what_is_chosen(found):
    pytest.importorskip("ipywidgets")
    row, column, words = grid.live(found).children
    assert words.value == html.escape(found.cells[0][0].words)
    row.value, column.value = "Adam", MODELS[1]
    assert words.value == html.escape(found.at("Adam", MODELS[1]).words)


def test_live_without_ipywidgets_says_so(found, monkeypatch):
    monkeypatch.setitem(sys.modules, "ipywidgets", None)
    with pytest.raises(InputError, match="needs ipywidgets"):
        grid.live(found)


# Attacks: (name, eps, accuracy before, accuracy after) as a run writes them.
MANY = (
    ("none", 0.0, 0.95, 0.93),
    ("fgsm", 0.1, 0.50, 0.70),
    ("pgd-40-ce", 0.1, 0.35, 0.60),
    ("pgd-40-margin", 0.1, 0.36, 0.58),
    ("apgd-50-ce", 0.1, 0.34, 0.59),
    ("apgd-50-dlr-targeted", 0.1, 0.31, 0.56),
    ("square-500", 0.1, 0.40, 0.62),
    ("worst of pgd-40-ce, pgd-40-margin, apgd-50-ce", 0.1, 0.30, 0.55),
    ("pgd-40 ce, margin", 0.05, 0.70, 0.80),
    ("pgd-40 ce, margin", 0.2, 0.02, 0.10),
    ("pgd-40 ce, margin in l2", 0.4, 0.60, 0.66),
)


def many():
    rows = []
    for name, eps, before, after in MANY:
        metric = "robust accuracy" if eps else "clean accuracy"
        for seed in (0, 1):
            for model in MODELS:
                more = {"attack": name, "eps": eps}
                rows.append(line("before", model, seed, before, metric, **more))
                for meta_seed in (0, 1):
                    value = after + 0.01 * (meta_seed - 0.5) + 0.02 * (seed - 0.5)
                    rows.append(line("learned", model, seed, value, metric, meta_seed=meta_seed, **more))
    return rows


def test_attacks_are_told_apart():
    kinds = [attacks.kind({"attack": name}) for name, *_ in MANY]
    assert kinds == ["none", "fgsm", "pgd-", "", "apgd-ce", "apgd-targeted", "square", "worst", "both", "both", "l2"]


def test_matrix_of_attacks_says_the_shares():
    found = attacks.by_attack(many(), {"learned": "PGD judge"}, home={"PGD judge": "pgd-"})
    assert found.columns[0] == "as they are"
    assert [cell.big for cell in found.cells[0]] == ["93", "70", "60", "56", "62", "55", "66"]
    cell = found.at("PGD judge", "FGSM")
    assert cell.value == pytest.approx(0.70)
    assert cell.half == pytest.approx(12.7062 * 0.01, rel=1e-4)
    assert cell.shade == pytest.approx(0.8)
    assert "50.0 % before" in cell.words
    assert found.home == {(0, 2)}
    assert found.gap == 1
    matrix.draw(found)


def test_lines_over_radii_pass_through_the_worst_case():
    figure = attacks.over_radii(
        many(), {"before": ("before", "control"), "learned": ("ours", "learned")}, learned_at=0.1
    )
    (axes,) = figure.axes
    drawn = {one.get_color(): one for one in axes.lines if len(one.get_xdata()) > 2}
    ours = next(one for one in drawn.values() if one.get_marker() == "D")
    assert list(ours.get_xdata()) == [0.0, 0.05, 0.1, 0.2]
    assert list(ours.get_ydata()) == pytest.approx([0.93, 0.80, 0.55, 0.10])
    assert {"before", "ours"} <= {text.get_text() for text in axes.texts}


def test_missing_attacks_and_methods_are_named():
    with pytest.raises(InputError, match=r"'lerned'.*did you mean 'learned'"):
        attacks.by_attack(many(), {"lerned": "x"})
    with pytest.raises(InputError, match="kind of attack"):
        attacks.by_attack(many(), {"learned": "x"}, ["pgd"])
    without = [row for row in many() if not row["attack"].startswith("square")]
    with pytest.raises(InputError, match="Square"):
        attacks.by_attack(without, {"learned": "x"})
