"""The processes of one training: ranks, communication, and their end by a failure or a signal.

`torchrun` or `accelerate launch` starts the processes. A process without a launcher trains alone.
"""

import json
import os
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from types import FrameType
from typing import Any, TypeVar

from pixelis.errors import ConfigError, UserError, in_one_line

Value = TypeVar("Value")

FAILED = "failed"
POLL_SECONDS = 0.1
JOIN_SECONDS = 300.0
NO_MESSAGE = "another process ended without a word (killed, or out of memory?)"
TORCHRUN = "torchrun --nproc_per_node N -m pixelis.cli.sft"
LAUNCHED = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")  # what every launcher sets
# By each of these accelerate would take a process for one of several.
NUMBERS = ("WORLD_SIZE", "PMI_SIZE", "OMPI_COMM_WORLD_SIZE", "MV2_COMM_WORLD_SIZE")


class OtherProcessFailed(RuntimeError):
    """The failure of another process, which prints the reason; the text is that process's error."""


class Processes:
    """The processes of one training, seen from one of them; the default is a process alone.

    Attributes:
        rank: of this process, from 0; the process of rank 0 (main) writes, records and prints.
        world_size: the number of processes.
    """

    def __init__(
        self, rank: int = 0, world_size: int = 1, store: Any = None, group: Any = None
    ) -> None:
        """Set the parts that `join` makes: a key-value store and a process group on the CPU."""
        self.rank, self.world_size = rank, world_size
        self._store, self._group = store, group
        self._num_waits = 0
        self._own_error: BaseException | None = None

    @property
    def is_main(self) -> bool:
        """Whether this is the process that writes, records and prints."""
        return self.rank == 0

    def gather(self, value: Value) -> list[Value]:
        """Return the values of all processes in the order of their ranks, the same list in each."""
        if self.world_size == 1:
            return [value]
        import torch.distributed as dist

        values: list[Any] = [None] * self.world_size
        dist.all_gather_object(values, value, group=self._group)
        return values

    def any(self, flag: bool) -> bool:
        """Return whether the flag is set in any process, the same answer in each."""
        if self.world_size == 1:
            return flag
        # Twice a step, so one reduction instead of `gather`, which pickles.
        import torch
        import torch.distributed as dist

        flags = torch.tensor(int(flag))
        dist.all_reduce(flags, op=dist.ReduceOp.MAX, group=self._group)
        return bool(flags)

    def shard(
        self, batches: Sequence[Value], compute: Callable[[Value], Any]
    ) -> Iterator[tuple[Value, Any]]:
        """Compute each batch in one of the processes; yield every batch with its result, in order.

        Each process computes the same number of batches, if necessary the last one again, because
        all processes gather a layer of a sharded model at the same time.
        """
        if self.world_size == 1:
            yield from ((batch, compute(batch)) for batch in batches)
            return
        last = len(batches) - 1
        own = [
            compute(batches[min(start + self.rank, last)])
            for start in range(0, len(batches), self.world_size)
        ]
        results = self.gather(own)
        for index, batch in enumerate(batches):
            yield batch, results[index % self.world_size][index // self.world_size]

    def run_on_main(self, function: Callable[[], Value]) -> Value:
        """Call a function in the main process and return its (JSON) result in all of them.

        The others wait without a time limit, until the main process returns or ends.

        Raises:
            OtherProcessFailed: when the main process fails.
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
            if failure := self._first_failure():
                raise OtherProcessFailed(failure)
            time.sleep(POLL_SECONDS)
        result: Value = json.loads(self._store.get(key))
        return result

    @contextmanager
    def fail_together(self) -> Iterator[None]:
        """Make a failure in one process the failure of all; the first one to fail is reported.

        Raises:
            OtherProcessFailed: when another process failed first.
            UserError: the error of this process, with its rank.
        """
        try:
            yield
        except BaseException as error:
            is_told = isinstance(error, OtherProcessFailed) or error is self._own_error
            if self.world_size == 1 or is_told:
                raise
            if not isinstance(error, Exception) and self._first_failure() is None:
                raise  # asked to stop; nothing failed
            # A launcher ends every process as soon as one ends, but this one must still print or
            # record.
            if self.is_main or isinstance(error, Exception):
                ignore_signals()
            prefix = f"rank {self.rank}: "
            if _is_lost_connection(error):
                error = UserError(NO_MESSAGE)
            message = f"{prefix}{type(error).__name__}: {error}"
            if isinstance(error, UserError):
                message = f"{prefix}{error}"
                error = type(error)(message)
            first = self._first_failure(message)
            if first is None or not first.startswith(prefix):
                raise OtherProcessFailed(first) from None
            self._own_error = error
            if not isinstance(error, UserError):
                error.add_note(f"in rank {self.rank} of {self.world_size} processes")
            raise error

    def close(self) -> None:
        """Leave the process group."""
        if self.world_size > 1:
            import torch.distributed as dist

            dist.destroy_process_group()

    def _first_failure(self, own: str = "") -> str | None:
        """Return the message of the first process that failed, `own` if none did before."""
        try:
            return str(self._store.compare_set(FAILED, "", own), "utf-8") or None
        except RuntimeError:  # the process that kept the store has ended
            return own or NO_MESSAGE


ALONE = Processes()


class Stopped(KeyboardInterrupt):
    """A request to stop (Ctrl-C or SIGTERM), after the checkpoint was saved."""

    word = "stopped"

    def __init__(self, checkpoint: Path, step: int) -> None:
        """Set the message, the checkpoint and its step."""
        super().__init__(f"stopped after step {step}; everything is in {checkpoint}")
        self.checkpoint, self.step = checkpoint, step


class Pruned(Stopped):
    """A search's decision to give up this training; raised by its `on_evaluation`."""

    word = "pruned"

    def __init__(self, step: int, reason: str) -> None:
        """Set the message, the step and the reason."""
        KeyboardInterrupt.__init__(self, f"pruned after step {step}: {reason}")
        self.step, self.reason = step, reason


@contextmanager
def stop_on_signals(request_stop: Callable[[], None], processes: Processes) -> Iterator[None]:
    """Let SIGINT and SIGTERM end training after the current step, with a checkpoint.

    So does SIGHUP under a launcher: torchrun passes it on, and kills what goes on.
    """
    numbers = [signal.SIGINT, signal.SIGTERM]
    if processes.world_size > 1:
        numbers.append(signal.SIGHUP)

    def stop(number: int, frame: FrameType | None) -> None:
        request_stop()
        if processes.world_size == 1:
            # A second signal ends the process at once. Not under a launcher: it forwards the
            # signal to processes that may already have received it from the terminal.
            signal.signal(number, signal.default_int_handler)

    previous = {number: signal.signal(number, stop) for number in numbers}
    try:
        yield
    finally:
        for number, handler in previous.items():
            if signal.getsignal(number) is not signal.SIG_IGN:  # see `ignore_signals`
                signal.signal(number, handler)


def ignore_signals() -> None:
    """Ignore SIGINT and SIGTERM from now on, so that the current work is finished."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)


def _is_lost_connection(error: BaseException) -> bool:
    from torch.distributed import DistError

    return isinstance(error, DistError) or (
        isinstance(error, RuntimeError) and "gloo" in str(error)
    )


def check_launcher() -> None:
    """Refuse an environment in which a training would not be what was asked for.

    Raises:
        ConfigError: for DeepSpeed, where only one of several processes was started, and where the
            variables of several processes are incomplete, such as those that a job left behind.
    """
    is_deepspeed = os.environ.get("ACCELERATE_USE_DEEPSPEED", "false").lower() == "true"
    # accelerate's launcher for CPUs sets the address of several processes but starts only one.
    is_one_of_several = {"MASTER_PORT", "ACCELERATE_USE_CPU"} <= set(os.environ)
    if is_deepspeed or ("RANK" not in os.environ and is_one_of_several):
        raise ConfigError(
            f"accelerate launch {'with DeepSpeed' if is_deepspeed else 'on CPUs'} is not supported:"
            f" use {TORCHRUN}, or accelerate launch --config_file configs/accelerate/fsdp.yaml"
        )
    several = [name for name in NUMBERS if os.environ.get(name, "1") != "1"]
    if "LOCAL_RANK" in os.environ:
        several.append("LOCAL_RANK")
    missing = [name for name in LAUNCHED if name not in os.environ]
    if several and missing:
        raise ConfigError(
            f"{_listed(several)} in the environment announces several processes, which also need "
            f"{', '.join(missing)}: unset it to train in one process, or use {TORCHRUN}"
        )


def _listed(names: Sequence[str]) -> str:
    return ", ".join(f"{name}={os.environ[name]}" for name in names)


def join() -> Processes:
    """Join the processes that a launcher started; a process without a launcher is alone.

    Raises:
        ConfigError: when the launcher cannot be used (`check_launcher`), or the processes do not
            meet.
    """
    check_launcher()
    if os.environ.get("WORLD_SIZE", "1") == "1":
        return ALONE
    import torch
    import torch.distributed as dist
    from torch.distributed.distributed_c10d import PrefixStore
    from torch.distributed.rendezvous import rendezvous

    on_cpu = not torch.cuda.is_available() or os.environ.get("ACCELERATE_USE_CPU") == "True"
    backend = "gloo" if on_cpu else "cpu:gloo,cuda:nccl"
    try:
        timeout = timedelta(seconds=JOIN_SECONDS)
        store, rank, world_size = next(rendezvous("env://", timeout=timeout))
        dist.init_process_group(backend, store=store, rank=rank, world_size=world_size)
    except (dist.DistError, ValueError) as error:
        raise ConfigError(
            f"the processes of {_listed(LAUNCHED)} do not meet ({in_one_line(error)}): "
            f"unset these to train in one process, or use {TORCHRUN}"
        ) from error
    # A launcher that restarts the processes keeps its store; the prefix keeps attempts apart.
    attempt = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
    return Processes(
        rank,
        world_size,
        PrefixStore(f"pixelis {attempt}", store),
        dist.new_group(backend="gloo"),
    )


def shard_on_cpu(accelerator: Any) -> bool:
    """Switch accelerate to FSDP on CPUs, where it would use DDP; return whether FSDP was asked for.

    Args:
        accelerator: accelerate's Accelerator of this process, changed in place.
    """
    from accelerate import PartialState
    from accelerate.utils import DistributedType, FullyShardedDataParallelPlugin

    wanted = os.environ.get("ACCELERATE_USE_FSDP", "false").lower() == "true"
    if not wanted or accelerator.state.distributed_type != DistributedType.MULTI_CPU:
        return False
    # Set both, because accelerate copies the process's state into the accelerator's.
    PartialState().distributed_type = DistributedType.FSDP
    accelerator.state.distributed_type = DistributedType.FSDP
    accelerator.state.fsdp_plugin = FullyShardedDataParallelPlugin()
    return True
