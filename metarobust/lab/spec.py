"""What a comparison is made of, frozen: learned optimizers, parts that ask a question each, the whole with its seeds.

Which comparisons there are, `metarobust.lab.catalogue` says. A spec goes into the manifest of a run as JSON, has to be
equal in a resumed one, and what is run is `from_dict` of what stands there.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, is_dataclass
from types import UnionType
from typing import Any, get_args, get_origin, get_type_hints

from metarobust.data import Dataset
from metarobust.errors import InputError
from metarobust.family import Training
from metarobust.meta import MetaTrainConfig

DENSE = tuple(f"mlp-{width}-{act}" for width in ("12", "24", "48", "24-24") for act in ("sigmoid", "relu", "tanh"))
CONVOLUTIONAL = ("cnn-4-8-relu", "cnn-4-8-tanh")
FAMILY = (*DENSE, *CONVOLUTIONAL)
"""What is meta-trained on."""
VALIDATION = ("mlp-20-sigmoid", "mlp-40-40-40-relu", "cnn-8-16-relu")
"""All settings of ours were chosen with an eye on these three, and every baseline is tuned on them."""
UNSEEN = ("mlp-64-sigmoid", "mlp-128-relu", "mlp-36-36-softplus", "mlp-30-30-30-tanh", "cnn-6-12-elu")
"""Fixed before anything was measured on them: wider, deeper, with activations and channels that the family lacks."""
NEW = ("mlp-80-gelu", "mlp-56-56-relu", "mlp-24-24-24-24-softplus", "cnn-10-14-tanh", "resnet-6-1-relu")
"""The same for the experiments that came later: no trial of ours and no earlier run has measured anything on these."""
FRESH = ("mlp-88-relu", "mlp-76-gelu", "mlp-42-32-tanh", "mlp-28-28-28-28-elu", "cnn-8-11-gelu", "cnn-5-7-9-tanh")
"""And for those of the learned penalties, whose trials looked at all of the above."""
KINDS = ("mlp-22-22-22-22-22-22-relu", "gncnn-9-12-elu", "resnet-10-1-elu")
"""Deeper than any that a rule learned on, and two that normalise; nor had anything been measured on these."""
DEEPER = ("mlp-24-24-24-relu", "mlp-16-16-16-16-tanh", "mlp-24-24-softplus", "mlp-24-gelu")
"""What they learn on beside DENSE; and CONVOLUTIONAL with these."""
WIDER = ("cnn-8-8-gelu", "cnn-4-6-8-relu")
DEEPEST = ("mlp-20-20-20-20-relu", "mlp-24-24-24-elu", "mlp-32-16-tanh", "mlp-20-20-20-20-20-gelu")
NORMALISED = ("gncnn-4-8-relu", "gncnn-8-8-gelu")
"""And what the rule that is shipped learns on beside all these: where a rule that learned on digits had failed."""
SCALES = ("smoke", "small", "full")
ALL = 0
"""A part's per_class for all images that are left, be the classes equal or not."""


@dataclass(frozen=True)
class OptimizerConfig:
    """A learned optimizer that is meta-trained and compared.

    Attributes:
        name: As in the tables.
        kind: See `metarobust.learned`.
        plan: The numbers of its meta-training.
        begins: The name of a rule, earlier in the list, whose theta this one goes on from.
        source: The data set to learn on, where it is not the one that is measured on.
        beside: Data sets to learn on as well; each task is of one of them, drawn evenly. All share one eps.
        family: The networks to learn on, where not all of the spec's.
        inner: Where its gradients are taken, when it learns and when it is used: `clean`, `fgsm` or `pgd` images.
        meta: The attack of the meta-loss: `clean`, `fgsm`, `pgd`, or `margin` for PGD on it and calibrated losses.
        pretrained: The name of shipped weights that are compared as they are; then nothing is learned.
        compared: Whether it is compared, or only there for another to go on from.
        shape: Numbers of the kind that are not in theta; of a shipped rule what is knocked out of it.
    """

    name: str
    kind: str
    plan: MetaTrainConfig
    begins: str | None = None
    source: str | None = None
    beside: tuple[str, ...] = ()
    family: tuple[str, ...] = ()
    inner: str = "clean"
    meta: str = "pgd"
    compared: bool = True
    pretrained: str | None = None
    shape: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Part:
    """One question. What is not said here is as the spec has it.

    Attributes:
        name: As in the tables.
        steps: Of every method, tuned, learned or adversarial alike; batch_size, of each step.
        rules: The learned optimizers that are meta-trained for it.
        trained: Whether models are trained, and vulnerable, before the first step, or fresh.
        meta_eps: Radius of the adversarial meta-loss; attack_steps, of its attack; weight, its share. Baselines are
            tuned for the same weight. These and the plans were settled by trials, none of them on UNSEEN.
        uses: Rules of an earlier part, `home`, that are compared here as they are.
        methods: Names of baselines, where not all are compared; robust, take them from `robust_methods`.
        unseen, dataset, per_class: Instead of the spec's; with per_class ALL a model has every image that is left.
        marks: Earlier steps at which accuracy is measured too.
        measures: `quick`, `standard`, `attacks`, `pixels` or `by hand`, see `metarobust.lab.stages.evaluate`.
        gap: Whether to measure on the training images as well.
    """

    name: str
    steps: int
    batch_size: int
    rules: tuple[OptimizerConfig, ...] = ()
    trained: bool = True
    meta_eps: float = 0.12
    weight: float = 0.5
    attack_steps: int = 4
    uses: tuple[OptimizerConfig, ...] = ()
    home: str = ""
    methods: tuple[str, ...] = ()
    robust: bool = False
    unseen: tuple[str, ...] = ()
    dataset: str | None = None
    per_class: int | None = None
    marks: tuple[int, ...] = ()
    measures: str = "quick"
    gap: bool = False


