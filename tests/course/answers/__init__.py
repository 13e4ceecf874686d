"""Right and wrong answers to the questions of the assignments, in the styles and with the mistakes of students."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch.nn import functional as F
from torch.utils._pytree import tree_map_only

from metarobust import course


class Answer(NamedTuple):
    """number, question: where. loses: the properties, none where it is right. name: of what it does."""

    number: int
    question: str
    loses: frozenset[str]
    name: str
    function: Callable[..., Any]


def answers(number: int, question: str, **functions: Callable[..., Any]) -> list[Answer]:
    """Functions by what they do; in front of it, where they are wrong, `range__` or `mixed_and_repeats__`."""
    every = [p.name for p in course.assignment(number).question(question).properties]
    spelt = {name.replace(" ", "_").replace("-", "_"): name for name in every}
    found = []
    for name, function in functions.items():
        properties, _, words = name.rpartition("__")
        wrong = every if properties == "everything" else [spelt[one] for one in properties.split("_and_") if one]
        found.append(Answer(number, question, frozenset(wrong), words.replace("_", " "), function))
    return found


def in_double(function):
    """The same in double precision."""
    double = functools.partial(tree_map_only, torch.Tensor, lambda t: t.double() if t.is_floating_point() else t)
    return lambda *given: function(*double(given))


def cross_entropy(model, x, y):
    return F.cross_entropy(model(x), y, reduction="sum")


def slope(model, x, y, loss=cross_entropy):
    leaf = x.detach().clone().requires_grad_()
    return torch.autograd.grad(loss(model, leaf, y), leaf)[0]
