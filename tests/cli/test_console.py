"""What an entry point prints, and that nothing which happens to its streams ends it."""

import json
import logging
import os
import pty
import re
import subprocess
import sys
from contextlib import suppress
from datetime import datetime
from pathlib import Path

import pytest

from pixelis.cli.arguments import ENTRY_POINTS
from pixelis.cli.console import ConsoleOptions, configure_logging, read_options
from pixelis.config import CONFIG_FILES, walk_fields
from pixelis.errors import ConfigError

ROOT = Path(__file__).parent.parent.parent
# Says something in every way that a training does, and ends with a code of its own.
TALKING = """
import logging, os, sys, time, warnings
from tqdm import tqdm
from pixelis.cli.arguments import run_cli

def main(argv):
    logger = logging.getLogger("pixelis.training")
    if argv:
        print("ready", flush=True)
    while argv and os.isatty(1):
        time.sleep(0.01)
    for number in tqdm(range(3), mininterval=0):
        print("✅ 进度 \\udcff", "x" * 9000, flush=True)
        logger.info("مرحلة %d", number)
        logger.warning("🧿")
        warnings.warn(f"é {number}")
    open("done", "w").close()
    return 7

raise SystemExit(run_cli(main))
"""
COMMAND = [sys.executable, "-c", TALKING]


def environment(**variables):
    return {**os.environ, "PYTHONPATH": str(ROOT), **variables}


def closed_pipe():
    reader, writer = os.pipe()
    os.close(reader)
    return writer


def full_disk():
    return os.open("/dev/full", os.O_WRONLY)


def gone_terminal():
    main_end, terminal = pty.openpty()
    os.close(main_end)
    return terminal


def unread_pipe():
    """A pipe without room, which does not wait for its reader."""
    _, writer = os.pipe()
    os.set_blocking(writer, False)
    with pytest.raises(BlockingIOError):
        while True:
            os.write(writer, bytes(1000))
    return writer


def test_progress_goes_to_standard_output_and_warnings_to_standard_error(capsys):
    configure_logging()
    configure_logging()  # a second call adds no second line
    logger = logging.getLogger("pixelis.training.sft")
    logger.info("step %d", 3)
    logger.warning("MLflow is away")
    logger.debug("not shown")
    out, err = capsys.readouterr()
    assert (out, err) == ("step 3\n", "warning: MLflow is away\n")


def test_a_process_beside_the_first_one_shows_errors_only(capsys):
    configure_logging(logging.ERROR)
    try:
        logging.getLogger("pixelis.training.sft").info("step 3")
        assert capsys.readouterr().out == ""
    finally:
        configure_logging()


@pytest.mark.integration  # a process for each
@pytest.mark.parametrize("options", [[], ["-u"]], ids=["buffered", "unbuffered"])
@pytest.mark.parametrize("broken", [closed_pipe, full_disk, gone_terminal, unread_pipe])
def test_a_stream_that_takes_nothing_ends_nothing(tmp_path, broken, options):
    for streams in ({"stdout"}, {"stdout", "stderr"}):
        handles = {name: broken() for name in streams}
        command = [sys.executable, *options, *COMMAND[1:]]
        given = {"stderr": subprocess.PIPE} | handles
        done = subprocess.run(command, cwd=tmp_path, env=environment(), timeout=60, **given)
        assert done.returncode == 7, done.stderr
        (tmp_path / "done").unlink()
        if streams == {"stdout"}:
            assert b"warning: " in done.stderr and b"Traceback" not in done.stderr
        for handle in handles.values():
            os.close(handle)


@pytest.mark.integration
def test_streams_that_the_shell_closed_end_nothing(tmp_path):
    command = ["sh", "-c", 'exec "$@" >&- 2>&-', "sh", *COMMAND]
    assert subprocess.run(command, cwd=tmp_path, env=environment(), timeout=60).returncode == 7


@pytest.mark.integration
@pytest.mark.parametrize("encoding", ["latin-1", "ascii", "cp1252", "gbk", "utf-8"])
def test_a_character_that_the_encoding_lacks_is_written_as_its_number(tmp_path, encoding):
    done = subprocess.run(
        COMMAND,
        cwd=tmp_path,
        env=environment(PYTHONIOENCODING=encoding),
        capture_output=True,
        timeout=60,
    )
    assert done.returncode == 7 and b"Traceback" not in done.stderr
    lines = done.stdout.splitlines()
    assert lines[0].startswith("✅ 进度 \\udcff x".encode(encoding, "backslashreplace"))
    assert lines[1] == "مرحلة 0".encode(encoding, "backslashreplace")
    assert "warning: 🧿\n".encode(encoding, "backslashreplace") in done.stderr


