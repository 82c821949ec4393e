"""The console script `pixelis`."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from pixelis.cli.__main__ import ENTRY_POINTS, main

ROOT = Path(__file__).parent.parent.parent


def call(monkeypatch, *words):
    monkeypatch.setattr(sys, "argv", ["pixelis", *words])
    return main()


@pytest.mark.parametrize("words", [(), ("-h",), ("--help",)])
def test_help_lists_the_entry_points(monkeypatch, capsys, words):
    assert call(monkeypatch, *words) == 0
    out = capsys.readouterr().out
    assert out.startswith("usage: pixelis ENTRY_POINT [--help] [options]\n")
    assert re.findall(r"^  (\S+) ", out, re.M) == list(ENTRY_POINTS)


def test_an_entry_point_that_there_is_not(monkeypatch, capsys):
    assert call(monkeypatch, "train") == 2
    expected = f"error: Unknown entry point 'train'. Choices: {', '.join(ENTRY_POINTS)}\n"
    assert capsys.readouterr().err == expected


@pytest.mark.parametrize("name", ENTRY_POINTS)
def test_an_entry_point_gets_its_words(monkeypatch, capsys, name):
    assert call(monkeypatch, name, "--nonsense", "3") == 2
    assert "error: Unknown key 'nonsense' in the command line." in capsys.readouterr().err


@pytest.mark.integration  # a process for each
@pytest.mark.parametrize("name", ENTRY_POINTS)
def test_help_ends_with_0_and_imports_nothing_heavy(name):
    code = (
        "import sys\nfrom pixelis.cli.__main__ import main\n"
        f"sys.argv = ['pixelis', '{name}', '--help']\n"
        "try:\n    main()\nexcept SystemExit as end:\n    assert end.code == 0\n"
        "assert not {'torch', 'mlflow', 'transformers', 'numpy'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    options = {"sync": "[FOLDER ...]", "init": "[FOLDER]"}.get(name, "[--config FILE]")
    assert done.stdout.startswith(f"usage: pixelis {name} {options}")