@dataclass(frozen=True)
class Sizes:
    """The numbers that go with a data set.

    Attributes:
        meta_images: The first images, to meta-train and tune with.
        per_class: Images of each class that a model has of the rest, to train or to be patched with.
        test_images: That are measured on.
        training: How a vulnerable model is trained.
        eps: The radius of attacks, in pixel units.
    """

    meta_images: int
    per_class: int
    test_images: int
    training: Training = field(default_factory=Training)
    eps: float = 0.1


@dataclass(frozen=True)
class Spec:
    """One scale of an experiment on one data set; `Sizes` has the numbers that are not named here.

    Attributes:
        seeds: Of the models that are compared; meta_seeds, of the learned optimizers.
        tuning_seeds: Of the validation networks that every setting of a baseline is scored on.
        elsewhere: The sizes of the other data sets that are learned on, or compared on.
        attack_steps: Of the PGDs that measure.
        victims: Trained models of each network of the family, to learn to patch.
        wide_grids: Whether the baselines are tuned over all values of their hyperparameters.
        annealed: Whether they are tuned with a rate that falls to 0 too.
        validated: Whether meta-training keeps the theta that did best on validation networks, instead of the last.
        finalists: So many of the best settings are scored again, on networks of the deciding_seeds; without such seeds,
            none are.
    """

    experiment: str
    scale: str
    dataset: str
    seeds: tuple[int, ...]
    meta_seeds: tuple[int, ...]
    parts: tuple[Part, ...]
    meta_images: int
    per_class: int
    test_images: int
    tuning_seeds: tuple[int, ...]
    eps: float = 0.1
    attack_steps: int = 40
    family: tuple[str, ...] = FAMILY
    validation: tuple[str, ...] = VALIDATION
    unseen: tuple[str, ...] = UNSEEN
    victims: int = 6
    training: Training = field(default_factory=Training)
    elsewhere: Mapping[str, Sizes] = field(default_factory=dict)
    wide_grids: bool = True
    annealed: bool = False
    validated: bool = True
    finalists: int = 0
    deciding_seeds: tuple[int, ...] = ()


def from_dict(kind: Any, value: Any) -> Any:
    """A value of a type, out of what JSON made of it: dataclasses, in tuples and mappings, are made again."""
    if is_dataclass(kind):
        hints = get_type_hints(kind)
        return kind(**{name: from_dict(hints[name], each) for name, each in value.items()})
    if get_origin(kind) is tuple:
        return tuple(from_dict(get_args(kind)[0], each) for each in value)
    if isinstance(value, Mapping) and get_args(kind):
        return {name: from_dict(get_args(kind)[1], each) for name, each in value.items()}
    if get_origin(kind) is UnionType and value is not None:
        return from_dict(get_args(kind)[0], value)
    return value


def sizes(dataset: str, scale: str = "small") -> Sizes:
    """The sizes of a data set. A GPU attacks many images in the time that it takes for few."""
    if dataset == "digits":
        return Sizes(747, 40, 500)
    images = 2000 if scale == "full" else 500
    if dataset in ("mnist", "fashion-mnist"):
        return Sizes(20_000, 60, images, Training(500, 128, 0.01))
    # On photographs the steps that suit grey digits leave small networks dead, at one class in ten.
    return Sizes(20_000, 60, images, Training(1000, 128, 0.001), 8 / 255 if dataset == "cifar10" else 0.1)


def network_kind(network: str) -> str:
    """`dense` or `convolutional`: what baselines are tuned for, each by itself."""
    return "dense" if network.partition("-")[0] == "mlp" else "convolutional"


def slug(name: str) -> str:
    """A name as part of a file's name."""
    return re.sub(r"[^a-z0-9]+", "-", name.lower())


def check_data(spec: Spec, dataset: Dataset) -> None:
    """Finds out now, and not after hours of meta-training, whether a data set can be shared out.

    Raises:
        InputError: Where it has too few images, or those that are left for the models hold too few of a class.
    """
    most = max([spec.per_class, *(part.per_class or 0 for part in spec.parts if part.dataset is None)])
    need = spec.meta_images + dataset.classes * most
    name = f"data set {dataset.name!r}"
    if len(dataset.train) < need:
        other = "" if spec.scale == SCALES[0] else f"; --scale {SCALES[0]} needs fewer"
        raise InputError(
            f"{name} has {len(dataset.train)} training images; scale {spec.scale} needs {need}: give as many{other}"
        )
    counts = dataset.train.labels[spec.meta_images :].bincount(minlength=dataset.classes).tolist()
    if min(counts) < most:
        raise InputError(
            f"{name}: beside the first {spec.meta_images} training images there are {min(counts)} of class "
            f"{counts.index(min(counts))}; scale {spec.scale} needs {most}: add images of that class"
        )
