"""The ledger: verdicts follow from the records, and a record, a claim and a page that disagree are found out."""

import dataclasses
import json
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from metarobust.book.claims import cite, cited, ledger, renew
from metarobust.book.claims.cite import MARK
from metarobust.book.claims.claim import (
    ADDED,
    LEDGER,
    ORIGINS,
    PARTLY,
    REFUTED,
    SUPPORTED,
    UNTESTED,
    Claim,
    Range,
    claim,
)
from metarobust.book.claims.page import overview, section
from metarobust.errors import InputError
from metarobust.lab import compare
from metarobust.lab.results import recorded

ROOT = Path(__file__).parents[2]
TEXTS = [ROOT / "README.md", *sorted(ROOT.glob("book/*.md")), *sorted(ROOT.glob("notebooks/*.ipynb"))]
PAGES = {path.stem: path for path in TEXTS}


def paragraphs(path):
    """The paragraphs, list entries and rows of tables of a page's prose; of a notebook those of its Markdown cells."""
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".ipynb":
        cells = [cell for cell in json.loads(text)["cells"] if cell["cell_type"] == "markdown"]
        text = "\n\n".join("".join(cell["source"]) for cell in cells)
    return re.split(r"\n\s*\n|\n(?=\||\s*(?:[-*]|\d+\.) )", text)


@pytest.mark.parametrize("one", LEDGER.values(), ids=LEDGER)
def test_a_claim_has_the_verdict_that_its_pages_state(one):
    assert one.verdict == one.states, f"{one.text} Change {', '.join(one.pages) or 'the claim'}: {one.shown}"
    assert re.fullmatch(r"[A-Z].*[.]", one.text)
    assert len(one.ranges) <= 2, "a sentence carries two numbers"
    assert set(one.pages) <= set(PAGES), "name the pages without folder and ending"
    assert one.runs or one.verdict == UNTESTED, "name the recorded runs in its function"
    assert one.text.count("{") == 0


@pytest.mark.parametrize("name", PAGES)
def test_a_page_shows_numbers_of_claims_that_hold_and_few_of_them(name):
    text = PAGES[name].read_text(encoding="utf-8")
    assert renew(text) == text, "make results writes the numbers anew"
    for words in cited(text):
        assert cite(words)
        assert name in ledger()[words.split()[0]].pages, (
            f"claim {words!r} is said on this page: name it among its pages"
        )
    # A comment that begins a line begins a block of HTML, and tears the paragraph.
    assert not re.search(r"^ *<!-- claim", text, flags=re.MULTILINE)
    crowded = [each for each in paragraphs(PAGES[name]) if len(cited(each)) > 2]
    assert not crowded, "at most two numbers a paragraph: say what the figure or the table beside it shows"


@pytest.mark.parametrize("name", sorted(set(PAGES) - {"instructors"}))  # points there are what an answer earns
def test_no_result_is_typed(name):
    text = MARK.sub("", "\n\n".join(paragraphs(PAGES[name])))
    text = re.sub(r"^ *(`{3,}).*?^ *\1`*$|`[^`\n]*`|\$[^$]*\$", "", text, flags=re.DOTALL | re.MULTILINE)
    typed = re.findall(r"\d[\d.,]*[ \u00a0]?(?:%|per cent|points?\b)", text)
    # The level of intervals, where a check draws its line, Wilson's of 50 of 100.
    conventions = {"95 %", "2 %", "19 points"}
    assert set(typed) <= conventions, "take it from the records: {result}`...`, {claim}`...`, or a mark"


def test_the_abstract_fares_as_the_preface_says():
    verdicts = [one.verdict for one in ledger().values() if one.origin == "abstract"]
    assert (verdicts.count(SUPPORTED), verdicts.count(PARTLY), len(verdicts)) == (5, 2, 7)


# ------------------------------------------------------------------------------------- a record that says otherwise


def altered(monkeypatch, by):
    """A claim again, with the robust accuracies of the learned rule moved."""
    run, claim = "patch-mnist-small", ledger()["patch-mnist-most-robust"]
    assert claim.verdict == SUPPORTED  # a claim is measured once: by the record as it is, before that is moved
    frame = recorded(run).frame.copy()
    frame.loc[(frame["method"] == "learned") & (frame["metric"] == "robust accuracy"), "value"] += by
    result = recorded(run)._replace(frame=frame)
    monkeypatch.setattr(compare, "recorded", lambda name: result if name == run else recorded(name))
    return dataclasses.replace(claim)


