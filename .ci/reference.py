"""Runs the examples of the reference pages, and writes what they print, find and draw into the book.

An example is a block of Python on a page; what it prints stands in a block of text below it. The blocks of a page share
their names, and each page stands alone. The tests run them too, and compare.
"""

import contextlib
import io
import json
import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PAGES = {name: ROOT / "book" / f"{name}.md" for name in ("attacks", "evaluation", "optimizers")}
FIGURE = ROOT / "book" / "_static" / "over-eps.png"
EXAMPLE = re.compile(r"^```python\n(?P<code>.*?)^```\n(?:\n^```text\n(?P<shown>.*?)^```\n)?", re.M | re.S)
START = "<!-- defences: written by .ci/reference.py out of the example above; do not edit -->\n"
END = "<!-- end of defences -->"


def run(page: str) -> tuple[dict, list[str]]:
    """The names that the examples leave behind, and what each printed."""
    names: dict = {}
    printed = []
    for number, example in enumerate(EXAMPLE.finditer(page), 1):
        with contextlib.redirect_stdout(io.StringIO()) as out:
            exec(compile(example["code"], f"<example {number}>", "exec"), names)
        printed.append(out.getvalue())
    return names, printed


def shown(page: str) -> list[str]:
    """What the page says that each example prints."""
    return [example["shown"] or "" for example in EXAMPLE.finditer(page)]


def renewed(page: str, names: dict, printed: list[str]) -> str:
    """The page with what its examples printed just now, and with the table of the defences where it has one."""
    fresh = iter(printed)

    def block(example: re.Match) -> str:
        out = next(fresh)
        return f"```python\n{example['code']}```\n" + (f"\n```text\n{out}```\n" if out else "")

    page = EXAMPLE.sub(block, page)
    if START not in page:
        return page
    head, rest = page.split(START)
    return f"{head}{START}\n{table(names['found'])}\n\n{END}{rest.split(END, 1)[1]}"


def table(found: dict) -> str:
    """What evaluations by the standard attacks say of each defence: a table of Markdown."""
    lines = ["```{table}", ":class: stacked", "", "| Defence | What stands | Flags |", "| --- | --- | --- |"]
    for name, report in found.items():
        alone = next(iter(report.under.values()))
        share = f"{100 * alone:.0f} % against cross-entropy, {100 * report.robust:.0f} % against all"
        flags = ", ".join(f"`{flag.check}`" for flag in report.flags) or "no flag"
        lines.append(f"| {name} | {share} | {flags} |")
    return "\n".join([*lines, "```"])


def main() -> int:
    import matplotlib

    matplotlib.use("Agg")
    for path in PAGES.values():
        page = path.read_text(encoding="utf-8")
        names, printed = run(page)
        path.write_text(renewed(page, names, printed), encoding="utf-8")
        if "figure" in names:  # with its numbers in it, so that an old one is found out
            source = json.dumps(names["report"].curve)
            names["figure"].savefig(FIGURE, dpi=150, metadata={"Source": source, "Software": ""})
    return 0


if __name__ == "__main__":
    sys.exit(main())
