"""Files that were mutated, a byte or a field at a time: each is read, or refused by an `InputError`."""

from __future__ import annotations

import json
import shutil

import fake_experiment
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from metarobust import storage
from metarobust.cli import describe
from metarobust.course import child, classroom
from metarobust.data import load
from metarobust.errors import InputError
from metarobust.lab import engine, results, run_folder
from metarobust.lab.run_folder import Run, Units
from metarobust.lab.running import pick_device

QUICK = settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
JUNK = st.sampled_from([None, True, -1, 1.5, float("inf"), "", "x", [], {}, [1], {"a": 1}])
CODE = run_folder.code()
ABOUT = {"data_sha256": "0", "device": {"type": "cpu", "name": "test"}}


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A finished run, in a folder."""
    out = tmp_path_factory.mktemp("run") / "run"
    with pytest.MonkeyPatch.context() as patch:
        fake_experiment.install(patch)
        run = Run(out, fake_experiment.make_spec("smoke", "digits", [0]), resume=False, about=ABOUT)
        engine.complete(fake_experiment, run, load("digits"), pick_device("cpu"))
    return out


@pytest.fixture
def folder(finished, tmp_path, monkeypatch):
    fake_experiment.install(monkeypatch)
    monkeypatch.setattr(run_folder, "code", lambda: CODE)
    monkeypatch.setattr(storage.os, "fsync", lambda file: None)
    (tmp_path / "grading.json").write_text('{"seed": 5, "version": "0"}')
    cells = [{"cell_type": "code", "source": ["a = 1\n"]}, {"cell_type": "markdown", "source": "# Assignment 1"}]
    about = {"nbformat": 4, "metadata": {"metarobust": {"assignment": 1}}, "cells": cells}
    (tmp_path / "a.ipynb").write_text(json.dumps(about))
    return shutil.copytree(finished, tmp_path, dirs_exist_ok=True)


def again(folder, status):
    """Goes on with the run, as if its manifest had this status."""
    path = folder / "manifest.json"
    path.write_bytes(path.read_bytes().replace(b'"status": "complete"', b'"status": "%s"' % status))
    return Run(folder, fake_experiment.make_spec("smoke", "digits", [0]), resume=True, about=ABOUT)


READ = {
    "checkpoint": ("checkpoints/patch0.safetensors", lambda folder: Units(folder).restore("patch0")),
    "unit": ("units/sum.json", lambda folder: Units(folder).rows("sum")),
    "table": ("results.csv", results.load),
    "manifest, shown": ("manifest.json", describe),
    "manifest, complete": ("manifest.json", lambda folder: again(folder, b"complete")),
    "manifest, running": ("manifest.json", lambda folder: again(folder, b"running")),
    "grading": ("grading.json", lambda folder: classroom._class_seed(folder, None)),
    "submission": ("a.ipynb", lambda folder: child.read((folder / "a.ipynb").read_bytes())),
}
REFUSED = {"submission": (ValueError, KeyError, TypeError, AttributeError, RecursionError)}  # as `child.main` does


def places(value, path=()):
    """The way to each field of a JSON value."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    return [way for key, each in inner for way in ((*path, key), *places(each, (*path, key)))]


@st.composite
def mutated(draw, content, fields):
    """The content with a few bytes changed, cut or put in; or, of JSON, with a field that is another, or gone."""
    if fields and draw(st.booleans()):
        whole = at = json.loads(content)
        *way, last = draw(st.sampled_from(places(whole)))
        for key in way:
            at = at[key]
        at[last] = draw(JUNK)
        if draw(st.booleans()):
            del at[last]
        return json.dumps(whole, indent=1).encode()
    start = draw(st.integers(0, len(content)))
    end = draw(st.sampled_from([start, min(start + 1, len(content)), len(content)]))
    return content[:start] + draw(st.binary(max_size=4)) + content[end:]


@pytest.mark.parametrize("kind", READ)
@QUICK
@given(data=st.data())
def test_what_was_mutated_is_read_or_refused_in_words(kind, folder, data):
    name, read = READ[kind]
    path = folder / name
    content = path.read_bytes()
    try:
        path.write_bytes(data.draw(mutated(content, path.suffix in (".json", ".ipynb"))))
        read(folder)
    except REFUSED.get(kind, InputError):
        pass
    finally:
        path.write_bytes(content)
