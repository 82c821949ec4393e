"""Stop a training before its last step: on a signal, or pruned by a search."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from pixelis.training.callback import CurriculumCallback
from pixelis.training.distributed import Processes


class Stopped(KeyboardInterrupt):
    """Training was asked to stop (Ctrl-C or SIGTERM); what was done is in `checkpoint`."""

    word = "stopped"

    def __init__(self, checkpoint: Path, step: int) -> None:
        """Say where to go on."""
        super().__init__(f"stopped after step {step}; everything is in {checkpoint}")
        self.checkpoint, self.step = checkpoint, step


class Pruned(Stopped):
    """A search gave this training up; raised by its `on_evaluation`."""

    word = "pruned"

    def __init__(self, step: int, reason: str) -> None:
        """Say when and why."""
        KeyboardInterrupt.__init__(self, f"pruned after step {step}: {reason}")
        self.step, self.reason = step, reason


@contextmanager
def stop_on_signals(callback: CurriculumCallback, processes: Processes) -> Iterator[None]:
    """Let SIGINT and SIGTERM end training after the current step, with a checkpoint."""

    def stop(number: int, frame: FrameType | None) -> None:
        callback.stop_requested = True
        if processes.world_size == 1:
            # A second signal ends the process at once. A launcher sends one on to everyone, who
            # may have had it from the terminal already.
            signal.signal(number, signal.default_int_handler)

    previous = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in previous.items():
            if signal.getsignal(number) is not signal.SIG_IGN:  # see `ignore_signals`
                signal.signal(number, handler)
