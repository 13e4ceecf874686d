"""Answers to assignment 2: robust_accuracy, worst_case, report, diagnose."""

import math
from fractions import Fraction

import numpy as np
import torch
from scipy.stats import binomtest, norm

from metarobust.evaluation.intervals import wilson

from . import answers, in_double, slope


def right(model, x, y):
    with torch.no_grad():
        return model(x).argmax(1) == y


def share(mask):
    return mask.float().mean().item()


def stands(model, x, y, attack):
    return right(model, x, y) & right(model, attack(model, x, y), y)


def survivors(model, x, y, attack):
    left = torch.arange(len(x))[right(model, x, y)]
    found = torch.zeros(len(x), dtype=torch.bool)
    found[left] = right(model, attack(model, x[left], y[left]), y[left])
    return found


def in_batches(model, x, y, attack, size=4):
    return torch.cat([stands(model, x[i : i + size], y[i : i + size], attack) for i in range(0, len(x), size)])


def restored(measure, result=share):
    def robust_accuracy(model, x, y, attack):
        kept = model.training
        model.eval()
        try:
            return result(measure(model, x, y, attack))
        finally:
            model.train(kept)

    return robust_accuracy


def wrong_share(of):
    return restored(lambda m, x, y, attack: (right(m, x, y), right(m, attack(m, x, y), y)), lambda two: of(*two))


def asked_in_train_mode(model, x, y, attack):
    kept = model.training
    moved = attack(model.eval(), x, y)
    model.train(kept)
    return share(right(model, x, y) & right(model, moved, y))


NUMBERS = {
    "numpy_float": lambda mask: np.float32(mask.float().mean()),
    "fraction": lambda mask: Fraction(int(mask.sum()), len(mask)),
    "counted": lambda mask: mask.count_nonzero().item() / mask.numel(),
    "tensor": lambda mask: mask.double().mean(), "numpy_array": lambda mask: np.array(share(mask)),
    "sum_over_n": lambda mask: sum(mask.tolist()) / len(mask), "from_the_rest": lambda mask: 1 - share(~mask),
}  # fmt: skip
MEASURES = {
    "survivors": survivors,
    "mini_batches": in_batches,
    "image_by_image": lambda *given: in_batches(*given, size=1),
}
RIGHT = restored(stands)
ACCURACY = answers(
    2, "q1", plain=RIGHT, in_double=in_double(RIGHT), **{name: restored(one) for name, one in MEASURES.items()},
    **{name: restored(stands, one) for name, one in NUMBERS.items()},
    share__counts_what_the_attack_repairs=wrong_share(lambda before, after: share(after)),
    share__of_the_right_ones_only=wrong_share(lambda before, after: ((before & after).sum() / before.sum()).item()),
    share__product_of_two_accuracies=wrong_share(lambda before, after: share(before) * share(after)),
    share__lower_of_two_accuracies=wrong_share(lambda before, after: min(share(before), share(after))),
    share__errors_added_up=wrong_share(lambda before, after: 1 - share(~before) - share(~after)),
    share__of_what_is_not_turned=wrong_share(lambda before, after: share(before == after)),
    eval_mode__train_mode=lambda *given: share(stands(*given)),
    eval_mode__attacks_in_eval_mode_and_asks_in_train_mode=asked_in_train_mode,
    eval_mode__attacks_in_train_mode=lambda net, x, y, attack: (lambda moved: RIGHT(net, x, y, lambda *_:
        moved))(attack(net, x, y)), restored__left_in_eval_mode=lambda net, *given: (RIGHT(net, *given), net.eval())[0],
    restored__left_in_train_mode=lambda net, *given: (RIGHT(net, *given), net.train())[0],
)  # fmt: skip


def each(model, x, y, attacks):
    return torch.stack([stands(model, x, y, attack) for attack in attacks])


def those_that_stand(model, x, y, attacks):
    left = right(model, x, y).nonzero()[:, 0]
    for attack in attacks:
        left = left[right(model, attack(model, x[left], y[left]), y[left])]
    return len(left) / len(x)


def one_after_the_other(model, x, y, attacks):
    found, moved = right(model, x, y), x
    for attack in attacks:
        moved = attack(model, moved, y)
        found = found & right(model, moved, y)
    return share(found)


