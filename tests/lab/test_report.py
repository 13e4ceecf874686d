"""The page of recorded results: whatever is recorded is on it, with its facts, its own tables and its tests."""

import shutil

import pytest

from metarobust import storage
from metarobust.lab import quote, scrutiny, table
from metarobust.lab.experiments import EXPERIMENTS
from metarobust.lab.report import report

RUN = "patch-digits-small"


@pytest.fixture
def folder(tmp_path):
    shutil.copytree(quote.FOLDER / RUN, tmp_path / RUN)
    return tmp_path


def test_a_run_is_shown_with_facts_table_and_tests(folder):
    manifest, rows = quote.recorded(RUN)
    text = report(folder)
    assert f"(run-{RUN})=\n## {RUN}\n" in text
    assert f"`{manifest['command']}`" in text
    assert manifest["code"]["commit"][:7] in text
    assert EXPERIMENTS["patch"].markdown(rows, "patch") in text
    assert "learned minus the best rule of each tier, seed by seed" in text


def test_what_a_run_kept_of_others_and_what_it_left_out_is_said(tmp_path):
    for name in ("patch-mnist-small", "patch-mnist-full"):
        shutil.copytree(quote.FOLDER / name, tmp_path / name)
    whole, small = report(tmp_path).split("(run-patch-mnist-small)=")
    manifest, _ = quote.recorded("patch-mnist-small")
    for key, what in (("learned", "All that is learned is"), ("searched", "The settings of the rivals are")):
        assert f"- {what} of an earlier run: {manifest[key]['started'][:10]}, " in small
        assert f"`{manifest[key]['command']}`." in small
        assert what not in whole
    assert "NVIDIA H200" in small
    assert "- Left out: patch, step by step" in whole
    assert "Left out" not in small


def test_parts_that_are_not_shown_still_say_how_far_to_trust_them(tmp_path):
    shutil.copytree(quote.FOLDER / "cost-digits-small", tmp_path / "cost-digits-small")
    text = report(tmp_path)
    for part, looked in (("before", 3), ("short", 18), ("long", 18)):
        start = text.index(f"**{part}**: Two PGDs alone would have said ")
        assert f"The checks looked at {looked} of these models" in text[start : start + 300]


def test_a_new_run_is_picked_up(folder):
    shutil.copytree(folder / RUN, folder / "patch-digits-full")
    shutil.copytree(quote.FOLDER / "bench" / "peers", folder / "bench" / "peers")
    text = report(folder)
    assert [line[3:] for line in text.splitlines() if line.startswith("## ")] == [
        "patch-digits-full",
        RUN,
        "bench/peers",
    ]
    assert "(run-bench-peers)=" in text


def test_an_experiment_that_is_gone_is_said_so(folder):
    path = folder / RUN / "manifest.json"
    manifest = storage.read_json(path)
    manifest["spec"]["experiment"] = "gone"
    storage.write_json(path, manifest)
    assert "The experiment is not there any more" in report(folder)


def test_a_run_with_attacks_inside_stands_beside_the_best_adversarial_training():
    """Clean Adam is no rival of a rule that is given adversarial gradients."""
    _, rows = quote.recorded("robust-training-digits-small")
    head, *lines = table.headline(rows, "robust")
    rivals = {row["method"] for row in rows if row["tier"] == "adversarial" and not row["method"].startswith("learned")}
    best = [line[head.index("best adversarial training")] for line in lines]
    assert len(best) == 3
    for words, model in zip(best, [line[0] for line in lines], strict=True):
        method = words.partition("(")[2][:-1]
        assert method in rivals
        both = {name: sum(table.over(table.pick(rows, "robust", model, name), metric)[0]
                          for metric in ("clean accuracy", "robust accuracy")) for name in rivals}  # fmt: skip
        assert both[method] == max(both.values())
    assert "the learned rules and adversarial training make adversarial examples" in table.brief(rows)
    assert "only PGD-7 training makes adversarial examples" in table.brief(quote.recorded(RUN)[1])


def test_what_the_standard_ensemble_left_is_shown_with_its_fall():
    def row(method, model, seed, value, attack="worst of two", meta_seed=None):
        return {
            "part": "patch", "method": method, "model": model, "seed": seed, "meta_seed": meta_seed, "step": 20,
            "split": "test", "metric": "robust accuracy", "attack": attack, "value": value,
        }  # fmt: skip

    strong = table.STANDARD + "a, b"
    rows = [row("learned", "one", seed, 0.5 + 0.1 * seed, meta_seed=meta) for seed in (0, 1, 2) for meta in (0, 1)]
    rows += [row("learned", "one", seed, 0.47 + 0.1 * seed, strong, 0) for seed in (0, 1)]
    rows += [row("std-prune", "two", seed, 0.5) for seed in (0, 1)]
    rows += [row("std-prune", "two", seed, 0.5, strong) for seed in (0, 1)]
    text = scrutiny.strongest(rows, "patch").splitlines()
    assert text[0] == "| standard ensemble | one | two |"
    assert text[2].startswith("| learned | 52.0 ±")
    assert text[2].endswith("(−3.0) | – |")
    assert text[3] == "| std-prune | – | 50.0 ±0.0 (+0.0) |"
    assert scrutiny.strongest([one for one in rows if one["attack"] != strong], "patch") == ""
    _, recorded = quote.recorded(RUN)
    assert scrutiny.strongest(recorded, "patch") in report(quote.FOLDER)
