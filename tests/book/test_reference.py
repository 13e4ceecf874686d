"""The reference pages: their examples run and print what is shown, and what they list is what the library has."""

from __future__ import annotations

import json
import math
import re
import runpy
from inspect import signature
from pathlib import Path

import matplotlib.pyplot as plt
import pytest
import torch
from PIL import Image

from metarobust import attacks
from metarobust.attacks.losses import LOSSES
from metarobust.evaluation import checks
from metarobust.evaluation.intervals import wilson
from metarobust.evaluation.measure import QueryCounter
from metarobust.learned import KINDS, TIERS
from metarobust.meta.config import ESTIMATORS

ROOT = Path(__file__).resolve().parents[2]
reference = runpy.run_path(str(ROOT / ".ci/reference.py"))
PAGES = {name: path.read_text(encoding="utf-8") for name, path in reference["PAGES"].items()}
NUMBER = re.compile(r"\d[\d,]*(?:\.\d+)?")
POINTS = 0.06  # another processor trains a slightly different network
ATTACKS = [name for name in attacks.__all__ if name not in ("ExampleCounter", "counting")]
again = "make reference writes the page anew"


@pytest.fixture(scope="module")
def ran():
    """Each page's examples, run once: their names, and what each printed."""
    found = {name: reference["run"](page) for name, page in PAGES.items()}
    yield found
    plt.close("all")


def table(page: str, first: str) -> list[list[str]]:
    """The cells of the table whose first column is called so."""
    lines = page[page.index(f"| {first} |") :].split("\n```")[0].strip().splitlines()
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


def alike(shown: str, printed: str) -> bool:
    """The same words, and shares that differ by a few points at most. What was asked of a model may vary."""
    if NUMBER.sub("", shown).split() != NUMBER.sub("", printed).split():
        return False
    lines = zip(shown.splitlines(), printed.splitlines(), strict=True)
    return all(
        math.isclose(float(a.replace(",", "")), float(b.replace(",", "")), abs_tol=POINTS * (100 if "%" in line else 1))
        for line, other in lines
        if "asked" not in line
        for a, b in zip(NUMBER.findall(line), NUMBER.findall(other), strict=True)
    )


@pytest.mark.parametrize("name", PAGES)
def test_examples_print_what_the_page_shows(ran, name):
    _, printed = ran[name]
    shown = reference["shown"](PAGES[name])
    assert len(printed) > 5
    for number, (old, new) in enumerate(zip(shown, printed, strict=True), 1):
        assert alike(old, new), f"{again}: example {number} shows\n{old}\nand prints\n{new}"


def test_words_about_the_examples_hold(ran):
    names, _ = ran["attacks"]
    right = {
        key: (names["rounded"](names[key]).argmax(1) == names["labels"]).float().mean()
        for key in ("images", "blind", "moved")
    }
    assert right["blind"] > right["images"] - 0.05  # PGD does not move
    assert right["moved"] < right["blind"] - 0.2  # the images of another network do
    assert names["chance"].initial_seed() == 0

    names, _ = ran["evaluation"]
    robust = {name: report.robust for name, report in names["found"].items()}
    assert robust["rounded inputs"] < robust["none"]
    assert abs(robust["huge logits"] - robust["none"]) < 0.03
    assert not names["report"].flags
    low, high = wilson(50, 100)
    assert round(100 * (high - low)) == 19


