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
from metarobust.attacks.criterion import misclassified
from metarobust.errors import InputError

Predict = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Attack:
    """name: as in the report. kind: what it asks of the model; `white` gradients, `black` logits, `transfer` nothing.

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
    how = {"eps": eps, "norm": norm, "steps": steps, "restarts": restarts, "keep": keep}
    return [Attack(f"pgd-{steps}-{loss}", "white", partial(pgd, loss=loss, **how)) for loss in ("ce", "margin")]


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

    The targeted runs climb the DLR loss, which needs 4 classes; with fewer, the margin. restarts: of cross-entropy.
    leave: False for many models attacked together.
    Raises InputError for fewer than 2 classes: nothing could be confused.
    """
    if classes < 2:
        raise InputError(f"the model has {classes} output; a classifier needs at least 2: one logit for each class")
    threat = {"eps": eps, "norm": norm, "early_exit": early_exit}
    how = threat | {"steps": steps}
    aimed = {"loss": "dlr" if classes >= 4 else "margin", "n_targets": min(9, classes - 1)}
    return [
        Attack(f"apgd-{steps}-ce", "white", partial(apgd, loss="ce", restarts=restarts, **how)),
        Attack(f"apgd-{steps}-{aimed['loss']}-targeted", "white", partial(apgd, **aimed, **how)),
        Attack(f"square-{queries}", "black", partial(square, queries=queries, **threat)),
    ]


def transferred(surrogate: Predict, *, eps: float, norm: str = "linf", steps: int = 40) -> Attack:
    """Images that were made on another model, the surrogate."""

    def move(predict: Predict, images: Tensor, labels: Tensor, generator: torch.Generator) -> Tensor:
        return transfer(predict, surrogate, images, labels, eps=eps, norm=norm, steps=steps, generator=generator)

    return Attack(f"transfer-{steps}", "transfer", move)


def robust_masks(
    predict: Predict,
    images: Tensor,
    labels: Tensor,
    attacks: Sequence[Attack],
    *,
    generator: torch.Generator,
    independent: bool = True,
    batch_size: int = 1000,
    label: str | None = None,
) -> dict[str, Tensor]:
    """Which images `[n]` are right as they are, `clean`, still right under each attack, and under all, `robust`.

    predict treats every image alone: images that are wrong as they are, or fooled, are not attacked any further.
    independent: give each attack all the images that are right, so that its figure is its own. If False, each gets what
    ones before it have left, and its figure says how many stand after it: the worst case in less time, the same but for
    the random numbers that fall to an image.
    generator: one on the CPU makes the result the same for every batch_size. label: of a progress bar, None for none.
    """

    def stand(x: Tensor, y: Tensor) -> Tensor:
        with torch.no_grad():
            return ~misclassified(predict(x), y)

    batches = zip(images.split(batch_size), labels.split(batch_size), strict=True)
    robust = clean = torch.cat([stand(x, y) for x, y in batches])
    right = {"clean": clean}
    with tqdm(
        total=len(attacks) * len(images), desc=label, unit="image", leave=False, delay=2, disable=label is None
    ) as bar:
        for attack in attacks:
            bar.set_postfix_str(attack.name, refresh=False)
            right[attack.name] = torch.zeros_like(clean)
            for there in (clean if independent else robust).nonzero()[:, 0].split(batch_size):
                moved = attack.move(predict, images[there], labels[there], generator=generator)
                right[attack.name][there] = stand(moved, labels[there])
                bar.update(len(there))
            robust = robust & right[attack.name]
            bar.update(len(images) * len(right) - len(images) - bar.n)  # those that needed no attack
    return right | {"robust": robust}
