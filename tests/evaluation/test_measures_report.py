import pytest

from pixelis.evaluation.evaluate import EvaluationResult
from pixelis.evaluation.intervals import Score
from pixelis.evaluation.measures_report import (
    evaluated_models,
    measure_rows,
    measure_values,
    measured_groups,
    measures_table,
)
from pixelis.evaluation.report import against_table, as_text, result_values
from pixelis.evaluation.summary import Evaluation


def score(value, num=10):
    return Score(value, value - 0.1, value + 0.1, num)


def evaluation(value, **measures):
    told = {name: score(value, num) for name, num in measures.items()}
    return Evaluation((), {"all": score(value)}, {}, {"all": told, "type/positive": told})


@pytest.fixture
def result():
    adapter = evaluation(0.75, operation_precision=10, steps_to_answer=8)
    return EvaluationResult(
        (), adapter, base=evaluation(0.5, operation_precision=9), against=evaluation(0.25, mended=2)
    )


def test_names_of_the_values(result):
    values = measure_values(result.base, "test/base")
    assert values == {
        "test/base/all/operation_precision": 0.5,
        "test/base/all/operation_precision_low": 0.4,
        "test/base/all/operation_precision_high": 0.6,
        "test/base/type/positive/operation_precision": 0.5,
    }
    everything = result_values(result, "test")
    assert values.items() <= everything.items()
    assert everything["test/against/all/answer_accuracy"] == 0.25
    assert everything["test/adapter/type/positive/steps_to_answer"] == 0.75


def test_rows(result):
    rows = measure_rows(result)
    assert {row["model"] for row in rows} == {"base", "against", "adapter"}
    assert rows[0] == {
        "model": "base",
        "group": "all",
        "measure": "operation_precision",
        "value": 0.5,
        "low": 0.4,
        "high": 0.6,
        "n": 9,
    }


def test_table(result):
    lines = as_text(measures_table(result, title="T")).splitlines()
    assert lines[0] == "T"
    precision = next(line for line in lines if "operation precision" in line)
    assert precision.split() == ("operation precision 10 50.0 [40, 60] 75.0 [65, 85]".split())
    steps = next(line for line in lines if "steps to answer" in line)
    assert "0.75 [0.7, 0.8]" in steps or "0.75 [0.6, 0.8]" in steps


def test_every_group_has_a_table(result):
    assert measured_groups(result) == ["all", "type/positive"]
    text = as_text(measures_table(result, title="T", group="type/positive"))
    assert "operation precision" in text and "75.0 [65, 85]" in text


def test_the_second_adapter_has_a_table_of_its_own(result):
    text = as_text(against_table(result, title="T"))
    assert "against %" in text and "25.0" in text and "75.0" in text
    alone = EvaluationResult((), result.adapter)
    assert against_table(alone, title="T") is None
    assert list(evaluated_models(alone)) == ["adapter"]
