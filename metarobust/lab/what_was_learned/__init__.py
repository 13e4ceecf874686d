"""What was learned: what the learned rule for patching does, and how much of its effect a rule written by hand keeps.

1. Look: watch it patch trained validation networks, move one of its inputs at a time (`responses`), and ask which plain
   rules account for the change of the weights (`explained`).
2. Control: meta-train the same kind of rule in the same way, but on clean images alone, and look at that one too.
3. Imitate: fit the constants of `ColumnDecay` to the steps of the learned rule, and, as a second way, tune them by
   accuracy as all plain rules are tuned (`imitation`).
4. Compare on unseen networks, as the experiment `patch` does and on the same models, batches and test images: the
   learned rule, the learned rule with parts of it switched off (`knockouts`), the imitations and the plain rules.

The table's columns are used so. In `part` patch all is as in the experiment `patch`. In the others `model` is a
network and a layer of it, `method` is a rule if nothing else is said, and `eps` is where on the curve a value is:

    response to X     eps: the value of the input X; metrics `step`, `rate` and `share given up`, means over
                      coordinates (`responses.Answer`); step: at which of the run they were drawn; n: how many
    explained         method: the explanation, of the learned rule's patches; metric `explained`, one for each seed
    weight left       eps: standard deviation of a group of pixels; metric `weight left`: of the first layer's weights
                      on them, as a share of their length, one for each seed
"""

from metarobust.lab.what_was_learned.column_decay import ColumnDecay
from metarobust.lab.what_was_learned.dissection import moved, watch, weights
from metarobust.lab.what_was_learned.explained import explain
from metarobust.lab.what_was_learned.imitation import fit_to_steps
from metarobust.lab.what_was_learned.inquiry import NAME, SCALES, SUMMARY, best_fit, collect, make_spec, units
from metarobust.lab.what_was_learned.kept import brief, kept, markdown, table
from metarobust.lab.what_was_learned.knockouts import PARTS, Knockout

__all__ = [
    "NAME", "PARTS", "SCALES", "SUMMARY", "ColumnDecay", "Knockout", "best_fit", "brief", "collect", "explain",
    "fit_to_steps", "kept", "make_spec", "markdown", "moved", "table", "units", "watch", "weights",
]  # fmt: skip
