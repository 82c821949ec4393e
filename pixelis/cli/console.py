"""The console of an entry point: progress on standard output, warnings on standard error.

No message ends a program, whatever happens to the streams.
"""

import io
import logging
import os
import signal
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

                    # Lines are not wrapped, but COLUMNS=0 without a width would hide them.
                    Console(file=stream, width=80).print(text, markup=False, soft_wrap=True)
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


class _LossyFile(io.RawIOBase):
    """The file of a standard stream, which loses what it cannot write instead of raising."""

    def __init__(self, stream: TextIO, file: Any) -> None:
        """Take a stream and its file."""
        self._stream = stream  # kept, because its end would close the file
        self._file = file

    def writable(self) -> bool:
        """Return that it can be written."""
        return True

    def fileno(self) -> int:
        """Return the file's descriptor."""
        return int(self._file.fileno())

    def isatty(self) -> bool:
        """Return whether the file is a terminal."""
        return bool(self._file.isatty())

    def write(self, data: Any) -> int:
        """Write bytes; return how many were written or lost."""
        try:
            written: int | None = self._file.write(data)
        except OSError:
            written = None
        return written or len(data)  # None also stands for a pipe without room that does not wait


def protect_process() -> None:
    """Keep what surrounds a process from ending it; calling it again changes nothing.

    What a standard stream cannot write is lost: a closed pipe, a full disk or a terminal that has
    gone raises no error, and a character that the encoding lacks is written as its number. The end
    of the terminal does not end the process, and the backend that a notebook chose for its own
    figures is not used.
    """
    os.environ["MPLBACKEND"] = "agg"
    if hasattr(signal, "SIGHUP"):
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:  # closed by the shell
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8", errors="replace"))
        elif type(stream) is io.TextIOWrapper:  # not what a test or a notebook put there
            file = getattr(stream.buffer, "raw", stream.buffer)
            if isinstance(file, _LossyFile):
                continue
            lossy = io.TextIOWrapper(
                io.BufferedWriter(_LossyFile(stream, file)),
                stream.encoding,
                "backslashreplace",
                line_buffering=stream.line_buffering or stream.write_through,
            )
            setattr(sys, name, lossy)
