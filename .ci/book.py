"""Build the book. Without an argument: run the notebooks that changed, and render their new outputs to _build/html.

With a folder, `book.py FOLDER`: render the outputs that notebooks hold to FOLDER/_build/html; a warning is an error.

A notebook is run again when its code, the package with its weights and records, or the pinned environment changed. Text
may change freely: the outputs of the last run are put into the new text.
"""

import hashlib
import json
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BUILT = ROOT / "_build"
PAGES = ("book", "notebooks", "_config.yml", "_toc.yml")
WORKERS = 2


def digest(*paths: Path) -> str:
    """One hash of the names and bytes of files and of all files in folders, caches left out."""
    whole = hashlib.sha256(sys.version.encode())
    for path in paths:
        for file in sorted(path.rglob("*")) if path.is_dir() else [path]:
            if file.is_file() and "__pycache__" not in file.parts:
                content = hashlib.sha256(file.read_bytes()).hexdigest()
                whole.update(f"{file.relative_to(path.parent)} {content}\n".encode())
    return whole.hexdigest()


def write(path: Path, content: str | bytes) -> None:
    """Write a file whole or not at all."""
    part = path.with_name(f".{path.name}.part")
    part.write_bytes(content if isinstance(content, bytes) else content.encode())
    part.replace(path)


def code(notebook: dict) -> list[dict]:
    return [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]


def key(path: Path, package: str) -> str:
    """What the outputs of a notebook depend on: its code, and the digest of what it imports."""
    sources = ["".join(cell["source"]) for cell in code(json.loads(path.read_text(encoding="utf-8")))]
    return hashlib.sha256(json.dumps([package, sources]).encode()).hexdigest()


def is_current(path: Path, done: Path, package: str) -> bool:
    """Whether the outputs in the folder `done` are those that the notebook would have now."""
    stamp = done / f"{path.stem}.sha256"
    return (done / path.name).exists() and stamp.exists() and stamp.read_text() == key(path, package)


def with_outputs(path: Path, ran: Path) -> str:
    """The text of a notebook with the outputs of its last run."""
    notebook, old = (json.loads(one.read_text(encoding="utf-8")) for one in (path, ran))
    for cell, same in zip(code(notebook), code(old), strict=True):
        cell |= {name: same[name] for name in ("outputs", "execution_count")}
    if "widgets" in old["metadata"]:
        notebook["metadata"]["widgets"] = old["metadata"]["widgets"]
    return json.dumps(notebook, indent=1, ensure_ascii=False) + "\n"


@contextmanager
def running_clock(bar, seconds: float) -> Iterator[None]:
    """A bar moves only when a cell ends; a long cell should not look as if it hung."""
    stop = threading.Event()

    def tick() -> None:
        while not stop.wait(seconds):
            bar.refresh()

    thread = threading.Thread(target=tick, daemon=True)
    thread.start()
    yield
    stop.set()
    thread.join()


