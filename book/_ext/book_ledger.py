"""The ledger of claims, the recorded runs and the list of chapters as parts of pages. A line of a page

    % ledger overview
    % ledger ORIGIN
    % run RUN
    % figure CHAPTER CELL
    % headline RUN PART
    % experiments
    % chapters

becomes the Markdown that the library makes of them, before the page is read. A run is its facts and tables, folded; a
figure is that of a cell of a chapter, a headline is drawn here. And {claim}`ID` or {claim}`ID NAME` is the
number of a claim. What is wrong with a claim, or a claim that does not hold, is a warning, and so ends the build.
"""

import base64
import io
import json
import re
from pathlib import Path

import matplotlib.pyplot as plt
from docutils import nodes
from PIL import Image
from sphinx.util import logging
from sphinx.util.docutils import SphinxRole

from metarobust.book.claims import cite, ledger
from metarobust.book.claims.claim import ORIGINS
from metarobust.book.claims.page import overview, section
from metarobust.book.figures.results import headline
from metarobust.errors import InputError, choose
from metarobust.lab.report import experiments, report
from metarobust.lab.results import RECORDED, recorded

LINE = re.compile(r"^% (ledger|run|figure|headline|experiments|chapters)\b(.*)$", flags=re.MULTILINE)
PAGES = Path(__file__).resolve().parents[2]
logger = logging.getLogger(__name__)


class Claim(SphinxRole):
    def run(self) -> tuple[list, list]:
        try:
            return [nodes.Text(cite(self.text))], []
        except InputError as error:
            return [], [self.inliner.reporter.warning(str(error), line=self.lineno)]


def chapters() -> str:
    """A table of the chapters, with level and times, out of the first cell of each."""
    lines = ["| chapter | level | reading | computing |", "|---|---|---|---|"]
    for number, name in enumerate(re.findall(r"file: (notebooks/\S+)", (PAGES / "_toc.yml").read_text()), 1):
        cells = json.loads((PAGES / f"{name}.ipynb").read_text(encoding="utf-8"))["cells"]
        first = "".join(cells[0]["source"])
        level, reading, _, took, *_ = re.search(r"^Level: (.*)$", first, flags=re.MULTILINE)[1].split(" · ")
        took, reading = took.removeprefix("about ").partition(" on ")[0], reading.removesuffix(" of reading")
        lines.append(f"| {number}. [](../{name}.ipynb) | {level} | {reading} | {took} |")
    return "\n".join(lines).replace(" minutes", " min").replace(" seconds", " s")


def run(name: str) -> str:
    """All that is known of a run, folded. Raises InputError for a run that is not recorded."""
    inside = report(RECORDED, name)
    # Tildes: what opens a fence of backticks may hold none itself.
    return f"~~~~~~{{dropdown}} `{name}`: where it was made, tables, tests\n{inside}\n~~~~~~"


def figure(chapter: str, cell: str) -> str:
    """The picture that a chapter shows under a cell, with its words for those who cannot see it."""
    cells = json.loads((PAGES / f"notebooks/{chapter}.ipynb").read_text(encoding="utf-8"))["cells"]
    by_id = {one["id"]: one for one in cells}
    one = by_id[choose(cell, by_id, f"cell of {chapter}")]
    pictures = [data["image/png"] for out in one["outputs"] if "image/png" in (data := out.get("data", {}))]
    if not pictures:
        raise InputError(f"cell {cell} of {chapter} shows no picture: run the chapter first, by make notebooks")
    png, alt = base64.b64decode("".join(pictures[0])), one["metadata"]["mystnb"]["image"]["alt"]
    return shown(f"{chapter}-{cell}", png, alt, f"From [](../notebooks/{chapter}.ipynb).")


def drawn(name: str, *part: str) -> str:
    """The headline figure of a part of a run."""
    made, file = headline(recorded(name).frame, " ".join(part)), io.BytesIO()
    made.savefig(file, dpi=90)
    plt.close(made)
    small = io.BytesIO()  # the same to the eye, in a third of the bytes
    Image.open(file).convert("RGB").quantize(64, dither=Image.Dither.NONE).save(small, "PNG", optimize=True)
    alt = "A panel for each unseen network. In each, a line for every method, from robust accuracy to clean accuracy."
    return shown(name, small.getvalue(), alt, "Filled: under attack. Hollow: on images as they are.")


def shown(name: str, png: bytes, alt: str, caption: str) -> str:
    """A picture as a figure of this page."""
    path = PAGES / f"book/drawn/{name}.png"
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(png)
    return f"```{{figure}} drawn/{path.name}\n:alt: {alt}\n\n{caption}\n```"


def markdown(line: re.Match) -> str:
    """What stands for a line of a page. Raises InputError for what it asks for and is not there."""
    kind, asked = line[1], line[2].split()
    if kind == "ledger":
        claims = ledger().values()
        return overview(claims) if asked == ["overview"] else section(claims, choose(*asked, ORIGINS, "origin"))
    makers = {"run": run, "figure": figure, "headline": drawn, "chapters": chapters}
    return experiments(RECORDED) if kind == "experiments" else makers[kind](*asked)


def fill_in(app, docname: str, source: list[str]) -> None:
    """Replace the lines of a page."""
    for chapter in re.findall(r"^% figure (\S+)", source[0], flags=re.MULTILINE):
        app.env.note_dependency(str(PAGES / f"notebooks/{chapter}.ipynb"))
    try:
        source[0] = LINE.sub(markdown, source[0])
    except InputError as error:
        logger.warning("%s", error, location=docname)


def setup(app) -> dict:
    app.add_role("claim", Claim())
    app.connect("source-read", fill_in)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
