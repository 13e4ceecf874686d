"""Figures of comparisons: what is drawn is what was given, noise is called noise, and what is missing is named."""

import ast
import itertools
import json
import re
from pathlib import Path

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import pytest
import torch

from metarobust.book.figures import comparisons, corners, over
from metarobust.book.figures.style import role
from metarobust.errors import InputError
from metarobust.lab import catalogue
from metarobust.lab.baselines import robust_methods

MODELS = ("mlp-80-gelu", "cnn-10-14-tanh")
SEEDS = (0, 1, 2)


def rows_of(part, method, tier, robust, clean=0.9, *, models=MODELS, meta_seeds=(None,), step=20, split="test", off=()):
    """Rows as a run writes them: seed k is 0.1 k easier for everyone; `off` is added to a meta-seed's robust value."""
    found = []
    for model in models:
        for number, meta_seed in enumerate(meta_seeds):
            common = {"experiment": "x", "dataset": "digits", "part": part, "model": model, "method": method}
            common |= {"tier": tier, "step": step, "split": split, "n": 500, "meta_seed": meta_seed}
            for k, seed in enumerate(SEEDS):
                shift = off[number] if off else 0.0
                values = (clean, robust[k] if isinstance(robust, tuple) else robust + 0.1 * k)
                for attack, metric, value in (
                    ("none", "clean accuracy", values[0]),
                    ("pgd-40-ce", "robust accuracy", 0.999),  # one attack alone is never what is drawn
                    ("worst of pgd-40 ce, margin", "robust accuracy", values[1] + shift),
                ):
                    eps = 0.0 if attack == "none" else 0.1
                    found.append(
                        common | {"seed": seed, "attack": attack, "eps": eps, "metric": metric, "value": value}
                    )
            found.append(
                common | {"seed": None, "attack": "", "eps": None, "metric": "adversarial examples", "value": 0.0}
            )
    return found


def ablation():
    three = {"meta_seeds": (0, 1, 2)}
    return [
        *rows_of("patch", "before", "", 0.2, step=0),
        *rows_of("patch", "adam", "0", 0.22),
        *rows_of("patch", "learned", "0", 0.5, **three, off=(0.0, 0.03, -0.03)),
        *rows_of("patch", "learned, without a decay", "0", (0.40, 0.49, 0.61), 0.91, **three, off=(0.0, 0.03, -0.03)),
        *rows_of("patch", "learned, one network", "0", (0.49, 0.62, 0.70), 0.9, **three, off=(0.0, 0.03, -0.03)),
        *rows_of("patch", "learned, PES", "0", (0.52, 0.62, 0.72), 0.9, **three, off=(0.04, -0.06, 0.02)),
    ]


GROUPS = {"The rule": ("without a decay",), "Other": ("one network", "PES")}


@pytest.fixture(autouse=True)
def _close_figures():
    yield
    plt.close("all")


def test_differences_are_paired_and_noise_is_told_apart():
    decay, network, pes = comparisons.differences(ablation())
    assert decay.method == "learned, without a decay"
    assert decay.robust == pytest.approx(-0.1)
    assert decay.robust_half == pytest.approx(4.3027 * 0.01 / 3**0.5, rel=1e-3)  # seeds differ by 0.1, pairs by 0.01
    assert decay.clean == pytest.approx(0.01)
    assert decay.by_meta_seed == pytest.approx((-0.1, -0.1, -0.1))
    assert decay.clear
    assert not network.clear  # 0 is within the interval
    assert pes.robust == pytest.approx(0.02)
    assert pes.robust > pes.robust_half
    assert not pes.clear  # one meta-seed is on the other side


def test_differences_of_one_network_are_its_own():
    rows = [
        row | {"value": row["value"] - 0.05 * (row["model"] == MODELS[1] and "decay" in row["method"])}
        for row in ablation()
    ]
    alone = [comparisons.differences(rows, models=(model,))[0].robust for model in MODELS]
    assert alone == pytest.approx([-0.1, -0.15])
    with pytest.raises(InputError, match="mlp-81-gelu"):
        comparisons.differences(rows, models=("mlp-81-gelu",))
    with pytest.raises(InputError, match="patc"):
        comparisons.differences(rows, "patc")


def test_variants_draw_the_differences_under_their_headings():
    figure = comparisons.variants(ablation(), GROUPS)
    (axes,) = figure.axes
    labels = [text.get_text() for text in axes.get_yticklabels()]
    assert labels == ["The rule", "without a decay", "Other", "one network", "PES"]
    assert [text.get_fontweight() == "bold" for text in axes.get_yticklabels()] == [True, False, True, False, False]
    diamonds = [(one.get_xdata()[0], one.get_color()) for one in axes.lines if one.get_marker() == "D"]
    assert [x for x, _ in diamonds] == pytest.approx([-10, 0.3333, 2], abs=1e-3)
    assert [colour == role("learned").colour for _, colour in diamonds] == [True, False, False]
    ticks = [sorted(one.get_xdata()) for one in axes.lines if one.get_marker() == "|" and len(one.get_xdata()) == 3]
    assert ticks[2] == pytest.approx([-7, 6, 7])
    assert figure.get_size_inches()[0] <= 6
    with pytest.raises(InputError, match="PESS"):
        comparisons.variants(ablation(), {"Other": ("PESS",)})


