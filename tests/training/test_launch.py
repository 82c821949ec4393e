"""What accelerate's launcher leaves out on CPUs."""

import subprocess
import sys
from pathlib import Path

import pytest

from pixelis.errors import ConfigError
from pixelis.training.launch import NUM_PROCESSES, launch_missing, read_option

JOIN = """
import sys
from pixelis.training.processes import join
processes = join()
line = f"rank {processes.rank} of {processes.gather(1)} {sys.argv[1:]}"
sys.stdout.write(line + "\\n")  # in one piece: two processes write to one pipe
sys.stdout.flush()
processes.leave()
"""


@pytest.mark.parametrize(
    ("words", "number"),
    [
        ("accelerate launch --num_processes 2 --cpu -m pixelis.cli.sft", 2),
        ("accelerate launch --num-processes=3 train.py", 3),
        ("accelerate launch --num_processes 2 --num_processes 4 train.py", 4),
        ("accelerate launch --config_file two.yaml train.py", None),
        ("accelerate launch train.py --num_processes", None),
        ("accelerate launch --num_processes many", None),
        ("", None),
    ],
)
def test_the_number_is_read_from_the_command_line(words, number):
    assert read_option(words.split(), NUM_PROCESSES) == number


def test_a_number_that_cannot_be_told_is_refused(monkeypatch):
    monkeypatch.delenv("RANK", raising=False)
    monkeypatch.setenv("MASTER_PORT", "29500")
    monkeypatch.setenv("ACCELERATE_USE_CPU", "True")
    with pytest.raises(ConfigError, match="^accelerate launch has started one process of several"):
        launch_missing()  # pytest was not asked for any


def test_accelerate_launch_on_cpus_gives_as_many_as_it_was_asked_for(tmp_path):
    (tmp_path / "train.py").write_text(JOIN)
    launcher = Path(sys.executable).with_name("accelerate")
    done = subprocess.run(
        [launcher, "launch", "--num_processes", "2", "--cpu", "train.py", "--seed", "1"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    said = done.stdout.splitlines()
    assert "accelerate launch started one process of 2: torchrun starts all" in said
    assert {f"rank {rank} of [1, 1] ['--seed', '1']" for rank in (0, 1)} <= set(said)
