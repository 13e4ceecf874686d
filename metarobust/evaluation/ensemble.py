"""Several attacks on one model: an image is robust if it is right as it is, and none of them turns it.

Adding an attack can only lower the figure, and that is the point: one attack alone overstates. `standard` joins a
gradient attack on cross-entropy, one that runs toward each wrong class, and one that never asks for a gradient, so that
no single way of hiding helps a model. `quick` is PGD on cross-entropy and on the margin, for when a second has to do.

Source: the worst case per example over such an ensemble is that of AutoAttack, Croce and Hein 2020 (arXiv 2003.01690),
section 6. Theirs runs the FAB attack as well; `standard` does not.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor
from tqdm.auto import tqdm

from metarobust.attacks import apgd, pgd, square, transfer
from metarobust.attacks.criterion import Predict, checked, misclassified
from metarobust.attacks.inputs import check_inputs, inputs_checked
from metarobust.errors import InputError


@dataclass(frozen=True)
class Attack:
    """One of an ensemble.

    Attributes:
        name: as in the report.
        kind: what it asks of the model; `white` for gradients, `black` for logits, `transfer` for nothing.
        move: (predict, images, labels, generator=) to adversarial images.
    """

    name: str
    kind: str
    move: Callable[..., Tensor]


def quick(
    *, eps: float, norm: str = "linf", steps: int = 40, restarts: int = 1, early_exit: bool = True
) -> list[Attack]:
    """PGD with random starts, on cross-entropy and on the margin. early_exit: False for many models at once."""
    keep = "first" if early_exit else "best"
    move = partial(pgd, eps=eps, norm=norm, steps=steps, restarts=restarts, keep=keep)
    return [Attack(f"pgd-{steps}-{loss}", "white", partial(move, loss=loss)) for loss in ("ce", "margin")]


def standard(
    *,
    eps: float,
    classes: int,
    norm: str = "linf",
    steps: int = 100,
    restarts: int = 1,
    queries: int = 5000,
    early_exit: bool = True,
) -> list[Attack]:
    """APGD on cross-entropy, APGD toward the likeliest wrong classes (nine at most), and Square.

    The targeted runs climb the DLR loss, which needs 4 classes; with fewer, the margin.

    Args:
        eps: radius in pixel units.
        classes: outputs of the model.
        norm: `linf` or `l2`.
        steps: of each run of APGD.
        restarts: of APGD on cross-entropy.
        queries: of Square.
        early_exit: False for many models attacked together.

    Raises:
        InputError: for fewer than 2 classes: nothing could be confused.
    """
    if classes < 2:
        raise InputError(f"the model has {classes} output; a classifier needs at least 2: one logit for each class")
    threat = {"eps": eps, "norm": norm, "early_exit": early_exit}
    loss, n_targets = "dlr" if classes >= 4 else "margin", min(9, classes - 1)
    targeted = partial(apgd, loss=loss, n_targets=n_targets, steps=steps, **threat)
    return [
        Attack(f"apgd-{steps}-ce", "white", partial(apgd, loss="ce", restarts=restarts, steps=steps, **threat)),
        Attack(f"apgd-{steps}-{loss}-targeted", "white", targeted),
        Attack(f"square-{queries}", "black", partial(square, queries=queries, **threat)),
    ]


def transferred(surrogate: Predict, *, eps: float, norm: str = "linf", steps: int = 40) -> Attack:
    """Images that were made on another model, the surrogate."""

    def move(predict: Predict, images: Tensor, labels: Tensor, generator: torch.Generator) -> Tensor:
        return transfer(predict, surrogate, images, labels, eps=eps, norm=norm, steps=steps, generator=generator)

    return Attack(f"transfer-{steps}", "transfer", move)


@torch.no_grad()
def correct(predict: Predict, images: Tensor, labels: Tensor, *, batch_size: int = 1000, classes: int = 2) -> Tensor:
    """Which images `[n]` are classified correctly. Raises InputError for a model with fewer outputs than `classes`."""
    masks = []
    for x, y in zip(images.split(batch_size), labels.split(batch_size), strict=True):
        masks.append(~misclassified(checked(predict, x, classes)(x), y))
    return torch.cat(masks)


def robust_masks(
    predict: Predict,
    images: Tensor,
    labels: Tensor,
    attacks: Sequence[Attack],
    *,
    generator: torch.Generator,
    independent: bool = True,
    models: int = 1,
    batch_size: int = 1000,
    label: str | None = None,
) -> dict[str, Tensor]:
    """Which images are right as they are, still right under each attack, and under all of them.

    Args:
        predict: images to logits, each image alone, or many models at once.
        images: floats in [0, 1], `[n, ...]`; of many models one after the other, equally many.
        labels: int64 `[n]`.
        attacks: in the order in which they are run, on images that are right as they are.
        generator: of the attacks; one on the CPU makes the result the same for every batch_size.
        independent: each attack gets all the images that are right, so that its figure is its own. If False, each gets
            what the ones before it have left, and its figure says how many stand after it: the worst case in less time,
            the same but for the random numbers that fall to an image.
        models: how many models `predict` is; the attacks are then made with early_exit=False. Each model has as many
            images attacked as the one that has most left, and all in one batch.
        batch_size: images asked about at once.
        label: of a progress bar; None for none.

    Returns:
        Masks `[n]`: `clean`, one by the name of each attack, and `robust`.

    Raises:
        InputError: for bad images or labels, and for labels the model has no output for.
    """
    classes = check_inputs(images, labels, eps=0, norm="linf")
    batch_size = batch_size if models == 1 else max(len(images), 1)
    right = partial(correct, predict, batch_size=batch_size, classes=classes)
    robust = clean = right(images, labels)
    masks = {"clean": clean}
    for attack in attacks:
        given = clean if independent else robust
        stands = torch.zeros_like(clean)
        batches = _rows(given, models).split(batch_size)
        bar = f"{label}: {attack.name}"
        for rows in tqdm(batches, desc=bar, unit="batch", leave=False, delay=2, disable=label is None):
            if len(rows):
                with inputs_checked():
                    moved = attack.move(predict, images[rows], labels[rows], generator=generator)
                stands[rows] = right(moved, labels[rows])
        masks[attack.name] = stands & given
        robust = robust & masks[attack.name]
    return masks | {"robust": robust}


def _rows(given: Tensor, models: int) -> Tensor:
    """The images to attack, equally many for each model: those in the mask, and for the rest some that are not."""
    by_model = given.view(models, -1)
    most = int(by_model.sum(1).max())
    rows = by_model.int().argsort(dim=1, descending=True, stable=True)[:, :most]
    return (rows + torch.arange(models, device=given.device)[:, None] * by_model.shape[1]).flatten()
