"""What a comparison is made of, frozen: rules that learn, parts that each ask a question, and the whole with its seeds.

Which experiments there are, `metarobust.lab.catalogue` says.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from metarobust.errors import InputError
from metarobust.family import Training
from metarobust.meta import MetaTrainConfig

FAMILY = (
    *(f"mlp-{width}-{act}" for width in ("12", "24", "48", "24-24") for act in ("sigmoid", "relu", "tanh")),
    "cnn-4-8-relu",
    "cnn-4-8-tanh",
)
# All settings of ours were chosen with an eye on these three, and every baseline is tuned on them.
VALIDATION = ("mlp-20-sigmoid", "mlp-40-40-40-relu", "cnn-8-16-relu")
# Fixed before anything was measured on them: wider, deeper, with activations and channels that the family lacks.
UNSEEN = ("mlp-64-sigmoid", "mlp-128-relu", "mlp-36-36-softplus", "mlp-30-30-30-tanh", "cnn-6-12-elu")
# The same for the experiments that came later: no trial of ours and no earlier run has measured anything on these.
NEW = ("mlp-80-gelu", "mlp-56-56-relu", "mlp-24-24-24-24-softplus", "cnn-10-14-tanh", "resnet-6-1-relu")


@dataclass(frozen=True)
class OptimizerConfig:
    """A learned optimizer that is meta-trained and compared. name: as in the tables. kind: see `metarobust.learned`.

    begins: the name of a rule, earlier in the list, whose theta this one goes on from. source: the data set to learn
    on, where it is not the one that is measured on. family: the networks to learn on, where not all of the spec's.
    inner: where its gradients are taken, when it learns and when it is used; `clean`, `fgsm` or `pgd` images. meta:
    the attack of the meta-loss; `clean`, `fgsm` or `pgd`. shape: numbers of the kind that are not in theta.
    """

    name: str
    kind: str
    plan: MetaTrainConfig
    begins: str | None = None
    source: str | None = None
    family: tuple[str, ...] = ()
    inner: str = "clean"
    meta: str = "pgd"
    shape: Mapping[str, Any] = field(default_factory=dict)


ALL = 0
"""A Part's per_class for all images that are left, be the classes equal or not."""


@dataclass(frozen=True)
class Part:
    """One question. What is not said here is as the spec has it.

    trained: whether models are trained, and vulnerable, before the first step, or fresh. steps: of every method, tuned,
    learned or adversarial alike. meta_eps, attack_steps: of the adversarial meta-loss, and weight its share. These and
    the plans were settled by trials, none of them on UNSEEN. Baselines are tuned for the same weight.

    uses: rules of an earlier part, home, that are compared here as they are. methods: names of baselines, where not all
    are compared. robust: take them from `robust_methods`. unseen, dataset, per_class: instead of the spec's; with
    per_class ALL a model has every image that is left. marks: earlier steps at which accuracy is measured too.
    measures: `quick`, two PGDs at the spec's eps; `standard`, these and the standard ensemble, with checks; `attacks`,
    many attacks and radii; or `confined`, the two PGDs also on pixels that say something. gap: measure on the training
    images as well.
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
class Spec:
    """One scale of an experiment on one data set.

    meta_images: the first images, to meta-train and tune with; of the rest a model has per_class of each class to train
    or to be patched with. wide_grids: whether the baselines are tuned over all values of their hyperparameters.
    validated: whether meta-training keeps the theta that did best on validation networks, instead of the last.
    tuning_seeds: of the validation networks that every setting of a baseline is scored on. finalists: so many of the
    best are scored again, on networks of the deciding_seeds; without such seeds, none are.
    strong_seeds, strong_images: how many models of each network, and on how many test images, the best methods are
    measured once more with the standard ensemble, where a part does not measure all with it.
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
    wide_grids: bool = True
    validated: bool = True
    finalists: int = 0
    deciding_seeds: tuple[int, ...] = ()
    strong_seeds: int = 0
    strong_images: int = 300

    @property
    def most(self) -> int:
        """The largest number of images of a class that a model of any part has."""
        return max([self.per_class, *(part.per_class or 0 for part in self.parts)])

    def as_dict(self) -> dict:
        """As JSON: what the manifest stores, and what has to be equal in a resumed run."""
        # A run that scores once has no word of a second time, as its record was made before there was one.
        left_out = () if self.deciding_seeds else ("finalists", "deciding_seeds")
        return {key: value for key, value in asdict(self).items() if key not in left_out}


SCALES = ("smoke", "small", "full")


def sizes(dataset: str, scale: str = "small") -> dict[str, Any]:
    """The numbers of a spec that go with a data set: how its images are shared out, how its models are trained,
    and the radius of attacks, in pixel units. A GPU attacks many images in the time that it takes for few.
    """
    eps = 8 / 255 if dataset == "cifar10" else 0.1
    if dataset == "digits":
        return {"meta_images": 747, "per_class": 40, "test_images": 500, "training": Training(), "eps": eps}
    # On photographs the steps that suit grey digits leave small networks dead, at one class in ten.
    training = Training(500, 128, 0.01) if dataset in ("mnist", "fashion-mnist") else Training(1000, 128, 0.001)
    images = 2000 if scale == "full" else 500
    return {"meta_images": 20_000, "per_class": 60, "test_images": images, "training": training, "eps": eps}


def check_size(dataset: str, images: int, classes: int, spec: Spec, smallest: Spec) -> None:
    """Raises InputError where a data set is too small to be shared out. smallest: the spec of scale smoke."""
    need, least = (each.meta_images + classes * each.most for each in (spec, smallest))
    if images < need:
        remedy = f"take --scale smoke, which needs {least}" if least <= images else f"give at least {least}"
        raise InputError(
            f"data set {dataset!r} has {images} training images; scale {spec.scale} needs {need}: {remedy}"
        )


def check_classes(dataset: str, counts: Sequence[int], spec: Spec) -> None:
    """Raises InputError where the images that are left for the models hold too few of a class.

    counts: of each class, beside the `meta_images`. Found out here, and not after hours of meta-training.
    """
    if min(counts) < spec.most:
        raise InputError(
            f"data set {dataset!r}: beside the first {spec.meta_images} training images there are {min(counts)} of "
            f"class {counts.index(min(counts))}; scale {spec.scale} needs {spec.most}: add images of that class"
        )
