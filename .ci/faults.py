"""Injects faults into runs at random moments, and writes what held, as a table in Markdown.

    python .ci/faults.py --tries 50 --out book/_static/faults.md

After each fault every file must be whole, the message must say what to do, and the run that goes on must end with the
bytes of one that was left alone. Runs are forked off this process, which has loaded everything: a fault comes in the
work and not while PyTorch is loaded. The experiment and the grading are small stand-ins; what stores, resumes and
answers is the real thing.
"""

# ruff: noqa: E402 — the environment is set before PyTorch is loaded

from __future__ import annotations

import argparse
import contextlib
import io
import math
import os
import random
import resource
import shutil
import signal
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

os.environ |= {"TQDM_DISABLE": "1", "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests"), str(ROOT / "tests" / "lab")]
os.environ["PYTHONPATH"] = os.pathsep.join(sys.path[:3])  # of workers

import fake_experiment
import pytest
import torch
from toy import ADVERSARIAL, generator, tasks
from tqdm.auto import tqdm

from metarobust import MetaOptimizer, evaluate, patch
from metarobust.cli import main
from metarobust.course import classroom
from metarobust.course.grade import Result
from metarobust.data import Split, load
from metarobust.errors import InputError
from metarobust.family import Family
from metarobust.lab import run_folder
from metarobust.learned.mlp import FeatureMLP
from metarobust.meta import MetaTrainConfig, MetaTrainer, Validation, hold_out
from metarobust.models import build
from metarobust.objectives import clean
from metarobust.storage import TEMPORARY, load_tensors, read_json, save_tensors, sha256, write_atomic

POOL = tasks(3, each=20, shape=(1, 2, 2), dtype=torch.float32)
FAMILIES = [Family([name], Split(POOL.images, POOL.labels), 3, 20) for name in ("mlp-3-tanh", "mlp-2-relu")]
PLAN = MetaTrainConfig(8, (2, 4), 2, tasks=1, batch_size=8, held_out=8, lr=0.05, validate_every=3)


def meta_training(here: Path, plan: MetaTrainConfig = PLAN) -> int:
    """Goes on from the last checkpoint in the folder, and writes theta there in the end."""
    path, optimizer = here / "theta.safetensors", FeatureMLP(hidden=4, generator=generator())
    held_out = Validation(hold_out(FAMILIES[1].sample, 1, 1), clean, 2, 64, 8, eps=0.1, steps=2)
    how = {"inner": clean, "meta": ADVERSARIAL, "seed": 0, "validate": held_out}
    trainer = MetaTrainer(optimizer, FAMILIES[0].sample, plan, **how)
    if path.exists():
        tensors, about = load_tensors(path)
        trainer.load_state_dict(tensors, about["log"])
    for _ in trainer.episodes():
        save_tensors(path, trainer.state_dict(), {"log": trainer.log})
    theta = torch.nn.utils.parameters_to_vector(optimizer.parameters())
    write_atomic(here / "end", theta.detach().numpy().tobytes())
    return 0


def experiment(here: Path, *more: str) -> int:
    return main(["run", "fake", "--scale", "smoke", "--seed", "0", "1", "--resume", "--out", str(here), *more])


def grading(here: Path) -> int:
    handed_in = here.with_name("handed-in")
    return main(["grade", str(handed_in), "--csv", "--trust", "--seed", "5", "--workers", "2", "--out", str(here)])


def graded(path: Path, number: Any, seed: int, *_: Any) -> Result:
    """In place of running a notebook."""
    time.sleep(0.02)
    return Result(path.name, sha256(path.read_bytes()), seed, 1)


class Work(NamedTuple):
    """go: to the end. end: the file that says what came out. remedy: the word for what to do after a stop."""

    go: Callable[..., int]
    end: str
    remedy: str


WORK = {
    "meta-training": Work(meta_training, "end", ""),
    "experiment": Work(experiment, "results.csv", "go on with"),
    "grading": Work(grading, "grades.csv", "goes on where"),
}


HEARD: dict[Path, list[int]] = {}
"""For the folder of each run the ends of pipes, where what is printed arrives: a file would meet the full disk, too."""


def begin(work: Work, here: Path, before: Callable[[], Any] = lambda: None, *more: str) -> int:
    """Starts the work in a process of its own. before: what happens in it first."""
    heard, told = os.pipe()
    os.set_blocking(heard, False)
    HEARD.setdefault(here, []).append(heard)
    pid = os.fork()
    if not pid:
        code = 1
        try:
            os.dup2(told, 1)
            os.dup2(told, 2)
            before()
            code = work.go(here, *more)
        except InputError as error:
            print(error, file=sys.stderr)
            code = 2
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            os._exit(code)
    os.close(told)
    return pid


