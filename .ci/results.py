"""Writes what the recorded results say into README and notebooks, and draws the preface's figures."""

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
FIGURE = ROOT / "book" / "_static" / "headline.png"
PICTURE = FIGURE.with_name("attacked.png")
HEADLINE = "patch-mnist-small"


def source() -> str:
    """The digest of what the figure is drawn from; it is kept in the picture, so that an old one is found out."""
    from metarobust.lab.results import recorded

    return recorded(HEADLINE).manifest["files_sha256"]["results.csv"]


def attacked():
    """A digit, a change of a tenth at most, and both together: what the network of the peers' bench says of them."""
    import torch

    from metarobust.attacks import pgd
    from metarobust.book.figures.fooling_a_classifier import before_and_after
    from metarobust.lab.bench.models import images
    from metarobust.lab.bench.peers import recorded_models

    model, data = recorded_models()["trained as usual"], images(500)
    moved = pgd(model, data.images, data.labels, eps=0.1, steps=40)
    (sure, right), (convinced, wrong) = (model(x).softmax(1).max(1) for x in (data.images, moved))
    fooled = (right == data.labels) & (wrong != data.labels)
    at = (torch.minimum(sure, convinced) * fooled).argmax()[None]  # where the network is surest, both times
    return before_and_after(data.images[at], moved[at], data.labels[at], model)


def main() -> int:
    import matplotlib

    matplotlib.use("Agg")
    from metarobust.book.claims import renew
    from metarobust.book.figures.results import headline
    from metarobust.lab.results import recorded

    for page in [ROOT / "README.md", *(ROOT / "notebooks").glob("*.ipynb")]:
        page.write_text(renew(page.read_text(encoding="utf-8")), encoding="utf-8")
    attacked().savefig(PICTURE, dpi=150, metadata={"Software": ""})
    figure = headline(recorded(HEADLINE).frame, "patch")
    figure.savefig(FIGURE, dpi=150, metadata={"Source": source(), "Software": ""})
    return 0


if __name__ == "__main__":
    sys.exit(main())
