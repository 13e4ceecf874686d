"""What the result hangs on: one thing at a time is taken away from the feature optimizer, or done another way."""

from dataclasses import replace

from metarobust.lab.results import LEARNED
from metarobust.lab.spec import NEW, OptimizerConfig, Part
from metarobust.meta import MetaTrainConfig


def ablation(scale: str, dataset: str) -> tuple[Part, ...]:
    """Variants of the rule and of its meta-training, all with the same number of episodes."""
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
    names = ("adam", "std-prune", "falling noise + last-layer decay", "PGD-7 training")
    return (Part("patch", 20, 64, tuple(rules), methods=names, unseen=(NEW[0], NEW[1], NEW[3])),)
