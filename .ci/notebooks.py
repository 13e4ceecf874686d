"""Run the notebooks of folders, and keep their new outputs without the traces of the run: notebooks.py FOLDER ..."""

import base64
import datetime
import io
import os
import platform
import re
import shutil
import sys
from importlib.metadata import version
from pathlib import Path

import nbformat
from PIL import Image

from book import BUILT, execute


def clean(notebook: nbformat.NotebookNode) -> nbformat.NotebookNode:
    """Drop times, paths and names of this machine; outputs and their counts stay."""
    keep = {"metarobust": notebook.metadata.get("metarobust", {})}
    if "papermill" in notebook.metadata:
        seconds = notebook.metadata.papermill.get("duration") or 0
        keep["metarobust"]["seconds"] = max(5, 5 * round(seconds / 5))
    notebook.metadata = nbformat.from_dict(
        {
            "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
            "language_info": {"name": "python", "pygments_lexer": "ipython3"},
            **keep,
        }
    )
    for cell in notebook.cells:
        for run in ("papermill", "execution", "ExecuteTime", "collapsed", "scrolled"):
            cell.metadata.pop(run, None)
        if not cell.metadata.get("tags", True):
            del cell.metadata["tags"]
        if "outputs" in cell:
            cell.outputs = joined(cell.outputs)
        for output in cell.get("outputs", []):
            if "image/png" in output.get("data", {}):
                output.data["image/png"] = smaller(output.data["image/png"])
    return notebook


def joined(outputs: list[nbformat.NotebookNode]) -> list[nbformat.NotebookNode]:
    """What is printed without anything between stands in one output: a slow machine sends it in several."""
    found: list[nbformat.NotebookNode] = []
    for output in outputs:
        if found and output.output_type == "stream" == found[-1].output_type and output.name == found[-1].name:
            found[-1].text += output.text
        else:
            found.append(output)
    return found


def smaller(picture: str) -> str:
    """The same picture, base64 as in a notebook, with 256 colours: alike to the eye, and a third of the bytes."""
    image = Image.open(io.BytesIO(base64.b64decode(picture)))
    if image.mode == "P":
        return picture
    file = io.BytesIO()
    image.convert("RGB").quantize(256, dither=Image.Dither.NONE).save(file, "PNG", optimize=True)
    return base64.encodebytes(file.getvalue()).decode()


def date_line(notebook: nbformat.NotebookNode) -> None:
    """Write into the line that starts with "Level:" how long the run took, when and with what."""
    seconds = notebook.metadata.metarobust.get("seconds", 0)
    took = f"{seconds} seconds" if seconds < 100 else f"{seconds / 60:.0f} minutes"
    facts = (
        f"about {took} on {os.cpu_count()} CPU cores · last run {datetime.date.today()} "
        f"with Python {platform.python_version()} and torch {version('torch').partition('+')[0]}"
    )
    first = notebook.cells[0]
    first.source = re.sub(r"^(Level: .*?)( · about .*)?$", rf"\1 · {facts}", first.source, flags=re.M)


def main(*folders: str) -> None:
    for folder in map(Path, folders):
        fresh = BUILT / "fresh"
        shutil.rmtree(fresh, ignore_errors=True)
        fresh.mkdir(parents=True)
        execute(folder, fresh, "")
        for path in sorted(fresh.glob("*.ipynb")):
            notebook = clean(nbformat.read(path, as_version=4))
            date_line(notebook)
            nbformat.validate(notebook)
            nbformat.write(notebook, folder / path.name)
            print(f"kept {folder / path.name}")


if __name__ == "__main__":
    main(*sys.argv[1:])
