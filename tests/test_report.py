"""The page of recorded results: whatever is recorded is on it, with its facts, its own tables and its tests."""

import shutil

import pytest

from metarobust import quote, storage
from metarobust.experiments import EXPERIMENTS
from metarobust.report import report

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
    for method, why in manifest.get("withdrawn", {}).items():
        assert f"*{method}*. {why}" in text


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
    storage.write_json(path, {key: value for key, value in manifest.items() if key != "sha256"})
    assert "The experiment is not there any more" in report(folder)
