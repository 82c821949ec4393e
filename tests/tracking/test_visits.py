"""Stage visits as nested runs of a training."""

import pytest

from pixelis.curriculum import CurriculumConfig, CurriculumManager
from pixelis.tracking import MlflowRecorder, Past

STRATA = {"simple": 0.9, "medium": 0.8, "hard": 0.7}
POOR = {"simple": 0.9, "medium": 0.1, "hard": 0.0}


@pytest.fixture
def recorder(client, tmp_path):
    return MlflowRecorder(client, client.create_run("0", run_name="r"), output_dir=tmp_path / "out")


@pytest.fixture
def events():
    """Those of 30 steps: a trial rolled back after step 15, one kept after step 30."""
    settings = {"advancement_interval": 10, "rollback_threshold": -0.3, "rollback_cooldown": 10}
    more = {"rollback_factor": 1.0, "trial_steps": 5, "min_performance_for_advance": 0.0}
    manager = CurriculumManager(CurriculumConfig.from_dict(settings | more), max_steps=30)
    for step in range(1, 31):
        manager.step()
        if manager.attempt_due(step):
            manager.attempt(step, POOR if step == 15 else STRATA)
    manager.finish(30, STRATA)
    return [event.to_dict() for event in manager.events]


def visits_of(client, run_id):
    runs = client.search_runs(["0"], f"tags.`mlflow.parentRunId` = '{run_id}'")
    return sorted(runs, key=lambda run: int(run.data.tags["pixelis.visit"]))


def outcomes(client, run_id):
    return [
        (run.data.tags["stage"], run.data.tags["outcome"], run.info.status)
        for run in visits_of(client, run_id)
    ]


WHOLE = [
    ("simple", "tried_next", "FINISHED"),
    ("balanced", "rolled_back", "FINISHED"),
    ("simple", "tried_next", "FINISHED"),
    ("balanced", "ended", "FINISHED"),
]


def test_each_visit_is_a_nested_run_that_says_how_it_went(client, recorder, events):
    for event in events:
        recorder.event(event)
    recorder.close("FINISHED")
    assert outcomes(client, recorder.run_id) == WHOLE
    tried = visits_of(client, recorder.run_id)[1]
    assert tried.info.run_name == "2 · balanced · steps 10 to 15 · rolled back"
    assert tried.data.tags["entered_by"] == "trial"
    assert tried.data.tags["reason"] == "drop"
    assert tried.data.params == {
        "stage": "balanced",
        "begin": "10",
        "entered_by": "trial",
        "mix/simple": "0.4",
        "mix/medium": "0.4",
        "mix/hard": "0.2",
    }
    metrics = tried.data.metrics
    assert (metrics["visit/entry/medium"], metrics["visit/exit/medium"]) == (0.8, 0.1)
    assert (metrics["visit/steps"], metrics["visit/delta"]) == (5, pytest.approx(-0.5))
    (point,) = client.get_metric_history(tried.info.run_id, "visit/exit/medium")
    assert point.step == 15
    assert tried.info.end_time >= tried.info.start_time


def test_while_a_stage_is_visited_its_run_is_open(client, recorder, events):
    for event in events[:3]:
        recorder.event(event)
    recorder.flush()
    assert [status for *_, status in outcomes(client, recorder.run_id)] == [
        *("FINISHED", "FINISHED", "RUNNING")
    ]
    recorder.close("KILLED")
    assert outcomes(client, recorder.run_id)[-1] == ("simple", "open", "KILLED")


@pytest.mark.parametrize("is_new_run", [False, True])
@pytest.mark.parametrize("seen", range(1, 6))
def test_after_a_resume_the_visits_are_those_of_a_run_that_was_never_stopped(
    client, recorder, events, seen, is_new_run
):
    # The checkpoint is older than what was recorded: its last event comes again.
    length = 0
    for event in events[:seen]:
        length = recorder.position()
        recorder.event(event)
    recorder.close("KILLED")
    before = {run.info.run_id: run.info for run in visits_of(client, recorder.run_id)}
    run = client.create_run("0") if is_new_run else client.get_run(recorder.run_id)
    folder = recorder.journal.path.parent
    past = Past(folder, recorder.run_id, length)
    resumed = MlflowRecorder(client, run, resumed=not is_new_run, output_dir=folder, past=past)
    for event in events[seen - 1 :]:
        resumed.event(event)
    resumed.close("FINISHED")
    assert outcomes(client, resumed.run_id) == WHOLE
    history = client.get_metric_history(resumed.run_id, "curriculum/event")
    assert [(point.step, point.value) for point in history] == [(15, -1.0), (30, 1.0)]
    if is_new_run:
        return
    after = {run.info.run_id: run.info for run in visits_of(client, recorder.run_id)}
    assert set(before) <= set(after)
    for run_id, info in before.items():
        assert after[run_id].start_time == info.start_time
    for run in visits_of(client, recorder.run_id):
        for key in run.data.metrics:
            assert len(client.get_metric_history(run.info.run_id, key)) == 1, key


@pytest.mark.parametrize("with_visits", [False, True])
def test_a_run_that_is_deleted_for_a_time_has_every_visit(client, recorder, events, with_visits):
    for event in events[:2]:
        recorder.event(event)
    assert recorder.flush()
    deleted = [run.info.run_id for run in visits_of(client, recorder.run_id) if with_visits]
    deleted.append(recorder.run_id)
    for run_id in deleted:
        client.delete_run(run_id)
    for event in events[2:4]:
        recorder.event(event)
    assert not recorder.flush()
    for run_id in deleted:
        client.restore_run(run_id)
    for event in events[4:]:
        recorder.event(event)
    recorder.close("FINISHED")
    assert outcomes(client, recorder.run_id) == WHOLE
    assert client.get_run(recorder.run_id).info.status == "FINISHED"