def test_verdicts_say_what_is_noise():
    first, second, third = comparisons.verdicts(ablation(), ("without a decay", "one network", "PES")).splitlines()
    assert first == (
        "- without a decay: −10.0 ± 2.5 points under attack, +1.0 ± 0.0 as they are; **worse** under attack"
    )
    assert "within the noise" in second
    assert "within the noise" in third


def test_a_missing_method_is_named():
    with pytest.raises(InputError, match="robust accuracy of 'sgd'"):
        comparisons.wanted(ablation(), "patch", "sgd", "robust accuracy")


def few(counts=(5, 20)):
    found = []
    for count in counts:
        part = f"{count} images a class"
        for method, tier, robust in (
            ("adam", "0", 0.1),
            ("falling noise + last-layer decay", "1", 0.2),
            ("PGD-7 training", "adversarial", 0.3),
            ("TRADES", "adversarial", 0.32),
            ("learned", "0", 0.25),
        ):
            more = {"meta_seeds": (0, 1)} if method == "learned" else {}
            robust += count / 100
            found += rows_of(part, method, tier, robust, step=100, **more)
            found += rows_of(part, method, tier, robust + 0.3, 0.99, step=100, split="train", **more)
    return found


def test_over_images_draws_test_accuracy_over_their_number():
    methods = ("adam", "PGD-7 training", "TRADES", "learned")
    figure = over.over_images(few(), MODELS[0], methods)
    above, below = figure.axes
    lines = [one for one in above.lines if len(one.get_xdata()) == 2 and one.get_marker() != "_"]
    assert [list(one.get_ydata()) for one in lines] == [
        pytest.approx([base + 0.1 + 0.05, base + 0.1 + 0.2]) for base in (0.1, 0.3, 0.32, 0.25)
    ]
    assert list(lines[0].get_xdata()) == [5, 20]
    figure.canvas.draw()
    for axes, values in ((above, (0.15, 0.62)), (below, (0.9,))):
        (left, right), (low, high) = axes.get_xlim(), axes.get_ylim()
        assert 0 < left < 5 < 20 < right < 40
        assert low < min(values) <= max(values) < high < low + 1.6
    assert all(value == pytest.approx(0.9) for one in below.lines for value in one.get_ydata())
    looks = {(one.get_color(), str(one.get_linestyle()), one.get_markerfacecolor()) for one in lines}
    assert len(looks) == len(methods)
    assert {text.get_text() for text in above.texts} == {"Adam, clean", "PGD-7 training", "TRADES", "learned"}
    assert [text.get_text() for text in below.get_xticklabels()] == ["5", "20"]


def test_names_at_the_ends_keep_their_distance_and_their_order():
    figure = over.over_images(few(), MODELS[0], ("adam", "PGD-7 training", "TRADES", "learned"))
    for axes in figure.axes:
        low, high = axes.get_ylim()
        heights = sorted(text.xy[1] for text in axes.texts)
        assert min(b - a for a, b in itertools.pairwise(heights)) > 0.08 * (high - low)
    above = sorted(figure.axes[0].texts, key=lambda text: text.xy[1])
    assert [text.get_text() for text in above] == ["Adam, clean", "learned", "PGD-7 training", "TRADES"]
    adam = next(text for text in above if text.get_text() == "Adam, clean")
    assert adam.xy[1] == pytest.approx(0.4)  # nobody is near


def test_gap_draws_training_images_beside_others():
    figure = over.gap(few(), MODELS[0], ("adam", "PGD-7 training"))
    assert [axes.get_title(loc="left") for axes in figure.axes] == ["Adam, clean", "PGD-7 training"]
    numbers = [text.get_text() for text in figure.axes[1].texts]
    assert numbers == ["45", "75", "60", "90"]
    without = [row for row in few() if row["split"] == "test"]
    with pytest.raises(InputError, match="PGD-7"):
        over.gap(without, MODELS[0], ("PGD-7 training",))


def test_own_and_other_images_are_told_apart():
    (axes,) = over.own_and_others([10, 100], [0.5, 0.9], [0.4, 0.3], title="x").axes
    own, others = axes.lines
    assert (list(own.get_ydata()), list(others.get_ydata())) == ([0.5, 0.9], [0.4, 0.3])
    assert own.get_markerfacecolor() != others.get_markerfacecolor()
    assert own.get_linestyle() != others.get_linestyle()
    assert [(text.get_text(), text.xy) for text in axes.texts] == [
        ("training images", (100, 0.9)),
        ("test", (100, 0.3)),
    ]


