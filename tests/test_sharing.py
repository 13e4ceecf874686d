"""Groups of tasks shared over processes: the same theta and table, one writer, and a death that can be made good.

`python tests/test_sharing.py GROUPS DIES ARGUMENT ...` is the command `metarobust ARGUMENT ...` on tiny numbers, for
torchrun to start. DIES: the process that kills itself in the middle of the meta-training, "comparing" for process 1
when it has compared something, or "none".
"""

from __future__ import annotations

import json
import os
import platform
import re
import shutil
import signal
import subprocess
import sys
import time
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path

import pytest
import test_transfer
import torch
import torch.distributed as dist

from metarobust import data, results
from metarobust.bench import sharing
from metarobust.cli import main
from metarobust.data import Dataset, Split
from metarobust.errors import InputError
from metarobust.experiments import running
from metarobust.experiments.comparison import Comparison
from metarobust.experiments.running import run
from metarobust.experiments.spec import Rule
from metarobust.experiments.stages import Stages
from metarobust.experiments.table import LEARNED
from metarobust.family import Family
from metarobust.meta.sharing import ALONE, LOST, Share, joined, share_of
from metarobust.results import Run, load_results

ROOT = Path(__file__).parents[1]
CODE = {"sha256": "the same"}
CPU = torch.device("cpu")
ABOUT = {"data_sha256": "drawn", "device": {"type": "cpu", "name": platform.machine()}}


def drawn(*_):
    rng = torch.Generator().manual_seed(0)
    train, test = (Split(torch.rand(n, 1, 8, 8, generator=rng), torch.arange(n) % 10) for n in (250, 40))
    return Dataset("digits", train, test, 10, "drawn")


def prepare(monkeypatch, groups):
    """The tiny numbers of the transfer test, with some groups and one baseline; git is not asked.

    Images are drawn, since every process would have to import scikit-learn for real ones.
    """
    plan = replace(test_transfer.PLAN, groups=groups, episodes=6)
    monkeypatch.setattr(results, "code", lambda: CODE)
    test_transfer.prepare(monkeypatch, few=True, rules=(Rule(LEARNED, "features", plan),))
    monkeypatch.setattr(test_transfer, "SOME", ("adam",))
    monkeypatch.setattr(data, "load", drawn)


def start(processes, out, *options, groups=4, dies="none"):
    """Runs the command by torchrun's own module, to its end. Each line says which process wrote it."""
    how = ["--standalone", "--nproc-per-node", str(processes), "--tee", "3", "--log-dir", f"{out}-log", "--no-python"]
    torchrun = ["-m", "torch.distributed.run", *how]
    program = [sys.executable, "-W", "error", __file__, str(groups), str(dies)]
    command = [*program, "run", "patch", "--scale", "smoke", "--out", str(out), *options]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    return subprocess.run(
        [sys.executable, *torchrun, *command], env=environment, capture_output=True, text=True, timeout=300
    )


def errors(done):
    """The command's lines of error, each after the process that wrote it, without what torchrun adds."""
    return re.findall(r"\[default(\d)\]:metarobust: error: (.*)", done.stderr)


def lesson(out):
    """The last checkpoint of the meta-training: the number of episodes that are over, and the tensors' bytes."""
    manifest = results.read_json(out / "manifest.json")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(results, "code", lambda: CODE)
        tensors, about = Run(out, manifest["spec"], resume=True, about=manifest).restore("patch.learned.0")
    return about["episode"], tensors


def ends(out):
    """What must be the same, to the byte, however often a run was stopped."""
    episodes, tensors = lesson(out)
    found = {name: value.numpy().tobytes() for name, value in tensors.items()}
    return episodes, found, (out / "results.csv").read_bytes()


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """A run by one process, here."""
    out = tmp_path_factory.mktemp("alone") / "run"
    with pytest.MonkeyPatch.context() as patch:
        prepare(patch, 4)
        run("patch", scale="smoke", out=out)
    return out


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    """A run by two processes, never stopped, and what torchrun said."""
    out = tmp_path_factory.mktemp("pair") / "run"
    return out, start(2, out)


def assert_alike(one, other):
    """theta up to the order of sums, and the same table."""
    (episodes, mine), (other_episodes, yours) = lesson(one), lesson(other)
    assert episodes == other_episodes == 6
    theta = [name for name in mine if name.startswith("theta.")]
    assert bool(mine["theta.net.4.weight"].any())  # 0 before it learned
    for name in theta:
        torch.testing.assert_close(yours[name], mine[name], rtol=1e-5, atol=1e-5)
    assert load_results(one)[1] == load_results(other)[1]


