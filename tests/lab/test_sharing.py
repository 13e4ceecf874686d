"""A run shared by processes: the same bytes, one writer, and a death that can be made good; a meta-training as well.

`python tests/test_sharing.py DIES ARGUMENT ...` is the command `metarobust ARGUMENT ...` on tiny numbers, for torchrun
to start. DIES: the process that is to learn, and kills itself in the middle of it; "comparing" for process 1 when it
has compared something; or "none".
"""

from __future__ import annotations

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

from metarobust import data
from metarobust.cli import main
from metarobust.data import Dataset, Split
from metarobust.errors import InputError
from metarobust.family import Family
from metarobust.lab import results, running
from metarobust.lab.comparison import Comparison
from metarobust.lab.results import load_results
from metarobust.lab.run_folder import Run
from metarobust.lab.running import run
from metarobust.lab.spec import OptimizerConfig
from metarobust.lab.stages import Stages
from metarobust.lab.table import LEARNED
from metarobust.meta.sharing import ALONE, LOST, Share, joined, share_of

ROOT = Path(__file__).parents[2]
CODE = {"sha256": "the same"}
CPU = torch.device("cpu")
PLAN = replace(test_transfer.PLAN, groups=2, episodes=6)
LESSON, SEARCH = "patch.learned.0", "patch.tune.adam"
ABOUT = {"data_sha256": "drawn", "device": {"type": "cpu", "name": platform.machine()}}


def drawn(*_):
    rng = torch.Generator().manual_seed(0)
    train, test = (Split(torch.rand(n, 1, 8, 8, generator=rng), torch.arange(n) % 10) for n in (250, 40))
    return Dataset("digits", train, test, 10, "drawn")


def prepare(monkeypatch):
    """The tiny numbers of the transfer test, with one baseline; git is not asked.

    Images are drawn, since every process would have to import scikit-learn for real ones.
    """
    monkeypatch.setattr(results, "code", lambda: CODE)
    test_transfer.prepare(monkeypatch, few=True, rules=(OptimizerConfig(LEARNED, "features", PLAN),))
    monkeypatch.setattr(test_transfer, "SOME", ("adam",))
    monkeypatch.setattr(data, "load", drawn)


def torchrun(processes, log, *arguments):
    """Runs this file by torchrun's own module, to its end. Each line says which process wrote it."""
    how = ["--standalone", "--nproc-per-node", str(processes), "--tee", "3", "--log-dir", str(log), "--no-python"]
    command = [sys.executable, "-m", "torch.distributed.run", *how, sys.executable, "-W", "error", __file__]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    return subprocess.run([*command, *arguments], env=environment, capture_output=True, text=True, timeout=300)


def start(processes, out, *options, dies="none"):
    """Runs the command, shared by processes."""
    return torchrun(processes, f"{out}-log", str(dies), "run", "patch", "--scale", "smoke", "--out", str(out), *options)


def errors(done):
    """The command's lines of error, each after the process that wrote it, without what torchrun adds."""
    return re.findall(r"\[default(\d)\]:metarobust: error: (.*)", done.stderr)


def lesson(out):
    """The last checkpoint of the meta-training: the number of episodes that are over, and the tensors' bytes."""
    manifest = results.read_json(out / "manifest.json")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(results, "code", lambda: CODE)
        tensors, about = Run(out, manifest["spec"], resume=True, about=manifest).restore(LESSON)
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
        prepare(patch)
        run("patch", scale="smoke", out=out)
    return out


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    """A run by two processes, never stopped, and what torchrun said."""
    out = tmp_path_factory.mktemp("pair") / "run"
    return out, start(2, out)


def test_processes_find_what_one_finds_to_the_byte(alone, pair):
    out, done = pair
    assert done.returncode == 0, done.stderr
    assert ends(out) == ends(alone)
    assert bool(lesson(out)[1]["theta.net.4.weight"].any())  # 0 before it learned
    assert load_results(out)[0]["processes"] == 2
    assert load_results(out)[0]["command"].startswith("torchrun --nproc-per-node 2 -m metarobust run patch")