def worst(of):
    return lambda *given: of(each(*given))


WORST = answers(
    2, "q2", all=worst(lambda masks: share(masks.all(0))), those_that_stand=those_that_stand,
    by_sets=worst(lambda masks: 1 - len({int(i) for one in masks for i in (~one).nonzero()}) / masks.shape[1]),
    by_image=lambda net, x, y, attacks:
        np.mean([share(each(net, x[i:][:1], y[i:][:1], attacks).all(0)) for i in range(len(x))]),
    in_double=in_double(worst(lambda masks: share(masks.all(0)))),
    product=worst(lambda masks: masks.float().prod(0).mean()), lowest=worst(lambda masks: share(masks.amin(0))),
    numpy=worst(lambda masks: np.logical_and.reduce(masks.numpy()).mean()),
    fraction=worst(lambda masks: Fraction(int(masks.all(0).sum()), masks.shape[1])),
    none_falls=worst(lambda masks: 1 - share((~masks).any(0))),
    counted=worst(lambda masks: sum(n == len(masks) for n in masks.sum(0).tolist()) / masks.shape[1]),
    mini_batches=lambda net, x, y, attacks: share(torch.stack([in_batches(net, x, y, one) for one in attacks]).all(0)),
    each_image__lowest_of_the_accuracies=worst(lambda masks: min(map(share, masks))),
    each_image__mean_of_the_accuracies=worst(share),
    each_image__the_last_attack_only=worst(lambda masks: share(masks[-1])),
    each_image__the_first_attack_only=worst(lambda masks: share(masks[0])),
    each_image__the_first_three_only=worst(lambda masks: share(masks[:3].all(0))),
    each_image__stands_if_any_attack_fails=worst(lambda masks: share(masks.any(0))),
    each_image__median_of_the_accuracies=worst(lambda masks: float(np.median(masks.float().mean(1)))),
    clean__forgets_the_images_as_they_are=lambda net, x, y, attacks:
        share(torch.stack([right(net, attack(net, x, y), y) for attack in attacks]).all(0)),
    original__one_attack_after_the_other=one_after_the_other,
    each_image_and_clean_and_original__no_attack_at_all=lambda net, x, y, attacks: share(right(net, x, y)),
)  # fmt: skip


def figures(x_and_y, model, attack, measure=stands):
    x, y = x_and_y
    both = measure(model, x, y, attack)
    low, high = wilson(int(both.sum()), len(y))
    return {"clean": share(right(model, x, y)), "robust": share(both), "n": len(y), "low": low, "high": high}


def reported(change=dict, measure=stands):
    return lambda model, data, attack: change(figures(data["test"], model, attack, measure))


def typed(kind):
    return reported(lambda found: {name: kind(value) for name, value in found.items()})


def ends(low_and_high):
    def change(found):
        low, high = low_and_high(found["robust"], found["n"])
        return {**found, "low": low, "high": high}

    return reported(change)


def counted(p, n, z=1.96):
    k = round(p * n)
    half = z / (n + z**2) * math.sqrt(k * (n - k) / n + z**2 / 4)
    return (k + z**2 / 2) / (n + z**2) - half, (k + z**2 / 2) / (n + z**2) + half


