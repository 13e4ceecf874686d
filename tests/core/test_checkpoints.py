"""A meta-training that is killed at any moment goes on from its checkpoint, to the same bytes."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from toy import ADVERSARIAL, generator, tasks
from tqdm.auto import tqdm

from metarobust import checkpoints
from metarobust.data import Split
from metarobust.errors import InputError
from metarobust.family import Family
from metarobust.learned.mlp import FeatureMLP
from metarobust.meta import MetaTrainConfig, MetaTrainer, Validation, hold_out
from metarobust.objectives import clean
from metarobust.storage import write_atomic

ROOT = Path(__file__).resolve().parents[2]


ABOUT = {"episode": 3, "log": [{"meta_loss": 0.5}]}


def content(number=1.0):
    return {"x": torch.full((3,), number, dtype=torch.float64), "count": torch.tensor(7)}


def test_a_checkpoint_reads_back_and_takes_the_place_of_the_one_before(tmp_path):
    path = tmp_path / "checkpoints" / "it.0.safetensors"
    assert checkpoints.load(path, "spec") is None
    for number in (1.0, 2.0):
        checkpoints.save(path, content(number), ABOUT, "spec")
        tensors, about = checkpoints.load(path, "spec")
        assert about == ABOUT
        assert all(torch.equal(tensors[name], value) for name, value in content(number).items())
    assert [each.name for each in path.parent.iterdir()] == [path.name]


def test_one_that_cannot_be_used_is_refused(tmp_path):
    path = tmp_path / "it.safetensors"
    checkpoints.save(path, content(), ABOUT, "another")
    with pytest.raises(InputError, match=r"it\.safetensors is of another run; delete it"):
        checkpoints.load(path, "spec")
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(InputError, match=r"it\.safetensors is damaged"):
        checkpoints.load(path, "another")


# A meta-training that is killed

POOL = tasks(3, each=20, shape=(1, 2, 2), dtype=torch.float32)
FAMILIES = [Family([name], Split(POOL.images, POOL.labels), 3, 20) for name in ("mlp-3-tanh", "mlp-2-relu")]
PLAN = MetaTrainConfig(8, (2, 4), 2, tasks=1, batch_size=8, held_out=8, lr=0.05, validate_every=3)


def meta_training(folder, plan=PLAN):
    """Goes on from the last checkpoint in the folder, and writes theta there in the end."""
    path, optimizer = folder / "theta.safetensors", FeatureMLP(hidden=4, generator=generator())
    trainer = MetaTrainer(
        optimizer, FAMILIES[0].sample, plan, inner=clean, meta=ADVERSARIAL, seed=0,
        validate=Validation(hold_out(FAMILIES[1].sample, 1, 1), clean, 2, 64, 8, eps=0.1, steps=2),
    )  # fmt: skip
    held = checkpoints.load(path, "spec")
    if held:
        trainer.load_state_dict(held[0], held[1]["log"])
    for _ in trainer.episodes():
        checkpoints.save(path, trainer.state_dict(), {"episode": len(trainer.log), "log": trainer.log}, "spec")
    theta = torch.nn.utils.parameters_to_vector(optimizer.parameters())
    write_atomic(folder / "end", theta.detach().numpy().tobytes())


def child(folder, moment=None):
    """Meta-trains in a process of its own, which dies after so many seconds; how it ended, as `waitpid` has it."""
    pid = os.fork()
    if not pid:
        meta_training(folder)
        os._exit(0)
    if moment is not None:
        time.sleep(moment)
        os.kill(pid, signal.SIGKILL)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def killed(folder, times, seed):
    """What became of each meta-training that was killed: the episodes that were stored then, and whether it ended
    with the bytes of the one that was not."""
    meta_training(folder / "warm")  # what torch loads on first use takes a second, here and not in every child
    began = time.perf_counter()
    assert child(folder / "whole") == 0
    lasts, moments, found = time.perf_counter() - began, random.Random(seed), []
    while len(found) < times:
        here = folder / str(len(found))
        if child(here, moments.uniform(0, lasts)) != -signal.SIGKILL or (here / "end").exists():
            shutil.rmtree(here)  # it was over before the kill
            continue
        stored = checkpoints.load(here / "theta.safetensors", "spec")
        assert child(here) == 0
        same = (here / "end").read_bytes() == (folder / "whole" / "end").read_bytes()
        found.append([stored[1]["episode"] if stored else 0, same])
    return found


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.slow
def test_killed_at_20_random_moments_and_resumed_it_ends_with_the_same_bytes(tmp_path):
    # In a process of one thread: a fork could not go on with others, nor with those that a GPU has.
    command = [sys.executable, __file__, str(tmp_path)]
    paths = os.pathsep.join([str(ROOT), str(ROOT / "tests")])
    environment = os.environ | {"PYTHONPATH": paths, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=240)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert [same for _, same in found] == [True] * 20
    assert len({episode for episode, _ in found}) >= 4  # at the beginning, in the middle, toward the end


def test_another_plan_ends_with_other_bytes(tmp_path):
    """So that the same bytes mean something."""
    meta_training(tmp_path / "a")
    meta_training(tmp_path / "b", replace(PLAN, lr=0.04))
    meta_training(tmp_path / "c")
    ends = [(tmp_path / name / "end").read_bytes() for name in "abc"]
    assert ends[0] == ends[2] != ends[1]


if __name__ == "__main__":
    torch.set_num_threads(1)
    # tqdm's own lock is one for a process and all its forks: a child that is killed with it would stop the others.
    tqdm.set_lock(threading.RLock())
    tqdm.monitor_interval = 0  # a thread, which a fork could find holding that lock
    print(json.dumps(killed(Path(sys.argv[1]), 20, seed=0)))