def test_both_processes_compare(pair):
    """Each takes what the other has not: process 0 waits until process 1 has found something, and keeps it."""
    out, done = pair
    assert done.returncode == 0, done.stderr
    posted = posted_by_others(out)
    assert posted
    assert len(set(posted)) == len(posted) < 6  # 1 start, 1 baseline and 1 rule on each of 2 networks
    assert set(posted) < {path.stem for path in (out / "units").iterdir()} - {LESSON, SEARCH}


def test_process_0_alone_writes_and_speaks(pair):
    """The others would have died in the attempt: their `write_atomic` and their lock raise."""
    out, done = pair
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("results: ") == 1
    assert "11/11" in done.stderr
    assert "[default0]" in done.stderr
    assert "[default1]" not in done.stdout + done.stderr
    assert sorted(path.name for path in out.iterdir()) == ["checkpoints", "manifest.json", "results.csv", "units"]


@pytest.mark.slow
def test_four_processes_find_what_one_finds(alone, tmp_path):
    done = start(4, tmp_path / "run")
    assert done.returncode == 0, done.stderr
    assert ends(tmp_path / "run") == ends(alone)


@pytest.mark.slow
def test_killed_twice_while_it_learns_and_resumed_it_ends_with_the_same_bytes(pair, tmp_path):
    """Process 1 is killed, then process 0: the other one ends, and says so."""
    out, before, options = tmp_path / "run", 0, []
    for dies in (1, 0):
        done = start(2, out, *options, dies=dies)
        assert done.returncode != 0
        assert errors(done) == [(str(1 - dies), LOST)]
        assert "Signal 9 (SIGKILL)" in done.stderr
        assert before < lesson(out)[0] < 6
        assert not (out / "results.csv").exists()
        before, options = lesson(out)[0], ["--resume"]
    done = start(2, out, *options)
    assert done.returncode == 0, done.stderr
    assert ends(out) == ends(pair[0])


@pytest.mark.slow
def test_killed_while_it_compares_and_resumed_it_ends_with_the_same_bytes(pair, tmp_path):
    """Process 1 is killed after its first comparison, which process 0 has kept by then."""
    out = tmp_path / "run"
    done = start(2, out, dies="comparing")
    assert errors(done) == [("0", LOST)]
    assert "Signal 9 (SIGKILL)" in done.stderr
    assert not (out / "results.csv").exists()
    (posted,) = posted_by_others(out)
    assert (out / "units" / f"{posted}.json").exists()
    done = start(2, out, "--resume")
    assert done.returncode == 0, done.stderr
    assert ends(out) == ends(pair[0])


@pytest.fixture
def spied(alone, tmp_path, monkeypatch):
    """The run without its table, and lists that fill with what process 0 tells and with what is meta-trained."""
    out, told, learned = tmp_path / "run", [], []
    shutil.copytree(alone, out)
    manifest = results.read_json(out / "manifest.json")
    results.write_json(out / "manifest.json", manifest | {"status": "running"})
    prepare(monkeypatch)
    tell, learn = Share.tell, Stages.learn
    monkeypatch.setattr(Share, "tell", lambda share, value=None: told.append(value) or tell(share, value))
    monkeypatch.setattr(Stages, "learn", lambda stages, *what: learned.append(what) or learn(stages, *what))
    return out, told, learned


def test_process_0_tells_which_units_are_missing(spied, alone):
    out, told, learned = spied
    run("patch", scale="smoke", out=out, resume=True)
    assert told == [None, True, []]
    assert not learned
    (out / "units" / f"{LESSON}.json").unlink()
    manifest = results.read_json(out / "manifest.json")
    results.write_json(out / "manifest.json", manifest | {"status": "running"})
    del told[:]
    run("patch", scale="smoke", out=out, resume=True)
    assert told == [None, True, [LESSON]]
    assert [(rule.name, seed) for rule, seed in learned] == [("learned", 0)]
    assert ends(out) == ends(alone)
    del told[:]
    run("patch", scale="smoke", out=out, resume=True)  # finished: everyone goes home
    assert told == [None, False]


