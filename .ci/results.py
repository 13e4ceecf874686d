"""Writes what the recorded results say into README and notebooks, and draws the headline figure out of them."""

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
FIGURE = ROOT / "book" / "_static" / "headline.png"
RUNS = [
    ("patch-mnist-small", "patch"),
    ("patch-digits-small", "patch"),
    ("train-mnist-small", "train"),
    ("train-digits-small", "train"),
]
START = "<!-- results: written by `make results` out of metarobust/recorded; do not edit -->\n"
END = "<!-- end of results -->"


def block() -> str:
    """The tables, as they belong in the README."""
    from metarobust.lab.results import recorded
    from metarobust.lab.summary import markdown, setting

    parts = []
    for name, part in RUNS:
        manifest, frame = recorded(name)
        kind = "on a GPU" if manifest["device"]["type"] == "cuda" else "without a GPU"
        parts.append(f"{setting(frame, part)}. Recorded {kind}.\n\n{markdown(frame, part)}\n")
    note = "Clean/robust accuracy in %, ± 95 % over seeds. Only PGD-7 training generates adversarial examples.\n"
    return "\n" + "\n".join([*parts, note]) + "\n"


def readme(text: str) -> str:
    """A README with its block renewed."""
    from metarobust.book.claims import renew

    head, rest = renew(text).split(START)
    return head + START + block() + END + rest.split(END, 1)[1]


def source() -> str:
    """The digest of what the figure is drawn from; it is kept in the picture, so that an old one is found out."""
    from metarobust.lab.results import recorded

    return recorded(RUNS[0][0]).manifest["files_sha256"]["results.csv"]


def main() -> int:
    import matplotlib

    matplotlib.use("Agg")
    from metarobust.book.claims import renew
    from metarobust.book.figures.results import headline
    from metarobust.lab.results import as_rows, recorded

    path = ROOT / "README.md"
    path.write_text(readme(path.read_text()))
    for notebook in (ROOT / "notebooks").glob("*.ipynb"):
        notebook.write_text(renew(notebook.read_text(encoding="utf-8")), encoding="utf-8")
    name, part = RUNS[0]
    figure = headline(as_rows(recorded(name).frame), part)
    figure.savefig(FIGURE, dpi=150, metadata={"Source": source(), "Software": ""})
    return 0


if __name__ == "__main__":
    sys.exit(main())