def ended(pid: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def said(here: Path) -> str:
    """What the last process in a folder printed, once it has ended; asked once."""
    with open(HEARD[here].pop(), "rb", buffering=0) as pipe:
        return (pipe.read(2**16) or b"").decode()


class Faults:
    """The faults, each a method that says what went wrong, or nothing where all held."""

    def __init__(self, place: Path, seed: int):
        self.place, self.chance, self.number = place, random.Random(seed), 0
        self.ends: dict[str, bytes] = {}
        self.lasts: dict[str, float] = {}
        (place / "handed-in").mkdir()
        for name in range(9):
            (place / "handed-in" / f"student-{name}.ipynb").write_text(str(name))
        for name, work in WORK.items():
            with contextlib.redirect_stdout(io.StringIO()):
                work.go(place / f"warm-{name}")  # what torch loads on first use is loaded here, not in every child
            began = time.perf_counter()
            assert not ended(begin(work, place / name)), said(place / name)
            self.lasts[name] = time.perf_counter() - began
            self.ends[name] = (place / name / work.end).read_bytes()

    def new(self) -> Path:
        self.number += 1
        return self.place / f"run-{self.number}"

    def moment(self, name: str) -> float:
        return self.chance.uniform(0, self.lasts[name])

    def after(self, name: str, here: Path, code: int, codes: set[int], word: str) -> str:
        """What is wrong after a fault, and after the run that goes on."""
        words = said(here)
        if code not in codes or (code > 0 and (word not in words or "Traceback" in words)):
            return f"{name} ended with {code}: {words[-300:]}"
        for path in here.rglob("*"):
            if path.suffix == ".json":
                read_json(path)
            elif path.suffix == ".safetensors" and TEMPORARY not in path.name:
                load_tensors(path)
        again, words = ended(begin(WORK[name], here)), said(here)
        if again or (here / WORK[name].end).read_bytes() != self.ends[name]:
            return f"{name} went on and ended with {again}: {words[-300:]}"
        left = [path for path in here.rglob(f".*{TEMPORARY}") if name != "meta-training"]
        return f"left behind: {left}" if left else ""

    def stopped(self, name: str, signal_number: signal.Signals) -> str:
        while True:
            here = self.new()
            pid = begin(WORK[name], here)
            time.sleep(self.moment(name))
            os.kill(pid, signal_number)
            code, by_default = ended(pid), -int(signal_number)
            if code and here.exists():  # else it was over, or not begun
                handled = signal_number == signal.SIGTERM and WORK[name].remedy
                return self.after(name, here, code, {130} if handled else {by_default}, WORK[name].remedy)

    def full_disk(self, name: str) -> str:
        here = self.new()
        sizes = [path.stat().st_size for path in (self.place / name).rglob("*") if path.is_file()]
        most = self.chance.randint(1, max(sizes) - 1)
        code = ended(begin(WORK[name], here, lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))))
        return self.after(name, here, code, {2}, "make room")

    def read_only(self, name: str) -> str:
        here = self.new()
        here.mkdir(mode=0o555)
        code = ended(begin(WORK[name], here, lambda: os.seteuid(65534) if not os.geteuid() else None))
        here.chmod(0o755)
        return self.after(name, here, code, {2}, "another")

    def removed(self, name: str) -> str:
        here = self.new()
        pid = begin(WORK[name], here)
        time.sleep(self.moment(name))
        shutil.rmtree(here, ignore_errors=True)
        return self.after(name, here, ended(pid), {0, 2}, "")

    def two_runs(self, name: str) -> str:
        while True:
            here = self.new()
            first = begin(WORK[name], here)
            while not list(here.glob("*.json")):
                time.sleep(0.001)
            os.kill(first, signal.SIGSTOP)
            if (here / run_folder.LOCK).exists():
                break
            os.kill(first, signal.SIGCONT)
            ended(first)  # it was over
        code = ended(begin(WORK[name], here))
        os.kill(first, signal.SIGCONT)
        one = ended(first)
        return f"the first ended with {one}" if one else self.after(name, here, code, {2}, "another process writes")

    def dead_worker(self, name: str) -> str:
        here, die = self.new(), self.new()
        die.mkdir()
        (die / self.chance.choice(["patch-0", "patch-1", "train-0", "train-1"])).touch()
        before = lambda: os.environ.update({fake_experiment.DIE: str(die)})  # noqa: E731
        code = ended(begin(WORK[name], here, before, "--workers", "2"))
        return f"nobody died: {code}" if list(die.iterdir()) else self.after(name, here, code, {0}, "")

    def no_memory(self, name: str) -> str:
        here = self.new()
        before = lambda: setattr(fake_experiment, "total", lambda *_: torch.empty(2**45))  # noqa: E731
        return self.after(
            name, here, ended(begin(WORK[name], here, before)), {2}, "fewer --workers or a smaller --scale"
        )

    def not_a_number(self, where: str) -> str:
        self.number += 1
        value = (math.nan, math.inf, -math.inf)[self.number % 3]
        data, model = load("digits").test[:60], build("mlp-4-relu", (1, 8, 8), 10)
        images, (first, *others) = data.images.clone(), model.parameters()
        with torch.no_grad():
            if where == "weights":
                first[0, :] = value
            if where == "images":
                images[3, 0, 2, 2] = value
        try:
            reports = [evaluate(model, images, data.labels, eps=0.1, attacks="quick", label=None)]
            reports.append(patch(model, images, data.labels, steps=2, label=None)[1].after)
        except InputError as error:
            return "" if where == "images" and str(error).startswith("images ") else str(error)
        if where == "weights":
            return "" if all("not a number" in str(each.flags) for each in reports) else str(reports[0])
        if where == "images":
            return "it was not refused"
        optimizer = MetaOptimizer(model.parameters(), "train", total_steps=1)
        for p in model.parameters():
            p.grad = torch.ones_like(p)
        first.grad.view(-1)[0] = value
        optimizer.step()
        finite = [bool(p.isfinite().all()) for p in (first.view(-1)[:1], first.view(-1)[1:], *others)]
        return "" if finite == [not math.isnan(value)] + [True] * (len(others) + 1) else f"{value}: {finite}"


