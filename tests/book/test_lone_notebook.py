"""Each notebook alone, as in Colab: an empty folder, the wheel installed without its dependencies, and nothing else."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))


@pytest.fixture(scope="session")
def installed(tmp_path_factory):
    """The folder that the wheel was installed into."""
    place = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(place)]
    subprocess.run(build, cwd=ROOT, check=True, capture_output=True, text=True)
    (wheel,) = place.glob("metarobust-*.whl")
    zipfile.ZipFile(wheel).extractall(place / "site")  # all that an installation without dependencies does
    return place / "site"


@pytest.fixture
def alone(installed, tmp_path):
    """The environment in which Python finds the wheel, and not this checkout."""
    environment = os.environ | {"PYTHONPATH": str(installed), "OMP_NUM_THREADS": "1"}
    environment.pop("METAROBUST_RUNS", None)
    where = "import metarobust; print(metarobust.__file__)"
    command = [sys.executable, "-c", where]
    found = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True, check=True)
    assert Path(found.stdout.strip()).is_relative_to(installed)
    return environment


def test_the_wheel_has_what_notebooks_read(installed):
    package = installed / "metarobust"
    for folder, ending in (("recorded", "csv"), ("recorded", "json"), ("weights", "safetensors"), ("weights", "json")):
        ours = {path.relative_to(ROOT / "metarobust") for path in (ROOT / "metarobust" / folder).rglob(f"*.{ending}")}
        assert ours
        assert {path.relative_to(package) for path in (package / folder).rglob(f"*.{ending}")} == ours


@pytest.mark.slow
@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_needs_nothing_but_itself(notebook, alone, tmp_path):
    here = tmp_path / "empty"
    here.mkdir()
    copy = here / notebook.name
    copy.write_bytes(notebook.read_bytes())
    command = [
        sys.executable, "-m", "papermill", "--kernel", "python3", "--no-progress-bar", copy.name, "run.ipynb"
    ]  # fmt: skip
    done = subprocess.run(command, env=alone, cwd=here, capture_output=True, text=True, timeout=500)
    assert done.returncode == 0, done.stderr[-3000:]