def test_numbers_are_read_off_the_parts():
    assert over.numbers(few((20, 5))) == {5: "5 images a class", 20: "20 images a class"}
    with pytest.raises(InputError, match="low-data"):
        over.numbers(ablation())


def test_learning_curves_begin_before_the_first_step():
    rows = [
        *rows_of("robust", "before", "", 0.0, 0.1, step=0),
        *rows_of("robust", "learned", "adversarial", 0.2, step=10),
        *rows_of("robust", "learned", "adversarial", 0.4, step=100),
        *rows_of("robust", "FGSM training, Adam", "adversarial", 0.1, step=10),
        *rows_of("robust", "FGSM training, Adam", "adversarial", 0.3, step=100),
    ]
    figure = over.learning_curves(rows, "robust", MODELS[0], ("learned", "FGSM training, Adam"))
    learned, fgsm = figure.axes[0].lines
    assert list(learned.get_xdata()) == [0, 10, 100]
    assert list(learned.get_ydata()) == pytest.approx([0.1, 0.3, 0.5])
    assert list(fgsm.get_ydata()) == pytest.approx([0.1, 0.2, 0.4])
    assert fgsm.get_color() == role("rule").colour
    with pytest.raises(InputError, match="robuts"):
        over.learning_curves(rows, "robuts", MODELS[0], ("learned",))


def test_best_and_against():
    parts, plain = list(over.numbers(few()).values()), ("adam", "falling noise + last-layer decay")
    assert over.best(few(), parts, MODELS, plain) == plain[1]
    assert over.best(few(), parts, MODELS, ("TRADES", "PGD-7 training")) == "TRADES"
    said = over.against(few(), parts[0], MODELS[0], "learned", "TRADES")
    assert said == "−7.0 ± 0.0 points under attack (behind), +0.0 ± 0.0 as they are"
    assert "(ahead)" in over.against(few(), parts[0], MODELS[0], "learned", plain[1])
    assert "within the noise" in over.against(few(), parts[0], MODELS[0], "learned", "learned")


def test_two_by_two_shows_the_image_that_each_side_looks_at():
    image, attacked = torch.zeros(1, 8, 8), torch.ones(1, 8, 8)
    told = {corner: (f"{corner[0]} in", f"{corner[1]} out") for corner in corners.CORNERS}
    figure = corners.two_by_two(image, attacked, told)
    brightness = {"clean": 0.0, "attacked": 1.0}
    for axes, (inside, outside) in zip(figure.axes, corners.CORNERS, strict=True):
        shown = [float(one.get_array().mean()) for one in axes.images]
        assert shown == [brightness[inside]] * 2 + [brightness[outside]]
        assert {f"{inside} in", f"{outside} out"} <= {text.get_text() for text in axes.texts}
    assert figure.get_size_inches()[0] <= 6
    told.pop(("clean", "attacked"))
    with pytest.raises(InputError, match=re.escape("('clean', 'attacked')")):
        corners.two_by_two(image, attacked, told)


def assigned(notebook, *names):
    """The constants that a notebook's cells assign to these names."""
    path = Path(__file__).parents[2] / "notebooks" / f"{notebook}.ipynb"
    found = {}
    for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]:
        if cell["cell_type"] == "code":
            for node in ast.parse("".join(cell["source"])).body:
                target = node.targets[0] if isinstance(node, ast.Assign) else None
                if isinstance(target, ast.Name) and target.id in names:
                    found[target.id] = ast.literal_eval(node.value)
    return [found[name] for name in names]


def test_the_two_by_two_draws_every_variant_of_the_run():
    (part,) = catalogue.make("ablation", "small", "digits", None).parts
    (groups,) = assigned("two-by-two", "groups")
    rows = []
    for rule in part.rules:
        rows += rows_of(part.name, rule.name, "0", 0.5, models=part.unseen, meta_seeds=(0, 1, 2))
    lines = sum(len(members) for members in groups.values())
    assert lines == len(part.rules) - 1
    figure = comparisons.variants(rows, groups, models=part.unseen[:2])
    assert len(figure.axes[0].get_yticklabels()) == lines + len(groups)


def test_few_images_compares_what_the_runs_hold():
    spec = catalogue.make("low-data", "small", "digits", None)
    plain, attacking, unseen, by_hand = assigned("few-images", "plain", "attacking", "unseen", "by_hand")
    for part in spec.parts:
        assert {"adam", *plain, *attacking} == set(part.methods)
        assert {rule.name for rule in (*part.rules, *part.uses)} == {"learned", "learned steering"}
        assert part.unseen == unseen
    (robust,) = catalogue.make("robust-training", "small", "digits", None).parts
    known = {method.name for method in robust_methods(0.1)}
    assert known == {f"{attack} training, {name}" for attack in ("FGSM", "PGD-7") for name in by_hand}
    assert {rule.name for rule in robust.rules} == {"learned", "learned, PGD-7 inside"}
    assert unseen[0] in robust.unseen
