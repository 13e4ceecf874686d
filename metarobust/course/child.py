"""The process in which one submission runs: child.py JOB, where JOB is a JSON file. Started by `metarobust.course.run`.

It confines itself before it opens the notebook, executes it with papermill, and goes on after a cell that stops: what
is defined by then is probed all the same.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

# Beside this script, which is not run as a module: the package would load torch, which the kernel does once more.
import confine

OURS = "grader"  # the tag of the cells that are not the student's
MOST_OUTPUT = 10_000  # characters of a cell that are kept


def main(job_file: str) -> None:
    job = json.loads(Path(job_file).read_text())
    folder = Path(job["folder"])
    if job["namespace"]:
        confine.loopback()
    package = Path(__file__).resolve().parent.parent
    confine.restrict(confine.readable(package), [folder])
    confine.limits(job["memory"])
    os.chdir(folder / "work")

    import nbformat
    import papermill

    notebook = nbformat.read(folder / "submission.ipynb", as_version=4)
    nbformat.write(prepared(notebook, job), folder / "prepared.ipynb")
    cells: list[dict[str, Any]] = []

    def note(cell: Any, **_: object) -> None:
        cells.append(about(cell))
        (folder / "cells.json.part").write_text(json.dumps(cells))
        (folder / "cells.json.part").replace(folder / "cells.json")  # so that a kill leaves a whole one

    def seconds(cell: Any) -> float | None:
        return None if OURS in cell.metadata.get("tags", []) else job["cell_seconds"]

    raw = folder / "raw.ipynb"
    try:
        papermill.execute_notebook(
            folder / "prepared.ipynb", raw, kernel_name="python3", progress_bar=False,
            request_save_on_cell_execute=False, autosave_cell_every=0, on_cell_executed=note, timeout_func=seconds,
            interrupt_on_timeout=True, start_timeout=300,
            extra_arguments=["--IPKernelApp.log_level=50", "--HistoryManager.enabled=False"],
        )  # fmt: skip
    except papermill.exceptions.PapermillExecutionError as error:  # raised at the end, where any cell stopped
        stopped = f"{error.ename}: {error.evalue}"
    except Exception as error:
        stopped = f"{type(error).__name__}: {error}"
    else:
        stopped = ""
    (folder / "stopped.json").write_text(json.dumps(stopped[:300]))
    if raw.exists():
        executed = nbformat.read(raw, as_version=4)
        shorten(executed)
        nbformat.write(executed, folder / "executed.ipynb")


def prepared(notebook: Any, job: dict[str, Any]) -> Any:
    """The notebook between a guard and the probes; a cell that raises does not end it."""
    import nbformat

    for cell in notebook.cells:
        cell.metadata = nbformat.from_dict({"tags": ["raises-exception"]})
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
    call = "__import__('metarobust.course.serving', fromlist=['serve'])"  # leaves no name behind
    first = f"{call}.guard({job['number']}, {job['namespace']})"
    last = f"{call}.serve(globals(), {job['number']}, {job['seeds']}, {str(Path(job['folder']) / 'answers')!r})"
    ours = [nbformat.v4.new_code_cell(source, metadata={"tags": [OURS]}) for source in (first, last)]
    notebook.cells = [ours[0], *notebook.cells, ours[1]]
    return notebook


def about(cell: Any) -> dict[str, Any]:
    """What became of a cell: the error that ended it, and how many characters it printed."""
    error, printed = "", 0
    for output in cell.get("outputs", []):
        printed += len(output.get("text", "")) + sum(len(str(one)) for one in output.get("data", {}).values())
        if output.output_type == "error":
            error = f"{output.ename}: {output.evalue}"[:300]
    return {"error": error, "printed": printed}


def shorten(notebook: Any) -> None:
    """Keep no more than a screenful of what each cell printed."""
    for cell in notebook.cells:
        left = MOST_OUTPUT
        for output in cell.get("outputs", []):
            if "text" in output:
                output.text, left = output.text[: max(left, 0)], left - len(output.text)
            for kind, text in output.get("data", {}).items():
                if not kind.startswith("image/") and len(str(text)) > MOST_OUTPUT:
                    output.data[kind] = str(text)[:MOST_OUTPUT]


if __name__ == "__main__":
    main(sys.argv[1])
