"""What is killed, fills the disk or loses its folder goes on to the same bytes: a short part of `.ci/faults.py`."""

from __future__ import annotations

import os
import re
import runpy
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / ".ci" / "faults.py"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.slow
def test_after_every_fault_all_holds(tmp_path):
    # In a process of one thread: a fork could not go on with others.
    command = [sys.executable, str(SCRIPT), "--tries", "3", "--out", str(tmp_path / "faults.md")]
    done = subprocess.run([*command, "--seed", str(os.getpid())], capture_output=True, text=True, timeout=500)
    assert done.returncode == 0, done.stdout + done.stderr
    rows = re.findall(r"^\| (.+?) \| (.+?) \| (\d+) \| (\d+) \|$", (tmp_path / "faults.md").read_text(), re.M)
    assert {what for what, *_ in rows} >= {"SIGKILL", "SIGTERM", "full disk", "read-only folder", "out of memory"}
    assert all(tries == held and int(tries) for *_, tries, held in rows)


def test_another_plan_ends_with_other_bytes(tmp_path, monkeypatch):
    """So that the same bytes mean something."""
    monkeypatch.setattr(os, "environ", os.environ.copy())
    script = runpy.run_path(str(SCRIPT))
    meta_training, plan = script["meta_training"], script["PLAN"]
    for name, each in (("a", plan), ("b", replace(plan, lr=0.04)), ("c", plan)):
        meta_training(tmp_path / name, each)
    ends = [(tmp_path / name / "end").read_bytes() for name in "abc"]
    assert ends[0] == ends[2] != ends[1]
