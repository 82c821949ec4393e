"""SIGKILL at many places of an sft, resumed each time: files and store as if nothing had been."""

import json
import os
import random
import signal
from pathlib import Path

import pytest

from pixelis.training.checkpoint import ADAPTER_FILE
from tests.forking import ForkServer

pytestmark = pytest.mark.integration

KILLED = -signal.SIGKILL
SEED = 3180  # one of those with a kill in a step, an evaluation, an attempt, a save and a delivery
MAX_STEPS = 8
# Trials of two steps, every one rolled back with its weights: at 2-4 and 6-8.
TRIALS = {
    "training__max_steps": MAX_STEPS,
    "training__batch_size": 1,
    "training__eval_steps": 3,
    "training__save_steps": 1,
    "training__save_total_limit": 2,
    "curriculum__rollback_enabled": "true",
    "curriculum__performance_metric": "likelihood",
    "curriculum__min_performance_for_advance": 1.0,
    "curriculum__trial_steps": 2,
    "curriculum__rollback_scope": "data+weights",
    "curriculum__rollback_factor": 1.0,
    "curriculum__rollback_cooldown": 0,
    "curriculum__max_rollbacks": "null",
}
EVENTS = [
    ("start", 0),
    ("trial", 2),
    ("rollback", 4),
    ("trial", 6),
    ("rollback", 8),
    ("end", 8),
]


@pytest.fixture(scope="module")
def server():
    with ForkServer("tests.cli.forked_sft") as server:
        yield server


@pytest.fixture
def sft_process(server, workdir, data, sft_arguments):
    """Run sft in a process of its own, which ends with the code."""
    log = workdir / "log.txt"

    def run(output_dir, *words, fault=None, code=0):
        log.unlink(missing_ok=True)
        answer = server.run(
            {
                "argv": sft_arguments(*words, **TRIALS, training__output_dir=output_dir),
                "fault": fault,
            },
            folder=workdir,
            environment={k: v for k, v in os.environ.items() if k.startswith("MLFLOW_")},
            log=log,
        )
        output = log.read_text() if log.exists() else ""
        assert answer == code, (fault, output[-3000:])
        return output.splitlines()

    return run


def choose_faults(seed):
    """One kill after another, each at a random workdir of a random step after the last one's."""
    generator = random.Random(seed)
    decided = {step for _, step in EVENTS[1:-1]}
    faults, step = [], 0
    while (step := step + generator.choice((1, 1, 2))) <= MAX_STEPS:
        places = ["step", "torn", "saved", "undelivered", "delivered"]
        if step in decided or step % 3 == 0:
            places.append("evaluation")
        if step in decided:
            places += ["attempt", "applied"] * 2
        faults.append((generator.choice(places), step))
    return faults


@pytest.fixture
def stored(client, workdir):
    """What the store and the folder of a training hold, without times."""

    def look(run, output_dir):
        histories = {
            key: sorted((m.step, m.value) for m in client.get_metric_history(run.info.run_id, key))
            for key in run.data.metrics
        }
        for key, values in histories.items():
            assert len({step for step, _ in values}) == len(values), key
        kept = client.download_artifacts(run.info.run_id, "curriculum/events.json", str(workdir))
        events = json.loads((workdir / output_dir / "events.json").read_text())
        assert json.loads(Path(kept).read_text()) == events
        return {
            "histories": histories,
            "events": events,
            **{
                name: (workdir / output_dir / name / ADAPTER_FILE).read_bytes()
                for name in ("final", "best")
            },
            "status": run.info.status,
            "params": run.data.params,
        }

    return look


def test_kills_at_many_places_leave_the_run_that_nobody_interrupted(
    workdir, sft_process, stored, runs
):
    sft_process("whole")
    (whole,) = runs()
    expected = stored(whole, "whole")
    assert [(event["kind"], event["step"]) for event in expected["events"]] == EVENTS
    steps = [step for step, _ in expected["histories"]["curriculum/stage"]]
    assert steps == list(range(1, MAX_STEPS + 1))
    assert expected["histories"]["eval/hard/likelihood"]
    assert expected["status"] == "FINISHED"

    faults = choose_faults(SEED)
    assert {"step", "evaluation", "attempt", "torn", "delivered"} <= {where for where, _ in faults}
    for number, fault in enumerate(faults):
        words = ("--resume", "auto") if number else ()
        sft_process("killed", *words, fault=fault, code=KILLED)
        assert not (workdir / "killed" / "final").exists()
    said = sft_process("killed", "--resume", "auto")
    assert any(line.startswith("going on from killed/checkpoint-") for line in said)
    killed, *others = [run for run in runs() if run.info.run_id != whole.info.run_id]
    assert others == []  # one run, however often it was taken up
    found = stored(killed, "killed")
    assert found["histories"].keys() == expected["histories"].keys()
    for key, values in expected["histories"].items():
        assert found["histories"][key] == values, key
    assert found == expected
