"""The console of an entry point: progress on standard output, warnings on standard error.

No message ends a program, whatever happens to the streams.
"""

import io
import json
import logging
import math
import os
import signal
import sys
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, fields
from datetime import UTC, datetime
from typing import Any, TextIO

from pixelis.errors import ConfigError

HELP = """On the console, of every entry point:
  --quiet  only results, warnings and errors
  --verbose  also what libraries tell, the origin of each line, and the traceback of an error
  --log-format text|json  json: one object a line, with time, level, event and numbers
  --version  the version"""
FORMATS = ("text", "json")
WORDS = {"true": True, "false": False}  # of a switch; `mlflow run -P quiet=true` passes one
# Libraries read these at their import. Our own bars say what is done.
NO_BARS = {
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",  # transformers takes it too
    "HF_DATASETS_DISABLE_PROGRESS_BARS": "1",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
}
TALKATIVE = {
    "TRANSFORMERS_VERBOSITY": "info",
    "DATASETS_VERBOSITY": "info",
    "HF_HUB_VERBOSITY": "info",
}


@dataclass(frozen=True)
class ConsoleOptions:
    """What the console shows; no part of the configuration."""

    quiet: bool = False
    verbose: bool = False
    version: bool = False
    log_format: str = "text"


def read_options(argv: Sequence[str]) -> tuple[ConsoleOptions, list[str]]:
    """Return the console's options of a command line, and the words that are left.

    Raises:
        ConfigError: for a value that is none of the choices.
    """
    known, values = {field.name for field in fields(ConsoleOptions)}, dict[str, Any]()
    left, words = [], list(argv)
    while words:
        word = words.pop(0)
        option, equals, value = word.partition("=")
        name = option.removeprefix("--").replace("-", "_")
        if not option.startswith("--") or name not in known:
            left.append(word)
        elif name == "log_format":
            value = value if equals or not words else words.pop(0)
            if value not in FORMATS:
                raise ConfigError(f"{option} must be {' or '.join(FORMATS)}, got {value!r}")
            values[name] = value
        else:
            if not equals:
                value = words.pop(0) if words and words[0].lower() in WORDS else "true"
            if value.lower() not in WORDS:
                raise ConfigError(f"{option} must be {' or '.join(WORDS)}, got {value!r}")
            values[name] = WORDS[value.lower()]
    options = ConsoleOptions(**values)
    if options.quiet and options.verbose:
        raise ConfigError("--quiet and --verbose exclude each other")
    return options, left


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
            if isinstance(stream, _JsonStream):
                stream.send(record.levelname.lower(), text, getattr(record, "numbers", {}))
                return
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


def configure_console(options: ConsoleOptions) -> None:
    """Show what the options say; the bars of libraries are off."""
    for name, value in (NO_BARS | (TALKATIVE if options.verbose else {})).items():
        os.environ.setdefault(name, value)
    configure_logging(logging.WARNING if options.quiet else logging.INFO)
    form = "%(asctime)s %(name)s: %(message)s" if options.verbose else None
    for handler in logging.getLogger("pixelis").handlers:
        handler.setFormatter(logging.Formatter(form))
    if options.log_format == "json" and not isinstance(sys.stdout, _JsonStream):
        sys.stdout, sys.stderr = _JsonStream(sys.stdout, "info"), _JsonStream(sys.stderr, "warning")


class _JsonStream(io.TextIOBase):
    """A standard stream that writes each line as a JSON object, whoever printed it."""

    def __init__(self, stream: TextIO, level: str) -> None:
        """Take a stream, and the level of the lines that are printed without one."""
        self._stream, self._level, self._rest = stream, level, ""

    def writable(self) -> bool:
        """Return that it can be written."""
        return True

    def write(self, text: str) -> int:
        """Write the lines that are whole; keep the rest until its end comes."""
        *lines, self._rest = (self._rest + text).split("\n")
        for line in filter(str.strip, lines):
            self.send(self._level, line, {})
        return len(text)

    def send(self, level: str, event: str, numbers: Mapping[str, float | None]) -> None:
        """Write one object; a number that is not finite is null."""
        known = {
            name: number if number is not None and math.isfinite(number) else None
            for name, number in numbers.items()
        }
        time = datetime.now(UTC).isoformat(timespec="milliseconds")
        line = {"time": time, "level": level, "event": event, "numbers": known}
        print(json.dumps(line), file=self._stream, flush=True)


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