def report(tries: int, place: Path, seed: int) -> tuple[list[tuple[str, str, int, int]], list[str]]:
    """Rows of fault, work, tries and how often all held; and what went wrong."""
    faults, rows, wrong = Faults(place, seed), [], []
    few = -(-tries // 5)
    plan: list[tuple[str, Callable[[str], str], int, tuple[str, ...]]] = [
        *((sign.name, lambda name, s=sign: faults.stopped(name, s), tries, tuple(WORK))
          for sign in (signal.SIGKILL, signal.SIGTERM)),
        ("full disk", faults.full_disk, few, tuple(WORK)),
        ("read-only folder", faults.read_only, 1, tuple(WORK)),
        ("folder removed in use", faults.removed, few, tuple(WORK)),
        ("two runs into one folder", faults.two_runs, few, ("experiment", "grading")),
        ("a worker killed", faults.dead_worker, few // 4, ("experiment",)),
        ("out of memory", faults.no_memory, 1, ("experiment",)),
        ("nan, inf, −inf", faults.not_a_number, 3, ("weights", "images", "gradients")),
    ]  # fmt: skip
    for what, fault, times, names in plan:
        for name in names if times else ():
            amiss = [fault(name) for _ in range(times)]
            wrong += [f"{what}: {each}" for each in amiss if each]
            rows.append((what, name, times, amiss.count("")))
    return rows, wrong


if __name__ == "__main__":
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--tries", type=int, default=50)
    options.add_argument("--seed", type=int, default=0)
    options.add_argument("--out", type=Path)
    given = options.parse_args()
    torch.set_num_threads(1)
    # tqdm's own lock is one for a process and all its forks: a child that is killed with it would stop the others.
    tqdm.set_lock(threading.RLock())
    tqdm.monitor_interval = 0
    os.environ.setdefault(fake_experiment.PAUSE, "0.02")
    stand_in, code = pytest.MonkeyPatch(), run_folder.code()
    fake_experiment.install(stand_in)
    stand_in.setattr(run_folder, "code", lambda: code)  # asking git at every start would take long
    stand_in.setattr(classroom, "grade_file", graded)
    with tempfile.TemporaryDirectory() as place:
        Path(place).chmod(0o755)
        rows, wrong = report(given.tries, Path(place), given.seed)
    lines = [
        "| fault | in | tries | all held |",
        "| --- | --- | --- | --- |",
        *(f"| {' | '.join(map(str, row))} |" for row in rows),
    ]
    if given.out:
        write_atomic(given.out, "\n".join(lines) + "\n")
    print("\n".join([*lines, *wrong]))
    sys.exit(bool(wrong))
