"""`make book` runs a notebook again when its outputs would differ, and never shows those of a broken run."""

import json
import os
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
book = runpy.run_path(str(ROOT / ".ci/book.py"))


def notebook(*cells: tuple[str, str], count=None, outputs=()) -> dict:
    made = [{"cell_type": kind, "metadata": {}, "source": [source]} for kind, source in cells]
    for cell in made:
        if cell["cell_type"] == "code":
            cell |= {"execution_count": count, "outputs": list(outputs)}
    return {"cells": made, "metadata": {"metarobust": {"seconds": 5}}, "nbformat": 4, "nbformat_minor": 4}


@pytest.fixture
def chapter(tmp_path):
    """A notebook, and a folder with its executed copy and the stamp."""
    path, done = tmp_path / "chapter.ipynb", tmp_path / "done"
    done.mkdir()
    path.write_text(json.dumps(notebook(("markdown", "Words."), ("code", "print(1)"))))
    printed = {"output_type": "stream", "name": "stdout", "text": ["1\n"]}
    ran = notebook(("markdown", "Words."), ("code", "print(1)"), count=1, outputs=[printed])
    book["write"](done / path.name, json.dumps(ran))
    book["write"](done / "chapter.sha256", book["key"](path, "library"))
    return path, done


def test_new_code_a_new_library_and_a_broken_run_are_noticed(chapter):
    path, done = chapter
    assert book["is_current"](path, done, "library")
    assert not book["is_current"](path, done, "changed library")
    path.write_text(path.read_text().replace("print(1)", "print(2)"))
    assert not book["is_current"](path, done, "library")
    path.write_text(path.read_text().replace("print(2)", "print(1)"))
    (done / "chapter.sha256").unlink()  # as where the run was killed: the stamp is written last
    assert not book["is_current"](path, done, "library")


def test_text_may_change_without_a_run(chapter):
    path, done = chapter
    path.write_text(path.read_text().replace("Words.", "Other words."))
    assert book["is_current"](path, done, "library")
    shown = json.loads(book["with_outputs"](path, done / path.name))
    assert shown["cells"][0]["source"] == ["Other words."]
    assert shown["cells"][1]["outputs"][0]["text"] == ["1\n"]
    assert shown["cells"][1]["execution_count"] == 1


@pytest.mark.parametrize("changed", ["attacks/pgd.py", "lab/recorded/run/results.csv", "weights/patch.safetensors"])
def test_the_digest_of_the_library_covers_code_records_and_weights(tmp_path, changed):
    package = tmp_path / "metarobust"
    (package / changed).parent.mkdir(parents=True)
    (package / changed).write_text("before")
    before = book["digest"](package)
    (package / "__pycache__").mkdir()
    (package / "__pycache__" / "pgd.pyc").write_text("made by an import")
    assert book["digest"](package) == before
    (package / changed).write_text("after")
    assert book["digest"](package) != before
    (package / changed).write_text("before")
    (package / changed).rename(package / "moved")
    assert book["digest"](package) != before


def test_a_page_keeps_its_time_unless_it_changed(tmp_path, monkeypatch):
    root, pages = tmp_path / "root", tmp_path / "pages"
    for name in ("book", "notebooks"):
        (root / name).mkdir(parents=True)
    for name in ("book/a.md", "book/b.md", "_toc.yml", "_config.yml"):
        (root / name).write_text(name)
    monkeypatch.setitem(book["copy_pages"].__globals__, "ROOT", root)
    book["copy_pages"](pages)
    before = {path.name: path.stat().st_mtime_ns for path in pages.rglob("*.*")}
    (root / "book/a.md").write_text("new")
    (root / "book/b.md").rename(root / "book/c.md")
    book["copy_pages"](pages)
    after = {path.name: path.stat().st_mtime_ns for path in pages.rglob("*.*")}
    assert set(after) == {"a.md", "c.md", "_toc.yml", "_config.yml"}
    assert after["a.md"] > before["a.md"]
    assert after["_toc.yml"] == before["_toc.yml"]


RUN = """
import sys, pathlib, book
book.BUILT = pathlib.Path("built").resolve()
done = book.BUILT / "executed"
done.mkdir(parents=True, exist_ok=True)
print(book.execute(pathlib.Path("notebooks"), done, "library"))
"""


@pytest.mark.slow
def test_a_notebook_runs_once(tmp_path):
    kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    (tmp_path / "notebooks").mkdir()
    for name in "ab":
        content = notebook(("code", f"print({name!r})"))
        content["metadata"] |= kernel
        (tmp_path / "notebooks" / f"{name}.ipynb").write_text(json.dumps(content))

    def ran() -> str:
        environment = os.environ | {"PYTHONPATH": str(ROOT / ".ci")}
        command = [sys.executable, "-c", RUN]
        out = subprocess.run(command, cwd=tmp_path, env=environment, check=True, capture_output=True, text=True).stdout
        return out.splitlines()[-1]

    assert ran() == "['a.ipynb', 'b.ipynb']"
    assert ran() == "[]"
    path = tmp_path / "notebooks" / "b.ipynb"
    path.write_text(path.read_text().replace("'b'", "'c'"))
    assert ran() == "['b.ipynb']"
    shown = json.loads((tmp_path / "built" / "executed" / "b.ipynb").read_text())
    assert "c" in "".join(shown["cells"][0]["outputs"][0]["text"])
