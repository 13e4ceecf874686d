"""Wrong answers to assignment 2: robust_accuracy, worst_case, report, diagnose."""

import math

import torch
from torch.nn import functional as F

from metarobust.evaluation.intervals import wilson

from . import wrong


def right(model, x, y):
    with torch.no_grad():
        return model(x).argmax(1) == y


def share(mask):
    return mask.float().mean().item()


def measured(model, x, y, attack):
    kept = model.training
    model.eval()
    before, after = right(model, x, y), right(model, attack(model, x, y), y)
    model.train(kept)
    return before, after


def counts_what_the_attack_repairs(model, x, y, attack):
    return share(measured(model, x, y, attack)[1])


def of_the_right_ones_only(model, x, y, attack):
    before, after = measured(model, x, y, attack)
    return (before & after).sum().item() / before.sum().item()


def product_of_two_accuracies(model, x, y, attack):
    before, after = measured(model, x, y, attack)
    return share(before) * share(after)


def train_mode(model, x, y, attack):
    return share(right(model, x, y) & right(model, attack(model, x, y), y))


def attacks_in_train_mode(model, x, y, attack):
    moved, kept = attack(model, x, y), model.training
    model.eval()
    found = share(right(model, x, y) & right(model, moved, y))
    model.train(kept)
    return found


def left_in_eval_mode(model, x, y, attack):
    model.eval()
    return share(right(model, x, y) & right(model, attack(model, x, y), y))


ACCURACY = wrong(
    2, "q1", share=[counts_what_the_attack_repairs, of_the_right_ones_only, product_of_two_accuracies],
    eval_mode=[train_mode, attacks_in_train_mode], restored=[left_in_eval_mode],
)  # fmt: skip


def each_attack(model, x, y, attacks):
    return [right(model, x, y) & right(model, attack(model, x, y), y) for attack in attacks]


def lowest_of_the_accuracies(model, x, y, attacks):
    return min(map(share, each_attack(model, x, y, attacks)))


def mean_of_the_accuracies(model, x, y, attacks):
    return sum(map(share, each_attack(model, x, y, attacks))) / len(attacks)


def the_last_attack_only(model, x, y, attacks):
    return share(each_attack(model, x, y, attacks)[-1])


def stands_if_any_attack_fails(model, x, y, attacks):
    return share(torch.stack(each_attack(model, x, y, attacks)).any(0))


def forgets_the_images_as_they_are(model, x, y, attacks):
    return share(torch.stack([right(model, attack(model, x, y), y) for attack in attacks]).all(0))


def one_attack_after_the_other(model, x, y, attacks):
    found, moved = right(model, x, y), x
    for attack in attacks:
        moved = attack(model, moved, y)
        found = found & right(model, moved, y)
    return share(found)


WORST = wrong(
    2, "q2",
    each_image=[
        lowest_of_the_accuracies, mean_of_the_accuracies, the_last_attack_only, stands_if_any_attack_fails
    ],
    clean=[forgets_the_images_as_they_are], original=[one_attack_after_the_other],
)  # fmt: skip


def figures(model, x, y, attack):
    before, after = measured(model, x, y, attack)
    n, both = len(y), before & after
    low, high = wilson(int(both.sum()), n)
    return {"clean": share(before), "robust": share(both), "n": n, "low": low, "high": high}


def evaluated_on_the_training_set(model, data, attack):
    return figures(model, *data["train"], attack)


def evaluated_on_all_there_is(model, data, attack):
    x, y = (torch.cat([data[part][i] for part in ("train", "test")]) for i in (0, 1))
    return figures(model, x, y, attack)


def attacked_figure_as_the_clean_one(model, data, attack):
    found = figures(model, *data["test"], attack)
    return {**found, "clean": found["robust"]}


def clean_figure_as_the_robust_one(model, data, attack):
    found = figures(model, *data["test"], attack)
    low, high = wilson(round(found["clean"] * found["n"]), found["n"])
    return {**found, "robust": found["clean"], "low": low, "high": high}


def with_a_half(data, model, attack, half):
    found = figures(model, *data["test"], attack)
    p, n = found["robust"], found["n"]
    return {**found, "low": p - half(p, n), "high": p + half(p, n)}


def normal_interval(model, data, attack):
    return with_a_half(data, model, attack, lambda p, n: 1.96 * math.sqrt(p * (1 - p) / n))


def standard_deviation_for_an_interval(model, data, attack):
    return with_a_half(data, model, attack, lambda p, n: math.sqrt(p * (1 - p)))


REPORT = wrong(
    2, "q3", held_out=[evaluated_on_the_training_set, evaluated_on_all_there_is],
    clean=[attacked_figure_as_the_clean_one], robust=[clean_figure_as_the_robust_one],
    interval=[normal_interval, standard_deviation_for_an_interval],
)  # fmt: skip


def examined(model, x, y, *, without=(), honest_gap=30.0):
    with torch.no_grad():
        first, second = model(x), model(x)
        alone = torch.cat([model(x[i : i + 1]) for i in range(len(x))])
    best = first.topk(2, dim=1).values
    leaf = x.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(F.cross_entropy(model(leaf), y, reduction="sum"), leaf)
    symptoms = {
        "random": not torch.allclose(first, second),
        "batch": torch.allclose(first, second) and not torch.allclose(first, alone, rtol=1e-3, atol=1e-4),
        "probabilities": bool((first >= 0).all()) and torch.allclose(first.sum(1), torch.ones(len(x))),
        "saturated": bool((best[:, 0] - best[:, 1]).median() > 30),
        "rounded": bool((gradient == 0).all()),
    }
    found = [name for name, shown in symptoms.items() if shown and name not in without]
    if not found and bool((best[:, 0] - best[:, 1]).median() > honest_gap):
        return "saturated"
    return found[0] if found else "honest"


def blames_rounding_for_every_gradient_of_zero(model, x, y):
    return examined(model, x, y, without=["saturated"])


def never_looks_at_the_gradient(model, x, y):
    return examined(model, x, y, without=["rounded"])


def asks_only_once(model, x, y):
    return examined(model, x, y, without=["random"])


def takes_probabilities_for_logits(model, x, y):
    return examined(model, x, y, without=["probabilities"])


def never_asks_about_an_image_alone(model, x, y):
    return examined(model, x, y, without=["batch"])


def accuses_the_honest(model, x, y):
    return examined(model, x, y, honest_gap=0.0)


DIAGNOSE = wrong(
    2, "q4", rounded=[never_looks_at_the_gradient], saturated=[blames_rounding_for_every_gradient_of_zero],
    random=[asks_only_once], probabilities=[takes_probabilities_for_logits],
    batch=[never_asks_about_an_image_alone], honest=[accuses_the_honest],
)  # fmt: skip

WRONG = [*ACCURACY, *WORST, *REPORT, *DIAGNOSE]