@pytest.mark.integration
def test_a_process_outlives_its_terminal(tmp_path):
    pid, terminal = pty.fork()
    if pid == 0:
        os.chdir(tmp_path)
        os.execve(sys.executable, [*COMMAND, "hang up"], environment())
    said = b""
    while b"ready" not in said:
        said += os.read(terminal, 1000)
    os.close(terminal)  # the kernel sends SIGHUP to the process that the terminal belongs to
    _, status = os.waitpid(pid, 0)
    assert os.waitstatus_to_exitcode(status) == 7 and (tmp_path / "done").exists()


@pytest.mark.integration
@pytest.mark.parametrize(
    "variables",
    [
        {"COLUMNS": "0", "LINES": "0", "TERM": "xterm"},
        {"COLUMNS": "-1", "TERM": "xterm-256color"},
        {"COLUMNS": "wide", "LINES": "", "TERM": "dumb"},
        {"TERM": ""},
    ],
)
def test_a_terminal_of_any_kind_and_size_shows_every_line(tmp_path, variables):
    main_end, terminal = pty.openpty()
    process = subprocess.Popen(
        COMMAND, cwd=tmp_path, env=environment(**variables), stdout=terminal, stderr=terminal
    )
    os.close(terminal)
    said = b""
    with suppress(OSError):  # the end of the terminal
        while True:
            said += os.read(main_end, 10_000)
    os.close(main_end)
    assert process.wait(60) == 7 and b"Traceback" not in said
    assert said.count("مرحلة".encode()) == said.count("warning: 🧿".encode()) == 3


@pytest.mark.integration
@pytest.mark.parametrize(
    "backend", ["module://matplotlib_inline.backend_inline", "module://nothing", "TkAgg", "nothing"]
)
def test_figures_are_drawn_whatever_backend_a_notebook_left(backend):
    code = (
        "from pixelis.cli.arguments import run_cli\n"
        "def main(argv):\n"
        "    from pixelis.figures import as_figure, layer_spectra\n"
        "    as_figure(layer_spectra([])).savefig('/dev/null', format='png')\n"
        "    return 7\n"
        "raise SystemExit(run_cli(main))"
    )
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, env=environment(MPLBACKEND=backend), capture_output=True)
    assert (done.returncode, done.stderr) == (7, b"")


# Options of the console


@pytest.mark.parametrize(
    ("argv", "options", "left"),
    [
        (["--config", "a.yaml"], {}, ["--config", "a.yaml"]),
        (["--quiet", "--resume", "auto"], {"quiet": True}, ["--resume", "auto"]),
        (["--log-format", "json", "x"], {"log_format": "json"}, ["x"]),
        (["--log_format=json", "--verbose"], {"log_format": "json", "verbose": True}, []),
        # `mlflow run -P quiet=true` passes a value; a word that is none stays.
        (["--quiet", "true", "--seed", "3"], {"quiet": True}, ["--seed", "3"]),
        (["--verbose=False", "outputs"], {}, ["outputs"]),
        (["--quiet", "outputs"], {"quiet": True}, ["outputs"]),
        (["--rollback_threshold", "-0.1", "quiet"], {}, ["--rollback_threshold", "-0.1", "quiet"]),
    ],
)
def test_options_are_taken_from_anywhere_in_a_command_line(argv, options, left):
    assert read_options(argv) == (ConsoleOptions(**options), left)


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--log-format", "xml"], "--log-format must be text or json, got 'xml'"),
        (["--log-format"], "--log-format must be text or json, got ''"),
        (["--quiet=no"], "--quiet must be true or false, got 'no'"),
        (["--quiet", "--verbose"], "--quiet and --verbose exclude each other"),
    ],
)
def test_a_fault_in_the_options(argv, message):
    with pytest.raises(ConfigError, match=re.escape(message)):
        read_options(argv)


def test_no_option_is_a_key_of_the_configuration():
    files = {path for entry in ENTRY_POINTS.values() for path in entry.files.values()}
    keys = {key for path in files for key, _ in walk_fields(CONFIG_FILES[path])}
    assert not keys & {"quiet", "verbose", "version", "log_format"}


