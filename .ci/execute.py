"""Run all notebooks of a folder with papermill, two side by side: execute.py FROM TO."""

import json
import os
import shutil
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from pathlib import Path

import papermill
from tqdm import tqdm

WORKERS = 2
RUNS = Path(__file__).resolve().parent.parent / "_build" / "runs"


def size(path: Path) -> tuple[int, int]:
    """Code cells, and the seconds that the last recorded run took."""
    notebook = json.loads(path.read_text())
    cells = sum(cell["cell_type"] == "code" for cell in notebook["cells"])
    return cells, notebook["metadata"].get("metarobust", {}).get("seconds", 0)


@contextmanager
def running_clock(bar: tqdm, seconds: float) -> Iterator[None]:
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


def main(source: Path, target: Path) -> int:
    notebooks = sorted(source.resolve().glob("*.ipynb"))
    if not notebooks:
        print(f"no notebooks in {source}", file=sys.stderr)
        return 1
    sizes = [size(path) for path in notebooks]
    seconds = [took for _, took in sizes]
    estimate = max(sum(seconds) / WORKERS, *seconds, 0)
    about = f", about {estimate:.0f} s on the machine that ran them last" if all(seconds) else ""
    print(f"Running {len(notebooks)} notebooks{about}.", flush=True)

    os.environ["OMP_NUM_THREADS"] = "1"  # two kernels share the cores; results do not depend on their number
    os.environ["TQDM_DISABLE"] = "1"  # a finished progress bar says nothing on a page
    os.environ["METAROBUST_RUNS"] = str(RUNS)  # where `metarobust headline` looks for the experiment
    shutil.rmtree(RUNS, ignore_errors=True)
    os.chdir(target)  # the kernels start here; papermill's own cwd= is not safe in threads

    terminal = sys.stderr.isatty()
    pause = 0.5 if terminal else 15
    total = sum(cells for cells, _ in sizes)
    with tqdm(total=total, unit="cell", mininterval=pause) as bar, running_clock(bar, max(1, pause)):
        pool = ThreadPoolExecutor(WORKERS)
        runs = {
            pool.submit(
                papermill.execute_notebook,
                path,
                path.name,
                kernel_name="python3",
                progress_bar=False,
                extra_arguments=["--IPKernelApp.log_level=40"],  # errors only
                on_cell_executed=lambda **_: bar.update(),
            ): path.name
            for path in notebooks
        }
        try:
            for run in as_completed(runs):
                run.result()
                bar.write(f"ran {runs[run]}", file=sys.stderr)
        except KeyboardInterrupt:
            os._exit(130)  # the kernels end with their parent
        except Exception as error:
            bar.write(f"{error}\n{runs[run]} failed; what it did until then is in {target}", file=sys.stderr)
            os._exit(1)  # do not wait for the other notebook
    return 0


if __name__ == "__main__":
    sys.exit(main(*map(Path, sys.argv[1:])))
