"""Set up logging for an entry point: progress on standard output, warnings on standard error."""

import logging
import sys
from contextlib import AbstractContextManager, nullcontext
from typing import Any, TextIO


class _Console(logging.Handler):
    """Write a record to the standard stream that is in force when it comes.

    Looked up each time, since tests and workers replace `sys.stdout`.
    """

    def emit(self, record: logging.LogRecord) -> None:
        """Write one line; a terminal gets rich's colours."""
        try:
            is_warning = record.levelno >= logging.WARNING
            stream = sys.stderr if is_warning else sys.stdout
            text = self.format(record)
            if is_warning:
                text = f"{record.levelname.lower()}: {text}"
            with _hidden_bars(stream):
                if stream.isatty():
                    # Here, because it takes a tenth of a second that `--help` need not wait for.
                    from rich.console import Console

                    Console(file=stream).print(text, markup=False, soft_wrap=True)
                else:
                    print(text, file=stream, flush=True)
        except Exception:  # as logging's own handlers do: a log line never ends a training
            self.handleError(record)


def _hidden_bars(stream: TextIO) -> AbstractContextManager[Any]:
    """Hide tqdm's progress bars while a line is written, where tqdm is imported."""
    bars = getattr(sys.modules.get("tqdm"), "tqdm", None)
    return bars.external_write_mode(file=stream) if bars else nullcontext()


def configure_logging(level: int = logging.INFO) -> None:
    """Show the lines of the loggers below `pixelis` from `level` on; calling it again is harmless.

    Args:
        level: of the standard `logging` module. Processes of a training beside the first one take
            ERROR, so that every line is printed once.
    """
    logger = logging.getLogger("pixelis")
    logger.setLevel(level)
    if not any(isinstance(handler, _Console) for handler in logger.handlers):
        logger.addHandler(_Console())
