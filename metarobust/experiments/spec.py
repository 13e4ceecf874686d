"""The numbers of the transfer experiment, frozen: what a scale means, and which networks are known and unseen."""

from dataclasses import asdict, dataclass, field

from metarobust.errors import InputError
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


@dataclass(frozen=True)
class Part:
    """One question: `patch` starts from trained models, `train` from fresh ones.

    steps: of every method, tuned, learned or adversarial alike. meta_eps: the radius of the adversarial meta-loss, and
    weight its share. These and the plan were settled by some forty trials, none of them on UNSEEN.
    """

    name: str
    steps: int
    batch_size: int
    plan: Plan
    meta_eps: float
    weight: float
    attack_steps: int = 4


@dataclass(frozen=True)
class Spec:
    """One scale of the experiment on one data set.

    meta_images: the first images, to meta-train and tune with; of the rest a model has per_class of each class to train
    or to be patched with. wide_grids: whether the baselines are tuned over all values of their hyperparameters.
    """

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
    experiment: str = "transfer"

    def as_dict(self) -> dict:
        """As JSON: what the manifest stores, and what has to be equal in a resumed run."""
        return asdict(self)


def patching(episodes: int, **changes: int) -> Part:
    plan = Plan(episodes=episodes, horizons=(20,), truncation=10, **changes)
    return Part("patch", 20, 64, plan, meta_eps=0.12, weight=0.5)


def training(episodes: int, **changes: int) -> Part:
    plan = Plan(episodes=episodes, horizons=(50, 100), truncation=10, **changes)
    return Part("train", 100, 64, plan, meta_eps=0.12, weight=0.5)


def make(scale: str, dataset: str, seeds: tuple[int, ...] | None) -> Spec:
    """The numbers of a scale. Raises InputError for seeds that leave no spread to show."""
    if dataset == "digits":
        sizes = {"meta_images": 747, "per_class": 40, "test_images": 500}
    else:
        sizes = {
            "meta_images": 20_000,
            "per_class": 60,
            "test_images": 1000,
            "training": Training(500, 128, 0.01),
        }
    if scale == "smoke":
        sizes["meta_images"] = min(sizes["meta_images"], 2000)  # a folder of somebody's own images is often no larger
        return Spec(
            scale, dataset, seeds or (0, 1, 2), (0,), (patching(120),), **sizes,
            tuning_seeds=(100,), attack_steps=20, validation=(VALIDATION[0], VALIDATION[2]),
            unseen=(UNSEEN[0], UNSEEN[2], UNSEEN[4]), wide_grids=False,
        )  # fmt: skip
    if scale == "full":
        parts = (patching(2000, tasks=16), training(2000, tasks=16))
    elif dataset == "digits":
        parts = (patching(300), training(100))
    else:  # twelve times the pixels
        parts = (patching(120), training(100))
    return Spec(
        scale, dataset, seeds or tuple(range(10)), (0, 1, 2), parts, **sizes, tuning_seeds=(100, 101), attack_steps=40
    )


SCALES = ("smoke", "small", "full")


def check_dataset(dataset: str, images: int, classes: int, spec: Spec) -> None:
    """Raises InputError where a data set is too small to be shared out."""
    need = spec.meta_images + classes * spec.per_class
    if images < need:
        small = make("smoke", dataset, None)
        least = small.meta_images + classes * small.per_class
        remedy = f"take --scale smoke, which needs {least}" if least <= images else f"give at least {least}"
        raise InputError(
            f"data set {dataset!r} has {images} training images; scale {spec.scale} needs {need}: {remedy}"
        )
