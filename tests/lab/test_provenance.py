"""`metarobust results`: what is recorded, how old, and whether the code that made it is still the same."""

import ast
import json
import shutil
from datetime import UTC, datetime

import pytest

from metarobust import storage
from metarobust.cli import main
from metarobust.lab import environment as made_by
from metarobust.lab import provenance, quote, results
from metarobust.lab.provenance import depends_on, facts, listing

RUN = "patch-digits-small"


@pytest.fixture
def folder(tmp_path):
    """A copy of one recorded run and of one comparison."""
    for name in (RUN, "bench/peers"):
        shutil.copytree(quote.FOLDER / name, tmp_path / name)
    return tmp_path


def rewrite(path, **changes):
    manifest = storage.read_json(path)
    storage.write_json(path, manifest | changes)


def test_every_recorded_run_is_listed_once(capsys):
    assert main(["results"]) == 0
    text = capsys.readouterr().out
    lines = text.splitlines()
    assert max(map(len, lines)) <= 100
    wanted = {path.parent for path in quote.FOLDER.glob("**/manifest.json")}
    assert lines.index("") - 1 == len(wanted)
    assert main(["results", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert {one["name"] for one in found} == {path.relative_to(quote.FOLDER).as_posix() for path in wanted}
    assert all(one["commit"] and one["files"] > 10 and one["command"] for one in found)


def test_facts_are_those_of_the_manifest(folder):
    manifest = storage.read_json(folder / RUN / "manifest.json")
    began = datetime.fromisoformat(manifest["started"])
    run, bench = facts(folder, now=began.replace(year=began.year + 1))
    assert (run["name"], run["dataset"], run["scale"]) == (RUN, "digits", "small")
    assert run["age_days"] == 365
    assert run["wall_seconds"] == manifest["wall_seconds"]
    assert (bench["experiment"], bench["seeds"]) == ("bench/peers", None)
    assert bench["age_days"] >= 0


def test_code_is_the_same_where_the_digest_is(folder):
    path = folder / RUN / "manifest.json"
    rewrite(path, code=storage.read_json(path)["code"] | {"sha256": results.code()["sha256"]})
    run, bench = facts(folder)
    assert (run["code"], run["changed_files"]) == ("same", [])
    assert bench["code"] == "changed"
    assert "  same\n" in listing([run, bench])


def test_of_what_has_changed_only_files_that_the_run_depends_on_count(folder, monkeypatch):
    changed = ["metarobust/lab/stages.py", "metarobust/lab/bench/peers.py", "metarobust/cli.py"]
    monkeypatch.setattr(provenance, "differing", lambda commit: changed)
    run, bench = facts(folder)
    assert run["changed_files"] == ["metarobust/lab/stages.py"]
    assert bench["changed_files"] == ["metarobust/lab/bench/peers.py"]
    assert f"changed 1/{run['files']}" in listing([run])


def test_outside_a_checkout_only_the_digest_is_compared(folder, monkeypatch):
    monkeypatch.setattr(made_by, "_git", lambda *_: None)
    run, _ = facts(folder)
    assert (run["code"], run["changed_files"]) == ("changed", None)
    assert listing([run]).splitlines()[1].endswith("changed")


def test_an_experiment_that_is_gone_and_a_long_name_do_no_harm(folder):
    path = folder / RUN / "manifest.json"
    spec = storage.read_json(path)["spec"] | {"experiment": "transfer-architectures", "dataset": "fashion-mnist"}
    rewrite(path, spec=spec, device={"type": "cuda", "name": "NVIDIA H200 NVL with 141 GB"})
    run, _ = facts(folder, now=datetime(2027, 1, 1, tzinfo=UTC))
    assert (run["files"], run["changed_files"]) == (None, None)
    line = listing([run]).splitlines()[1]
    assert "H200 NVL" in line
    assert len(line) <= 100


def test_dependencies_are_the_imports_of_the_files_and_no_more():
    found = depends_on("metarobust.lab.published")
    assert {"metarobust/lab/published.py", "metarobust/lab/table.py", "metarobust/lab/stats.py"} <= found
    assert "metarobust/lab/__init__.py" not in found, "it imports every experiment"
    assert "metarobust/cli.py" not in found
    # The package's own __init__ counts where a name is taken out of it.
    assert "metarobust/meta/__init__.py" in depends_on("metarobust.lab.comparison")
    assert depends_on(None) == depends_on("json") == set()


def test_dependencies_hold_all_that_a_run_loads():
    """Read from the files, compared with what Python itself follows: nothing that is imported is missing."""
    found = depends_on("metarobust.lab.anchor")
    for name in found:
        tree = ast.parse((provenance.PACKAGE.parent / name).read_text())
        for node in ast.walk(tree):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("metarobust."):
                path = node.module.replace(".", "/")
                assert {f"{path}.py", f"{path}/__init__.py"} & found or {
                    f"{path}/{alias.name}.py" for alias in node.names
                } <= found, f"{name} imports {node.module}"
