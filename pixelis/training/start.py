"""The processes of one training on this machine, started and ended from here (`num_processes`)."""

import logging
import os
import signal
import sys
from collections.abc import Collection, Sequence
from types import FrameType
from typing import Any

from pixelis.errors import ConfigError, UserError
from pixelis.training.launch import ASKED_FOR_MORE

POLL_SECONDS = 0.1
THREADS = "OMP_NUM_THREADS"
# What a process leaves with; of several, the first of these that one of them had.
STOPPED = 130
CODES = (2, STOPPED, 1)


def is_launched() -> bool:
    """Whether a launcher (torchrun, accelerate, `start_processes`) started this process."""
    return "RANK" in os.environ or set(os.environ) >= ASKED_FOR_MORE


def check_num_processes(wanted: int | None, world_size: int) -> None:
    """Refuse a number of processes that is not the launcher's.

    Raises:
        ConfigError: naming both.
    """
    if wanted not in (None, world_size):
        raise ConfigError(
            f"num_processes is {wanted}, but a launcher has started {world_size}: leave it null "
            "under torchrun or accelerate launch"
        )


def start_processes(module: str, argv: Sequence[str], num_processes: int) -> int:
    """Run `python -m module argv` as so many processes that train together; returns the exit code.

    torch's elastic starts them, as it does for torchrun, each in a session of its own: Ctrl-C comes
    to this process alone. It hands a signal on once and then waits, however long the step in hand
    and its checkpoint take; a second one kills them all. What ends one ends all.

    Args:
        module: reads the options in each process, and joins the others.
        argv: the options.
        num_processes: at least 2.

    Raises:
        ConfigError: when there are GPUs, but fewer.
        UserError: when all of them ended without a word.
    """
    import torch
    from torch._C._distributed_c10d import TCPStore
    from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs, api
    from torch.distributed.elastic.multiprocessing import start_processes as start

    if 0 < torch.cuda.device_count() < num_processes:
        raise ConfigError(
            f"num_processes is {num_processes}, but this machine has {torch.cuda.device_count()} "
            "GPUs: one process needs one"
        )
    logging.getLogger(api.__name__).setLevel(logging.CRITICAL)  # the processes say why themselves
    store = TCPStore("localhost", 0, is_master=True, wait_for_workers=False)
    everyone = {
        "WORLD_SIZE": str(num_processes),
        "LOCAL_WORLD_SIZE": str(num_processes),
        "MASTER_ADDR": "localhost",
        "MASTER_PORT": str(store.port),
        "TORCHELASTIC_USE_AGENT_STORE": "True",  # this process's: it outlives each of them
        THREADS: os.environ.get(THREADS) or str(max(1, (os.cpu_count() or 1) // num_processes)),
    }
    ranks = range(num_processes)
    previous = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    running = start(
        name="pixelis",
        entrypoint=sys.executable,
        args={rank: ("-m", module, *argv) for rank in ranks},
        envs={rank: everyone | {"RANK": str(rank), "LOCAL_RANK": str(rank)} for rank in ranks},
        logs_specs=DefaultLogsSpecs(),
    )
    asked: list[int] = []

    def hand_on(number: int, frame: FrameType | None) -> None:
        _send(running, signal.SIGKILL if asked else number)
        asked.append(number)

    for number in previous:
        signal.signal(number, hand_on)  # elastic's own would leave them half a minute
    try:
        result = running.wait(period=POLL_SECONDS)
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
    assert result is not None
    return _exit_code([failure.exitcode for failure in result.failures.values()], bool(asked))


def _send(running: Any, number: int) -> None:
    for process in running.pids().values():
        try:
            os.killpg(process, number)
        except ProcessLookupError:
            pass  # it has ended already


def _exit_code(codes: Collection[int], was_asked: bool) -> int:
    """One code for all: 0 where all have it."""
    if not codes:
        return 0
    for code in CODES:
        if code in codes:
            return code
    if was_asked:
        return STOPPED
    raise UserError("every process ended without a word (killed, or out of memory?)")
