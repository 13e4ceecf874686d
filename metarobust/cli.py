"""The command line: list, run, show, results, headline, export, bench, grade.

Bad input is one line on standard error and exit code 2; Ctrl-C is one line that says how to go on, and 130.
torch and the experiments are imported by the command that needs them, so that `--help` answers at once.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from metarobust.arguments import BOOK_RUN, parser
from metarobust.errors import InputError, choose

RECORDED = Path(__file__).parent / "lab" / "recorded"
RECORDED_RUN = RECORDED / "patch-digits-small"


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code: 0, 2 for bad input, 130 after Ctrl-C."""
    # Threads that wait by spinning bring a busy machine to a stand-still; torch reads this when it is imported.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    argv = sys.argv[1:] if argv is None else list(argv)
    command = None
    try:
        options = parser().parse_args(argv)
        command = options.command
        {
            "list": _list, "run": _run, "show": _show, "results": _results, "headline": _headline, "export": _export,
            "bench": _bench, "grade": _grade,
        }[command](options)  # fmt: skip
        sys.stdout.flush()
    except BrokenPipeError:  # the reader of our output, such as `head`, has had enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except (InputError, OSError) as error:
        print("metarobust: error:", " ".join(str(error).split()), file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        again = [*argv, *([] if "--resume" in argv else ["--resume"])]
        how = f"; go on with: metarobust {shlex.join(again)}" if command == "run" else ""
        if command == "grade":
            how = "; the same command goes on where it was stopped"
        print(f"\nmetarobust: interrupted{how}", file=sys.stderr)
        return 130
    return 0


def _list(options: argparse.Namespace) -> None:
    from metarobust import data, pretrained
    from metarobust.lab import EXPERIMENTS
    from metarobust.lab.bench import BENCHES

    print("experiments (metarobust run NAME)")
    for name, experiment in EXPERIMENTS.items():
        print(f"  {name:24}{experiment.SUMMARY} [{', '.join(experiment.SCALES)}]")
    print("comparisons with other libraries (metarobust bench NAME)")
    for name, bench in BENCHES.items():
        print(f"  {name:24}{bench.summary}")
    print("learned optimizers (metarobust.patch(model, images, labels, optimizer=NAME))")
    for name, summary in pretrained.summaries().items():
        print(f"  {name:24}{summary}")
    print("data sets (--dataset NAME)")
    for name, summary in data.SUMMARIES.items():
        print(f"  {name:24}{summary}")
    print(f"data folder: {data.default_root()} (change with --data or METAROBUST_DATA)")


def _run(options: argparse.Namespace) -> None:
    from metarobust.lab import EXPERIMENTS
    from metarobust.lab.running import run
    from metarobust.lab.suite import ALL, run_all

    if options.name == ALL:
        if options.eps is not None:
            raise InputError("run all takes the radius of each data set; give --eps to one experiment at a time")
        run_all(
            scale=options.scale,
            dataset=options.dataset,
            seeds=options.seeds,
            device=options.device,
            data_root=options.data,
            out=options.out or Path("runs"),
            say=lambda line: print(line, flush=True),
        )
        return
    out, _, rows = run(
        options.name,
        scale=options.scale,
        dataset=options.dataset,
        seeds=options.seeds,
        eps=options.eps,
        device=options.device,
        data_root=options.data,
        out=options.out,
        resume=options.resume,
    )
    print(EXPERIMENTS[options.name].table(rows))
    print(f"results: {out / 'results.csv'}")


def _show(options: argparse.Namespace) -> None:
    print(_describe(options.folder))


def _results(options: argparse.Namespace) -> None:
    from metarobust.lab.provenance import facts, listing

    found = facts(RECORDED)
    print(json.dumps(found, indent=1) if options.json else listing(found))


def _headline(options: argparse.Namespace) -> None:
    folder = options.folder or next((path for path in (BOOK_RUN, RECORDED_RUN) if path.exists()), None)
    if folder is None:
        raise InputError(f"there is no run in {BOOK_RUN}, and none is recorded here; type make book, or give --from")
    what = "the run recorded with the package" if folder == RECORDED_RUN else f"the run in {folder}"
    text = _describe(folder, brief=True)
    print(f"Headline, from {what}:\n{text}")


def _export(options: argparse.Namespace) -> None:
    from metarobust.lab.cards import export

    print(export(options.folder, options.part, options.out, rule=options.rule))


def _bench(options: argparse.Namespace) -> None:
    from metarobust.lab.bench import BENCHES

    bench = BENCHES[choose(options.name, BENCHES, "comparison")]
    print(bench.run(out=options.out, quick=options.quick))


def _grade(options: argparse.Namespace) -> None:
    from metarobust.course.classroom import class_table
    from metarobust.course.grade import grade_file
    from metarobust.course.run import Limits

    limits = Limits(options.time_limit, int(options.memory * 1e9))
    if options.csv == options.path.is_file():
        raise InputError(f"{options.path}: give a notebook, or a folder together with --csv")
    misplaced = options.json if options.csv else options.out or options.workers
    if misplaced:
        raise InputError("--json is for one notebook, --out and --workers are for a folder, with --csv")
    if options.csv:
        out = options.out or options.path.with_name(f"{options.path.resolve().name}-graded")
        text = class_table(options.path, out, options.assignment, options.seed, options.workers, limits)
        sys.stdout.write(text)
        return
    result = grade_file(options.path, options.assignment, options.seed, limits)
    print(json.dumps(result.as_json(), indent=1) if options.json else result.text())


def _describe(folder: Path, brief: bool = False) -> str:
    """What was run, and its table. Raises InputError as `load_results` does."""
    from metarobust.lab import EXPERIMENTS
    from metarobust.lab.results import load_results

    manifest, rows = load_results(folder)
    spec = manifest["spec"]
    experiment = EXPERIMENTS[choose(spec["experiment"], EXPERIMENTS, "experiment")]
    seeds = " ".join(map(str, spec["seeds"]))
    return (
        f"{spec['experiment']} on {spec['dataset']}, scale {spec['scale']}, seeds {seeds}; "
        f"{manifest['wall_seconds']:.0f} s on {manifest['device']['name']}\n"
        + (experiment.brief(rows) if brief else experiment.table(rows))
    )
