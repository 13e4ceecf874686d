"""`patch`: a trained model made more robust by a learned optimizer, without an adversarial example.

    phi_{t+1} = phi_t + u_t,    u_t = the learned step for the gradient of what the rule minimises on *clean* images

A few such steps, a second of work. What came of it is then measured, with attacks, on images that the patch did not
train on. A patch that costs too much clean accuracy is taken in part, phi_0 + part * (phi_T - phi_0), and where no part
is cheap enough, not at all. Whether a patch helps depends on the model: the pretrained optimizers have seen small
networks and small images alone (`pretrained.card`), so read the report.
"""

import copy
from functools import partial

import torch
from torch import Tensor, nn

from metarobust.errors import InputError
from metarobust.evaluation import correct
from metarobust.evaluation.probe import share
from metarobust.fitting import fit_and_report
from metarobust.learned.protocol import LearnedOptimizer
from metarobust.patch_report import PatchReport
from metarobust.pretrained import PATCH

PARTS = (1.0, 0.75, 0.5, 0.25)
"""How much of a patch is tried, in this order."""


def patch(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    *,
    optimizer: str | LearnedOptimizer = PATCH,
    steps: int = 100,
    batch_size: int = 64,
    eps: float = 0.1,
    held_out: float = 0.2,
    max_clean_drop: float = 0.05,
    attacks: str = "quick",
    seed: int = 0,
    label: str | None = "patch",
) -> tuple[nn.Module, PatchReport]:
    """A patched copy of a model, and what the patch did.

    The model itself is left as it is. The copy is patched in eval mode, the way it will be used: dropout is off. Batch
    normalisation alone is in train mode, so that its averages follow the weights; all is measured in eval mode.
    Parameters that are frozen stay. The copy comes back in the modes of the original, and without gradients.

    Args:
        model: maps images `[n, C, H, W]` in [0, 1] to logits `[n, classes]`.
        images: clean images `[n, C, H, W]` to patch with and to measure on.
        labels: `[n]`, int64.
        optimizer: a name of `pretrained.available()`, or a learned optimizer of any kind.
        steps: how many the patch has; "patch" learned with 100, the other rules for patching with 20.
        batch_size: images a step; they learned with 64.
        eps: L-infinity radius to be robust at, and to measure at, in pixel units.
        held_out: the share of each class that is measured on and not trained on. Best are images that the model was
            not trained on either.
        max_clean_drop: where clean accuracy on the held-out images falls by more (0.05 is 5 points), the largest part
            of the patch, 3/4, 1/2 or 1/4, that does not cost so much is returned, or the old parameters. Since these
            images decide, the clean accuracy reported of a part is a little on the bright side.
        attacks: as in `evaluate`.
        seed: of the split, the batches, the noise and the attacks.
        label: of a progress bar; None for none.

    Raises:
        InputError: a bad number, images outside [0, 1], too few images of every class to hold some out, or a model
            without parameters to train.
    """
    if not max_clean_drop >= 0:
        raise InputError(f"max_clean_drop is {max_clean_drop!r}; give a share of 0 or more, such as 0.05 for 5 points")
    numbers = {"steps": steps, "batch_size": batch_size, "eps": eps, "held_out": held_out, "seed": seed}
    keep = partial(_keep_largest_part, max_clean_drop=max_clean_drop)
    return fit_and_report(
        model,
        images,
        labels,
        optimizer,
        fresh=False,
        keep=keep,
        attacks=attacks,
        label=label,
        max_clean_drop=max_clean_drop,
        **numbers,
    )


def _keep_largest_part(
    model: nn.Module, old: dict[str, Tensor], images: Tensor, labels: Tensor, max_clean_drop: float
) -> float:
    """Leaves the model with the largest part of its patch that is cheap enough on these images, and says which.

    0 where none is; the model then has the whole patch. Networks that are near each other in their parameters are
    joined by a line along which they work (Frankle et al. 2020, arXiv 1912.05671).
    """

    def clean() -> float:
        return share(correct(model, images, labels))

    new = copy.deepcopy(model.state_dict())
    model.load_state_dict(old)
    least = clean() - max_clean_drop
    for part in PARTS:
        mixed = {
            name: torch.lerp(value, new[name], part) if value.is_floating_point() and part < 1 else new[name]
            for name, value in old.items()
        }
        model.load_state_dict(mixed)
        if clean() >= least:  # nan is never right, so a patch that ended there is undone too
            return part
    model.load_state_dict(new)
    return 0.0
