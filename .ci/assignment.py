"""Cut an assignment out of its master with otter-assign: assignment.py NUMBER [SEED], or assignment.py ADDRESS.

Writes the student's notebook, the solution and the autograder's archive to _build/assignments, and the student's
notebook also to where its Colab link leads, there with what its stubs print. No network. The same master gives the
same bytes.
"""

import copy
import json
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

import nbformat
from nbclient import NotebookClient

ROOT = Path(__file__).resolve().parent.parent
MASTERS = ROOT / "notebooks" / "assignments"
PUBLISHED = MASTERS / "student"
BUILT = ROOT / "_build" / "assignments"
HANDOUT = ROOT / "_build" / "handout"
HONEST = "# For honest classes: submissions run beside these tests, and could replace them; metarobust grade is apart."
NO_TIME = (1980, 1, 1, 0, 0, 0)  # the earliest that a zip file knows


def master(number: int) -> Path:
    """The master of an assignment. Raises SystemExit where there is none."""
    for path in sorted(MASTERS.glob("*.ipynb")):
        if json.loads(path.read_text(encoding="utf-8"))["metadata"]["metarobust"]["assignment"] == number:
            return path
    raise SystemExit(f"assignment: there is no assignment {number}; give N=1, N=2, N=3 or N=4")


def bare(notebook: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """The notebook without outputs and counts: what a run leaves behind is no part of a cut."""
    for cell in notebook.cells:
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
    return notebook


def executed(notebook: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """The notebook with its outputs and counts, and no other trace of the run. Raises where a cell stops."""
    about = copy.deepcopy(notebook.metadata)  # a run writes the version of Python there
    with tempfile.TemporaryDirectory() as scratch:
        NotebookClient(
            notebook, timeout=600, kernel_name="python3", record_timing=False, coalesce_streams=True,
            resources={"metadata": {"path": scratch}}, extra_arguments=["--IPKernelApp.log_level=40"],
        ).execute()  # fmt: skip
    notebook.metadata = about
    nbformat.validate(notebook)
    return notebook


def clean(path: Path, known: set[str]) -> nbformat.NotebookNode:
    """A notebook without otter's marks in its code; of its metadata, what says which assignment it is.

    known: the ids of the master's cells. A cell that otter adds has a random one.
    """
    notebook = nbformat.read(path, as_version=4)
    # otter's own grader asks a submission which assignment it is; nothing else of its marks is needed.
    name = notebook.metadata.pop("otter", {}).get("assignment_name")
    if name:
        notebook.metadata["otter"] = {"assignment_name": name}
    for cell in notebook.cells:
        tags = [tag for tag in cell.metadata.get("tags", []) if not tag.startswith("otter")]
        cell.metadata = nbformat.from_dict({"tags": tags} if tags else {})
        marks = r"^ *# (?:BEGIN|END) SOLUTION\n?|^<!-- (?:BEGIN|END) QUESTION -->\n*"
        cell.source = re.sub(marks, "", cell.source, flags=re.M).rstrip()
    notebook.cells = [cell for cell in notebook.cells if cell.source]
    for place, cell in enumerate(notebook.cells):
        cell.id = cell.id if cell.id in known else f"answer-{place}"
    nbformat.validate(notebook)
    return notebook


def pack(source: Path, target: Path, seed: int | None) -> None:
    """otter's archive with its files in order and without times; where a seed is given, with it."""
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as new:
        for about in sorted(old.infolist(), key=lambda one: one.filename):
            content = old.read(about)
            if about.filename == "run_otter.py":
                set_seed = f'import os\n\nos.environ["METAROBUST_COURSE_SEED"] = "{seed}"\n' if seed is not None else ""
                content = f"{HONEST}\n{set_seed}".encode() + content
            plain = zipfile.ZipInfo(about.filename, NO_TIME)
            plain.external_attr, plain.compress_type = about.external_attr, zipfile.ZIP_DEFLATED
            new.writestr(plain, content)


def cut(number: int, seed: int | None = None, target: Path = BUILT) -> dict[str, Path]:
    """Cut one assignment into a folder. Returns the paths of `student`, `solution` and `autograder`."""
    path = master(number)
    out = target / path.stem
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    with tempfile.TemporaryDirectory() as scratch:
        whole = nbformat.read(path, as_version=4)
        nbformat.write(bare(whole), Path(scratch) / path.name)
        shutil.copy(MASTERS / "requirements.txt", scratch)
        done = subprocess.run(
            [sys.executable, "-m", "otter", "assign", "--no-run-tests", path.name, "cut"],
            cwd=scratch, capture_output=True, text=True,
        )  # fmt: skip
        if done.returncode:
            raise SystemExit(f"assignment: otter stops at {path.name}:\n{done.stdout}{done.stderr}")
        cuts = Path(scratch) / "cut"
        files = {kind: out / f"{path.stem}-{kind}.ipynb" for kind in ("student", "solution")}
        files["autograder"] = out / f"{path.stem}-autograder.zip"
        known = {cell.id for cell in whole.cells}
        nbformat.write(clean(cuts / "student" / path.name, known), files["student"])
        nbformat.write(clean(cuts / "autograder" / path.name, known), files["solution"])
        (archive,) = (cuts / "autograder").glob("*.zip")
        pack(archive, files["autograder"], seed)
    return files


def handout(address: str) -> list[Path]:
    """Copy the students' notebooks, and nothing else, for the repository of a course: their links lead there.

    address: of that repository, `https://github.com/OWNER/NAME`.
    """
    shutil.rmtree(HANDOUT, ignore_errors=True)
    HANDOUT.mkdir(parents=True)
    for path in sorted(PUBLISHED.glob("*.ipynb")):
        text = path.read_text(encoding="utf-8")
        book = re.search(r"colab\.research\.google\.com/github/([^/]+/[^/]+)/", text)[1]
        place = address.removeprefix("https://github.com/")
        text = text.replace(f"github/{book}/blob/main/notebooks/assignments/student/", f"github/{place}/blob/main/")
        (HANDOUT / path.name).write_text(
            text.replace("](../../", f"](https://github.com/{book}/blob/main/notebooks/"), encoding="utf-8"
        )
    return sorted(HANDOUT.iterdir())


def main(arguments: list[str]) -> int:
    if len(arguments) == 1 and re.fullmatch(r"https://github\.com/[\w.-]+/[\w.-]+", arguments[0]):
        print(*(path.relative_to(ROOT) for path in handout(arguments[0])), sep="\n")
        return 0
    if not 1 <= len(arguments) <= 2 or not all(re.fullmatch(r"[0-9]{1,9}", one) for one in arguments):
        wanted = "make assignment N=3, or N=3 SEED=1234, or make handout URL=https://github.com/OWNER/NAME"
        print(f"assignment {' '.join(arguments)!r}: give {wanted}", file=sys.stderr)
        return 2
    files = cut(*map(int, arguments))
    PUBLISHED.mkdir(exist_ok=True)
    published = PUBLISHED / master(int(arguments[0])).name
    nbformat.write(executed(nbformat.read(files["student"], as_version=4)), published)
    for kind, path in {**files, "published": published}.items():
        print(f"{kind:11}{path.relative_to(ROOT)}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
