"""What robustness costs: seconds, model evaluations and adversarial examples, meta-training included and amortised.

A learned optimizer that comes along patches trained networks which neither it nor any tuning has seen, and so do plain
rules and adversarial training. Each baseline is tuned by a search of the same number of settings; the learned optimizer
has none to tune, and its meta-training is counted instead. After how many models does that pay?

Rows of results.csv, by `part`:

    before, short, long         clean and robust accuracy of each seed at marks of steps, and a model's cost until then
    meta-training, search       what is paid once; step: episodes, or steps of each setting's run
    half-gain, most-gain, as-learned    targets: see `payback`

A metric with "seconds" in its name is measured time or comes of it, and is another in each run; all others are the
same. On a CPU they are seconds of the processor, of all threads together, and on a GPU seconds of the wall. Marks of
the short run are of settings tuned for it, and those of the long run of settings tuned for that. The search's one run
of each setting is as long as the long run, which matters for noise that falls over the run alone. The learned
optimizer's long run is longer than those that it was meta-trained for.
"""

from metarobust.lab.cost.bill import break_even, brief, curve, markdown, once, payback, table
from metarobust.lab.cost.spec import NAME, SCALES, SUMMARY, make_spec
from metarobust.lab.cost.stages import collect, units
from metarobust.lab.passes import Passes, counted

__all__ = [
    "NAME", "SCALES", "SUMMARY", "Passes", "break_even", "brief", "collect", "counted", "curve", "make_spec",
    "markdown", "once", "payback", "table", "units",
]  # fmt: skip
