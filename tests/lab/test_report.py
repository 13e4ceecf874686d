"""What is shown of recorded results: tables to the digit, and the page with facts, tables and tests of every run."""

import json
from hashlib import sha256
from pathlib import Path

import pytest

from metarobust.errors import InputError
from metarobust.lab.cards import ahead
from metarobust.lab.experiments import EXPERIMENTS
from metarobust.lab.report import report
from metarobust.lab.results import ATTACKED, RECORDED, accuracy, names, recorded, select
from metarobust.lab.summary import brief, headline

RUN = "patch-digits-small"
SHOWN = json.loads(Path(__file__).with_name("tables.json").read_text())
"""Digests of what an earlier version of the library, whose code for it was another, showed of each recorded run."""


@pytest.mark.parametrize("name", SHOWN)
def test_tables_of_a_recorded_run_are_what_they_were_to_the_digit(name):
    manifest, frame = recorded(name)
    experiment = EXPERIMENTS[manifest["spec"]["experiment"]]
    tables = []
    for part in names(frame, "part"):
        try:
            tables.append(f"## {part}\n{experiment.markdown(frame, part)}\n")
        except InputError:  # a part that is not shown
            continue
    shown = {"table": experiment.table(frame), "brief": experiment.brief(frame), "markdown": "".join(tables)}
    digests = {kind: sha256(text.strip("\n").encode()).hexdigest()[:16] for kind, text in shown.items()}
    assert digests == SHOWN[name]


def test_a_run_is_shown_with_facts_table_and_tests():
    manifest, frame = recorded(RUN)
    text = report(RECORDED, RUN)
    assert f"`{manifest['command']}`" in text
    assert f"Made by commit {manifest['code']['commit'][:7]}; the code has changed since." in text
    assert EXPERIMENTS["patch"].markdown(frame, "patch") in text
    assert "learned minus the best rule of each tier, seed by seed" in text


def test_what_a_run_kept_of_others_and_what_it_left_out_is_said():
    whole, small = (report(RECORDED, name) for name in ("patch-mnist-full", "patch-mnist-small"))
    manifest, _ = recorded("patch-mnist-small")
    for key, what in (("learned", "All that is learned is"), ("searched", "The rivals' settings are")):
        assert f"- {what} of an earlier run: {manifest[key]['started'][:10]}, " in small
        assert f"`{manifest[key]['command']}`." in small
        assert what not in whole
    assert "NVIDIA H200" in small
    assert "- Left out: patch, step by step" in whole
    assert "Left out" not in small


def test_parts_that_are_not_shown_still_say_how_far_to_trust_them():
    text = report(RECORDED, "cost-digits-small")
    for part, looked in (("before", 3), ("short", 18), ("long", 18)):
        start = text.index(f"**{part}**: Two PGDs alone would have said ")
        assert f"The checks looked at {looked} of these models" in text[start : start + 300]


def test_a_part_without_plain_rules_is_shown_and_says_nothing_of_them():
    _, frame = recorded("frontier-digits-small")
    head, *lines = headline(frame, "train, 200 steps")
    assert head == ["unseen network", "learned penalties", "best adversarial training"]
    assert len(lines) == 6
    assert "train, 200 steps" not in ahead(frame, "learned penalties", 0)


def test_a_run_with_attacks_inside_stands_beside_the_best_adversarial_training():
    """Clean Adam is no rival of a rule that is given adversarial gradients."""
    _, frame = recorded("robust-training-digits-small")
    head, *lines = headline(frame, "robust")
    rivals = select(frame, tier=ATTACKED, learned=0)
    both = sum(accuracy(rivals, metric).groupby(level=["model", "method"]).mean() for metric in ("clean", "robust"))
    best = {line[0]: line[head.index("best adversarial training")].partition("(")[2][:-1] for line in lines}
    assert best == {model: both[model].idxmax() for model in names(frame, "model")}
    assert "the learned rules and adversarial training make adversarial examples" in brief(frame)
    assert "only PGD-7 training makes adversarial examples" in brief(recorded(RUN).frame)
