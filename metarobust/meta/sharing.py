"""Shares work out to processes: what they tell each other, and one meta-training by several of them.

A run is shared in whole units, whoever is free takes the next one: see `metarobust.lab.dealing`. Process 0
leads: it alone reads and writes the run's folder. Each has a core of its own; GPUs they share where there are fewer of
them, since a small network leaves most of a GPU idle.

    torchrun --nproc-per-node 4 -m metarobust run patch --scale full

A single meta-training can be shared too: `meta_train(..., share=share)` gives each process some of the groups of tasks.

    meta-gradient  =  mean over groups  =  sum over processes of ( sum over its groups  g / groups )

Every group draws from a stream of its own, so it does not matter which process has it. One all-reduce a stretch adds up
the gradients and the meta-loss; then every process makes the same step of theta, to the bit.

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

        On the CPU, wherever the tensors are: theta is small, and processes may share a GPU. Raises InputError where
        another process has ended.
        """
        if self.size == 1:
            return list(tensors), value
        last = torch.tensor([value], dtype=torch.float64)
        flat = torch.cat([*(t.detach().flatten().double().cpu() for t in tensors), last])
        with _together():
            dist.all_reduce(flat)
        parts = flat[:-1].split([t.numel() for t in tensors])
        pairs = zip(parts, tensors, strict=True)
        return [part.view(t.shape).to(t.device, t.dtype) for part, t in pairs], float(flat[-1])

    def tell(self, value: Any = None) -> Any:
        """Process 0's JSON value, at every process. Raises InputError as `sum` does."""
        if self.size == 1:
            return value
        told = json.loads(self._send(json.dumps(value).encode()))
        return told if self.rank else value

    def take(self, name: str) -> bool:
        """Whether this process may do what is called so: the first to ask has it. Raises InputError as `sum` does."""
        if self.store is None:
            return True
        with _together():
            return self.store.add(f"taken: {name}", 1) == 1

    def taken(self, name: str) -> bool:
        """Whether a process has taken it. Raises InputError as `sum` does."""
        return self._there(f"taken: {name}")

    def post(self, name: str, value: Any) -> None:
        """Leaves a JSON value where every process finds it under this name. Raises InputError as `sum` does."""
        self._leave(name, json.dumps(value).encode())

    def is_posted(self, name: str) -> bool:
        """Whether a process has left something under this name. Raises InputError as `sum` does."""
        return self._there(name)

    def posted(self, name: str) -> Any | None:
        """What a process has left under this name; None before that. Raises InputError as `sum` does."""
        content = self._found(name)
        return None if content is None else json.loads(content)

    def post_checkpoint(self, name: str, held: Held) -> None:
        """Leaves a checkpoint, in place of an older one of this name. Raises InputError as `sum` does."""
        about = json.dumps(held[1]).encode()
        self._leave(f"checkpoint: {name}", len(about).to_bytes(8, "little") + about + save(held[0]))

    def posted_checkpoint(self, name: str) -> Held | None:
        """The last checkpoint of this name that a process has left. Raises InputError as `sum` does."""
        content = self._found(f"checkpoint: {name}")
        if content is None:
            return None
        size = 8 + int.from_bytes(content[:8], "little")
        return load(content[size:]), json.loads(content[8:size])

    def device(self, device: torch.device) -> torch.device:
        """This process's GPU: one of its own, or one that it shares where a machine has fewer than processes."""
        if self.size == 1 or device.type != "cuda":
            return device
        number = self.local % torch.cuda.device_count()
        torch.cuda.set_device(number)
        return torch.device("cuda", number)

    def leave(self) -> None:
        """What was shared is done: whoever has nothing left to do may end."""
        if self.size > 1 and dist.is_initialized():
            dist.destroy_process_group()

    def _there(self, key: str) -> bool:
        if self.store is None:
            return False
        with _together():
            return self.store.check([key])

    def _leave(self, key: str, content: bytes) -> None:
        if self.store is not None:
            with _together():
                self.store.set(key, content)

    def _found(self, key: str) -> bytes | None:
        if not self._there(key):
            return None
        with _together():
            return self.store.get(key)

    def _send(self, content: bytes) -> bytes:
        # Bytes, not broadcast_object_list: that one pickles.
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

    Where an error ends the run, one process passes it on; the others leave without a word. Raises InputError where the
    processes do not find each other.
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
            dist.init_process_group(
                "gloo",
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