@pytest.mark.parametrize("lessons", [[], [LESSON]])
def test_the_others_do_what_they_are_told_and_nothing_else(lessons, spied, monkeypatch):
    """Of what is missing, all that process 0 has not taken; and they leave it where process 0 finds it."""
    out, _, learned = spied
    ready = Run(out, results.read_json(out / "manifest.json")["spec"], resume=True, about=ABOUT)
    first, second = "patch.cnn-2-tanh.start", "patch.cnn-2-tanh.learned"
    monkeypatch.setattr(Share, "tell", lambda share, value=None: [*lessons, SEARCH, first, second])
    store = dist.HashStore()
    zero, one = Share(0, 2, 0, store), Share(1, 2, 1, store)
    assert zero.take(first)
    if not lessons:
        zero.post_checkpoint(LESSON, ready.restore(LESSON))
        zero.post(LESSON, ready.rows(LESSON))
    assert Comparison("patch").execute(ready.spec, None, drawn(), CPU, one) is None
    assert [(rule.name, seed) for rule, seed in learned] == [("learned", 0)] * len(lessons)
    for name in (*lessons, SEARCH, second):
        assert zero.posted(name) == ready.rows(name)
        assert zero.taken(name)
        assert not zero.take(name)
    assert zero.posted(first) is None
    mine, yours = zero.posted_checkpoint(LESSON), ready.restore(LESSON)
    assert mine[1] == yours[1]
    assert all(torch.equal(mine[0][name], tensor) for name, tensor in yours[0].items())


def test_process_0_keeps_what_the_others_have_found(spied, alone, monkeypatch):
    out, _, _ = spied
    taken = "patch.cnn-2-tanh.learned"
    rows = results.read_json(out / "units" / f"{taken}.json")["rows"]
    (out / "units" / f"{taken}.json").unlink()
    store = dist.HashStore()
    one, zero = Share(1, 2, 1, store), Share(0, 2, 0, store)
    assert one.take(taken)
    monkeypatch.setattr(Share, "tell", lambda share, value=None: value)
    monkeypatch.setattr(Stages, "compare_learned", forbid)
    monkeypatch.setattr("metarobust.lab.dealing.time.sleep", lambda _: one.post(taken, rows))
    run = Run(out, results.read_json(out / "manifest.json")["spec"], resume=True, about=ABOUT)
    Comparison("patch").execute(run.spec, run, drawn(), CPU, zero)
    assert ends(out) == ends(alone)


def test_process_0_keeps_the_checkpoints_of_the_others(spied, alone, monkeypatch):
    """Before they are through: so much of a meta-training outlives a death. What needs it waits."""
    out, _, _ = spied
    (tensors, about), rows = (ready := taken_up(out)).restore(LESSON), ready.rows(LESSON)
    taken, needs = (out / "units" / f"{name}.json" for name in (LESSON, "patch.cnn-2-tanh.learned"))
    for path in (taken, needs, *(out / "checkpoints").iterdir()):
        path.unlink()
    store = dist.HashStore()
    one, zero = Share(1, 2, 1, store), Share(0, 2, 0, store)
    assert one.take(LESSON)
    monkeypatch.setattr(Share, "tell", lambda share, value=None: value)
    seen, run = [], taken_up(out)

    def meanwhile(_):
        held = taken_up(out).restore(LESSON)
        seen.append((held and held[1]["episode"], taken.exists(), needs.exists()))
        number = len(seen) + 3  # episode 4, 5, 6
        one.post_checkpoint(LESSON, (tensors, about | {"episode": number}))
        if number == 6:
            one.post(LESSON, rows)

    monkeypatch.setattr("metarobust.lab.dealing.time.sleep", meanwhile)
    Comparison("patch").execute(run.spec, run, drawn(), CPU, zero)
    assert seen == [(None, False, False), (4, False, False), (5, False, False)]
    assert ends(out) == ends(alone)


def test_three_processes_find_what_one_finds(alone, tmp_path):
    """Two have nothing to do but to wait, for a while."""
    done = start(3, tmp_path / "run")
    assert done.returncode == 0, done.stderr
    assert load_results(tmp_path / "run")[0]["processes"] == 3
    assert ends(tmp_path / "run") == ends(alone)


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
    calls = (share.take, share.taken, share.is_posted, share.posted, share.posted_checkpoint)
    for ask in (lambda: share.post("a", 1), *(lambda call=call: call("a") for call in calls)):
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
    assert share.tell([1]) == [1]
    share.post("a", 1)
    share.post_checkpoint("a", ({}, {}))
    assert share.posted("a") is None
    assert share.posted_checkpoint("a") is None
    assert share.take("a")
    assert not share.taken("a")