SAYING = """
import logging, sys, warnings
from pixelis.cli.arguments import run_cli
from pixelis.errors import DataError
from pixelis.progress import ProgressBar

def main(argv):
    assert argv == ["--resume", "auto"], argv
    numbers = {"loss": float("nan"), "step": 3}
    logging.getLogger("pixelis.training").info("🧿 %d", 3, extra={"numbers": numbers})
    logging.getLogger("pixelis.training").warning("MLflow is away")
    with ProgressBar("sft", 4, "step") as bar:
        bar.update(4)
    print("a table\\nof two lines", flush=True)
    print("a library", file=sys.stderr)
    raise DataError("cota_hard.parquet is missing")

raise SystemExit(run_cli(main, ["--resume", "auto", *sys.argv[1:]]))
"""


def say(*options, **variables):
    command = [sys.executable, "-c", SAYING, *options]
    done = subprocess.run(
        command, env=environment(**variables), capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 2, done.stderr
    return done.stdout.splitlines(), done.stderr.splitlines()


@pytest.mark.integration
def test_by_default_progress_results_warnings_and_errors_are_shown():
    out, err = say()
    assert out[0] == "🧿 3" and out[1].startswith("sft: 100% 4/4 [")
    assert out[2:] == ["a table", "of two lines"]
    missing = "error: cota_hard.parquet is missing"
    assert err == ["warning: MLflow is away", "a library", missing]


@pytest.mark.integration
def test_quiet_shows_results_warnings_and_errors():
    out, err = say("--quiet")
    assert out == ["a table", "of two lines"] and len(err) == 3


@pytest.mark.integration
def test_verbose_shows_where_a_line_and_an_error_come_from():
    out, err = say("--verbose")
    assert re.fullmatch(r"20\d\d-.* pixelis.training: 🧿 3", out[0])
    assert err[-1] == "pixelis.errors.DataError: cota_hard.parquet is missing"


@pytest.mark.integration
@pytest.mark.parametrize("encoding", ["utf-8", "ascii"])
def test_as_json_every_line_of_both_streams_is_an_object(encoding):
    out, err = say("--log-format", "json", PYTHONIOENCODING=encoding)
    lines = [json.loads(line) for line in out + err]
    assert all(list(line) == ["time", "level", "event", "numbers"] for line in lines)
    assert all(datetime.fromisoformat(line["time"]).tzinfo for line in lines)
    assert [(line["level"], line["event"][:15]) for line in lines] == [
        ("info", "🧿 3"),
        ("info", "sft: 100% 4/4 ["),
        ("info", "a table"),
        ("info", "of two lines"),
        ("warning", "MLflow is away"),
        ("warning", "a library"),
        ("error", "cota_hard.parqu"),
    ]
    assert lines[0]["numbers"] == {"loss": None, "step": 3}
    assert lines[1]["numbers"]["done"] == lines[1]["numbers"]["total"] == 4


@pytest.mark.integration
def test_in_a_terminal_no_color_is_obeyed(tmp_path):
    shown = {}
    for name, variables in {"plain": {"NO_COLOR": "1"}, "coloured": {}}.items():
        main_end, terminal = pty.openpty()
        kept = {key: value for key, value in environment().items() if key != "NO_COLOR"}
        streams = {"stdout": terminal, "stderr": terminal}
        colours = {"TERM": "xterm-256color", **variables}
        command = [sys.executable, "-c", SAYING]
        assert subprocess.run(command, env=kept | colours, timeout=60, **streams).returncode == 2
        os.close(terminal)
        shown[name] = os.read(main_end, 100_000).decode()
        os.close(main_end)
    colour = re.compile(r"\x1b\[(\d+;)*[34]\d")
    assert colour.search(shown["coloured"]) and not colour.search(shown["plain"])


@pytest.mark.integration
def test_the_bars_of_the_libraries_are_off():
    code = (
        "from pixelis.cli.arguments import run_cli\n"
        "def main(argv):\n"
        "    from datasets.utils import are_progress_bars_disabled\n"
        "    from transformers.utils.logging import is_progress_bar_enabled\n"
        "    print(are_progress_bars_disabled(), is_progress_bar_enabled())\n"
        "    return 0\n"
        "raise SystemExit(run_cli(main, []))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment(), capture_output=True, text=True, timeout=120
    )
    assert done.stdout == "True False\n", done.stderr