REPORT = answers(
    2, "q3", plain=reported(), survivors=reported(measure=survivors), mini_batches=reported(measure=in_batches),
    numpy_floats=typed(np.float32), tensors=typed(torch.tensor), arrays=typed(np.array), floats=typed(float),
    numpy_n=reported(lambda found: {**found, "n": np.int64(found["n"])}), counted=ends(counted),
    exact_quantile=ends(lambda p, n: counted(p, n, norm.ppf(0.975))),
    with_more=reported(lambda found: {**found, "eps": 0.1}),
    scipy=ends(lambda p, n: binomtest(round(p * n), n).proportion_ci(0.95, method="wilson")),
    held_out__evaluated_on_the_training_set=lambda model, data, attack: figures(data["train"], model, attack),
    held_out__evaluated_on_all_there_is=lambda model, data, attack:
        figures([torch.cat([data[part][i] for part in ("train", "test")]) for i in (0, 1)], model, attack),
    clean__attacked_figure_as_the_clean_one=reported(lambda found: {**found, "clean": found["robust"]}),
    clean__clean_in_per_cent=reported(lambda found: {**found, "clean": 100 * found["clean"]}),
    robust__clean_figure_as_the_robust_one=lambda model, data, attack: figures(data["test"], model, lambda net, x, y:
        x),
    interval__normal_interval=ends(lambda p, n:
        (p - 1.96 * math.sqrt(p * (1 - p) / n), p + 1.96 * math.sqrt(p * (1 - p) / n))),
    interval__standard_deviation_for_an_interval=ends(lambda p, n:
        (p - math.sqrt(p * (1 - p)), p + math.sqrt(p * (1 - p)))),
    interval__ninety_per_cent=ends(lambda p, n: counted(p, n, 1.645)),
    interval__exact_binomial=ends(lambda p, n: binomtest(round(p * n), n).proportion_ci(0.95)),
    interval__no_interval=ends(lambda p, n: (p, p)),
    interval__around_the_clean_one=reported(lambda found:
        {**found, "low": wilson(round(found["clean"] * found["n"]), found["n"])[0]}),
)  # fmt: skip


def pieces(model, x, size=1):
    return torch.cat([model(x[i : i + size]) for i in range(0, len(x), size)])


def examined(without=(), honest_gap=30.0, order=("random", "batch", "probabilities", "saturated", "rounded"), times=2,
             flat=slope, gap=torch.median, apart=pieces, of=torch.Tensor.clone):  # fmt: skip
    def diagnose(model, x, y):
        with torch.no_grad():
            first, *more = (model(x) for _ in range(times))
            alone = apart(model, x)
        best = of(first).topk(2, dim=1).values
        wide = gap(best[:, 0] - best[:, 1])
        shown = {
            "random": not all(torch.allclose(first, one) for one in more),
            "batch": not torch.allclose(first, alone, rtol=1e-3, atol=1e-4),
            "probabilities": bool((first >= 0).all()) and torch.allclose(first.sum(1), torch.ones_like(first[:, 0])),
            "saturated": bool(wide > 30), "rounded": bool((flat(model, x, y) == 0).all()),
        }  # fmt: skip
        shown["batch"] = shown["batch"] and not shown["random"]
        found = [name for name in order if shown[name] and name not in without]
        return found[0] if found else "saturated" if wide > honest_gap else "honest"

    return diagnose


DIAGNOSE = answers(
    2, "q4", plain=examined(), in_double=in_double(examined()), asks_five_times=examined(times=5),
    batch_last=examined(order=("saturated", "random", "probabilities", "rounded", "batch")),
    probabilities_first=examined(order=("probabilities", "random", "batch", "saturated", "rounded")),
    once_more=examined(times=3), mean_gap=examined(gap=torch.mean), largest_gap=examined(gap=torch.max),
    in_pairs=examined(apart=lambda model, x: pieces(model, x, 2)),
    of_the_margin=examined(flat=lambda model, x, y: slope(model, x, y, lambda model, x, y:
        model(x).topk(2).values.diff().sum())),
    of_the_logits=examined(flat=lambda model, x, y: slope(model, x, y, lambda model, x, y: model(x)[:, 0].sum())),
    of_each_image=examined(flat=lambda model, x, y:
        torch.cat([slope(model, x[i:][:1], y[i:][:1]) for i in range(len(x))])),
    rounded__never_looks_at_the_gradient=examined(without=["rounded"]),
    saturated__blames_rounding_for_every_gradient_of_zero=examined(without=["saturated"]),
    saturated__gap_between_probabilities=examined(of=lambda z: z.softmax(1)),
    random__asks_only_once=examined(without=["random"]),
    probabilities__takes_probabilities_for_logits=examined(without=["probabilities"]),
    batch__never_asks_about_an_image_alone=examined(without=["batch"]),
    batch__asks_in_another_order=examined(apart=lambda model, x: model(x.flip(0)).flip(0)),
    honest__accuses_the_honest=examined(honest_gap=0.0),
    everything__name_of_the_class=lambda model, x, y: type(model).__name__,
    everything__what_is_printed=lambda model, x, y: repr(model), everything__says_honest=lambda model, x, y: "honest",
)  # fmt: skip

ANSWERS = [*ACCURACY, *WORST, *REPORT, *DIAGNOSE]
