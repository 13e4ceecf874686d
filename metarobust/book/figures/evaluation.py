"""A report as a figure: accuracy against eps, from images as they are to where any image is in reach.

report = evaluate(model, images, labels, eps=0.1)
over_eps(report)
"""

import matplotlib.pyplot as plt
from matplotlib.figure import Figure

from metarobust.book.figures.style import line, percent, role, style
from metarobust.errors import InputError
from metarobust.evaluation import Report

NAMES = {"linf": "L∞", "l2": "L2"}


def over_eps(report: Report) -> Figure:
    """The curve of the checks, and the report's own clean and robust accuracy beside it.

    The curve is of a short PGD on the images that the checks looked at; the robust accuracy is the worst case of the
    whole ensemble on all images, so its mark lies near the curve or below it, and its bar is the 95 % interval.
    Raises InputError for a report without checks, which has no curve.
    """
    if not report.curve:
        raise InputError("the report has no curve over eps: evaluate with checks of at least 1 image")
    radii, accuracies = zip(*report.curve, strict=True)
    with style():
        figure, axes = plt.subplots()
        axes.plot(radii, accuracies, label=f"short PGD, {report.checked} images", **line("weaker"))
        for name, eps in (("clean", 0.0), ("robust", report.eps)):
            value, (low, high) = getattr(report, name), getattr(report, f"{name}_interval")
            axes.errorbar(
                [eps], [value], [[value - low], [high - value]], fmt=role(name).marker, color=role(name).colour,
                markersize=8, capsize=3, label=f"{name}, {report.n} images", zorder=3,
            )  # fmt: skip
        if report.eps > 0:  # the last radius is far away from the others, and eps 0 has to be shown
            axes.set_xscale("symlog", linthresh=report.eps, linscale=1)
        axes.set_xticks(radii, [f"{eps:.3g}" for eps in radii])
        axes.minorticks_off()
        axes.set_xlabel(f"eps, in pixel units ({NAMES[report.norm]})")
        axes.set_title("Share of images classified correctly")
        percent(axes)
        axes.legend()
    return figure
