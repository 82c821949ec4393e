"""Ways to stop a training before its last step: a signal, or pruning by a search."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from pixelis.training.callback import CurriculumCallback
from pixelis.training.distributed import Processes


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
def stop_on_signals(callback: CurriculumCallback, processes: Processes) -> Iterator[None]:
    """Let SIGINT and SIGTERM end training after the current step, with a checkpoint."""

    def stop(number: int, frame: FrameType | None) -> None:
        callback.stop_requested = True
        if processes.world_size == 1:
            # A second signal ends the process at once. Not under a launcher: it forwards the
            # signal to processes that may already have received it from the terminal.
            signal.signal(number, signal.default_int_handler)

    previous = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in previous.items():
            if signal.getsignal(number) is not signal.SIG_IGN:  # see `ignore_signals`
                signal.signal(number, handler)
