"""What must agree between files, and what no file may hold."""

import json
import re
import runpy
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
PINS = [line for line in (ROOT / ".ci/constraints.txt").read_text().splitlines() if not line.startswith("#")]
WORKFLOWS = sorted((ROOT / ".github/workflows").glob("*.yml"))
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
        built = re.compile(r"\.venv|_build|__pycache__|\..*_cache|\.hypothesis")
        paths = [path for path in ROOT.rglob("*") if not any(map(built.fullmatch, path.relative_to(ROOT).parts))]
    return sorted(path for path in paths if path.is_file())


@pytest.fixture(scope="module")
def texts() -> dict[str, str]:
    """Every text file but this one, by its path."""
    contents = {path.relative_to(ROOT).as_posix(): path.read_bytes() for path in all_files()}
    own = Path(__file__).relative_to(ROOT).as_posix()
    return {name: data.decode("utf-8") for name, data in contents.items() if b"\0" not in data and name != own}


def package_name(requirement: str) -> str:
    return re.match(r"[\w.-]+", requirement)[0].lower().replace("_", "-")


def test_environment_file_installs_what_pyproject_names():
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())
    python, pip, pipped = environment["dependencies"]
    assert environment["name"] == PROJECT["name"]
    assert (python, pip) == ("python" + PROJECT["requires-python"], "pip")
    extras = ",".join(PROJECT["optional-dependencies"])
    assert pipped == {"pip": ["-c .ci/constraints.txt", f"-e .[{extras}]"]}
    assert (ROOT / ".ci/setup").read_text().count(f"-e '.[{extras}]'") == 2


def test_every_requirement_is_pinned_by_name_and_version():
    assert [pin for pin in PINS if not re.fullmatch(r"[\w.-]+==[\w.]+( ; [\w<>=!.'\" *-]+)?", pin)] == []
    wanted = PROJECT["dependencies"] + [one for extra in PROJECT["optional-dependencies"].values() for one in extra]
    pinned = {package_name(pin) for pin in PINS} | {PROJECT["name"]}
    assert {package_name(one) for one in wanted} - pinned == set()


def test_the_version_stands_in_one_place_and_can_be_a_tag(texts):
    from metarobust import __version__

    assert PROJECT["dynamic"] == ["version"]
    assert re.fullmatch(r"\d+\.\d+\.\d+(\.dev\d+)?", __version__)
    release = __version__.partition(".dev")[0]
    assert f"[{release}]" in texts["CHANGELOG.md"] or f"This becomes {release}." in texts["CHANGELOG.md"]
    named = [name for name, text in texts.items() if f'"{__version__}"' in text]
    assert [name for name in named if not {"recorded", "weights"} & {*name.split("/")}] == ["metarobust/__init__.py"]


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_a_workflow_is_well_formed_and_may_do_no_more_than_it_needs(path):
    flow = yaml.safe_load(path.read_text())
    assert set(flow) <= {"name", True, "permissions", "concurrency", "jobs"}  # YAML 1.1 reads the key `on` as true
    assert flow["name"] == path.stem
    assert flow["permissions"] == {"contents": "read"}
    assert set(flow[True]) <= {"push", "pull_request", "workflow_dispatch"}
    for job in flow["jobs"].values():
        assert set(job) <= {"runs-on", "timeout-minutes", "strategy", "needs", "permissions", "environment", "steps"}
        assert job["timeout-minutes"] <= 60
        assert job.get("needs", next(iter(flow["jobs"]))) in flow["jobs"]
        for step in job["steps"]:
            assert set(step) <= {"name", "id", "uses", "with", "run", "env"}
            assert ("uses" in step) != ("run" in step)
            assert re.fullmatch(r"[\w-]+/[\w-]+@(v\d+|release/v\d+)", step.get("uses", "a/b@v1"))
            targets = re.findall(r"\bmake (\w+)", step.get("run", ""))
            assert all(f"\n{target}:" in (ROOT / "Makefile").read_text() for target in targets)
    assert set(re.findall(r"\$\{\{ *(\w+)", path.read_text())) <= {"github", "matrix", "steps"}


