"""How pages read: words, the first figure, figures and numbers of each, and what is beyond the limits."""

import json
import re
import statistics
import sys
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SOURCES = re.compile(r"^## (Further reading|Sources)$.*", flags=re.MULTILINE | re.DOTALL)
UNREAD = re.compile(  # code, formulas, solutions, what a link points to, marks of claims
    r"^```.*?^```|<details>.*?</details>|<!--.*?-->|\$\$.*?\$\$|\$[^$]*\$|`[^`]*`|(?<=\])\([^)]*\)|^Level: .*?$",
    flags=re.MULTILINE | re.DOTALL,
)
FIGURE = re.compile(r"^!\[[^\n]*$|^```\{figure\}.*?^```$", flags=re.MULTILINE | re.DOTALL)
WORD, NUMBER = re.compile(r"[A-Za-z][\w’'-]*"), re.compile(r"(?<![\w.])[+−-]?\d[\d.,/]*")


@dataclass(frozen=True)
class Measured:
    """Of one page. first: words before the first figure. crowd: the most numbers in one cell or paragraph."""

    words: int
    first: int
    figures: int
    numbers: int
    crowd: int

    @property
    def per_thousand(self) -> float:
        return 1000 * self.figures / max(self.words, 1)

    @property
    def per_hundred(self) -> float:
        return 100 * self.numbers / max(self.words, 1)


def prose(text: str) -> str:
    """What is read as sentences: without tables, code, formulas, solutions and sources."""
    text = UNREAD.sub(" ", SOURCES.sub("", text))
    return "\n".join(line for line in text.splitlines() if not line.lstrip().startswith("|"))


def measure(path: Path) -> Measured:
    """Of a notebook, by cells; of a Markdown page, by paragraphs."""
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".ipynb":
        cells = json.loads(text)["cells"]
        parts = ["".join(cell["source"]) if cell["cell_type"] == "markdown" else shown(cell) for cell in cells]
    else:
        parts = re.split(r"\n\s*\n", FIGURE.sub("\n\n\0\n\n", text))
    words = figures = numbers = crowd = 0
    first = None
    for part in parts:
        if part.strip() == "\0":
            figures += 1
            first = words if first is None else first
            continue
        read = prose(part)
        found = len(NUMBER.findall(read))
        words, numbers, crowd = words + len(WORD.findall(read)), numbers + found, max(crowd, found)
    return Measured(words, words if first is None else first, figures, numbers, crowd)


def shown(cell: dict) -> str:
    """A mark for a code cell that shows a figure or something to move, or nothing."""
    kinds = [output.get("data", {}) for output in cell["outputs"]]
    moves = any("data-slider" in "".join(data.get("text/html", "")) for data in kinds)
    return "\0" if moves or any("image/png" in data for data in kinds) else ""


# What chapters and README keep to today; limits may only become stricter. The aims are a first figure by word 120 in
# every chapter, and three figures in a thousand words.
MOST = {"first": 140, "per_hundred": 1.3, "crowd": 9}
MEDIAN_FIRST = 120
LEAST_FIGURES = 0.9
README_WORDS, README_NUMBERS = 650, 3.5


def beyond(chapters: dict[str, Measured], readme: Measured, everything: int) -> list[str]:
    """What is beyond the limits, in words. everything: the words of README with its tables."""
    found = [
        f"{name}: {key} is {getattr(one, key):.1f}, at most {most}"
        for name, one in chapters.items()
        for key, most in MOST.items()
        if getattr(one, key) > most
    ]
    late = statistics.median(one.first for one in chapters.values())
    found += [f"chapters: the median first figure is at word {late:.0f}"] if late > MEDIAN_FIRST else []
    found += [f"{name}: few figures" for name, one in chapters.items() if one.per_thousand < LEAST_FIGURES]
    found += [f"README: {everything} words, at most {README_WORDS}"] if everything > README_WORDS else []
    found += ["README: many numbers"] if readme.per_hundred > README_NUMBERS else []
    return found


def main() -> int:
    chapters = {path.stem: measure(path) for path in sorted((ROOT / "notebooks").glob("*.ipynb"))}
    pages = {path.stem: measure(path) for path in [ROOT / "README.md", *sorted((ROOT / "book").glob("*.md"))]}
    print(f"{'':26}{'words':>7}{'first figure':>14}{'figures/1000':>14}{'numbers/100':>13}{'most in a cell':>16}")
    for name, one in (chapters | pages).items():
        print(f"{name:26}{one.words:7}{one.first:14}{one.per_thousand:14.1f}{one.per_hundred:13.1f}{one.crowd:16}")
    everything = len(WORD.findall(UNREAD.sub(" ", (ROOT / "README.md").read_text(encoding="utf-8"))))
    print(
        f"median of the chapters: first figure at word {statistics.median(one.first for one in chapters.values()):.0f}"
    )
    found = beyond(chapters, pages["README"], everything)
    print("\n".join(found) or "everything is within the limits")
    return bool(found)


if __name__ == "__main__":
    sys.exit(main())
