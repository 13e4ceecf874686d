"""Numbers for prose, taken out of the recorded results, so that no page says what was not measured.

`patch-mnist-small patch mlp-64-sigmoid learned robust` names a run that is shipped with the package, a part, a
network, a method and what is asked: `clean`, `robust`, or `spread`, the half-width of robust's 95 % interval over
seeds.
"""

from functools import cache
from pathlib import Path
from typing import Any

from metarobust.errors import InputError, choose
from metarobust.lab.results import load_results
from metarobust.lab.table import names, over, pick

FOLDER = Path(__file__).parent / "recorded"
ASKED = ("clean", "robust", "spread")


def available() -> list[str]:
    """The names of the runs that are shipped with the package."""
    return sorted(path.parent.name for path in FOLDER.glob("*/manifest.json"))


@cache
def recorded(name: str) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Manifest and rows of a recorded run. Raises InputError, listing what there is, for another name."""
    if not available():
        raise InputError(f"recorded run {name!r}: none is shipped with this installation; install the whole package")
    return load_results(FOLDER / choose(name, available(), "recorded run"))


def quote(words: str) -> str:
    """The number that `RUN PART NETWORK METHOD ASKED` names, in per cent with one decimal.

    A part and a method may be of several words. Raises InputError for anything that is not in the results.
    """
    each = words.split()
    if len(each) < 5:
        raise InputError(f"{words!r} names no number; give RUN PART NETWORK METHOD and one of {', '.join(ASKED)}")
    _, rows = recorded(each[0])
    networks = names(rows, "model")
    at = next((i for i, word in enumerate(each[2:-2], 2) if word in networks), 2)
    part, model, method, asked = " ".join(each[1:at]), each[at], " ".join(each[at + 1 : -1]), each[-1]
    choose(part, names(rows, "part"), "part")
    choose(model, networks, "network")
    choose(method, names(rows, "method"), "method")
    choose(asked, ASKED, "number")
    found = over(pick(rows, part, model, method), "clean accuracy" if asked == "clean" else "robust accuracy")
    return f"{100 * found[asked == 'spread']:.1f}"