@pytest.mark.parametrize(
    "given", [{}, {"RANK": "x", "LOCAL_RANK": "0"}, {"RANK": "2", "LOCAL_RANK": "0"}, {"RANK": "0"}]
)
def test_an_environment_that_torchrun_does_not_make_is_refused(given):
    with pytest.raises(InputError, match=r"WORLD_SIZE='2'.* does not say which process this is; start all of them"):
        share_of({"WORLD_SIZE": "2"} | given)
    assert share_of({"WORLD_SIZE": "2", "RANK": "1", "LOCAL_RANK": "1"}) == Share(1, 2, 1)
    assert share_of(given) is ALONE


def test_processes_share_the_gpus_of_a_machine(monkeypatch):
    chosen = []
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "set_device", chosen.append)
    found = [Share(4 + local, 8, local).device(torch.device("cuda")) for local in range(4)]
    assert found == [torch.device("cuda", number) for number in (0, 1, 0, 1)]
    assert chosen == [0, 1, 0, 1]
    assert Share(3, 4, 1).device(torch.device("cpu")) == torch.device("cpu")
    assert ALONE.device(torch.device("cuda")) == torch.device("cuda")


def taken_up(out):
    """The run that is in a folder."""
    return Run(out, results.read_json(out / "manifest.json")["spec"], resume=True, about=ABOUT)


def posted_by_others(out):
    """The comparisons that other processes than the first have posted, in order."""
    path = Path(f"{out}-posted")
    return path.read_text().split() if path.exists() else []


def compares(name):
    return name not in (LESSON, SEARCH)


def remember(out, dies):
    """Notes down what is posted; where asked to, dies with a second comparison, once the first is kept."""
    post, seen = Share.post, []

    def posting(share, name, value):
        if dies and len(seen) == 1:
            while not (Path(out) / "units" / f"{seen[0]}.json").exists():
                time.sleep(0.05)
            os.kill(os.getpid(), signal.SIGKILL)
        post(share, name, value)
        if compares(name):
            seen.append(name)
            with open(f"{out}-posted", "a") as file:
                file.write(f"{name}\n")

    return posting


def patient(out):
    """Does not take a second comparison before another process has done one."""
    take, mine = Share.take, []

    def taking(share, name):
        end = time.monotonic() + 60
        while compares(name) and mine and not posted_by_others(out) and time.monotonic() < end:
            time.sleep(0.05)
        found = take(share, name)
        mine.extend([name] * (found and compares(name)))
        return found

    return taking


def leaving(name, take):
    """Leaves one unit to others."""
    return lambda share, asked: asked != name and take(share, asked)


def forbid(*_, **__):
    raise AssertionError("a process beside the first writes")


def die_at(call, out):
    """SIGKILL in the middle of an episode, after two that were whole, once process 0 has kept where they led."""
    sample, calls = Family.sample, []

    def dying(family, tasks, generator):
        calls.append(tasks)
        if len(calls) == call:
            while not any((Path(out) / "checkpoints").glob("*.safetensors")):
                time.sleep(0.05)
            os.kill(os.getpid(), signal.SIGKILL)
        return sample(family, tasks, generator)

    return dying


if __name__ == "__main__":
    dies, *arguments = sys.argv[1:]
    patch, out = pytest.MonkeyPatch(), arguments[arguments.index("--out") + 1]
    prepare(patch)
    if os.environ["RANK"] != "0":
        patch.setattr("metarobust.storage.write_atomic", forbid)
        patch.setattr("metarobust.lab.running.FileLock", forbid)
        patch.setattr(Share, "post", remember(out, dies == "comparing"))
    else:
        patch.setattr(Share, "take", patient(out))
    if os.environ["RANK"] == dies:
        patch.setattr(Family, "sample", die_at(6, out))  # of two groups an episode
    elif dies.isdecimal():
        patch.setattr(Share, "take", leaving(LESSON, Share.take))
    raise SystemExit(main(arguments))
