"""What must agree between files, and what no file may hold."""

import re
import runpy
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
PINS = [line for line in (ROOT / ".ci/constraints.txt").read_text().splitlines() if not line.startswith("#")]
address = runpy.run_path(str(ROOT / ".ci/address.py"))
PUBLIC = address["current"](ROOT)
SLUG = PUBLIC.removeprefix("https://github.com/")


def all_files() -> list[Path]:
    """The files that git has or would take; without git, all but what was made here."""
    git = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"], cwd=ROOT, capture_output=True
    )
    if git.returncode == 0:
        paths = [ROOT / name for name in git.stdout.decode().split("\0") if name]
    else:
        made = {".venv", "_build", "__pycache__", ".pytest_cache", ".ruff_cache", ".hypothesis"}
        paths = [path for path in ROOT.rglob("*") if not made & set(path.relative_to(ROOT).parts)]
    return sorted(path for path in paths if path.is_file())


def all_texts() -> dict[str, str]:
    texts = {}
    for path in all_files():
        data = path.read_bytes()
        if b"\0" not in data:
            texts[str(path.relative_to(ROOT))] = data.decode("utf-8")
    return texts


def test_environment_file_installs_what_pyproject_names():
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())
    python, pip, pipped = environment["dependencies"]
    assert environment["name"] == PROJECT["name"]
    assert python == "python" + PROJECT["requires-python"]
    assert pip == "pip"
    extras = ",".join(PROJECT["optional-dependencies"])
    assert pipped == {"pip": ["-c .ci/constraints.txt", f"-e .[{extras}]"]}


def test_pins_are_names_and_versions():
    assert [pin for pin in PINS if not re.fullmatch(r"[\w.-]+==[\w.]+( ; [\w<>=!.'\" *-]+)?", pin)] == []


def test_every_requirement_is_pinned():
    def name(requirement):
        return re.match(r"[\w.-]+", requirement)[0].lower().replace("_", "-")

    pinned = {name(pin) for pin in PINS}
    wanted = PROJECT["dependencies"] + [one for extra in PROJECT["optional-dependencies"].values() for one in extra]
    assert {name(one) for one in wanted} - pinned == set()


def test_version_is_the_same_everywhere():
    from metarobust import __version__

    assert PROJECT["version"] == __version__
    assert yaml.safe_load((ROOT / "CITATION.cff").read_text())["version"] == __version__


def test_address_is_the_same_everywhere():
    assert address["ADDRESS"].fullmatch(PUBLIC)
    assert yaml.safe_load((ROOT / "CITATION.cff").read_text())["repository-code"] == PUBLIC
    assert yaml.safe_load((ROOT / "_config.yml").read_text())["repository"]["url"] == PUBLIC
    assert f"git+{PUBLIC}" in (ROOT / ".ci/notebook_setup.py").read_text()
    for name, text in all_texts().items():
        if name == "tests/test_project.py":
            continue
        # Owner and name in plain, raw, Colab and pip addresses of this repository, wherever it lived before.
        ours = re.findall(r"github(?:usercontent)?(?:\.com)?/([\w-]+/metarobust)(?![\w-])", text)
        colab = re.findall(r"colab\.research\.google\.com/github/([\w-]+/[\w.-]+)", text)
        assert set(ours) | set(colab) <= {SLUG}, name


def test_one_command_moves_the_address(tmp_path):
    for path in all_files():
        copy = tmp_path / path.relative_to(ROOT)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, copy)
    command = [sys.executable, str(tmp_path / ".ci/address.py")]
    subprocess.run([*command, "https://github.com/someone/their.book.git"], check=True, capture_output=True)
    assert address["current"](tmp_path) == "https://github.com/someone/their.book"
    left = re.compile(rf"github(usercontent)?(\.com)?/{re.escape(SLUG)}(?![\w-])")
    files = [path for path in address["texts"](tmp_path) if path.name != "test_project.py"]
    assert files
    assert not [path for path in files if left.search(path.read_text())]
    moved = (tmp_path / ".ci/notebook_setup.py").read_text()
    for notebook in (tmp_path / "notebooks").glob("*.ipynb"):
        assert "colab.research.google.com/github/someone/their.book/blob" in notebook.read_text()
        assert 'git+https://github.com/someone/their.book\\"' in notebook.read_text()
    assert 'git+https://github.com/someone/their.book"' in moved


@pytest.mark.parametrize("bad", ["", "github.com/a/b", "https://example.org/a/b", "https://github.com/a"])
def test_bad_address_is_refused_in_one_line(bad):
    run = subprocess.run([sys.executable, ROOT / ".ci/address.py", bad], capture_output=True, text=True)
    assert run.returncode == 2
    assert run.stderr.count("\n") == 1
    assert repr(bad) in run.stderr


def test_no_file_names_a_package_registry():
    # In pieces, so that this file does not name them either.
    hosts = [
        ("pypi", "org"),
        ("python" + "hosted", "org"),
        ("npmjs", "org"),
        ("anaconda", "org"),
        ("pytorch", "org/whl"),
    ]
    pattern = re.compile("|".join(re.escape(".".join(host)) for host in hosts))
    assert [name for name, text in all_texts().items() if pattern.search(text)] == []


def test_no_file_names_a_folder_of_a_machine():
    home = re.compile(r"(?<![\w.~}])/(?:home|Users|root|work)/[\w.]")
    found = [name for name, text in all_texts().items() if home.search(text) or f"{ROOT}/" in text]
    assert [name for name in found if name != "tests/test_project.py"] == []


def test_no_lock_files():
    names = {path.name for path in all_files()}
    assert not [name for name in names if re.search(r"(^|[.-])lock(\.|$)|^pylock|shrinkwrap", name)]


def test_licences_are_there():
    assert (ROOT / "LICENSE").read_text().startswith("MIT License")
    assert "creativecommons.org/licenses/by/4.0" in (ROOT / "book/licence.md").read_text()


def test_automatic_check_runs_the_test_command_of_the_readme():
    assert "exec make test" in (ROOT / ".ci/run").read_text()
    assert "make test" in (ROOT / "README.md").read_text()
