"""Writes what the recorded results say into README and notebooks, and draws the headline figure out of them."""

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
FIGURE = ROOT / "book" / "_static" / "headline.png"
HEADLINE = "patch-mnist-small"


def source() -> str:
    """The digest of what the figure is drawn from; it is kept in the picture, so that an old one is found out."""
    from metarobust.lab.results import recorded

    return recorded(HEADLINE).manifest["files_sha256"]["results.csv"]


def main() -> int:
    import matplotlib

    matplotlib.use("Agg")
    from metarobust.book.claims import renew
    from metarobust.book.figures.results import headline
    from metarobust.lab.results import recorded

    for page in [ROOT / "README.md", *(ROOT / "notebooks").glob("*.ipynb")]:
        page.write_text(renew(page.read_text(encoding="utf-8")), encoding="utf-8")
    figure = headline(recorded(HEADLINE).frame, "patch")
    figure.savefig(FIGURE, dpi=150, metadata={"Source": source(), "Software": ""})
    return 0


if __name__ == "__main__":
    sys.exit(main())
