"""The command line: list, run, show, results, headline, export, bench, grade.

Bad input is one line on standard error and exit code 2; Ctrl-C or SIGTERM is one line that says how to go on, and 130.
What a command needs is imported when it is typed, so that `--help` answers at once.
"""

import argparse
import json
import os
import re
import shlex
import signal
import sys
import threading
from collections.abc import Sequence
from fractions import Fraction
from importlib import import_module
from pathlib import Path
from pkgutil import resolve_name as load
from typing import Any, NoReturn

from metarobust.errors import InputError, choose

RECORDED = Path(__file__).parent / "lab" / "recorded"
RECORDED_RUN = RECORDED / "patch-digits-small"
BOOK_RUN = Path("_build/runs/patch-digits-smoke")
"""Where `make book` leaves the run of its live chapter."""
EXPERIMENTS, BENCHES = "metarobust.lab.experiments:EXPERIMENTS", "metarobust.lab.bench:BENCHES"
"""Where `load` finds them."""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command and returns its exit code: 0, 2 for bad input, 130 after Ctrl-C or SIGTERM."""
    # Threads that wait by spinning bring a busy machine to a stand-still; torch reads this when it is imported.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    argv = sys.argv[1:] if argv is None else list(argv)
    command, alone = None, threading.current_thread() is threading.main_thread()
    before = signal.signal(signal.SIGTERM, signal.default_int_handler) if alone else None
    try:
        options = parser().parse_args(argv)
        command = options.command
        options.function(options)
        sys.stdout.flush()
    except BrokenPipeError:  # the reader of our output, such as `head`, has had enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except (InputError, OSError) as error:
        print("metarobust: error:", " ".join(str(error).split()), file=sys.stderr)
        return 2
    except (MemoryError, RuntimeError) as error:
        if not isinstance(error, MemoryError) and not re.search(r"out of memory|can't allocate memory", str(error)):
            raise
        print("metarobust: error: out of memory; give fewer --workers or a smaller --scale", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        again = shlex.join([*argv, *([] if "--resume" in argv else ["--resume"])])
        remedies = {
            "run": f"; go on with: metarobust {again}",
            "grade": "; the same command goes on where it was stopped",
        }
        print(f"\nmetarobust: interrupted{remedies.get(command or '', '')}", file=sys.stderr)
        return 130
    finally:
        if alone:
            signal.signal(signal.SIGTERM, before)
    return 0


def list_all(options: argparse.Namespace) -> None:
    """Experiments, comparisons with other libraries, learned optimizers and data sets, a line each."""
    data, experiments = import_module("metarobust.data"), load(EXPERIMENTS).items()
    benches, pretrained = load(BENCHES).items(), import_module("metarobust.pretrained")
    for title, summaries in {
        "experiments (metarobust run NAME)": {n: f"{e.SUMMARY} [{', '.join(e.SCALES)}]" for n, e in experiments},
        "comparisons with other libraries (metarobust bench NAME)": {n: b.summary for n, b in benches},
        "learned optimizers (metarobust.patch(model, images, labels, optimizer=NAME))": pretrained.summaries(),
        "data sets (--dataset NAME)": data.SUMMARIES,
    }.items():
        print("\n".join([title, *(f"  {name:24}{summary}" for name, summary in summaries.items())]))
    print(f"data folder: {data.default_root()} (change with --data or METAROBUST_DATA)")


def run(options: argparse.Namespace) -> None:
    """Runs an experiment and prints its table, or runs all of them."""
    running = import_module("metarobust.lab.running")
    names = ("scale", "dataset", "seeds", "device", "data_root", "workers", "cluster")
    given = {name: getattr(options, name) for name in names}
    if options.name == "all":
        if options.eps is not None:
            raise InputError("run all takes the radius of each data set; give --eps to one experiment at a time")
        running.run_all(out=options.out or Path("runs"), **given)
        return
    out, _, frame = running.run(options.name, eps=options.eps, out=options.out, resume=options.resume, **given)
    print(load(EXPERIMENTS)[options.name].table(frame))
    print(f"results: {out / 'results.csv'}")


def show(options: argparse.Namespace) -> None:
    """Prints the table of a finished run."""
    print(describe(options.folder))


def results(options: argparse.Namespace) -> None:
    """Lists the recorded runs."""
    provenance = import_module("metarobust.lab.provenance")
    facts = provenance.facts(RECORDED)
    print(json.dumps(facts, indent=1) if options.json else provenance.listing(facts))


def headline(options: argparse.Namespace) -> None:
    """Prints the main result."""
    folder = options.folder or next((path for path in (BOOK_RUN, RECORDED_RUN) if path.exists()), None)
    if folder is None:
        raise InputError(f"there is no run in {BOOK_RUN}, and none is recorded here; type make book, or give --from")
    source = "the run recorded with the package" if folder == RECORDED_RUN else f"the run in {folder}"
    print(f"Headline, from {source}:\n{describe(folder, brief=True)}")


def export(options: argparse.Namespace) -> None:
    """Writes a learned optimizer out of a finished run."""
    print(load("metarobust.lab.cards:export")(options.folder, options.part, options.out, rule=options.rule))


def bench(options: argparse.Namespace) -> None:
    """Compares with other libraries."""
    benches = load(BENCHES)
    print(benches[choose(options.name, benches, "comparison")].run(out=options.out, quick=options.quick))


def grade(options: argparse.Namespace) -> None:
    """Grades a student's notebook, or a folder of them."""
    if options.csv == options.path.is_file():
        raise InputError(f"{options.path}: give a notebook, or a folder together with --csv")
    if options.json if options.csv else options.out or options.workers or options.retry:
        raise InputError("--json is for one notebook, --out, --workers and --retry are for a folder, with --csv")
    sandbox = load("metarobust.course.sandbox:Sandbox")(options.time_limit, int(options.memory * 1e9), options.trust)
    given = {"number": options.assignment, "seed": options.seed, "sandbox": sandbox}
    if options.csv:
        out = options.out or options.path.with_name(f"{options.path.resolve().name}-graded")
        class_table = load("metarobust.course.classroom:class_table")
        print(class_table(options.path, out, workers=options.workers, retry=options.retry, **given), end="")
    else:
        print(load("metarobust.course.grade:grade_file")(options.path, **given).text(options.json))


