"""The logging of an entry point: progress on standard output, warnings on standard error."""

import logging
import sys
from contextlib import AbstractContextManager, nullcontext
from typing import Any, TextIO


class _Console(logging.Handler):
    """A handler that writes to the current standard stream.

    It looks the stream up for each record, because tests and workers replace `sys.stdout`.
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
                    # Imported here, because it takes a tenth of a second that `--help` can save.
                    from rich.console import Console

                    Console(file=stream).print(text, markup=False, soft_wrap=True)
                else:
                    print(text, file=stream, flush=True)
        except Exception:  # like logging's own handlers: a log line must not end a training
            self.handleError(record)


def _hidden_bars(stream: TextIO) -> AbstractContextManager[Any]:
    """Hide tqdm's progress bars, if there are any, while a line is written."""
    bars = getattr(sys.modules.get("tqdm"), "tqdm", None)
    return bars.external_write_mode(file=stream) if bars else nullcontext()


def configure_logging(level: int = logging.INFO) -> None:
    """Print the log records of `pixelis` from a level on; calling it again only sets the level.

    Args:
        level: A level of `logging`. All processes of a training but the first one take ERROR, so
            that every line is printed once.
    """
    logger = logging.getLogger("pixelis")
    logger.setLevel(level)
    if not any(isinstance(handler, _Console) for handler in logger.handlers):
        logger.addHandler(_Console())
