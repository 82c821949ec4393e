"""What an experiment's page shows: a description, and a view of its trainings."""

import json

from pixelis.tracking.experiments import VIEW_TAG, describe_experiment
from tests.tracking.conftest import opened


def test_a_run_gives_its_experiment_a_description_and_a_view(client):
    with opened() as recorder:
        pass
    tags = client.get_experiment(recorder.experiment_id).tags
    page = f"#/experiments/{recorder.experiment_id}/runs?viewStateShareKey=pixelis"
    assert f"[All trainings]({page}&workflowType=machine_learning)" in tags["mlflow.note.content"]
    view = json.loads(tags[VIEW_TAG])
    assert view["searchFilter"] == "tags.`pixelis.entry_point` = 'sft'"
    assert view["selectedColumns"][:4] == [
        "params.`curriculum.strategy`",
        "tags.`pixelis.stage_reached`",
        "metrics.`summary/rollbacks`",
        "metrics.`test/adapter/all/answer_accuracy`",
    ]
    found = client.search_runs([recorder.experiment_id], view["searchFilter"])
    assert [run.info.run_id for run in found] == [recorder.run_id]


def test_a_description_that_a_person_wrote_stays(client):
    client.set_experiment_tag("0", "mlflow.note.content", "Ours.")
    describe_experiment(client, "0")
    tags = client.get_experiment("0").tags
    assert tags["mlflow.note.content"] == "Ours." and VIEW_TAG in tags