def test_the_table_and_the_figure_are_what_evaluations_find(ran):
    """The noise of the last one makes its flags vary, but for two."""
    names, _ = ran["evaluation"]
    lines = table(PAGES["evaluation"], "Defence")
    assert [line[0] for line in lines] == list(names["found"])
    for line, report in zip(lines, names["found"].values(), strict=True):
        alone, robust = (int(share) / 100 for share in re.findall(r"(\d+) %", line[1]))
        first = next(iter(report.under.values()))
        assert (alone, robust) == pytest.approx((first, report.robust), abs=POINTS * 2), again
        shown, raised = set(re.findall("`(.+?)`", line[2])), {flag.check for flag in report.flags}
        if line[0] == "noisy output":
            assert {"randomness", "eps zero"} <= shown & raised
        else:
            assert shown == raised, again
    with Image.open(reference["FIGURE"]) as picture:
        drawn = [share for _, share in json.loads(picture.info["Source"])]
    assert drawn == pytest.approx([share for _, share in names["report"].curve], abs=POINTS), again


def test_the_lines_between_chance_and_a_flag_are_those_of_the_page():
    page = " ".join(PAGES["evaluation"].split())
    assert "up to 2 % of the images, or two images, counts as chance" in page
    assert (checks.chance(1000), checks.chance(10)) == (0.02, 0.2)
    assert f"at most {checks.FAR:g} above the second, for nine in ten images" in page
    assert checks.saturated(torch.tensor([31.0] + [0.0] * 10)) is None
    assert checks.saturated(torch.tensor([31.0, 31.0] + [0.0] * 8))
    assert checks.margin_and_cross_entropy(0.5, 0.41) is None
    assert checks.margin_and_cross_entropy(0.5, 0.39)


def test_every_attack_and_loss_is_on_the_page():
    page = PAGES["attacks"]
    assert {re.search("`(.+?)`", line[0])[1] for line in table(page, "Attack")} == set(ATTACKS)
    for name in ATTACKS:
        label = f"attack-{name.replace('_', '-')}"
        section = page.split(f"\n({label})=\n")[1].split("\n## ")[0]
        for part in ("$$", f".. autofunction:: metarobust.attacks.{name}\n", "```python\n", "Source", "{cite:t}"):
            assert part in section, f"{name}: {part}"
    assert all(f'`"{loss}"`' in page for loss in LOSSES)


@pytest.mark.parametrize("name", ATTACKS)
def test_an_attack_asks_as_often_as_the_table_says(name, ran):
    names, _ = ran["attacks"]
    images, model, other = names["images"][:4], QueryCounter(names["model"]), QueryCounter(names["other"])
    says = next(line[1] for line in table(PAGES["attacks"], "Attack") if f"`{name}`" in line[0])
    formulas = re.findall(r"`(.+?)` times?", says)
    given = {"restarts": 2, "steps": 5, "n_targets": 3, "queries": 6}
    function = getattr(attacks, name)
    how = {key: value for key, value in given.items() if key in signature(function).parameters}
    first = (model, other) if name == "transfer" else (model,)
    # At eps 0 nothing is ever turned, so nothing leaves early.
    labels = names["model"](images).argmax(1)
    function(*first, images, labels, eps=0, generator=torch.Generator(), **how)
    asked = [eval(formula, {}, {"restarts": 1, "n_targets": 0} | how | {"max": max}) for formula in formulas]
    if name == "transfer":
        assert [model.images / 4, model.gradients, other.gradients / 4] == [asked[0], 0, asked[1]]
    elif name == "square":
        looked = 4 + 1  # once at the images as they are, and at one of them alone
        assert [(model.images - looked) / 4, model.gradients] == [asked[0], 0]
    else:
        assert [model.gradients / 4] == asked


def test_every_kind_and_estimator_is_on_the_page_and_no_other():
    page = PAGES["optimizers"]
    kinds = {line[0]: line[1] for line in table(page, "Kind")}
    assert {re.search("`(.+?)`", name)[1]: tier for name, tier in kinds.items()} == TIERS
    for name in KINDS:
        section = page.split(f"\n(optimizer-{name})=\n")[1].split("\n### ")[0].split("\n## ")[0]
        for part in ("$$", "In words", "Source"):
            assert part in section, f"{name}: {part}"
    assert [line[0].strip("`") for line in table(page, "Estimator")] == list(ESTIMATORS)
