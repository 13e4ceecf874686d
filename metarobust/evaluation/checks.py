"""What makes a robust accuracy suspect: each check takes numbers that were measured and returns a flag, or None.

A defence that only makes the attack fail looks just like a defence that works. The difference shows in places where an
honest model must behave in one way: an attack that may do more achieves more, one that sees more achieves more, and at
a large enough eps every model falls. A flag is a suspicion, not a proof; it says what to try.

Sources: Athalye et al. 2018 (arXiv 1802.00420), section 3.1; Carlini et al. 2019 (arXiv 1902.06705), section 5;
Tramer et al. 2020 (arXiv 2002.08347). Where the line is drawn between chance and a flag is ours.
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

from torch import Tensor, nn

from metarobust.attacks.criterion import Predict

FAR = 30.0  # in nats: the runner-up has less than 1e-13 of the probability, below what float32 can tell from none
SAYS = {
    "eps zero": "at eps 0 accuracy is {attacked}, not the clean {clean}, so the same images get different answers; "
    "look for randomness or for a state that the model keeps from one batch to the next",
    "falls with eps": "accuracy rises from {before} at eps {small:g} to {after} at eps {large:g}, so the attack gets "
    "lost in the larger ball; try more steps, other losses, and an attack without gradients",
    "ends at zero": "at eps {eps:g}, where an image may become any other, {share} are still right, so the attack fails "
    "and the model is not robust; try an attack without gradients, and replace what blocks them",
    "more steps": "accuracy rises from {few} at {steps[0]} steps to {many} at {steps[1]}, so the attack does worse for "
    "working longer; look for randomness in the model, and attack its average over many draws",
    "settled": "{share} of the images that were counted as robust fall when the attack has {steps} steps, so the "
    "figure had not settled; give more steps and restarts until it has",
    "black box": "an attack that sees no gradient turns {share} of the images that the gradient attacks could not, so "
    "the gradient misleads; replace what is rounded, random or saturated by something smooth and attack that",
    "transfer": "adversarial images of another model turn {share} of the images that the gradient attacks could not, "
    "so the model's own gradient misleads; attack a smooth copy of it",
    "zero gradients": "for {share} of the images the gradient is exactly 0 and a gradient attack stands still; look "
    "for rounding, argmax or huge logits, pass the gradient through them, or climb the margin instead",
    "not a number": "for {share} of the images a logit is nan, which counts as wrong; look for weights that overflowed "
    "or a division by 0",
    "saturated logits": f"for {{share}} of the images the first logit is more than {FAR:g} above the second, so "
    "cross-entropy is flat; trust losses that do not change with the scale of the logits (dlr), or divide the logits",
    "probabilities": "the outputs are probabilities, not logits, so that every loss takes a softmax of a softmax and "
    "is nearly flat; give the model without its last softmax",
    "randomness": "asked twice, the model differs by up to {apart:.2g}, so each step climbs another function; attack "
    "its average over many draws, and report that",
    "alone": "an image alone gets other logits than in a batch, by up to {apart:.2g}, so the figure depends on "
    "batch_size; normalise by statistics that were kept from training, not by those of the batch",
    "train mode": "the model came in train mode ({name}) and was measured in eval mode; call model.eval() wherever "
    "else it is attacked or used",
    "margin and cross-entropy": "{cross_entropy} stand against cross-entropy and only {margin} against a margin loss, "
    "so cross-entropy is flat; never quote it alone, and look at the scale of the logits",
}


@dataclass(frozen=True)
class Flag:
    """check: which one raised it. says: what is suspected, and what to try."""

    check: str
    says: str


def _flag(check: str, raised: bool, **measured: object) -> Flag | None:
    return Flag(check, SAYS[check].format(**measured)) if raised else None


def chance(n: int) -> float:
    """A difference that may be luck: 2 % of n images, at least two images."""
    return max(0.02, 2 / n)


def percent(share: float) -> str:
    """A share in per cent, with one decimal."""
    return f"{100 * share:.1f} %"


def _found(check: str, share: float, n: int, **measured: object) -> Flag | None:
    """A check of which SAYS tells what this share of n images is; more than chance should not be there."""
    return _flag(check, share > chance(n), share=percent(share), **measured)


black_box, transfer, not_a_number = (partial(_found, name) for name in ("black box", "transfer", "not a number"))
zero_gradients = partial(_found, "zero gradients")


def eps_zero(clean: float, attacked: float) -> Flag | None:
    """An attack that may change nothing changes no accuracy."""
    return _flag("eps zero", attacked != clean, clean=percent(clean), attacked=percent(attacked))


def falls_with_eps(curve: Sequence[tuple[float, float]], n: int) -> Flag | None:
    """curve: (eps, accuracy) in order of eps. A larger ball holds every point of a smaller one."""
    rises = (pair for pair in itertools.pairwise(curve) if pair[1][1] > pair[0][1] + chance(n))
    (small, before), (large, after) = next(rises, ((0, 0), (0, 0)))
    measured = {"small": small, "large": large, "before": percent(before), "after": percent(after)}
    return _flag("falls with eps", after > before, **measured)


def ends_at_zero(eps: float, accuracy: float, n: int) -> Flag | None:
    """With all of [0, 1] to move in, every image can become any other: no classifier stands that."""
    return _found("ends at zero", accuracy, n, eps=eps)


def settled(share: float, steps: int, n: int) -> Flag | None:
    """share: of the images that stood to the end, and fell when the attack was given `steps` steps."""
    return _found("settled", share, n, steps=steps)


def more_steps(few: float, many: float, steps: tuple[int, int], n: int) -> Flag | None:
    """Accuracy under the same attack with few and with many steps: more work never helps the model.

    Both runs began at random points of their own, and an image on the edge may fall to either: the line is wider.
    """
    return _flag("more steps", many > few + 3 * chance(n), few=percent(few), many=percent(many), steps=steps)


def saturated(gaps: Tensor) -> Flag | None:
    """gaps: largest logit minus the second, `[n]`. Beyond FAR, cross-entropy is flat to the precision of a float."""
    share = int((gaps > FAR).sum()) / len(gaps)
    return _flag("saturated logits", share > 0.1, share=percent(share))


def probabilities(outputs: Tensor) -> Flag | None:
    """outputs: of the model, `[n, classes]`. Losses are meant for logits."""
    whole = (outputs.sum(1) - 1).abs() < 4e-3  # bfloat16 rounds each of them
    return _flag("probabilities", bool((outputs >= 0).all() & (outputs <= 1).all() & whole.all()))


def deterministic(first: Tensor, second: Tensor) -> Flag | None:
    """Logits of the same images, asked twice: `[n, classes]` each, bounded."""
    return _apart("randomness", first, second, 1e-4)


def alone(in_batch: Tensor, by_itself: Tensor) -> Flag | None:
    """Logits of an image in a batch and by itself: `[1, classes]` each, bounded. Half precision rounds otherwise."""
    return _apart("alone", in_batch, by_itself, 0.02)


def _apart(check: str, first: Tensor, second: Tensor, share: float) -> Flag | None:
    # A share of the two logits that decide, as those of masked classes may be as low as they like.
    size = float(first.topk(2, dim=1).values.abs().amax().clamp_min(1e-6))
    apart = float((first - second).abs().amax())
    return _flag(check, apart > share * size, apart=apart)


def train_mode(model: Predict) -> Flag | None:
    """Dropout and batch normalisation behave otherwise in training. Asked before the model is put in eval mode."""
    kinds = (nn.modules.dropout._DropoutNd, nn.modules.batchnorm._NormBase)
    modules = model.modules() if isinstance(model, nn.Module) else ()
    names = [type(m).__name__ for m in modules if isinstance(m, kinds) and m.training]
    return _flag("train mode", bool(names), name="".join(names[:1]))


def margin_and_cross_entropy(cross_entropy: float, margin: float) -> Flag | None:
    """Accuracy under cross-entropy and under a margin loss (dlr, margin): honest models differ by a few points."""
    measured = {"cross_entropy": percent(cross_entropy), "margin": percent(margin)}
    return _flag("margin and cross-entropy", cross_entropy - margin > 0.1, **measured)
