"""Stopped at any place and taken up again: the same training, to the bit."""

import json
import shutil
import signal

import pytest

from pixelis.errors import CheckpointError
from pixelis.training.checkpoint import checkpoints, find_fault, read_json
from pixelis.training.resume import Start, choose_start

KILLED = -signal.SIGKILL


def assert_same(run, whole):
    assert run.adapter == whole.adapter
    assert run.events == whole.events
    assert run.metrics == whole.metrics


@pytest.mark.parametrize(
    ("fault", "before", "taken_up"),
    [
        # Checkpoint 4 lies inside the segment of steps 4 to 6.
        (("record", 7, "SIGKILL"), {}, 4),
        # Torn while it was written: the one before is used.
        (("seal", 8, "SIGKILL"), {}, 4),
        # 6 examples an evaluation: in the middle of the third, at step 6, after the two before.
        (("evaluation", 15, "SIGKILL"), {"num_workers": 2}, 4),
        (("record", 10, "SIGKILL"), {"num_workers": 2}, 8),
        # Every step was done, and the last checkpoint written.
        (("final", None, "SIGKILL"), {}, 12),
    ],
    ids=[
        "in a step",
        "in a save",
        "in an evaluation",
        "later, with workers",
        "after the last step",
    ],
)
def test_a_killed_training_goes_on_as_if_nothing_had_happened(
    fork_run, whole, advancing, tmp_path, fault, before, taken_up
):
    place = tmp_path / "sft"
    fork_run(place, advancing, fault=fault, code=KILLED, **before)
    assert not (place / "final").exists()
    run = fork_run(place, advancing, resume="auto")
    assert f"going on from {place / f'checkpoint-{taken_up}'} (step {taken_up})" in run.said
    assert_same(run, whole)
