"""A transfer attack: images made to fool a surrogate, shown to the model that is meant.

    x' = PGD on the surrogate,    kept where f(x') is wrong, else x

Networks that were trained apart on the same task err alike. So the gradient of another model will do where the model's
own is masked or not to be had, and a model that falls to it more often than to attacks on itself hides its gradient.

PGD and not MI-FGSM: momentum transfers better between deep networks on ImageNet (Dong et al. 2018, arXiv 1710.06081,
table 1), but between small ones on the digits PGD-40 left 1 to 4 points less accuracy than MI-FGSM of any length.

Sources: Papernot et al. 2016 (arXiv 1605.07277); as a check of an evaluation, Carlini et al. 2019 (arXiv 1902.06705).
"""

import torch
from torch import Tensor

from metarobust.attacks.criterion import Criterion, Predict, checked
from metarobust.attacks.inputs import careful, check_inputs
from metarobust.attacks.pgd import pgd
from metarobust.attacks.threat import per_image


@careful
def transfer(
    predict: Predict,
    surrogate: Predict,
    images: Tensor,
    labels: Tensor,
    *,
    eps: float,
    steps: int = 40,
    norm: str = "linf",
    loss: str = "ce",
    targets: Tensor | None = None,
    generator: torch.Generator | None = None,
) -> Tensor:
    """PGD on another model, kept where it turns the one that is meant.

    Args:
        predict: images to logits; it is asked twice, and never for a gradient.
        surrogate: the same of another model, which was trained by itself.
        images, labels, eps, steps, norm, loss, targets, generator: as in `pgd`.

    Returns:
        Adversarial images `[n, ...]`, within eps of `images` and within [0, 1]. An image that is misclassified (with
        targets: as just that class) as it is, or could not be turned, comes back as it is.
    """
    asked = checked(predict, images, check_inputs(images, labels, eps=eps, norm=norm, targets=targets))
    threat = {"eps": eps, "norm": norm, "loss": loss, "targets": targets, "generator": generator}
    moved, criterion = pgd(surrogate, images, labels, steps=steps, **threat), Criterion(loss, labels, targets)
    with torch.no_grad():
        kept = criterion.reached(asked(moved)) & ~criterion.reached(asked(images))
    return torch.where(per_image(kept, images), moved, images)