def test_two_processes_learn_what_one_learns(alone, pair):
    out, done = pair
    assert done.returncode == 0, done.stderr
    assert_alike(alone, out)
    assert load_results(out)[0]["processes"] == 2
    assert load_results(out)[0]["command"].startswith("torchrun --nproc-per-node 2 -m metarobust run patch")


def test_both_processes_compare(pair):
    """Each takes what the other has not: process 0 waits until process 1 has found something, and keeps it."""
    out, done = pair
    assert done.returncode == 0, done.stderr
    posted = posted_by_others(out)
    assert posted
    assert len(set(posted)) == len(posted) < 10  # of 1 search, and 1 start, 1 baseline and 1 rule on each of 2 networks
    units = {path.stem for path in (out / "units").iterdir()}
    assert set(posted) < units - {"patch.learned.0"}


def test_process_0_alone_writes_and_speaks(pair):
    """The others would have died in the attempt: their `write_atomic` and their lock raise."""
    out, done = pair
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("results: ") == 1
    assert "patch, learned" in done.stderr
    assert "[default0]" in done.stderr
    assert "[default1]" not in done.stdout + done.stderr
    assert sorted(path.name for path in out.iterdir()) == ["checkpoints", "manifest.json", "results.csv", "units"]


@pytest.mark.slow
def test_four_processes_learn_what_one_learns(alone, tmp_path):
    done = start(4, tmp_path / "run")
    assert done.returncode == 0, done.stderr
    assert_alike(alone, tmp_path / "run")


@pytest.mark.slow
def test_killed_three_times_and_resumed_it_ends_with_the_same_bytes(pair, tmp_path):
    """A helper is killed, then process 0, then a helper that compares: the other one ends, and says so."""
    out, before, options = tmp_path / "run", 0, []
    for dies in (1, 0):
        done = start(2, out, *options, dies=dies)
        assert done.returncode != 0
        assert errors(done) == [(str(1 - dies), LOST)]
        assert "Signal 9 (SIGKILL)" in done.stderr
        assert before < lesson(out)[0] < 6
        assert not (out / "results.csv").exists()
        before, options = lesson(out)[0], ["--resume"]
    done = start(2, out, *options, dies="comparing")
    assert errors(done) == [("0", LOST)]
    assert not (out / "results.csv").exists()
    kept, (posted, *_) = {path.stem for path in (out / "units").iterdir()}, posted_by_others(out)
    assert {"patch.learned.0", "patch.tune.adam", posted} < kept
    done = start(2, out, *options)
    assert done.returncode == 0, done.stderr
    assert ends(out) == ends(pair[0])


@pytest.fixture
def spied(alone, tmp_path, monkeypatch):
    """The run without its table, and lists that fill with what process 0 tells and with what is meta-trained."""
    out, told, learned = tmp_path / "run", [], []
    shutil.copytree(alone, out)
    manifest = results.read_json(out / "manifest.json")
    results.write_json(out / "manifest.json", manifest | {"status": "running"})
    prepare(monkeypatch, 4)
    tell, learn = Share.tell, Stages.learn
    monkeypatch.setattr(Share, "tell", lambda share, value=None: told.append(value) or tell(share, value))
    monkeypatch.setattr(Stages, "learn", lambda stages, *what: learned.append(what) or learn(stages, *what))
    return out, told, learned


def test_process_0_tells_which_lessons_are_missing(spied, alone):
    out, told, learned = spied
    run("patch", scale="smoke", out=out, resume=True)
    assert told == [None, True, [], [], []]  # no lesson, no search and no comparison
    assert not learned
    (out / "units" / "patch.learned.0.json").unlink()
    manifest = results.read_json(out / "manifest.json")
    results.write_json(out / "manifest.json", manifest | {"status": "running"})
    del told[:]
    run("patch", scale="smoke", out=out, resume=True)
    assert told[:3] == [None, True, ["patch.learned.0"]]
    assert [(rule.name, seed) for rule, seed in learned] == [("learned", 0)]
    assert ends(out) == ends(alone)
    del told[:]
    run("patch", scale="smoke", out=out, resume=True)  # finished: everyone goes home
    assert told == [None, False]


