"""Two checkpoints of a name: the last is used, a damaged one is refused, and a kill at any moment leaves one."""

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

from metarobust.checkpoints import Checkpoints
from metarobust.data import Split
from metarobust.errors import InputError
from metarobust.family import Family
from metarobust.learned.mlp import FeatureMLP
from metarobust.meta import MetaTrainConfig, MetaTrainer, hold_out
from metarobust.objectives import clean
from metarobust.storage import write_atomic

ROOT = Path(__file__).resolve().parents[2]


def filled(folder, count, spec="spec"):
    """A folder in which so many checkpoints were saved, one after the other."""
    store = Checkpoints(folder, "it", spec)
    for number in range(1, count + 1):
        store.save(content(number), {"step": number})
    return store


def content(number):
    return {"x": torch.full((3,), float(number), dtype=torch.float64), "count": torch.tensor(number)}


def loaded(folder, spec="spec"):
    """The step of the checkpoint that is used, whose tensors are its own."""
    tensors, about = Checkpoints(folder, "it", spec).load()
    assert set(about) == {"step"}
    assert all(torch.equal(tensors[name], value) for name, value in content(about["step"]).items())
    return about["step"]


@pytest.mark.parametrize("count", [1, 2, 3, 4, 7])
def test_the_last_two_are_kept_and_the_last_is_used(tmp_path, count):
    store = filled(tmp_path, count)
    assert store.load()[1] == {"step": count}
    assert loaded(tmp_path) == count
    assert len(list(tmp_path.iterdir())) == 2 * min(2, count)
    assert not any(path.name.startswith(".") for path in tmp_path.iterdir())


def test_without_any_there_is_none(tmp_path):
    assert Checkpoints(tmp_path / "nowhere", "it", "spec").load() is None
    filled(tmp_path, 2)
    assert Checkpoints(tmp_path, "other", "spec").load() is None


def test_another_process_goes_on_where_the_last_left_off(tmp_path):
    for number in range(1, 6):  # each time one that has read nothing yet
        Checkpoints(tmp_path, "it", "spec").save(content(number), {"step": number})
        assert loaded(tmp_path) == number


def flip(path):
    raw = bytearray(path.read_bytes())
    raw[len(raw) // 2] ^= 4
    path.write_bytes(raw)


DAMAGE = {
    "a flipped bit": flip,
    "cut short": lambda path: path.write_bytes(path.read_bytes()[:-1]),
    "empty": lambda path: path.write_bytes(b""),
    "missing": lambda path: path.unlink(),
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
@pytest.mark.parametrize("ending", [".safetensors", ".json"])
@pytest.mark.parametrize("count", [2, 3])
def test_a_damaged_one_is_refused_with_a_line_and_the_one_before_is_used(tmp_path, damage, ending, count, capsys):
    last, before = filled(tmp_path, count).paths[:: -1 if count == 2 else 1]
    damage(last.with_suffix(ending))
    store = Checkpoints(tmp_path, "it", "spec")
    assert store.load()[1] == {"step": count - 1}
    (line,) = capsys.readouterr().err.splitlines()
    assert str(last.with_suffix("")) in line
    assert line.endswith(f": going on from {before.name}")
    # The next takes the place of the refused one, and both are whole again.
    store.save(content(count), {"step": count})
    assert loaded(tmp_path) == count
    assert capsys.readouterr().err == ""
    damage(last.with_suffix(ending))
    assert loaded(tmp_path) == count - 1


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
@pytest.mark.parametrize("ending", [".safetensors", ".json"])
def test_the_first_save_of_a_process_spares_the_good_one(tmp_path, damage, ending):
    last = filled(tmp_path, 2).paths[1]
    damage(last.with_suffix(ending))
    Checkpoints(tmp_path, "it", "spec").save(content(9), {"step": 9})
    assert loaded(tmp_path) == 9
    damage(last.with_suffix(ending))
    assert loaded(tmp_path) == 1


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE)
def test_where_none_can_be_used_it_is_one_error(tmp_path, damage):
    for path in filled(tmp_path, 2).paths:
        damage(path)
    with pytest.raises(InputError, match=r"it\.0\.safetensors") as caught:
        Checkpoints(tmp_path, "it", "spec").load()
    assert "\n" not in str(caught.value)


def test_one_of_another_specification_is_refused(tmp_path, capsys):
    filled(tmp_path / "other", 2, "another")
    with pytest.raises(InputError, match=r"it\.0\.safetensors is of another run; delete it"):
        Checkpoints(tmp_path / "other", "it", "spec").load()
    last = filled(tmp_path / "own", 2).paths[1]
    for path in (last, last.with_suffix(".json")):
        shutil.copy(tmp_path / "other" / path.name, path)
    assert loaded(tmp_path / "own") == 1
    assert capsys.readouterr().err.count("is of another run: going on from it.0.safetensors") == 1


# A meta-training that is killed

POOL = tasks(3, each=20, shape=(1, 2, 2), dtype=torch.float32)
FAMILIES = [Family([name], Split(POOL.images, POOL.labels), 3, 20) for name in ("mlp-3-tanh", "mlp-2-relu")]
PLAN = MetaTrainConfig(8, (2, 4), 2, tasks=1, batch_size=8, held_out=8, lr=0.05, eps_growth=0.5, validate_every=3)


def meta_training(folder, plan=PLAN):
    """Goes on from the last checkpoint in the folder, and writes theta there in the end."""
    store, optimizer = Checkpoints(folder, "theta", "spec"), FeatureMLP(hidden=4, generator=generator())
    trainer = MetaTrainer(
        optimizer, FAMILIES[0].sample, plan, inner=clean, meta=ADVERSARIAL, seed=0,
        validate=hold_out(FAMILIES[1].sample, inner=clean, horizon=2, eps=0.1, groups=1, tasks=1, images=8, steps=2),
    )  # fmt: skip
    held = store.load()
    if held:
        trainer.load_state_dict(held[0], held[1]["log"])
    for _ in trainer.episodes():
        store.save(trainer.state_dict(), {"episode": len(trainer.log), "log": trainer.log})
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
        stored = Checkpoints(here, "theta", "spec").load()
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
