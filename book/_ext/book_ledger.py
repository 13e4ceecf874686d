"""The ledger of claims, the recorded runs and the list of chapters as parts of pages. A line of a page

    % ledger overview
    % ledger ORIGIN
    % recorded runs
    % experiments
    % chapters

becomes the Markdown that the library makes of them, before the page is read; and {claim}`ID` or {claim}`ID NAME` is the
number of a claim. What is wrong with a claim, or a claim that does not hold, is a warning, and so ends the build.
"""

import json
import re
from pathlib import Path

from docutils import nodes
from sphinx.util import logging
from sphinx.util.docutils import SphinxRole

from metarobust.book.claims import cite, ledger
from metarobust.book.claims.claim import ORIGINS
from metarobust.book.claims.page import overview, section
from metarobust.errors import InputError, choose
from metarobust.lab.report import experiments, report
from metarobust.lab.results import RECORDED

LINE = re.compile(r"^% (ledger (\S+)|recorded runs|experiments|chapters)$", flags=re.MULTILINE)
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


def markdown(line: re.Match) -> str:
    """What stands for a line of a page. Raises InputError for an unknown origin and a wrong claim."""
    if line[1] == "chapters":
        return chapters()
    if not line[2]:
        return {"recorded runs": report, "experiments": experiments}[line[1]](RECORDED)
    claims = ledger().values()
    return overview(claims) if line[2] == "overview" else section(claims, choose(line[2], ORIGINS, "origin"))


def fill_in(app, docname: str, source: list[str]) -> None:
    """Replace the lines of a page."""
    try:
        source[0] = LINE.sub(markdown, source[0])
    except InputError as error:
        logger.warning("%s", error, location=docname)


def setup(app) -> dict:
    app.add_role("claim", Claim())
    app.connect("source-read", fill_in)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
