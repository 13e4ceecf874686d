"""The language of the ledger: numbers, + - * /, comparisons and named look-ups. Nothing else is understood.

    acc("patch-mnist-small", method="learned", model="mlp-*") - acc("patch-mnist-small", method="adam", model="mlp-*")

A look-up gives a number, or one for each of several labels, such as networks. Arithmetic and comparisons go label by
label; min, max, mean, count, all and any make one number of many. A comparison is 1 or 0.
"""

import ast
import inspect
import operator
from collections.abc import Callable, Mapping
from statistics import fmean
from typing import Any

from metarobust.errors import InputError, choose

Value = float | dict[str, float]
"""A number, or a number for each label."""

ARITHMETIC: dict[type, Callable[[float, float], float]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
}
COMPARISONS: dict[type, Callable[[float, float], bool]] = {
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
}


def numbers(*values: Value) -> list[float]:
    """All numbers of the values, in order."""
    return [x for value in values for x in (value.values() if isinstance(value, dict) else [value])]


def joined(*values: Value) -> list[float]:
    """The same for a function that needs at least one."""
    found = numbers(*values)
    if not found:
        raise InputError("there is nothing to take the least, largest or mean of")
    return found


REDUCTIONS: dict[str, Callable[..., Value]] = {
    "min": lambda *values: min(joined(*values)),
    "max": lambda *values: max(joined(*values)),
    "mean": lambda *values: fmean(joined(*values)),
    "count": lambda *values: float(sum(x != 0 for x in numbers(*values))),
    "all": lambda *values: float(all(joined(*values))),
    "any": lambda *values: float(any(joined(*values))),
}


def evaluate(text: str, lookups: Mapping[str, Callable[..., Value]]) -> Value:
    """The value of an expression. Raises InputError, in a line, for what it does not understand or cannot find."""
    try:
        tree = ast.parse(text.strip(), mode="eval")
    except SyntaxError as error:
        raise InputError(f"{text.strip()!r} cannot be read: {error.msg}; check brackets, quotes and commas") from None
    found = _value(tree.body, {**REDUCTIONS, **lookups})
    if isinstance(found, (str, list)):
        raise InputError(f"{text.strip()!r} is a word, not a number; use a look-up")
    return found


def _value(node: ast.expr, functions: Mapping[str, Callable[..., Value]]) -> Any:
    match node:
        case ast.Constant(value=bool()):
            raise InputError("True and False are no numbers; write a comparison")
        case ast.Constant(value=str() | int() | float() as value):
            return value
        case ast.List(elts=items):
            return [_value(item, functions) for item in items]
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            return _each(operator.sub, 0.0, _value(operand, functions))
        case ast.BinOp(left=left, op=op, right=right) if type(op) in ARITHMETIC:
            return _each(ARITHMETIC[type(op)], _value(left, functions), _value(right, functions))
        case ast.Compare(left=left, ops=ops, comparators=others) if all(type(op) in COMPARISONS for op in ops):
            values = [_value(one, functions) for one in (left, *others)]
            found: Value = 1.0
            for op, a, b in zip(ops, values, values[1:], strict=False):
                found = _each(operator.mul, found, _each(COMPARISONS[type(op)], a, b))
            return found
        case ast.Call(func=ast.Name(id=name), args=args, keywords=keywords) if all(k.arg for k in keywords):
            function = functions[choose(name, functions, "look-up")]
            given = [_value(arg, functions) for arg in args]
            named = {k.arg: _value(k.value, functions) for k in keywords}
            try:
                inspect.signature(function).bind(*given, **named)
            except TypeError as error:
                takes = ", ".join(inspect.signature(function).parameters)
                raise InputError(f"{name}(...): {error}; it takes {takes}") from None
            return function(*given, **named)
    raise InputError(f"{ast.unparse(node)!r} is not understood; use numbers, + - * /, comparisons and look-ups")


def _each(operation: Callable[[float, float], float], a: Value, b: Value) -> Value:
    """The operation on two numbers, or label by label."""
    for value in (a, b):
        if isinstance(value, (str, list)):
            raise InputError(f"{value!r} is no number; words and lists belong into the brackets of a look-up")
    if isinstance(a, dict) and isinstance(b, dict):
        if a.keys() != b.keys():
            raise InputError(f"the labels differ: {', '.join(a)} on one side and {', '.join(b)} on the other")
        return {label: _each(operation, a[label], b[label]) for label in a}
    if isinstance(a, dict):
        return {label: _each(operation, x, b) for label, x in a.items()}
    if isinstance(b, dict):
        return {label: _each(operation, a, x) for label, x in b.items()}
    try:
        return float(operation(a, b))
    except ZeroDivisionError:
        raise InputError(f"{a:g} / 0 has no value; check what is divided") from None
