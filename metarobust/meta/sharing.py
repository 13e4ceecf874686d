"""Shares a run out to processes, each with a core or a GPU of its own.

Of a meta-training they share the groups of tasks. After that each takes whole units of work, whoever is free the next
one: see `metarobust.experiments.dealing`.

    meta-gradient  =  mean over groups  =  sum over processes of ( sum over its groups  g / groups )

Every group draws from a stream of its own, so it does not matter which process has it. One all-reduce a stretch adds up
the gradients and the meta-loss; then every process makes the same step of theta, to the bit. Process 0 leads: it alone
reads and writes the run's folder, and tells the others what there is to do.

    torchrun --nproc-per-node 4 -m metarobust run patch --scale full

Source: synchronous data parallelism as in Li et al. 2020 (arXiv 2006.15704), section 3, without its buckets: theta is
small enough for one message.
"""

import json
import os
import signal
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from safetensors.torch import load, save
from torch import Tensor
from torch.distributed.rendezvous import rendezvous

from metarobust.errors import InputError

TIMEOUT = timedelta(minutes=30)
"""How long the others are waited for: a first download takes long. Who has ended is noticed at once, without it."""

LOST = "a process of this run has ended, or was told to; start it again with --resume"

Held = tuple[dict[str, Tensor], dict[str, Any]]
"""A checkpoint: tensors by name, and a JSON object."""


