"""The comparisons by name: which parts each has, and with which numbers at which scale."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

from metarobust.attacks.threat import check_eps
from metarobust.lab.frontier import frontier
from metarobust.lab.plans import batches, patching_plan, steering_plan, times, training_plan, variant_plan
from metarobust.lab.results import FROM_DIGITS, JOINT, LEARNED
from metarobust.lab.shipped import SHIPPED_ALONE, adaptive, few_images, new_kinds, pixels
from metarobust.lab.spec import ALL, CONVOLUTIONAL, DENSE, NEW, UNSEEN, OptimizerConfig, Part, Spec, sizes
from metarobust.lab.what_was_learned import what_was_learned
from metarobust.meta import MetaTrainConfig

# Names of learned optimizers, as in the tables. All begin alike, so that no rule without learning is taken for one.
STEERING = "learned steering"
LSTM = "learned LSTM"
FEW = (NEW[0], NEW[1], NEW[3])
FAST_RULES = ("adam", "std-prune", "falling noise + last-layer decay", "input-gradient penalty", "PGD-7 training")


def patch(scale: str, dataset: str) -> tuple[Part, ...]:
    """Twenty steps on trained models by four kinds of learned optimizer; the first also with fewer images, and at small
    step by step."""
    whole = {"horizons": (20,), "truncation": 20, "mid_loss_weight": 0.0, "second_order": True}
    joint = MetaTrainConfig(
        episodes=times(50, scale), validate_every=times(10, scale), lr=6e-3, **whole, **batches(scale)
    )
    lstm = MetaTrainConfig(episodes=times(40, scale), validate_every=times(10, scale), **batches(scale))
    first, features = OptimizerConfig(LEARNED, "features", patching_plan(scale)), patching_plan(scale)
    if scale == "smoke":
        return (Part("patch", 20, 64, (first,)),)
    far = (OptimizerConfig(FROM_DIGITS, "features", features, source="digits"),) if dataset != "digits" else ()
    steering = OptimizerConfig(STEERING, "steering", steering_plan(scale, 20))
    rules = (
        first,
        *far,
        steering,
        OptimizerConfig(JOINT, "joint", joint, begins=STEERING),
        OptimizerConfig(LSTM, "lstm", lstm),
    )
    fewer = {"uses": (first,), "home": "patch", "methods": FAST_RULES, "unseen": (UNSEEN[0], UNSEEN[4])}
    stepwise = (Part("patch, step by step", 20, 64, marks=(1, 2, 5, 10), **fewer),)
    return (
        Part("patch", 20, 64, rules),
        *(stepwise if scale == "small" else ()),
        *(Part(f"patch, {each} images a class", 20, 64, per_class=each, **fewer) for each in (5, 20)),
    )  # fmt: skip


def train(scale: str, dataset: str) -> tuple[Part, ...]:
    """A hundred steps from fresh parameters, by the two kinds of learned optimizer that patch best."""
    rules = (
        OptimizerConfig(LEARNED, "features", training_plan(scale)),
        OptimizerConfig(STEERING, "steering", steering_plan(scale, 100)),
    )
    return (Part("train", 100, 64, rules[:1] if scale == "smoke" else rules, trained=False),)


def robust_training(scale: str, dataset: str) -> tuple[Part, ...]:
    """Robust mode: adversarial gradients for the learned optimizer and for its rivals alike, from fresh parameters."""
    # Attacks inside make a step dear: fewer episodes, and what needs seven attack steps goes on from what needs one.
    plan = MetaTrainConfig(
        episodes=times(30, scale), horizons=(50, 100), validate_every=times(10, scale), **batches(scale)
    )
    fgsm = OptimizerConfig(LEARNED, "features", plan, inner="fgsm")
    further = replace(plan, episodes=times(5, scale), validate_every=times(5, scale), lr=1e-3)
    pgd = OptimizerConfig("learned, PGD-7 inside", "features", further, begins=LEARNED, inner="pgd")
    rules = (fgsm,) if scale == "smoke" else (fgsm, pgd)
    return (Part("robust", 100, 64, rules, trained=False, robust=True, marks=(10, 25, 50), unseen=FEW),)


def low_data(scale: str, dataset: str) -> tuple[Part, ...]:
    """Training from fresh parameters with few images, on clean gradients; adversarial training beside it, which
    overfits: accuracy on the training images is measured too."""
    few = (5, 10, 20, 40) if dataset == "digits" else (10, 50, 100, 500, 1000)
    counts = {"smoke": few[1:2], "small": few[:4], "full": (*few, ALL)}[scale]
    steering = steering_plan(scale, 100)
    rules = (
        OptimizerConfig(LEARNED, "features", replace(training_plan(scale), episodes=times(30, scale))),
        OptimizerConfig(STEERING, "steering", replace(steering, episodes=steering.episodes // 2)),
    )
    rules = rules[:1] if scale == "smoke" else rules
    names = (
        "adam", "adam + weight decay", "adam + L1 on layer 1", "falling noise + last-layer decay",
        "input-gradient penalty", "curvature penalty", "FGSM training", "PGD-7 training", "TRADES",
    )  # fmt: skip
    shared = {"trained": False, "methods": names, "unseen": (FEW[0], FEW[2]), "gap": True}
    parts = ["all images" if each == ALL else f"{each} images a class" for each in counts]
    return (
        Part(parts[0], 100, 64, rules, per_class=counts[0], **shared),
        *(
            Part(part, 100, 64, per_class=each, uses=rules, home=parts[0], **shared)
            for part, each in zip(parts[1:], counts[1:], strict=True)
        ),
    )


def transfer_architecture(scale: str, dataset: str) -> tuple[Part, ...]:
    """Which networks one has to learn on, to patch which others."""
    plan = variant_plan(scale)
    families = {"one perceptron": ("mlp-24-tanh",), "perceptrons": DENSE, "convolutions": CONVOLUTIONAL}
    rules = [OptimizerConfig(LEARNED, "features", plan)]
    if scale != "smoke":
        rules += [
            OptimizerConfig(f"learned on {name}", "features", plan, family=family) for name, family in families.items()
        ]
        steering = steering_plan(scale, 20)
        rules.append(OptimizerConfig(STEERING, "steering", replace(steering, episodes=steering.episodes // 2)))
    return (Part("patch", 20, 64, tuple(rules), unseen=FEW if scale == "smoke" else NEW),)


def transfer_data(scale: str, dataset: str) -> tuple[Part, ...]:
    """What was learned on one data set, used on another, and the other way round."""
    if dataset == "digits":
        return (Part("patch", 20, 64, (OptimizerConfig(LEARNED, "features", patching_plan(scale)),), unseen=FEW),)
    grey = ("digits", "mnist", "fashion-mnist")
    others = {"smoke": grey[:1], "small": grey, "full": (*grey, "cifar10")}[scale]
    sources = [dataset, *(name for name in others if name != dataset)]
    plan, short = variant_plan(scale), [Path(name.rpartition(":")[2]).name for name in sources]
    rules = tuple(
        OptimizerConfig(f"learned on {word}", "features", plan, source=None if name == dataset else name)
        for name, word in zip(sources, short, strict=True)
    )
    shared = {"methods": FAST_RULES, "unseen": FEW}
    parts = [f"patch, {word}" for word in short]
    return (
        Part(parts[0], 20, 64, rules, **shared),
        *(
            Part(part, 20, 64, uses=rules, home=parts[0], dataset=name, **shared)
            for part, name in zip(parts[1:], sources[1:], strict=True)
        ),
    )


def attack_transfer(scale: str, dataset: str) -> tuple[Part, ...]:
    """Judged by one attack at one radius when it learned, measured under others."""
    plan = variant_plan(scale)
    rules = (
        OptimizerConfig("learned, FGSM outside", "features", plan, meta="fgsm"),
        OptimizerConfig(LEARNED, "features", plan),
        OptimizerConfig("learned, clean outside", "features", plan, meta="clean"),
    )
    names = (*FAST_RULES[:4], "FGSM training", "PGD-7 training")
    shared = {"methods": names, "unseen": (FEW[0], FEW[2]), "measures": "attacks"}
    return (Part("patch", 20, 64, rules[: 1 if scale == "smoke" else 3], **shared),)


def ablation(scale: str, dataset: str) -> tuple[Part, ...]:
    """One thing at a time is taken away, or done another way, in the same number of episodes: what does it hang on?"""
    plan = MetaTrainConfig(episodes=60, groups=1, tasks=16 if scale == "full" else 4)

    def rule(name: str, kind: str = "features", *, plan: MetaTrainConfig = plan, **how) -> OptimizerConfig:
        return OptimizerConfig(f"{LEARNED}, {name}", kind, plan, **how)

    rules = [OptimizerConfig(LEARNED, "features", plan)]
    if scale != "smoke":
        rules += [
            # What the rule sees and may do.
            rule("blind to the weight", shape={"masked_features": ["weight"]}),
            rule("blind to rows and columns", shape={"masked_features": ["rows and columns"]}),
            rule("blind to time", shape={"masked_features": ["time"]}),
            rule("without a decay", shape={"cap": 0.0}),
            rule("LSTM on gradients", "lstm"),
            rule("LSTM on features", "feature-lstm"),
            # The two-by-two: what is clean and what is adversarial, inside and outside.
            rule("clean inside and outside", meta="clean"),
            rule("FGSM inside, clean outside", inner="fgsm", meta="clean"),
            rule("FGSM inside, PGD outside", inner="fgsm"),
            # How the meta-gradient is found.
            rule("truncated after 5 steps", plan=replace(plan, truncation=5)),
            rule("not truncated", plan=replace(plan, truncation=20)),
            rule("second order", plan=replace(plan, second_order=True)),
            rule("ES", plan=replace(plan, estimator="es", truncation=20)),
            rule("PES", plan=replace(plan, estimator="pes")),
            # How many networks it learns on.
            rule("one network", family=("mlp-24-tanh",)),
            rule("four networks", family=("mlp-12-relu", "mlp-24-tanh", "mlp-24-24-sigmoid", "cnn-4-8-relu")),
        ]
    return (Part("patch", 20, 64, tuple(rules), methods=(*FAST_RULES[:3], FAST_RULES[4]), unseen=FEW),)


PARTS: dict[str, Callable[[str, str], tuple[Part, ...]]] = {
    "patch": patch,
    "train": train,
    "frontier": frontier,
    "pixels": pixels,
    "robust-training": robust_training,
    "low-data": low_data,
    "few-images": few_images,
    "new-kinds": new_kinds,
    "adaptive": adaptive,
    "transfer-architecture": transfer_architecture,
    "transfer-data": transfer_data,
    "attack-transfer": attack_transfer,
    "ablation": ablation,
    "what-was-learned": what_was_learned,
}


def make(name: str, scale: str, dataset: str, seeds: tuple[int, ...] | None, eps: float | None = None) -> Spec:
    """The spec of an experiment.

    Args:
        name: One of PARTS.
        scale: One of SCALES.
        dataset: A data set's name.
        seeds: Of the models; None for those of the scale.
        eps: The radius of attacks, where not that of the data set.

    Raises:
        InputError: For a radius that is none.
    """
    numbers: dict[str, Any] = dict(vars(sizes(dataset, scale)))
    if eps is not None:
        check_eps(eps, "linf")
        numbers["eps"] = eps
    parts = [replace(part, meta_eps=1.2 * numbers["eps"]) for part in PARTS[name](scale, dataset)]
    others = [part.dataset for part in parts]
    others += [source for part in parts for rule in part.rules for source in (rule.source, *rule.beside)]
    numbers["elsewhere"] = {other: sizes(other, scale) for other in others if other is not None}
    if name in ("adaptive", "frontier", "new-kinds", "pixels"):  # as people have them: trained to the end
        numbers["training"] = replace(numbers["training"], steps=3 * numbers["training"].steps)
    annealed = name in ("frontier", *SHIPPED_ALONE)
    if scale == "smoke":
        numbers["meta_images"] = min(numbers["meta_images"], 2000)  # a folder of one's own images is often no larger
        numbers |= {"validation": (Spec.validation[0], Spec.validation[2]), "unseen": (UNSEEN[0], UNSEEN[2], UNSEEN[4])}
        return Spec(
            name, scale, dataset, seeds or (0, 1, 2), (0,), tuple(parts), **numbers, tuning_seeds=(100,),
            attack_steps=20, wide_grids=False, annealed=annealed, validated=False,
        )  # fmt: skip
    parts = [replace(part, measures="standard") if part.measures == "quick" else part for part in parts]
    shipped = name in SHIPPED_ALONE or (name == "frontier" and dataset != "digits")
    most = 1 if shipped else 3 if scale == "full" or name in ("patch", "train", "transfer-architecture") else 2
    return Spec(
        name, scale, dataset, seeds or tuple(range(10)), tuple(range(most)), tuple(parts), **numbers,
        # A network that had few images says less about a setting than one that had many: more of them are asked.
        tuning_seeds=(100, 101, 102) if name in ("low-data", "few-images") else (100, 101), wide_grids=not shipped,
        annealed=annealed, validated=name != "ablation", finalists=8, deciding_seeds=tuple(range(110, 120)),
    )  # fmt: skip