def describe(folder: Path, brief: bool = False) -> str:
    """What was run, and its table. Raises InputError where the folder holds no finished run."""
    results, known = import_module("metarobust.lab.results"), load(EXPERIMENTS)
    manifest, frame = results.load(folder)
    with results.sound(folder / "manifest.json"):
        spec, took, where = manifest["spec"], f"{manifest['wall_seconds']:.0f} s", manifest["device"]["name"]
        experiment = known[choose(spec["experiment"], known, "experiment")]
        seeds = " ".join(map(str, spec["seeds"]))
        head = f"{spec['experiment']} on {spec['dataset']}, scale {spec['scale']}, seeds {seeds}; {took} on {where}"
    return f"{head}\n{experiment.brief(frame) if brief else experiment.table(frame)}"


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

    def command(name: str, function: Any, summary: str) -> Any:
        added = commands.add_parser(name, help=summary, allow_abbrev=False)
        added.set_defaults(function=function)
        return added.add_argument

    command("list", list_all, "the experiments, data sets and learned optimizers")

    add = command("run", run, "run an experiment")
    add("name", metavar="NAME", help="an experiment, see `metarobust list`; or all, one after the other")
    add("--scale", default="small", help="smoke (a minute), small or full; default: small")
    add("--device", default="auto", help="auto, cpu or cuda; default: auto")
    add("--seed", dest="seeds", nargs="+", type=_seed, metavar="N", help="one or more whole numbers, 0 or more")
    add("--dataset", default="digits", help="see `metarobust list`; default: digits")
    add("--eps", type=_radius, metavar="R", help="radius of attacks, such as 8/255; default: by data set")
    add("--data", dest="data_root", metavar="ROOT", help="folder of data sets; default: METAROBUST_DATA, or a cache")
    add("--out", type=Path, metavar="DIR", help="default: runs/NAME-DATASET-SCALE; of all, the folder of these: runs")
    add("--resume", action="store_true", help="go on with the run that is in the output folder; all always does")
    add("--workers", type=int, default=1, metavar="N", help="processes that compute, one thread each; default: 1")
    add("--cluster", default="", metavar="ADDRESS", help="a Dask scheduler whose workers compute instead")

    add = command("show", show, "print the table of a finished run")
    add("folder", type=Path, metavar="DIR", help="the run's output folder")

    add = command("results", results, "list the recorded runs: age, device, commit, changes of the code since")
    add("--json", action="store_true", help="the same and more as JSON")

    add = command("headline", headline, "print the main result")
    add("--from", dest="folder", type=Path, metavar="DIR", help=f"default: {BOOK_RUN}, else the recorded run")

    add = command("export", export, "write a learned optimizer out of a finished run")
    add("folder", type=Path, metavar="DIR", help="the run's output folder")
    add("part", metavar="PART", help="part of the run where it was measured: patch, train, ...")
    add("--rule", default="learned", help="its name in the run's table; default: learned")
    add("--out", type=Path, default=Path(), metavar="DIR", help="where to write; default: here")

    add = command("bench", bench, "compare with other libraries")
    add("name", metavar="NAME", help="a comparison, see `metarobust list`")
    add("--quick", action="store_true", help="a tiny size, to see that it works")
    add("--out", type=Path, metavar="DIR", help="store the result there, in place of an older one")

    add = command("grade", grade, "grade a student's notebook, or a folder of them")
    add("path", type=Path, metavar="PATH", help="a notebook, or with --csv a folder of them")
    add("--assignment", type=int, metavar="N", help="1 to 4; default: what the notebook says")
    add("--seed", type=_seed, metavar="N", help="of the hidden variants; default: drawn and kept")
    add("--json", action="store_true", help="print the whole result as JSON")
    add("--csv", action="store_true", help="grade a folder, and print its table")
    add("--out", type=Path, metavar="DIR", help="of a folder's results; default: PATH-graded beside it")
    add("--workers", type=int, metavar="N", help="submissions at a time; default: one for each core")
    add("--retry", type=Path, action="append", default=[], metavar="FILE", help="grade this again, though unchanged")
    add("--trust", action="store_true", help="run submissions without walls, where bubblewrap is missing")
    add("--time-limit", type=float, default=900, metavar="S", help="of a submission; default: 900")
    add("--memory", type=float, default=4, metavar="GB", help="of a submission; default: 4")
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
