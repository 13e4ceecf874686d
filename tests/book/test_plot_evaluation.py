"""The figure of a report shows the report's own numbers."""

from __future__ import annotations

from dataclasses import replace

import matplotlib.pyplot as plt
import pytest

from metarobust.book.figures.evaluation import over_eps
from metarobust.errors import InputError
from metarobust.evaluation import Report

CURVE = ((0.0, 0.9), (0.025, 0.8), (0.05, 0.7), (0.1, 0.45), (0.2, 0.1), (1.0, 0.0))
REPORT = Report(
    clean=0.92, robust=0.4, n=500, clean_interval=(0.89, 0.94), robust_interval=(0.36, 0.44), under={"pgd-40-ce": 0.42},
    eps=0.1, norm="linf", attacks="quick", steps=40, restarts=2, independent=True, seed=0, checked=100, flags=(),
    curve=CURVE, images_asked=1, gradients_asked=1, seconds=1.0,
)  # fmt: skip


@pytest.fixture(autouse=True)
def _close():
    yield
    plt.close("all")


@pytest.mark.parametrize("report", [REPORT, replace(REPORT, eps=0.0, curve=((0.0, 0.9), (1.0, 0.0)))])
def test_curve_marks_and_words_are_the_reports(report):
    figure = over_eps(report)
    (axes,) = figure.axes
    curve = next(line for line in axes.lines if len(line.get_xdata()) > 1 and line.get_linestyle() != "None")
    assert list(zip(curve.get_xdata(), curve.get_ydata(), strict=True)) == list(report.curve)
    marks = {container.get_label(): container.lines[0].get_xydata().tolist() for container in axes.containers}
    assert marks == {"clean, 500 images": [[0, 0.92]], "robust, 500 images": [[report.eps, 0.4]]}
    labels = [label.get_text() for label in axes.get_xticklabels()]
    assert labels == [f"{eps:.3g}" for eps, _ in report.curve]
    assert "L∞" in axes.get_xlabel()
    figure.savefig("/dev/null", format="png")  # the scale and the legend can be drawn


def test_a_report_without_checks_has_no_curve_to_show():
    with pytest.raises(InputError, match=r"no curve.*checks of at least 1"):
        over_eps(replace(REPORT, curve=()))
