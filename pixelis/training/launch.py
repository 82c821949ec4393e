"""`accelerate launch --num_processes N` on CPUs starts one process; the others are started here."""

import os
import sys
from collections.abc import Sequence
from itertools import pairwise

import psutil

from pixelis.errors import ConfigError

# With these set accelerate was asked for more than one process; a launcher that starts them all
# sets RANK as well.
ASKED_FOR_MORE = {"MASTER_PORT", "ACCELERATE_USE_CPU"}
NUM_PROCESSES = ("--num_processes", "--num-processes")
NUM_MACHINES = ("--num_machines", "--num-machines")


def launch_missing() -> None:
    """Become torchrun's agent of the processes that were asked for, where only one was started.

    Returns where nothing is missing. accelerate's own launcher for CPUs sets the address of a
    rendezvous and starts one process, which would train alone (accelerate.commands.launch,
    `simple_launcher`); how many were asked for is on its command line only.

    Raises:
        ConfigError: when the number is not there, or several machines are asked for.
    """
    if "RANK" in os.environ or not set(os.environ) >= ASKED_FOR_MORE:
        return
    launcher = psutil.Process().parent()
    words = launcher.cmdline() if launcher else []
    number = read_option(words, NUM_PROCESSES)
    if number is None or read_option(words, NUM_MACHINES) not in (None, 1):
        raise ConfigError(
            "accelerate launch has started one process of several: name --num_processes N on its "
            "command line, add --multi_gpu (it needs no GPU), or use torchrun --nproc_per_node N"
        )
    print(f"accelerate launch started one process of {number}: torchrun starts all", flush=True)
    for name in ("MASTER_ADDR", "MASTER_PORT"):
        del os.environ[name]  # torchrun has its own
    agent = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    agent += ["--nproc_per_node", str(number), *sys.orig_argv[1:]]
    os.execv(sys.executable, agent)


def read_option(words: Sequence[str], names: Sequence[str]) -> int | None:
    """The last integer of an option in a command line, after it or behind `=`; None without one."""
    found = None
    for word, following in pairwise([*words, ""]):
        name, equals, value = word.partition("=")
        value = value if equals else following
        if name in names and value.isdigit():
            found = int(value)
    return found