def test_address_is_the_same_everywhere(texts):
    assert address["ADDRESS"].fullmatch(PUBLIC)
    assert yaml.safe_load(texts["CITATION.cff"])["repository-code"] == PUBLIC
    assert yaml.safe_load(texts["_config.yml"])["repository"]["url"] == PUBLIC
    assert f"git+{PUBLIC}" in texts[".ci/notebook_setup.py"]
    for name, text in texts.items():
        # Owner and name in plain, raw, Colab and pip addresses of this repository, wherever it lived before.
        ours = re.findall(r"github(?:usercontent)?(?:\.com)?/([\w-]+/metarobust)(?![\w-])", text)
        colab = re.findall(r"colab\.research\.google\.com/github/([\w-]+/[\w.-]+)", text)
        assert set(ours) | set(colab) <= {SLUG}, name


def test_a_new_address_takes_the_place_of_the_old_one_everywhere():
    new = "https://github.com/someone/their.book"
    for form in ("https://github.com/{}", 'git+https://github.com/{}"', "colab.research.google.com/github/{}/blob"):
        assert address["move"](form.format(SLUG), PUBLIC, new) == form.format("someone/their.book")
    other = f"https://github.com/{SLUG}-other"
    assert address["move"](other, PUBLIC, new) == other
    holding = {path for path in all_files() if SLUG in path.read_bytes().decode("utf-8", "ignore")}
    assert holding - {Path(__file__)} <= set(address["texts"](ROOT))


@pytest.mark.parametrize("bad", ["", "github.com/a/b", "https://example.org/a/b", "https://github.com/a"])
def test_bad_address_is_refused_in_one_line(bad):
    run = subprocess.run([sys.executable, ROOT / ".ci/address.py", bad], capture_output=True, text=True)
    assert (run.returncode, run.stderr.count("\n")) == (2, 1)
    assert repr(bad) in run.stderr


def test_no_file_names_a_package_registry_or_a_folder_of_a_machine(texts):
    hosts = ("pypi", "org"), ("python" + "hosted", "org"), ("npmjs", "org"), ("anaconda", "org"), ("pytorch", "org/whl")
    named = "|".join(re.escape(".".join(host)) for host in hosts)
    home = re.compile(rf"{named}|(?<![\w.~}}])/(?:home|Users|root|work)/[\w.]")
    assert [name for name, text in texts.items() if home.search(text) or f"{ROOT}/" in text] == []


def test_licences_are_there_and_no_lock_files(texts):
    assert texts["LICENSE"].startswith("MIT License")
    assert "creativecommons.org/licenses/by/4.0" in texts["book/licence.md"]
    assert not [name for name in texts if re.search(r"(^|[/.-])lock(\.|$)|(^|/)pylock|shrinkwrap", name)]


def test_automatic_check_runs_the_test_command_of_the_readme(texts):
    assert "exec make test" in texts[".ci/run"]
    assert "make test" in texts["README.md"]


def test_readme_and_chapters_are_no_results_papers(tmp_path, capsys):
    measuring = runpy.run_path(str(ROOT / ".ci/measure.py"))
    assert measuring["main"]() == 0, capsys.readouterr().out
    page = tmp_path / "page.md"
    page.write_text("One two 3.\n\n![a picture](a-4.png)\n\nFour `5` words, $6$, 7 and 8.\n\n| 9 | ten |\n")
    assert measuring["measure"](page) == measuring["Measured"](words=5, first=2, figures=1, numbers=3, crowd=2)


def test_a_dev_container_is_set_up_like_any_other_machine(texts):
    container = json.loads(texts[".devcontainer/devcontainer.json"])
    assert (ROOT / container["postCreateCommand"]).is_file()
