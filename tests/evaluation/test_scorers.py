"""The scorers inside `mlflow.genai.evaluate`, over rows and without a network."""

import os

import mlflow
import pytest
from mlflow.genai.scorers import scorer

from pixelis.evaluation.scorers import SCORERS, rows_of
from tests.evaluation.rollouts import answer, call, example, noise, result, rollout

pytestmark = pytest.mark.integration


@pytest.fixture
def evaluated():
    """A right answer, a near one whose operation failed, and none."""
    examples = [example(f"e{i}", truth="ABCD12") for i in range(3)]
    turns = [
        [call(), answer(" abcd12")],
        [call(), call(arguments={}, result={"error": "no"}), answer("ABCD13")],
        [noise()],
    ]
    return result(examples, [rollout(*t, example_id=f"e{i}") for i, t in enumerate(turns)])


def test_a_row_scores_as_the_rollout_does(evaluated):
    rows = rows_of(evaluated)
    by_name = {
        each.__name__: [
            each(**{k: row[k] for k in each.__code__.co_varnames[: each.__code__.co_argcount]})
            for row in rows
        ]
        for each in SCORERS
    }
    assert by_name == {
        "answer_is_right": [True, False, False],
        "answer_score": [1.0, pytest.approx(5 / 6), 0.0],
        "has_answered": [True, True, False],
        "operations_ran": [1.0, 0.5, 1.0],
    }
    right = sum(by_name["answer_is_right"]) / 3
    assert right == pytest.approx(evaluated.adapter.accuracy["all"].value)


def test_mlflow_evaluates_with_them(evaluated, workdir):
    uri = os.environ["MLFLOW_TRACKING_URI"]
    mlflow.set_tracking_uri(uri)
    try:
        with mlflow.start_run() as run:
            done = mlflow.genai.evaluate(
                data=rows_of(evaluated), scorers=[scorer(each) for each in SCORERS]
            )
        metrics = mlflow.MlflowClient(uri).get_run(run.info.run_id).data.metrics
    finally:
        mlflow.set_tracking_uri(None)
    assert metrics["answer_is_right/mean"] == pytest.approx(1 / 3)
    assert metrics["operations_ran/mean"] == pytest.approx(2.5 / 3)
    assert done.metrics == metrics
