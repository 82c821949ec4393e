"""Processes that train together: one of them leads, all agree, and one that fails ends them all.

`accelerate launch` and `torchrun` start them. A process that trains alone joins nothing.
"""

import json
import os
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, TypeVar

from pixelis.errors import UserError
from pixelis.training.launch import launch_missing

Value = TypeVar("Value")

FAILED = "failed"
POLL_SECONDS = 0.1
JOIN_SECONDS = 300.0
SILENT = "another process ended without a word (killed, or out of memory?)"


class OtherProcessFailed(RuntimeError):
    """Another process of this training failed; its message is this one's, and it prints it."""


class Processes:
    """The processes of one training, as one of them sees them; alone by default.

    Attributes:
        rank: of this process, from 0; the process of rank 0 (main) writes, records and speaks.
        world_size: how many there are.
    """

    def __init__(
        self, rank: int = 0, world_size: int = 1, store: Any = None, group: Any = None
    ) -> None:
        """Take what `join` made.

        Args:
            rank: of this process.
            world_size: how many there are.
            store: keys and values that all of them see; it outlives each of them.
            group: of torch.distributed, on the CPU.
        """
        self.rank, self.world_size = rank, world_size
        self._store, self._group = store, group
        self._num_waits = 0
        self._own: BaseException | None = None

    @property
    def is_main(self) -> bool:
        """Whether this is the process that writes, records and speaks."""
        return self.rank == 0

    def gather(self, value: Value) -> list[Value]:
        """The values of all processes in the order of their ranks; the same list in each."""
        if self.world_size == 1:
            return [value]
        import torch.distributed as dist

        values: list[Any] = [None] * self.world_size
        dist.all_gather_object(values, value, group=self._group)
        return values

    def any(self, flag: bool) -> bool:
        """Whether the flag is set in any process; the same answer in each."""
        if self.world_size == 1:
            return flag
        import torch
        import torch.distributed as dist

        asked = torch.tensor(int(flag))
        dist.all_reduce(asked, op=dist.ReduceOp.MAX, group=self._group)
        return bool(asked)

    def deal(
        self, batches: Sequence[Value], compute: Callable[[Value], Any]
    ) -> Iterator[tuple[Value, Any]]:
        """Each batch with its result, in order, each computed by one process, whole, for all.

        Every process computes equally often, if need be a batch that is not its own: the parts of a
        sharded model have to be asked by all at once.
        """
        if self.world_size == 1:
            yield from ((batch, compute(batch)) for batch in batches)
            return
        last = len(batches) - 1
        mine = [
            compute(batches[min(start + self.rank, last)])
            for start in range(0, len(batches), self.world_size)
        ]
        results = self.gather(mine)
        for index, batch in enumerate(batches):
            yield batch, results[index % self.world_size][index // self.world_size]

    def on_main(self, function: Callable[[], Value]) -> Value:
        """Call in the main process alone; the others wait, and all get its (JSON) result.

        However long it takes; a wait ends with the process that is waited for.
        """
        if self.world_size == 1:
            return function()
        self._num_waits += 1
        key = f"main {self._num_waits}"
        if self.is_main:
            value = function()
            self._store.set(key, json.dumps(value))
            return value
        while not self._store.check([key]):
            failure = self._first_failure()
            if failure:
                raise OtherProcessFailed(failure)
            time.sleep(POLL_SECONDS)
        result: Value = json.loads(self._store.get(key))
        return result

    @contextmanager
    def together(self) -> Iterator[None]:
        """Make one failure, in whichever process, that of all; the first to fail tells the others.

        Raises:
            OtherProcessFailed: in place of what another process's end led to in this one.
            UserError: this process's own, with its rank.
        """
        try:
            yield
        except BaseException as error:
            if self.world_size == 1 or error is self._own or isinstance(error, OtherProcessFailed):
                raise
            if not isinstance(error, Exception) and self._first_failure() is None:
                raise  # asked to stop; nothing failed
            # The launcher ends everyone as soon as one ends: this one has to speak, or to record.
            if self.is_main or isinstance(error, Exception):
                ignore_signals()
            own, said = self._with_rank(error)
            first = self._first_failure(said)
            if first is None or not first.startswith(f"rank {self.rank}: "):
                raise OtherProcessFailed(first) from None
            self._own = own
            if own is error:
                raise
            raise own from error

    def leave(self) -> None:
        """Part from the others, when all is done."""
        if self.world_size > 1:
            import torch.distributed as dist

            dist.destroy_process_group()

    def _with_rank(self, error: BaseException) -> tuple[BaseException, str]:
        """What to raise in an error's place, and what to tell the others."""
        prefix = f"rank {self.rank}: "
        if _is_lost_connection(error):
            error = UserError(SILENT)
        if isinstance(error, UserError):
            return type(error)(prefix + str(error)), prefix + str(error)
        error.add_note(f"in rank {self.rank} of {self.world_size} processes")
        return error, f"{prefix}{type(error).__name__}: {error}"

    def _first_failure(self, mine: str = "") -> str | None:
        """What the process that failed first said, be it `mine`, said now; None where none has."""
        try:
            return str(self._store.compare_set(FAILED, "", mine), "utf-8") or None
        except RuntimeError:  # the store went with the process that kept it
            return mine or SILENT


ALONE = Processes()


def ignore_signals() -> None:
    """Go on to the end of what is in hand, whatever the launcher sends."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)


def _is_lost_connection(error: BaseException) -> bool:
    from torch.distributed import DistError

    return isinstance(error, DistError) or (
        isinstance(error, RuntimeError) and "gloo" in str(error)
    )


def join() -> Processes:
    """The processes that a launcher started, this one among them; alone where none did.

    Raises:
        ConfigError: when a launcher started fewer processes than it was asked for, and how many
            those are cannot be told.
    """
    environment = os.environ
    if "RANK" not in environment:
        launch_missing()
        return ALONE
    if int(environment.get("WORLD_SIZE", "1")) == 1:
        return ALONE
    import torch
    import torch.distributed as dist
    from torch.distributed.distributed_c10d import PrefixStore
    from torch.distributed.rendezvous import rendezvous

    on_cpu = not torch.cuda.is_available() or environment.get("ACCELERATE_USE_CPU") == "True"
    store, rank, world_size = next(rendezvous("env://", timeout=timedelta(seconds=JOIN_SECONDS)))
    backend = "gloo" if on_cpu else "cpu:gloo,cuda:nccl"
    dist.init_process_group(backend, store=store, rank=rank, world_size=world_size)
    # A launcher that starts everyone again keeps its store.
    attempt = environment.get("TORCHELASTIC_RESTART_COUNT", "0")
    return Processes(
        rank,
        world_size,
        PrefixStore(f"pixelis {attempt}", store),
        dist.new_group(backend="gloo"),
    )