@pytest.mark.parametrize("lessons", [[], ["patch.learned.0"]])
def test_the_others_do_what_they_are_told_and_nothing_else(lessons, spied, monkeypatch):
    """Of the units that all share, what process 0 has not taken; and they leave it where process 0 finds it."""
    out, _, learned = spied
    ready = Run(out, results.read_json(out / "manifest.json")["spec"], resume=True, about=ABOUT)
    tuning, comparisons = ["patch.tune.adam"], ["patch.cnn-2-tanh.start", "patch.cnn-2-tanh.learned"]
    told = iter([lessons, tuning, {name: ready.rows(name) for name in tuning}, comparisons])
    monkeypatch.setattr(Share, "tell", lambda share, value=None: next(told))
    monkeypatch.setattr(Share, "hand_out", lambda share, held=None: ready.restore("patch.learned.0"))
    store, patch = dist.HashStore(), Comparison("patch")
    zero, one = Share(0, 2, 0, store), Share(1, 2, 1, store)
    assert next(zero.next_of(comparisons)) == comparisons[0]
    assert patch.execute(ready.spec, None, drawn(), CPU, one) is None
    assert [(rule.name, seed) for rule, seed in learned] == [("learned", 0)] * len(lessons)
    assert zero.posted(tuning[0]) == ready.rows(tuning[0])
    assert zero.posted(comparisons[0]) is None
    assert zero.posted(comparisons[1]) == ready.rows(comparisons[1])
    assert not list(zero.next_of(comparisons))


def test_process_0_keeps_what_the_others_have_found(spied, alone, monkeypatch):
    out, _, _ = spied
    taken = "patch.cnn-2-tanh.learned"
    rows = results.read_json(out / "units" / f"{taken}.json")["rows"]
    (out / "units" / f"{taken}.json").unlink()
    store = dist.HashStore()
    one, zero = Share(1, 2, 1, store), Share(0, 2, 0, store)
    assert next(one.next_of([taken])) == taken
    monkeypatch.setattr(Share, "tell", lambda share, value=None: value)
    monkeypatch.setattr(Share, "hand_out", lambda share, held=None: held)
    monkeypatch.setattr(Stages, "compare_learned", forbid)
    monkeypatch.setattr("metarobust.experiments.dealing.time.sleep", lambda _: one.post(taken, rows))
    run = Run(out, results.read_json(out / "manifest.json")["spec"], resume=True, about=ABOUT)
    Comparison("patch").execute(run.spec, run, drawn(), CPU, zero)
    assert ends(out) == ends(alone)


def test_more_processes_than_groups_find_what_one_finds(monkeypatch, tmp_path):
    """One has no group, waits while the others learn, and compares as they do."""
    prepare(monkeypatch, 2)
    run("patch", scale="smoke", out=tmp_path / "alone")
    done = start(3, tmp_path / "run", groups=2)
    assert done.returncode == 0, done.stderr
    assert load_results(tmp_path / "run")[0]["processes"] == 3
    assert_alike(tmp_path / "alone", tmp_path / "run")


def test_what_is_not_shared_is_one_line_and_nothing_is_written(monkeypatch, tmp_path):
    monkeypatch.setattr(running, "joined", lambda: nullcontext(Share(0, 2, 0)))
    with pytest.raises(InputError, match="cost works in one process; start it without torchrun"):
        run("cost", scale="smoke", out=tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(("count", "size"), [(4, 1), (4, 2), (4, 4), (6, 3), (4, 3), (1, 2), (2, 5)])
def test_every_group_has_one_process(count, size):
    found = [list(Share(rank, size).groups(count)) for rank in range(size)]
    assert [group for groups in found for group in groups] == list(range(count))
    assert max(map(len, found)) - min(map(len, found)) <= 1


def test_a_place_that_is_gone_is_a_line():
    """torchrun keeps the store; where it has ended, whoever asks says so."""

    class Gone:
        def __getattr__(self, name):
            raise RuntimeError("Connection reset by peer")

    share = Share(0, 2, 0, Gone())
    for ask in (lambda: share.post("a", 1), lambda: share.posted("a"), lambda: next(share.next_of(["a"]))):
        with pytest.raises(InputError, match=LOST):
            ask()


def test_outside_torchrun_nothing_is_set_up(alone):
    assert load_results(alone)[0]["processes"] == 1
    assert load_results(alone)[0]["command"].startswith("metarobust run patch")
    assert not dist.is_initialized()
    before = signal.getsignal(signal.SIGTERM)
    with joined() as share:
        assert share is ALONE
        assert not dist.is_initialized()
        assert signal.getsignal(signal.SIGTERM) is before
    tensors = [torch.ones(2)]
    assert share.sum(tensors, 3.0) == (tensors, 3.0)
    assert share.hand_out() is None
    assert share.tell([1]) == [1]


@pytest.mark.parametrize(
    "given", [{}, {"RANK": "x", "LOCAL_RANK": "0"}, {"RANK": "2", "LOCAL_RANK": "0"}, {"RANK": "0"}]
)
def test_an_environment_that_torchrun_does_not_make_is_refused(given):
    with pytest.raises(InputError, match=r"WORLD_SIZE='2'.* does not say which process this is; start all of them"):
        share_of({"WORLD_SIZE": "2"} | given)
    assert share_of({"WORLD_SIZE": "2", "RANK": "1", "LOCAL_RANK": "1"}) == Share(1, 2, 1)
    assert share_of(given) is ALONE


def test_each_process_of_a_machine_has_a_gpu_of_its_own(monkeypatch):
    chosen = []
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "set_device", chosen.append)
    assert Share(3, 4, 1).device(torch.device("cuda")) == torch.device("cuda:1")
    assert chosen == [1]
    assert Share(3, 4, 1).device(torch.device("cpu")) == torch.device("cpu")
    assert ALONE.device(torch.device("cuda")) == torch.device("cuda")
    with pytest.raises(InputError, match=r"has 2 GPU\(s\), too few .* one for each, or give --device cpu"):
        Share(2, 3, 2).device(torch.device("cuda"))


