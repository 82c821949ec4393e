"""Measure the start-up time of the commands: python benchmarks/start.py [--rounds 5]

`--help` of every entry point, and `python -m pixelis.cli.sft` on the default configuration, from
the start of the process to the end of the first optimiser step, with existing data and caches of
tokens and vision features. It prints medians with minimum and maximum. The exit code is 1 if a help
takes .5 s or more, or the first step 15 s or more.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from rounds import spread

ROOT = Path(__file__).parent.parent
HELP_SECONDS, STEP_SECONDS = 0.5, 15.0
# The same process as `python -m pixelis.cli.sft`, but ended by its first step.
UNTIL_FIRST_STEP = """
import os, sys
from torch.optim.optimizer import register_optimizer_step_post_hook
register_optimizer_step_post_hook(lambda *given: os._exit(0))
from pixelis.cli.arguments import run_cli
from pixelis.cli.sft import main
run_cli(main)
sys.exit("no step was made")
"""


def seconds(command, **words):
    began = time.perf_counter()
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, **words)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)[:200]} failed:\n{done.stderr[-2000:]}")
    return time.perf_counter() - began


def show(name, times):
    """Print a line; return the median."""
    print(f"{name:24} {spread(times)} s", flush=True)
    return statistics.median(times)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    rounds = parser.parse_args().rounds
    from pixelis.cli.__main__ import ENTRY_POINTS

    python, missed = [sys.executable, "-m"], []
    for name in ENTRY_POINTS:
        command = [*python, f"pixelis.cli.{name.replace('-', '_')}", "--help"]
        if show(f"{name} --help", [seconds(command) for _ in range(rounds)]) >= HELP_SECONDS:
            missed.append(f"{name} --help")
    with tempfile.TemporaryDirectory() as folder:
        store = {**os.environ, "MLFLOW_TRACKING_URI": f"sqlite:///{folder}/mlflow.db"}
        data = f"{folder}/data"
        seconds([*python, "pixelis.cli.data_prep", "--output_dir", data], env=store)
        words = ["--data.path", data, "--training.output_dir", f"{folder}/sft"]
        command = [sys.executable, "-c", UNTIL_FIRST_STEP, *words]
        print(f"the first start, caches made: {seconds(command, env=store):.1f} s", flush=True)
        times = [seconds(command, env=store) for _ in range(rounds)]
        if show("sft, to its first step", times) >= STEP_SECONDS:
            missed.append("sft, to its first step")
    print("all targets are met" if not missed else f"too slow: {', '.join(missed)}")
    return int(bool(missed))


if __name__ == "__main__":
    raise SystemExit(main())
