"""The numbers of the experiments `patch` and `train`, frozen: what a scale means, and which networks are unseen."""

from dataclasses import asdict, dataclass, field, replace
from typing import Any

from metarobust.errors import InputError
from metarobust.experiments.table import JOINT, LEARNED
from metarobust.family import Training
from metarobust.meta import Plan

FAMILY = (
    *(f"mlp-{width}-{act}" for width in ("12", "24", "48", "24-24") for act in ("sigmoid", "relu", "tanh")),
    "cnn-4-8-relu",
    "cnn-4-8-tanh",
)
# All settings of ours were chosen with an eye on these three, and every baseline is tuned on them.
VALIDATION = ("mlp-20-sigmoid", "mlp-40-40-40-relu", "cnn-8-16-relu")
# Fixed before anything was measured on them: wider, deeper, with activations and channels that the family lacks.
UNSEEN = ("mlp-64-sigmoid", "mlp-128-relu", "mlp-36-36-softplus", "mlp-30-30-30-tanh", "cnn-6-12-elu")


# Names of learned optimizers, as in the tables. All begin alike, so that no rule without learning is taken for one.
FROM_DIGITS = "learned on digits"
STEERING = "learned steering"
LSTM = "learned LSTM"


@dataclass(frozen=True)
class Rule:
    """A learned optimizer that is meta-trained and compared. name: as in the tables. kind: see `metarobust.learned`.

    begins: the name of a rule, earlier in the list, whose theta this one goes on from. source: the data set to learn
    on, where it is not the one that is measured on.
    """

    name: str
    kind: str
    plan: Plan
    begins: str | None = None
    source: str | None = None


@dataclass(frozen=True)
class Part:
    """One question: `patch` starts from trained models, `train` from fresh ones.

    steps: of every method, tuned, learned or adversarial alike. meta_eps, attack_steps: of the adversarial meta-loss,
    and weight its share. These and the plans were settled by trials, none of them on UNSEEN.
    """

    name: str
    steps: int
    batch_size: int
    rules: tuple[Rule, ...]
    meta_eps: float = 0.12
    weight: float = 0.5
    attack_steps: int = 4


@dataclass(frozen=True)
class Spec:
    """One scale of an experiment on one data set.

    meta_images: the first images, to meta-train and tune with; of the rest a model has per_class of each class to train
    or to be patched with. wide_grids: whether the baselines are tuned over all values of their hyperparameters.
    validated: whether meta-training keeps the theta that did best on validation networks, instead of the last.
    strong_seeds, strong_images: how many models of each network, and on how many test images, the best methods are
    measured once more with the standard ensemble.
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
    strong_seeds: int = 0
    strong_images: int = 300

    def as_dict(self) -> dict:
        """As JSON: what the manifest stores, and what has to be equal in a resumed run."""
        return asdict(self)


SCALES = ("smoke", "small", "full")


def make(name: str, scale: str, dataset: str, seeds: tuple[int, ...] | None) -> Spec:
    """The numbers of experiment `patch` or `train` at a scale."""
    sizes: dict[str, Any] = {"meta_images": 20_000, "per_class": 60, "test_images": 500}
    if dataset == "digits":
        sizes = {"meta_images": 747, "per_class": 40, "test_images": 500}
    else:
        sizes["training"] = Training(500, 128, 0.01)
    if scale == "smoke":
        sizes["meta_images"] = min(sizes["meta_images"], 2000)  # a folder of somebody's own images is often no larger
        sizes |= {"validation": (VALIDATION[0], VALIDATION[2]), "unseen": (UNSEEN[0], UNSEEN[2], UNSEEN[4])}
        part = (patching if name == "patch" else training)(scale, dataset)
        quick = replace(part, rules=part.rules[:1])
        return Spec(
            name, scale, dataset, seeds or (0, 1, 2), (0,), (quick,), **sizes, tuning_seeds=(100,), attack_steps=20,
            wide_grids=False, validated=False,
        )  # fmt: skip
    part = (patching if name == "patch" else training)(scale, dataset)
    sizes["strong_seeds"] = 3
    return Spec(name, scale, dataset, seeds or tuple(range(10)), (0, 1, 2), (part,), **sizes, tuning_seeds=(100, 101))


def patching(scale: str, dataset: str) -> Part:
    """Twenty steps on trained models, by four kinds of learned optimizer."""
    size = {"groups": 4, "tasks": 4} if scale == "full" else {"groups": 2, "tasks": 2}
    times = {"smoke": 1, "small": 2, "full": 20}[scale]
    # Levers are few, so the exact gradient through the whole run is affordable; and noise has no other.
    whole = {"horizons": (20,), "truncation": 20, "middle": 0.0, "second_order": True}
    features = Plan(episodes=120 * times, validate_every=30 * times, **size)
    steering = Plan(episodes=75 * times, validate_every=15 * times, lr=0.02, **whole, **size)
    joint = Plan(episodes=50 * times, validate_every=10 * times, lr=6e-3, **whole, **size)
    lstm = Plan(episodes=40 * times, validate_every=10 * times, **size)
    far = (Rule(FROM_DIGITS, "features", features, source="digits"),) if dataset != "digits" else ()
    return Part(
        "patch", 20, 64, (
            Rule(LEARNED, "features", features),
            *far,
            Rule(STEERING, "steering", steering),
            Rule(JOINT, "joint", joint, begins=STEERING),
            Rule(LSTM, "lstm", lstm),
        ),
    )  # fmt: skip


def training(scale: str, dataset: str) -> Part:
    """A hundred steps from fresh parameters, by the two kinds of learned optimizer that patch best."""
    size = {"groups": 4, "tasks": 4} if scale == "full" else {"groups": 2, "tasks": 2}
    times = {"smoke": 1, "small": 2, "full": 20}[scale]
    features = Plan(episodes=50 * times, horizons=(50, 100), validate_every=10 * times, **size)
    whole = {"horizons": (100,), "truncation": 100, "second_order": True}
    steering = Plan(episodes=40 * times, validate_every=10 * times, lr=0.02, **whole, **size)
    return Part("train", 100, 64, (Rule(LEARNED, "features", features), Rule(STEERING, "steering", steering)))


def check_dataset(dataset: str, images: int, classes: int, spec: Spec) -> None:
    """Raises InputError where a data set is too small to be shared out."""
    need = spec.meta_images + classes * spec.per_class
    if images < need:
        small = make(spec.experiment, "smoke", dataset, None)
        least = small.meta_images + classes * small.per_class
        remedy = f"take --scale smoke, which needs {least}" if least <= images else f"give at least {least}"
        raise InputError(
            f"data set {dataset!r} has {images} training images; scale {spec.scale} needs {need}: {remedy}"
        )