def test_a_record_that_says_otherwise_overturns_the_verdict_and_the_page(monkeypatch):
    one = altered(monkeypatch, by=-0.2)
    assert ledger()[one.id].verdict == SUPPORTED
    assert one.verdict == REFUTED
    with pytest.raises(InputError, match=r"'patch-mnist-most-robust' is not supported.*Change what the page says"):
        cite(one.id, {one.id: one})


def test_a_record_that_says_nearly_the_same_makes_the_page_old(monkeypatch):
    one = altered(monkeypatch, by=0.002)
    text = f"ahead by <!-- claim {one.id} -->{cite(one.id)}<!-- end -->"
    assert one.verdict == SUPPORTED
    assert renew(text, {one.id: one}) != text


# ------------------------------------------------------------------------------------------- how a verdict comes about


def made(value, wants="", **ranges):
    def example():
        """It is {a}."""
        return value

    return Claim(example, ADDED, (), SUPPORTED, wants, ranges)


@pytest.mark.parametrize(
    ("value", "verdict"),
    [
        ({"a": 0.5}, SUPPORTED),
        ({"a": 1, "b": 0}, SUPPORTED),
        ({"a": 2}, REFUTED),
        ({"a": 2, "b": 0.5}, PARTLY),
        ({"a": pd.Series([0.2, 2.0])}, PARTLY),
        ({"a": np.inf}, REFUTED),
        ({}, UNTESTED),
    ],
)
def test_a_verdict_follows_from_the_numbers(value, verdict):
    assert made(value, **dict.fromkeys(value, Range(0, 1))).verdict == verdict


def test_while_something_is_to_come_a_claim_is_partly_supported():
    assert made({"a": 0.5}, wants="more", a=Range(0, 1)).verdict == PARTLY


@pytest.mark.parametrize(
    ("value", "range_", "text"),
    [
        (-0.04, Range(), "0.0\u00a0points"),
        (-3.25, Range(), "\u22123.2\u00a0points"),
        (0.5, Range(unit="", digits=2), "0.50"),
        (pd.Series([3.1, 1.0, 2.0]), Range(unit="%", digits=0), "1 to 3\u00a0%"),
        (pd.Series([1.01, 0.99]), Range(unit=""), "1.0"),
    ],
)
def test_numbers_as_text(value, range_, text):
    assert made({"a": value}, a=range_).text == f"It is {text}."


def test_a_claim_that_is_not_well_formed_is_refused():
    with pytest.raises(InputError, match=r"measures \['a'\], but has ranges for \['b'\]"):
        made({"a": 1}, b=Range()).verdict  # noqa: B018
    with pytest.raises(InputError, match="unknown origin 'paper'"):
        claim("paper")
    with pytest.raises(InputError, match="'setting' is there twice"):
        claim(ADDED)(LEDGER["setting"].measure)


# ------------------------------------------------------------------------------------------------------- citing, pages


def test_numbers_are_cited_by_claim_and_name():
    shown = ledger()["abstract-patching"].shown
    assert cite("abstract-patching") == shown["gain"]
    assert cite("abstract-patching cost") == shown["cost"]
    old = "It costs <!-- claim abstract-patching cost -->99 points<!-- end -->, they say."
    assert renew(old) == f"It costs <!-- claim abstract-patching cost -->{shown['cost']}<!-- end -->, they say."
    assert cited(old + " {claim}`attacks-level share`") == ["attacks-level share", "abstract-patching cost"]
    assert json.loads(renew(json.dumps({"source": old})))["source"] == renew(old)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        ("abstract-patchin", "did you mean 'abstract-patching'"),
        ("abstract-patching most", "choose one of gain, cost"),
        ("larger-models", "'larger-models' is not tested"),
        ("abstract-data-sets", "'abstract-data-sets' is partly"),
    ],
)
def test_what_cannot_be_cited(words, says):
    with pytest.raises(InputError, match=re.escape(says)):
        cite(words)


def test_the_page_gives_verdict_numbers_ranges_and_runs_of_every_claim():
    claims = list(ledger().values())
    for origin in ORIGINS:
        text = section(claims, origin)
        for one in (one for one in claims if one.origin == origin):
            assert f'| **{one.verdict}** | <span id="claim-{one.id}"></span>{one.text} | ' in text
            assert all(f"[{run}](run-{run.replace('/', '-')})" in text for run in one.runs)
            assert all(f"*{name}*: {shown}; asked for" in text for name, shown in one.shown.items())
    assert sum(map(int, re.findall(r"\d+", overview(claims)))) == len(claims)