def execute(source: Path, done: Path, package: str) -> list[str]:
    """Run what is not current of the notebooks in a folder, two side by side.

    Args:
        source: folder of the notebooks.
        done: folder for the executed copies. Each has a stamp beside it, written last, so that a build that is killed
            leaves no copy that looks current.
        package: digest of what the notebooks import.

    Returns:
        The names of the notebooks that ran. Ends the process where one fails.
    """
    paths = [path for path in sorted(source.resolve().glob("*.ipynb")) if not is_current(path, done, package)]
    if not paths:
        return []
    import papermill
    from tqdm import tqdm

    notebooks = {path: json.loads(path.read_text(encoding="utf-8")) for path in paths}
    seconds = [one["metadata"].get("metarobust", {}).get("seconds", 0) for one in notebooks.values()]
    about = f", about {max(sum(seconds) / WORKERS, *seconds, 0):.0f} s" if all(seconds) else ""
    print(f"Running {len(paths)} notebooks{about}.", flush=True)

    runs = BUILT / "runs"  # where `metarobust headline` looks for the experiment of a chapter
    if any("METAROBUST_RUNS" in path.read_text(encoding="utf-8") for path in paths):
        shutil.rmtree(runs, ignore_errors=True)
    os.environ["OMP_NUM_THREADS"] = "1"  # two kernels share the cores; results do not depend on their number
    os.environ["TQDM_DISABLE"] = "1"  # a finished progress bar says nothing on a page
    os.environ["METAROBUST_RUNS"] = str(runs)
    scratch = done / "running"
    shutil.rmtree(scratch, ignore_errors=True)
    scratch.mkdir(parents=True)
    os.chdir(scratch)  # the kernels start here; papermill's own cwd= is not safe in threads

    pause = 0.5 if sys.stderr.isatty() else 15
    total = sum(len(code(one)) for one in notebooks.values())
    with tqdm(total=total, unit="cell", mininterval=pause) as bar, running_clock(bar, max(1, pause)):
        pool = ThreadPoolExecutor(WORKERS)
        futures = {
            pool.submit(
                papermill.execute_notebook,
                path,
                path.name,
                kernel_name="python3",
                progress_bar=False,
                extra_arguments=["--IPKernelApp.log_level=40"],  # errors only
                on_cell_executed=lambda **_: bar.update(),
            ): path
            for path in paths
        }
        try:
            for future in as_completed(futures):
                path = futures[future]
                future.result()
                (scratch / path.name).replace(done / path.name)
                write(done / f"{path.stem}.sha256", key(path, package))
                bar.write(f"ran {path.name}", file=sys.stderr)
        except KeyboardInterrupt:
            os._exit(130)  # the kernels end with their parent
        except Exception as error:
            bar.write(f"{error}\n{path.name} failed; what it did until then is in {scratch}", file=sys.stderr)
            os._exit(1)  # do not wait for the other notebook
    os.chdir(ROOT)
    return [path.name for path in paths]


def copy_pages(target: Path, ran: Path | None = None) -> None:
    """Copy what the book is made of. A file that is as before keeps its time, so that Sphinx leaves its page alone."""
    wanted = {}
    for name in PAGES:
        for file in sorted((ROOT / name).rglob("*")) if (ROOT / name).is_dir() else [ROOT / name]:
            if file.is_file() and not {"__pycache__", ".ipynb_checkpoints"} & set(file.parts):
                wanted[target / file.relative_to(ROOT)] = file
    for old in target.rglob("*"):
        if old.is_file() and old not in wanted:
            old.unlink()
    for new, file in wanted.items():
        executed = ran / file.name if ran and file.parent == ROOT / "notebooks" else None
        content = with_outputs(file, executed).encode() if executed else file.read_bytes()
        if not new.exists() or new.read_bytes() != content:
            new.parent.mkdir(parents=True, exist_ok=True)
            write(new, content)


def render(out: Path, ran: Path | None = None, strict: bool = False) -> int:
    """Render the book to `out`/_build/html. Only what changed, unless the library did, which every page may quote."""
    html, pages, stamp = (out / "_build" / name for name in ("html", "pages", "rendered.sha256"))
    copy_pages(pages, ran)
    quoted = ("metarobust", "_config.yml", "_toc.yml", "book/_ext", ".ci/constraints.txt")
    state = digest(*(ROOT / name for name in quoted))
    if strict or not stamp.exists() or stamp.read_text() != state:
        shutil.rmtree(html, ignore_errors=True)
        shutil.rmtree(html.with_name(".doctrees"), ignore_errors=True)
    stamp.unlink(missing_ok=True)
    options = ["-q", "-n", "-W", "--keep-going"] if strict else ["-q"]
    command = [Path(sys.executable).with_name("jupyter-book"), "build", *options, "--path-output", out, pages]
    done = subprocess.run(command, cwd=ROOT)
    if done.returncode == 0:
        write(stamp, state)
    return done.returncode


def main(folder: str | None = None) -> int:
    if folder:
        return render(Path(folder).resolve(), strict=True)
    ran = BUILT / "executed"
    ran.mkdir(parents=True, exist_ok=True)
    execute(ROOT / "notebooks", ran, digest(ROOT / "metarobust", ROOT / ".ci/constraints.txt"))
    status = render(ROOT, ran)
    if status == 0:
        print("The book:", (BUILT / "html" / "index.html").as_uri())
    return status


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:2]))
