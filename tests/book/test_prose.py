"""No number in per cent or points is typed in prose: it is taken from the results, or listed here with a reason."""

import json
import re
from pathlib import Path

import pytest

from metarobust.book.claims.cite import MARK as CITED

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "book").glob("*.md"))]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))

DIGITS = r"\d[\d.,]*(?: ?(?:to|and|or|–|-) ?\d[\d.,]*)?"
SMALL = r"half a|one|two|three|four|five|six|seven|eight|nine|ten|twenty|fifty"
WORDS = rf"(?:{SMALL})(?: (?:to|or) (?:{SMALL}))?(?: and a half)?"
NUMBER = re.compile(rf"\b(?:{DIGITS}|{WORDS})[ \u00a0]?(?:%|(?:per cent|points?)\b)", flags=re.IGNORECASE)

LEVEL = re.compile(
    r"95[ \u00a0]%(?= (?:t-)?intervals?\b| over seeds|, Wilson)|(?<=± )95[ \u00a0]%|intervals? \(95[ \u00a0]%"
)
"""The level of an interval is a convention, and no result."""

# Page, words, and why they may stand there as they are.
ALLOWED = {
    ("book/attacks.md", "half a point"): "the tolerance of the comparison with peers, which tests/test_peers.py holds",
    ("book/evaluation.md", "ten points"): "where a check draws its line; tests/test_checks.py holds it",
    ("book/evaluation.md", "2 %"): "where a check draws its line; tests/test_checks.py holds it",
    ("book/evaluation.md", "19 points"): "the Wilson interval of 50 of 100, computed below",
    ("book/instructors.md", "95 %"): "the level of an interval is a convention, and no result",
    ("notebooks/fooling-a-classifier.ipynb", "one point"): "a point of a curve",
    ("notebooks/learning-from-mistakes.ipynb", "ten points"): "what a reader should see, as a coarse threshold",
}
MEASURED_ON_THE_PAGE = {("book/evaluation.md", "| none |"), ("book/evaluation.md", "against cross-entropy")}
"""Rows of the table of defences, which tests/test_reference.py measures."""
MARKS = "book/instructors.md"
"""Points there are what an answer earns."""


def prose(text: str) -> str:
    """A page's Markdown without code, formulas, quoted numbers, addresses and what is generated."""
    text = re.sub(r"<!-- results: .*?<!-- end of results -->", " ", text, flags=re.S)
    text = CITED.sub("QUOTED", text)
    text = re.sub(r"<!--.*?-->", " ", text, flags=re.S)
    text = without_code(text)
    text = re.sub(r"\$\$.*?\$\$|\$[^$\n]+\$", "FORMULA", text, flags=re.S)
    text = re.sub(r"\{[\w:]+\}`[^`]+`", "QUOTED", text)
    text = re.sub(r"`[^`\n]+`", "CODE", text)
    return re.sub(r"\]\([^)\s]+\)", "]", text)


def without_code(text: str) -> str:
    """The lines outside fences, and those inside of directives that hold prose."""
    kept, ends, hidden = [], [], ""
    for line in text.splitlines():
        fence = re.match(r"(`{3,}|~{3,})(.*)", line.strip())
        if hidden:
            hidden = "" if fence and not fence[2] and fence[1].startswith(hidden) else hidden
        elif fence and ends and not fence[2] and fence[1].startswith(ends[-1]):
            ends.pop()
        elif fence and re.match(r"\{(?:table|figure|dropdown|admonition|note|tip|warning|important)\}", fence[2]):
            ends.append(fence[1])
        elif fence:
            hidden = fence[1]
        else:
            kept.append(line)
    return "\n".join(kept)


def pages() -> dict[str, str]:
    """The prose of every page and notebook by its path."""
    found = {path.relative_to(ROOT).as_posix(): prose(path.read_text(encoding="utf-8")) for path in PAGES}
    for path in NOTEBOOKS:
        cells = json.loads(path.read_text(encoding="utf-8"))["cells"]
        text = "\n\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "markdown")
        found[path.relative_to(ROOT).as_posix()] = prose(text)
    return found


def typed(text: str) -> list[tuple[str, str]]:
    """The typed numbers of a text, each with its line."""
    lines = (LEVEL.sub("LEVEL", line) for line in text.splitlines())
    return [(" ".join(mark[0].split()), line.strip()) for line in lines for mark in NUMBER.finditer(line)]


@pytest.mark.parametrize("name", pages())
def test_no_number_is_typed(name):
    found = [
        f"{number!r} in: {line}"
        for number, line in typed(pages()[name])
        if (name, number) not in ALLOWED
        and not (name == MARKS and "point" in number)
        and not any(name == page and words in line for page, words in MEASURED_ON_THE_PAGE)
    ]
    assert not found, "take it from the results ({result}`...`, {claim}`...`, or a mark), or allow it with a reason"


@pytest.mark.parametrize(("page", "number"), ALLOWED)
def test_what_is_allowed_is_still_there(page, number):
    assert number in [found for found, _ in typed(pages()[page])], "take it off the list"


def test_the_width_that_a_page_tells_is_that_of_the_interval():
    from metarobust.evaluation.intervals import wilson

    low, high = wilson(50, 100)
    assert round(100 * (high - low)) == 19


@pytest.mark.parametrize(
    "text",
    [
        "It costs 4 points.",
        "It costs 3.5 to 5.5 points of clean accuracy.",
        "It is 93\u00a0% right.",
        "some 12 per cent",
        "by half a point",
        "Five to six points are lost",
        "a 95 % share",
        "| none | 50 % |",
        "```{figure} x.png\nIt is 5 % here.\n```",
    ],
)
def test_a_typed_number_is_found(text):
    assert len(typed(prose(text))) == 1


@pytest.mark.parametrize(
    "text",
    [
        "It costs {claim}`patch-mnist-price` of it, {result}`a b c d clean` right.",
        "It costs <!-- claim patch-mnist-price -->4 points<!-- end --> of it.",
        "whiskers are 95 % intervals over ten seeds; ± 95 % over seeds; the interval (95 %, Wilson)",
        "`5 %` and $5 %$ and\n\n```text\n5 %\n```\n\n````{dropdown} x\n```text\n5 %\n```\n````",
        "ten networks, a point or two, 784 pixels, the point is",
        "<!-- results: made -->\n5 %\n<!-- end of results -->",
    ],
)
def test_what_is_quoted_or_no_result_is_left_alone(text):
    assert typed(prose(text)) == []
