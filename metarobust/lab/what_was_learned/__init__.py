"""What was learned: which rule the learned patcher is, and how much of its effect a rule written by hand keeps.

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

from typing import Any

import torch
from tqdm.auto import tqdm

from metarobust.data import Dataset
from metarobust.lab.run_folder import COLUMNS, Run
from metarobust.lab.tuning import best_point
from metarobust.lab.what_was_learned.inquiry import CONSTANTS, NAME, SCALES, Inquiry, best_fit, make, make_spec
from metarobust.lab.what_was_learned.kept import brief, markdown, table
from metarobust.meta import ALONE, Share

__all__ = ["NAME", "SCALES", "SUMMARY", "brief", "execute", "make_spec", "markdown", "table"]

SUMMARY = "look into the learned patcher, and imitate it by a rule written by hand"


def execute(spec: dict[str, Any], run: Run, dataset: Dataset, device: torch.device, share: Share = ALONE) -> None:
    """Does what is missing of the run, unit by unit, and writes its table. share: of one process."""
    numbers = make(spec["scale"], spec["dataset"], tuple(spec["seeds"]))
    work = list(Inquiry(numbers, run, dataset, device).units())
    rows: list[dict[str, Any]] = []
    tuned: dict[str, Any] = {}
    with tqdm(total=sum(unit.weight for unit in work), desc=NAME, unit="unit") as bar:
        for unit in work:
            bar.set_postfix_str(unit.name)
            found = run.unit(unit.name, unit.compute)
            rows += [row for row in found if "metric" in row]
            if unit.name == CONSTANTS:
                tuned[unit.name] = best_fit(found)
            for score in (key for key in found[0] if key.startswith("score ")):
                group = score.removeprefix("score ")
                tuned[f"{unit.name}.{group}"] = best_point(found, group)
            bar.update(unit.weight)
    run.finish(rows, COLUMNS, {"tuned": tuned})
