"""One sft of the command line that notes, while it trains, what its process holds.

    python watched_sft.py NOTES OPTION ...

A line of NOTES (JSON) every few steps: step, resident memory (bytes), open files, threads, seconds.
"""

import gc
import json
import sys
import threading
import time
from pathlib import Path

import psutil

import pixelis.cli.sft as sft_command
import pixelis.training.sft as sft_module
from pixelis.training.callback import CurriculumCallback

EVERY = 20


class WatchedCallback(CurriculumCallback):
    """Notes what the process holds after a step."""

    notes: Path
    process = psutil.Process()

    def on_step_end(self, args, state, control, **words):
        super().on_step_end(args, state, control, **words)
        if state.global_step % EVERY == 0:
            gc.collect()
            note = {
                "step": state.global_step,
                "rss": self.process.memory_info().rss,
                "files": self.process.num_fds(),
                "threads": threading.active_count(),
                "seconds": time.monotonic(),
            }
            with self.notes.open("a", encoding="utf-8") as file:
                file.write(json.dumps(note) + "\n")


if __name__ == "__main__":
    WatchedCallback.notes = Path(sys.argv[1])
    sft_module.CurriculumCallback = WatchedCallback
    raise SystemExit(sft_command.run_cli(sft_command.main, sys.argv[2:]))