@dataclass(frozen=True)
class Share:
    """What one of `size` processes is to do: number `rank` of all, from 0, and number `local` on its machine.

    store: the place that torchrun keeps for all of them; None for one alone.
    """

    rank: int = 0
    size: int = 1
    local: int = 0
    store: dist.Store | None = field(default=None, compare=False, repr=False)

    def groups(self, count: int) -> range:
        """The numbers of this process's groups: as many as another's, or one less. None where there are too few."""
        return range(self.rank * count // self.size, (self.rank + 1) * count // self.size)

    def sum(self, tensors: Sequence[Tensor], value: float) -> tuple[list[Tensor], float]:
        """Sums of the tensors and of the value over processes, by one all-reduce, in float64.

        Raises InputError where another process has ended.
        """
        if self.size == 1:
            return list(tensors), value
        last = torch.tensor([value], dtype=torch.float64, device=tensors[0].device)
        flat = torch.cat([*(t.detach().flatten().double() for t in tensors), last])
        with _together():
            dist.all_reduce(flat)
            total = float(flat[-1])  # waits for it
        parts = flat[:-1].split([t.numel() for t in tensors])
        return [part.view(t.shape).to(t.dtype) for part, t in zip(parts, tensors, strict=True)], total

    def tell(self, value: Any = None) -> Any:
        """Process 0's JSON value, at every process. Raises InputError as `sum` does."""
        if self.size == 1:
            return value
        told = json.loads(self._send(json.dumps(value).encode()))
        return told if self.rank else value

    def hand_out(self, held: Held | None = None) -> Held | None:
        """Process 0's checkpoint, at every process: it alone reads files. Raises InputError as `sum` does."""
        about = self.tell(held and held[1])
        if self.size == 1 or about is None:
            return held
        content = self._send(save(held[0]) if held else b"")
        return held or (load(content), about)

    def next_of(self, names: Sequence[str]) -> Iterator[str]:
        """Of names that all processes list alike: each the next one that no process has taken, until none is left.

        Raises InputError as `sum` does.
        """
        if self.store is None or not names:
            yield from names
            return
        while True:
            with _together():
                number = self.store.add(f"taken from {names[0]} on", 1) - 1
            if number >= len(names):
                return
            yield names[number]

    def post(self, name: str, value: Any) -> None:
        """Leaves a JSON value where process 0 finds it under this name. Raises InputError as `sum` does."""
        with _together():
            self.store.set(name, json.dumps(value))

    def posted(self, name: str) -> Any | None:
        """What another process has left under this name; None before that. Raises InputError as `sum` does."""
        if self.store is None:
            return None
        with _together():
            return json.loads(self.store.get(name)) if self.store.check([name]) else None

    def device(self, device: torch.device) -> torch.device:
        """A GPU of its own for each process of a machine. Raises InputError where there are too few."""
        if self.size == 1 or device.type != "cuda":
            return device
        if self.local >= torch.cuda.device_count():
            raise InputError(
                f"this machine has {torch.cuda.device_count()} GPU(s), too few for its processes; "
                f"start one for each, or give --device cpu"
            )
        torch.cuda.set_device(self.local)
        return torch.device("cuda", self.local)

    def leave(self) -> None:
        """What was shared is done: whoever has nothing left to do may end."""
        if self.size > 1 and dist.is_initialized():
            dist.destroy_process_group()

    def _send(self, content: bytes) -> bytes:
        # Bytes, not broadcast_object_list: that one pickles. On the CPU, where gloo does it whatever the device is.
        size = torch.tensor([len(content)])
        with _together():
            dist.broadcast(size, 0)
            message = torch.empty(int(size), dtype=torch.uint8)
            if self.rank == 0:
                message = torch.frombuffer(bytearray(content), dtype=torch.uint8)
            dist.broadcast(message, 0)
        return message.numpy().tobytes()


ALONE = Share()
"""The share of a process that has everything to do."""


def share_of(environment: Mapping[str, str]) -> Share:
    """What torchrun says in a process's environment; ALONE without it. Raises InputError for what it never says."""
    names = ("RANK", "WORLD_SIZE", "LOCAL_RANK")
    if environment.get("WORLD_SIZE", "1") == "1":
        return ALONE
    given = {name: environment.get(name, "") for name in names}
    if not all(value.isdecimal() for value in given.values()) or int(given["RANK"]) >= int(given["WORLD_SIZE"]):
        words = ", ".join(f"{name}={value!r}" for name, value in given.items())
        raise InputError(f"{words} does not say which process this is; start all of them with torchrun")
    return Share(*(int(given[name]) for name in names))


@contextmanager
def joined() -> Iterator[Share]:
    """This process's share; under torchrun, in one process group with the others until the block ends.

    gloo carries tensors on the CPU, NCCL those on GPUs. Where an error ends the run, one process passes it on; the
    others leave without a word. Raises InputError where the processes do not find each other.
    """
    share = share_of(os.environ)
    if share.size == 1:
        yield share
        return
    before = signal.signal(signal.SIGTERM, _told_to_end)  # torchrun's way to end a process when another has ended
    store = None
    try:
        try:
            store, _, _ = next(rendezvous("env://", share.rank, share.size, timeout=TIMEOUT))
            gpus = dist.is_nccl_available() and torch.cuda.is_available()
            dist.init_process_group(
                "cpu:gloo,cuda:nccl" if gpus else "gloo",
                store=dist.PrefixStore("group", store), rank=share.rank, world_size=share.size, timeout=TIMEOUT,
            )  # fmt: skip
        except (RuntimeError, ValueError) as error:
            if isinstance(error, InputError):
                raise
            raise InputError(
                f"process {share.rank} of {share.size} cannot join the others ({str(error).splitlines()[0]}); "
                f"start all of them with torchrun"
            ) from error
        yield replace(share, store=dist.PrefixStore("work", store))
        share.leave()  # not after an error: a process that is gone may be waited for
    except (InputError, OSError, KeyboardInterrupt) as error:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)  # time to say it
        if store is not None and _said(store):
            raise SystemExit(130 if isinstance(error, KeyboardInterrupt) else 2) from None
        raise
    finally:
        if signal.getsignal(signal.SIGTERM) is _told_to_end:
            signal.signal(signal.SIGTERM, before)


@contextmanager
def _together() -> Iterator[None]:
    """What torch.distributed raises where a connection breaks, as one line."""
    try:
        yield
    except RuntimeError as error:
        raise InputError(LOST) from error


def _told_to_end(*_: Any) -> None:
    raise InputError(LOST)


def _said(store: Any) -> bool:
    """Whether another process was first to say why the run ends. The store is torchrun's, so it outlives them."""
    try:
        return store.add("said", 1) > 1
    except RuntimeError:
        return False
