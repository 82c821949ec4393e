"""What a shell is told when it completes a command line."""

import os
import subprocess
import sys

import pytest

from pixelis.cli.__main__ import main


@pytest.fixture
def complete(monkeypatch, capsys):
    def words(line, shell="bash"):
        """Return the words that fit the last one of a line."""
        monkeypatch.setenv("_PIXELIS_COMPLETE", f"{shell}_complete")
        monkeypatch.setenv("COMP_WORDS", line)
        monkeypatch.setenv("COMP_CWORD", str(line.count(" ")))
        assert main() == 0
        return [text.partition(",")[2] for text in capsys.readouterr().out.splitlines()]

    return words


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("pixelis e", ["evaluate", "export"]),
        ("pixelis sft --training.max_s", ["--training.max_steps"]),
        ("pixelis sft --curriculum.rollback_t", ["--curriculum.rollback_threshold"]),
        ("pixelis sft --model.torch_dtype b", ["bfloat16"]),
        ("pixelis data-prep --include_traps ", ["true", "false"]),
        ("pixelis plan --log-format ", ["text", "json"]),
        ("pixelis sync --q", ["--quiet"]),
    ],
)
def test_the_words_at_the_cursor(complete, line, words):
    assert complete(line) == words


@pytest.mark.parametrize("word", ["--config c", "--data.path d", "--resume "])
def test_a_path_is_completed_by_the_shell(complete, capsys, word):
    assert complete(f"pixelis sft {word}") == [word.rpartition(" ")[2]]


@pytest.mark.integration
def test_bash_takes_the_script_that_is_printed():
    command = [sys.executable, "-m", "pixelis.cli"]
    variables = {**os.environ, "_PIXELIS_COMPLETE": "bash_source"}
    done = subprocess.run(command, env=variables, capture_output=True, text=True, timeout=60)
    script = f"{done.stdout}\ncomplete -p pixelis"
    assert done.returncode == 0, done.stderr
    said = subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=True)
    assert "_pixelis_completion pixelis" in said.stdout
