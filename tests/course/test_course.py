"""The graders, graded: stubs and wrong answers fail what they violate and nothing else, on the variants of any seed."""

import math

import pytest
import torch
from wrong import attacks, evaluation, mistakes, optimizer

from metarobust import course
from metarobust.course.marks import judge, mark
from metarobust.errors import InputError

WRONG = [*attacks.WRONG, *evaluation.WRONG, *optimizer.WRONG, *mistakes.WRONG]
QUESTIONS = [(number, question) for number in course.NUMBERS for question in course.assignment(number).questions]
SEEDS = (0, 1, 2, 77)


def named(value):
    return getattr(value, "name", None) or str(value)


def spelt(name):
    return name.replace(" ", "_").replace("-", "_")


@pytest.mark.parametrize("wrong", WRONG, ids=lambda wrong: f"{wrong.number}-{wrong.question}-{wrong.answer.__name__}")
def test_a_wrong_answer_fails_what_it_violates_and_nothing_else(wrong):
    question = course.assignment(wrong.number).question(wrong.question)
    for seed in SEEDS:
        found = mark(question, wrong.answer, (seed,))
        assert {spelt(name) for name in found.failed} == {wrong.violates}, (seed, str(found))
        assert 0 < found.points < found.out_of
        (missed,) = [finding for finding in found.findings if finding.said]
        assert missed.points == 0 < missed.out_of
        assert len(missed.hint.split()) >= 3


def test_every_property_has_a_wrong_answer_and_every_question_five():
    met = {(wrong.number, wrong.question, wrong.violates) for wrong in WRONG}
    assert met == {(n, q.name, spelt(p.name)) for n, q in QUESTIONS for p in q.properties}
    assert all(sum((w.number, w.question) == (n, q.name) for w in WRONG) >= 5 for n, q in QUESTIONS)
    names = [(wrong.number, wrong.question, wrong.name) for wrong in WRONG]
    assert len(set(names)) == len(names)


@pytest.mark.parametrize(("number", "question"), QUESTIONS, ids=named)
def test_a_stub_gets_nothing_and_is_told_to_begin(number, question):
    for seed in SEEDS:
        found = mark(question, lambda *given: None, (seed,))
        assert found.points == 0
        assert "returns nothing yet" in str(found)
        assert "write the function" in str(found)
    assert mark(question, None).points == 0


def loud(*given):
    raise TypeError("x" * 10_000)


@pytest.mark.parametrize(
    "answer",
    [
        loud,
        lambda *given: "tensor",
        lambda *given: torch.full((2, 3), math.nan),
        lambda *given: torch.zeros(0),
        lambda *given: {"clean": "a", "robust": None, "n": 0, "low": 1, "high": object()},
        lambda *given: [[], [1, 2], {}],
        lambda *given: object(),
        lambda *given: -math.inf,
        lambda: 0,
    ],
)
@pytest.mark.parametrize(("number", "question"), QUESTIONS, ids=named)
def test_whatever_comes_back_ends_in_points(number, question, answer):
    found = mark(question, answer, (3,))
    assert found.points == 0
    assert len(str(found)) < 3000
    assert "\n\n" not in str(found)


@pytest.mark.parametrize("value", [None, [], {}, "x", -1, torch.zeros(3), {"raised": 3}, {"type": []}, [None] * 3])
def test_a_forged_record_ends_in_points(value):
    for _, question in QUESTIONS:
        names = set(question.probe(lambda *given: None, question.case(0)))
        assert judge(question, (0,), {0: dict.fromkeys(names, value)}).points < question.out_of


def test_a_question_gives_the_same_variant_for_a_seed_and_others_for_others():
    for _, question in QUESTIONS:
        said = {seed: repr(question.case(seed)) for seed in (4, 5, 6)}
        assert len(set(said.values())) == 3
        if " object at 0x" not in said[4]:
            assert repr(question.case(4)) == said[4]


def test_a_check_leaves_the_default_generator_alone():
    before = torch.get_rng_state()
    for number, question in QUESTIONS:
        course.check(number, question.name, loud)
    assert torch.equal(torch.get_rng_state(), before)


def test_a_mark_reads_well():
    text = str(course.check(1, "q2", attacks.no_clamp))
    assert text.splitlines()[0] == "q2 fgsm: 7 of 8 points"
    assert "  --  0/1  range: pixels run from" in text
    assert "Hint: clamp the image to [0, 1]" in text
    assert text.count("  ok  ") == 5


def test_one_property_for_a_test_file(monkeypatch):
    course.earn(1, "q2", "ball", attacks.no_clamp)
    with pytest.raises(AssertionError, match=r"range: pixels run .* Hint: clamp"):
        course.earn(1, "q2", "range", attacks.no_clamp, hidden=True)
    monkeypatch.setenv(course.SECRET, "12")
    course.earn(1, "q2", "full", attacks.no_clamp, hidden=True)
    monkeypatch.setenv(course.SECRET, "twelve")
    with pytest.raises(InputError, match="'twelve'"):
        course.earn(1, "q2", "full", attacks.no_clamp, hidden=True)


@pytest.mark.parametrize(
    ("given", "says"),
    [((5, "q1", "ball"), "no assignment 5"), ((1, "q9", "ball"), "'q9'"), ((1, "q1", "bal"), "did you mean 'ball'")],
)
def test_bad_names_are_refused_in_one_line(given, says):
    with pytest.raises(InputError, match=says):
        course.earn(*given, loud)
