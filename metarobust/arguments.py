"""The arguments of the command line: what each command is given, and what is no number of its kind.

They are apart from what the commands do, so that both can be read in one sitting. Nothing slow is imported here.
"""

from __future__ import annotations

import argparse
import re
from fractions import Fraction
from pathlib import Path
from typing import NoReturn

from metarobust.errors import InputError

BOOK_RUN = Path("_build/runs/patch-digits-smoke")
"""Where `make book` leaves the run of its live chapter."""


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise InputError(f"{message} (see {self.prog} --help)")


def parser() -> argparse.ArgumentParser:
    """All commands with their arguments. It raises InputError for what they do not take, naming it and `--help`."""
    whole = _Parser(
        prog="metarobust",
        description="Learned optimizers that learn from adversarial mistakes: run and show the experiments.",
        allow_abbrev=False,
    )
    commands = whole.add_subparsers(dest="command", metavar="COMMAND", required=True)
    commands.add_parser("list", help="the experiments, data sets and learned optimizers", allow_abbrev=False)

    run = commands.add_parser("run", help="run an experiment", allow_abbrev=False)
    run.add_argument("name", metavar="NAME", help="an experiment, see `metarobust list`; or all, one after the other")
    run.add_argument("--scale", default="small", help="smoke (a minute), small or full; default: small")
    run.add_argument("--device", default="auto", help="auto, cpu or cuda; default: auto")
    run.add_argument(
        "--seed",
        dest="seeds",
        nargs="+",
        type=_seed,
        metavar="N",
        help="one or more whole numbers, 0 or more",
    )
    run.add_argument("--dataset", default="digits", help="see `metarobust list`; default: digits")
    run.add_argument(
        "--eps",
        type=_radius,
        metavar="R",
        help="radius of attacks, in pixel units, such as 8/255; default: by data set",
    )
    run.add_argument(
        "--data",
        metavar="ROOT",
        help="folder of the data sets; default: METAROBUST_DATA, else a cache folder",
    )
    run.add_argument(
        "--out", type=Path, metavar="DIR", help="default: runs/NAME-DATASET-SCALE; of all, the folder of these: runs"
    )
    run.add_argument(
        "--resume", action="store_true", help="go on with the run that is in the output folder; all always does"
    )

    show = commands.add_parser("show", help="print the table of a finished run", allow_abbrev=False)
    show.add_argument("folder", type=Path, metavar="DIR", help="the run's output folder")

    results = commands.add_parser(
        "results", help="list the recorded runs: age, device, commit, changes of the code since", allow_abbrev=False
    )
    results.add_argument("--json", action="store_true", help="the same and more, such as the changed files, as JSON")

    headline = commands.add_parser("headline", help="print the main result", allow_abbrev=False)
    headline.add_argument(
        "--from", dest="folder", type=Path, metavar="DIR", help=f"default: {BOOK_RUN}, else the recorded run"
    )

    export = commands.add_parser("export", help="write a learned optimizer out of a finished run", allow_abbrev=False)
    export.add_argument("folder", type=Path, metavar="DIR", help="the run's output folder")
    export.add_argument("part", metavar="PART", help="part of the run where it was measured: patch, train, ...")
    export.add_argument("--rule", default="learned", help="its name in the run's table; default: learned")
    export.add_argument("--out", type=Path, default=Path(), metavar="DIR", help="where to write; default: here")

    bench = commands.add_parser("bench", help="compare with other libraries", allow_abbrev=False)
    bench.add_argument("name", metavar="NAME", help="a comparison, see `metarobust list`")
    bench.add_argument("--quick", action="store_true", help="a tiny size, to see that it works")
    bench.add_argument("--out", type=Path, metavar="DIR", help="store the result there, in place of an older one")

    grade = commands.add_parser("grade", help="grade a student's notebook, or a folder of them", allow_abbrev=False)
    grade.add_argument("path", type=Path, metavar="PATH", help="a notebook, or with --csv a folder of them")
    grade.add_argument("--assignment", type=int, metavar="N", help="1 to 4; default: what the notebook says")
    grade.add_argument("--seed", type=_seed, metavar="N", help="of the hidden variants; default: drawn and kept")
    grade.add_argument("--json", action="store_true", help="print the whole result as JSON")
    grade.add_argument("--csv", action="store_true", help="grade a folder, and print its table")
    grade.add_argument("--out", type=Path, metavar="DIR", help="of a folder's results; default: PATH-graded beside it")
    grade.add_argument("--workers", type=int, metavar="N", help="submissions at a time; default: one for each core")
    grade.add_argument("--time-limit", type=float, default=900, metavar="S", help="of a submission; default: 900")
    grade.add_argument("--memory", type=float, default=4, metavar="GB", help="of a submission; default: 4")
    return whole


def _seed(text: str) -> int:
    if not re.fullmatch(r"[0-9]{1,9}", text):
        raise argparse.ArgumentTypeError(f"{text!r} is not a seed; give whole numbers from 0 to 999999999")
    return int(text)


def _radius(text: str) -> float:
    try:
        return float(Fraction(text))
    except (ValueError, ZeroDivisionError):
        raise argparse.ArgumentTypeError(f"{text!r} is no radius; give a number such as 0.1 or 8/255") from None
