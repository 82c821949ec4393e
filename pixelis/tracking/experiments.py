"""An experiment's description, and a view of its runs' table that MLflow's page can open."""

import json

from mlflow import MlflowClient
from mlflow.utils.mlflow_tags import MLFLOW_RUN_NOTE

# Without it MLflow opens its pages for GenAI, which show traces first.
WORKFLOW = "workflowType=machine_learning"
VIEW = "pixelis"
# MLflow's page keeps a shared view in such a tag, as JSON, and opens it by `viewStateShareKey`.
VIEW_TAG = f"mlflow.sharedViewState.{VIEW}"
TEST_METRICS = (
    *("test/adapter/all/answer_accuracy", "test/base/all/answer_accuracy", "test/gain/all"),
    *(f"test/adapter/{name}/answer_accuracy" for name in ("simple", "medium", "hard")),
)
COLUMNS = (
    "params.`curriculum.strategy`",
    "tags.`pixelis.stage_reached`",
    "metrics.`summary/rollbacks`",
    *(f"metrics.`{name}`" for name in TEST_METRICS),
)
VIEW_STATE = {
    "searchFilter": "tags.`pixelis.entry_point` = 'sft'",
    "orderByKey": "attributes.start_time",
    "orderByAsc": False,
    "selectedColumns": COLUMNS,
}


def view_page(experiment_id: str) -> str:
    """Return the address of the view of an experiment's trainings, within MLflow's pages."""
    return f"#/experiments/{experiment_id}/runs?viewStateShareKey={VIEW}&{WORKFLOW}"


def describe_experiment(client: MlflowClient, experiment_id: str) -> None:
    """Give an experiment the view and, unless it has one, a description that links to it."""
    tags = client.get_experiment(experiment_id).tags
    state = json.dumps(VIEW_STATE)
    if tags.get(VIEW_TAG) != state:
        client.set_experiment_tag(experiment_id, VIEW_TAG, state)
    if MLFLOW_RUN_NOTE not in tags:  # experiments have it too
        note = (
            f"[All trainings]({view_page(experiment_id)}) with strategy, stage reached, rollbacks "
            "and accuracy on the test split.\n\nThe description of a training begins with its "
            "result. Its nested runs are the visits of its stages. Other runs made the data, "
            "evaluated adapters, or compared, tuned and ablated trainings."
        )
        client.set_experiment_tag(experiment_id, MLFLOW_RUN_NOTE, note)
