"""Progress bars without a terminal are lines of the log; in a terminal they are drawn."""

import logging
import os
import pty
import re
import subprocess
import sys
import termios

import pytest

from pixelis.progress import ProgressBar


@pytest.fixture
def log(caplog):
    caplog.set_level(logging.INFO, "pixelis")
    return caplog


def test_piped_a_bar_is_one_line_at_its_end_if_it_ends_early(log, capfd):
    with ProgressBar("evaluate", 300, "rollout") as bar:
        for number in range(300):
            bar.show(f"right {number / 300:.2f}")
            bar.update(1)
            bar.refresh()
    (line,) = log.messages
    assert re.fullmatch(
        r"evaluate: 100% 300/300 \[00:\d\d<00:00, +[\d.]+rollout/s, right 1.00\]", line
    )
    assert capfd.readouterr().err == ""


def test_piped_a_line_comes_when_the_last_one_is_old_enough(log, monkeypatch):
    monkeypatch.setattr("pixelis.progress.LOG_SECONDS", 0.0)
    with ProgressBar("count", None, "example") as bar:
        bar.n = 2
        bar.refresh()
        assert re.fullmatch(r"count: 2example \[00:00, +[\d.]+example/s\]", log.messages[-1])


def test_the_numbers_of_a_line_are_told_beside_it(log):
    with ProgressBar("tune", 8, "trial", initial=3) as bar:
        bar.update(1)
        bar.show("best 0.5000 (trial 2)", best=0.5)
    numbers = log.records[-1].numbers
    assert {**numbers, "seconds": 0} == {"done": 4, "total": 8, "seconds": 0, "best": 0.5}
    assert 0 <= numbers["seconds"] < 60


def test_a_brief_bar_leaves_nothing(log):
    with ProgressBar("tokenise train", 3, "example", is_brief=True) as bar:
        bar.update(3)
    assert log.messages == []


def test_where_progress_is_not_shown_there_is_no_bar(caplog, capfd):
    caplog.set_level(logging.WARNING, "pixelis")
    with ProgressBar("sft", 3, "step") as bar:
        bar.show("loss 0.5", loss=0.5)
        bar.update(3)
    assert caplog.messages == [] and capfd.readouterr() == ("", "")


@pytest.mark.integration
def test_in_a_terminal_a_bar_is_drawn_in_one_line():
    code = (
        "import logging; from pixelis.progress import ProgressBar\n"
        "logging.getLogger('pixelis').setLevel(logging.INFO)\n"
        "with ProgressBar('sft', 9, 'step') as bar:\n"
        "    for _ in range(9): bar.update(1); bar.refresh()\n"
    )
    main_end, terminal = pty.openpty()
    termios.tcsetwinsize(terminal, (24, 80))
    subprocess.run([sys.executable, "-c", code], stderr=terminal, check=True, timeout=60)
    os.close(terminal)
    shown = os.read(main_end, 100_000).decode()
    os.close(main_end)
    assert "9/9" in shown and shown.count("\n") == 1 and shown.count("\r") > 9