def test_the_efficiency_of_one_process_is_refused():
    with pytest.raises(InputError, match="processes 1: give at least 2"):
        sharing.efficiency(1)


def test_the_efficiency_is_the_median_over_rounds(monkeypatch):
    seconds = {1: iter([8.0, 6.0, 9.0]), 2: iter([5.0, 4.0, 5.0])}
    monkeypatch.setattr(sharing, "_measure", lambda n, *_: {"seconds": next(seconds[n]), "cpu": 10.0 + n})
    found = sharing.efficiency(2, rounds=3)
    assert found["one"] == [8.0, 6.0, 9.0]
    assert found["shared"] == [5.0, 4.0, 5.0]
    assert found["speed_up"] == 8 / 5
    assert found["efficiency"] == 4 / 5
    assert found["processor_time"] == 12 / 11


def test_what_is_timed_is_a_meta_training(capsys):
    sharing._train(1, 2)
    found = json.loads(capsys.readouterr().out)
    assert 0 < found["seconds"] < 60
    assert 0 < found["cpu"] < 60


def posted_by_others(out):
    """The units that other processes than the first have posted, in order."""
    path = Path(f"{out}-posted")
    return path.read_text().split() if path.exists() else []


def remember(out, dies):
    """Notes down what is posted; where asked to, dies with a second comparison, once the first is kept."""
    post, seen = Share.post, []

    def posting(share, name, value):
        if dies and len(seen) == 1:
            while not (Path(out) / "units" / f"{seen[0]}.json").exists():
                time.sleep(0.05)
            os.kill(os.getpid(), signal.SIGKILL)
        post(share, name, value)
        if ".tune." not in name:
            seen.append(name)
            with open(f"{out}-posted", "a") as file:
                file.write(f"{name}\n")

    return posting


def patient(out):
    """Does not take a second comparison before another process has done one."""
    next_of = Share.next_of

    def taking(share, names):
        for number, name in enumerate(next_of(share, names)):
            end = time.monotonic() + 60
            while number and ".tune." not in name and not posted_by_others(out) and time.monotonic() < end:
                time.sleep(0.05)
            yield name

    return taking


def forbid(*_, **__):
    raise AssertionError("a process beside the first writes")


def die_at(call):
    """SIGKILL in the middle of an episode, after two that were whole."""
    sample, calls = Family.sample, []

    def dying(family, tasks, generator):
        calls.append(tasks)
        if len(calls) == call:
            os.kill(os.getpid(), signal.SIGKILL)
        return sample(family, tasks, generator)

    return dying


if __name__ == "__main__":
    groups, dies, *arguments = sys.argv[1:]
    patch = pytest.MonkeyPatch()
    prepare(patch, int(groups))
    if os.environ["RANK"] != "0":
        patch.setattr("metarobust.storage.write_atomic", forbid)
        patch.setattr("metarobust.experiments.running.FileLock", forbid)
        patch.setattr(Share, "post", remember(arguments[arguments.index("--out") + 1], dies == "comparing"))
    else:
        patch.setattr(Share, "next_of", patient(arguments[arguments.index("--out") + 1]))
    if os.environ["RANK"] == dies:
        patch.setattr(Family, "sample", die_at(6))  # of two groups an episode
    raise SystemExit(main(arguments))
