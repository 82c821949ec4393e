import io
import json

import pytest
from rich.console import Console

from pixelis.evaluation.evaluate import Evaluation, EvaluationResult
from pixelis.evaluation.metrics import Comparison, Score
from pixelis.evaluation.report import (
    as_rows,
    as_text,
    compare_table,
    gain_values,
    metric_values,
    result_rows,
    result_table,
    result_values,
    shown_p,
)

GROUPS = ("simple", "hard", "all", "task/object_counting", "task/text_extraction")
CELLS = ("simple/object_counting", "hard/text_extraction")


def make_scores(value):
    return {name: Score(value, value - 0.1, value + 0.1, 40) for name in (*CELLS, *GROUPS)}


@pytest.fixture
def base():
    return make_scores(0.25)


@pytest.fixture
def adapter():
    return make_scores(0.75)


@pytest.fixture
def comparison():
    found = {
        name: Comparison(Score(0.5, 0.35, 0.65, 40), 22, 2, 0.00004) for name in (*CELLS, *GROUPS)
    }
    found["hard"] = Comparison(Score(-0.025, -0.1, 0.05, 40), 1, 2, 1.0)
    return found


@pytest.fixture
def result(base, adapter, comparison):
    rates = {"all": {"mean_operations": 2.5}, "task/object_counting": {"mean_operations": 3.0}}
    return EvaluationResult(
        (), Evaluation((), adapter, rates), Evaluation((), base, rates), comparison
    )


def test_table_shows_base_and_adapter_side_by_side(base, adapter, comparison):
    text = as_text(compare_table(base, adapter, comparison))
    title, heads, _, *rows, _ = text.splitlines()
    assert title == "Answer accuracy with 95 % intervals"
    for word in ("n", "base %", "adapter %", "gain in points", "won/ lost", "p"):
        assert word in heads
    shown = [" ".join(row.split()) for row in rows if "[" in row]
    assert shown == [
        "simple 40 25.0 [15, 35] 75.0 [65, 85] +50.0 [+35, +65] 22/2 <0.001",
        "hard 40 25.0 [15, 35] 75.0 [65, 85] -2.5 [-10, +5] 1/2 1.000",
        "all 40 25.0 [15, 35] 75.0 [65, 85] +50.0 [+35, +65] 22/2 <0.001",
        "object_counting 40 25.0 [15, 35] 75.0 [65, 85] +50.0 [+35, +65] 22/2 <0.001",
        "text_extraction 40 25.0 [15, 35] 75.0 [65, 85] +50.0 [+35, +65] 22/2 <0.001",
    ]


def test_table_fits_100_columns_and_wraps_names_in_80():
    names = ("simple", "all", "task/attribute_recognition")
    full = {name: Score(1.0, 0.9, 1.0, 120) for name in names}
    gains = {name: Comparison(Score(0.9, 0.8, 1.0, 120), 108, 0, 0.0) for name in names}
    table = compare_table(full, full, gains)
    assert max(map(len, as_text(table).splitlines())) <= 100
    narrow = Console(width=80, file=io.StringIO())
    narrow.print(table)
    shown = narrow.file.getvalue()
    assert "…" not in shown and shown.count("108/0") == 3 and shown.count("<0.001") == 3
    assert max(map(len, shown.splitlines())) <= 80


def test_the_table_says_which_test_its_p_is_of(base, adapter, comparison):
    text = as_text(compare_table(base, adapter, comparison))
    assert text.splitlines()[-1] == (
        "p: McNemar's exact test, two-sided, not corrected for several groups"
    )
    assert "McNemar" not in as_text(compare_table(base, adapter))


@pytest.mark.parametrize(
    ("p", "shown"), [(0.0, "<0.001"), (0.00099, "<0.001"), (0.001, "0.001"), (1, "1.000")]
)
def test_a_p_is_shown_in_three_digits(p, shown):
    assert shown_p(p) == shown


def test_table_without_a_base_has_no_empty_columns(adapter):
    text = as_text(compare_table(None, adapter))
    assert "base" not in text
    assert "gain" not in text
    assert "75.0 [65, 85]" in text


def test_rows_hold_every_group_and_are_json(base, adapter, comparison):
    rows = as_rows(base, adapter, comparison)
    assert [row["group"] for row in rows] == [*GROUPS, *sorted(CELLS)]
    assert rows[1] == {
        "group": "hard",
        "n": 40,
        "base_accuracy": 0.25,
        "base_low": 0.15,
        "base_high": 0.35,
        "adapter_accuracy": 0.75,
        "adapter_low": 0.65,
        "adapter_high": 0.85,
        "gain": -0.025,
        "gain_low": -0.1,
        "gain_high": 0.05,
        "gained": 1,
        "lost": 2,
        "p_value": 1.0,
    }
    assert json.loads(json.dumps(rows)) == rows


def test_rows_hold_the_second_adapter(base, adapter, comparison):
    evaluations = [Evaluation((), scores, {}) for scores in (adapter, base)]
    result = EvaluationResult(
        (), evaluations[0], against=evaluations[1], against_comparison=comparison
    )
    row = result_rows(result)[1]
    assert row == {
        "group": "hard",
        "n": 40,
        "against_accuracy": 0.25,
        "against_low": 0.15,
        "against_high": 0.35,
        "adapter_accuracy": 0.75,
        "adapter_low": 0.65,
        "adapter_high": 0.85,
        "gain_over_against": -0.025,
        "gain_low_over_against": -0.1,
        "gain_high_over_against": 0.05,
        "gained_over_against": 1,
        "lost_over_against": 2,
        "p_value_over_against": 1.0,
    }


def test_rows_without_a_base(adapter):
    assert set(as_rows(None, adapter)[0]) == {
        "group", "n", "adapter_accuracy", "adapter_low", "adapter_high",
    }  # fmt: skip


def test_metric_names(adapter, comparison):
    values = metric_values({"simple": adapter["simple"]}, "test/adapter")
    assert values == {
        "test/adapter/simple/answer_accuracy": 0.75,
        "test/adapter/simple/answer_accuracy_low": 0.65,
        "test/adapter/simple/answer_accuracy_high": 0.85,
    }
    gains = gain_values({"hard": comparison["hard"]}, "test/gain")
    assert gains == {
        "test/gain/hard": -0.025,
        "test/gain/hard_low": -0.1,
        "test/gain/hard_high": 0.05,
        "test/gain/hard_p_value": 1.0,
    }


def test_all_values_of_a_result(result):
    values = result_values(result, "test")
    assert values["test/adapter/all/answer_accuracy"] == 0.75
    assert values["test/base/all/answer_accuracy"] == 0.25
    assert values["test/base/simple/object_counting/answer_accuracy"] == 0.25
    assert values["test/adapter/task/text_extraction/answer_accuracy_low"] == 0.65
    assert values["test/gain/all"] == 0.5
    assert values["test/adapter/all/mean_operations"] == 2.5
    assert "test/adapter/task/object_counting/mean_operations" not in values
    assert all(isinstance(value, float) for value in values.values())


def test_values_and_table_of_a_result_without_a_base(adapter):
    alone = EvaluationResult((), Evaluation((), adapter, {}))
    values = result_values(alone, "validation")
    assert {name.split("/")[1] for name in values} == {"adapter"}
    assert "base" not in as_text(result_table(alone))


def test_result_table_is_the_comparison(result, base, adapter, comparison):
    expected = as_text(compare_table(base, adapter, comparison, title="T"))
    assert as_text(result_table(result, title="T")) == expected
