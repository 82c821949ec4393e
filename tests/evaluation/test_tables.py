import json

import pytest

from pixelis.evaluation.evaluate import Evaluation, EvaluationResult
from pixelis.evaluation.intervals import Score
from pixelis.evaluation.metrics import Comparison, group_indices
from pixelis.evaluation.tables import (
    accuracy_table,
    as_text,
    format_number,
    format_p_value,
    format_percent,
    grid_of,
    grid_rows,
    grid_table,
    loss_lines,
    measure_rows,
    measures_table,
    result_rows,
    result_values,
)
from tests.evaluation.handmade import make_example

GROUPS = ("simple", "hard", "all", "task/object_counting", "task/text_extraction")
CELLS = ("simple/object_counting", "hard/text_extraction")


def score(value, num=40):
    return Score(value, (value - 0.1, value + 0.1), num)


def evaluation(value, *, groups=(*CELLS, *GROUPS), **measures):
    rates = {"all": {"mean_operations": 2.5}, "task/object_counting": {"mean_operations": 3.0}}
    table = {name: score(value, num) for name, num in measures.items()}
    measured = {"all": table, "type/positive": table} if table else {}
    return Evaluation((), {name: score(value) for name in groups}, rates, measured)


@pytest.fixture
def comparison():
    pairs = {
        name: Comparison(Score(0.5, (0.35, 0.65), 40), 22, 2, 0.00004) for name in (*CELLS, *GROUPS)
    }
    pairs["hard"] = Comparison(Score(-0.025, (-0.1, 0.05), 40), 1, 2, 1.0)
    return pairs


@pytest.fixture
def alone():
    adapter = evaluation(0.75, operation_precision=10, steps_to_answer=8)
    return EvaluationResult((), {"adapter": adapter})


@pytest.fixture
def result(alone, comparison):
    base = evaluation(0.25, operation_precision=9)
    models = {"base": base, "adapter": alone.adapter}
    return EvaluationResult((), models, {"base": comparison})


@pytest.fixture
def against(alone, comparison):
    second = evaluation(0.25, mended=2)
    models = {"against": second, "adapter": alone.adapter}
    return EvaluationResult((), models, {"against": comparison})


def test_accuracy_table_shows_base_and_adapter_side_by_side(result):
    lines = as_text(accuracy_table(result)).splitlines()
    assert lines[0] == "Answer accuracy with 95 % intervals"
    for heading in ("n", "base %", "adapter %", "gain in points", "won/lost", "p"):
        assert heading in lines[1]
    assert lines[1].endswith("chance %")
    gain = "25.0 [15, 35] 75.0 [65, 85] +50.0 [+35, +65] 22/2 <0.001 –"
    assert [" ".join(line.split()) for line in lines if "[" in line] == [
        f"simple 40 {gain}",
        "hard 40 25.0 [15, 35] 75.0 [65, 85] -2.5 [-10, +5] 1/2 1.000 –",
        f"all 40 {gain}",
        f"object_counting 40 {gain}",
        f"text_extraction 40 {gain}",
    ]
    note = "p: McNemar's exact test, two-sided, not corrected for several groups"
    assert lines[-1] == note


def test_accuracy_table_without_a_base_has_no_empty_columns(alone):
    text = as_text(accuracy_table(alone))
    assert "75.0 [65, 85]" in text
    assert not [word for word in ("base", "gain", "McNemar") if word in text]


def test_accuracy_table_of_a_second_adapter(against):
    text = as_text(accuracy_table(against, title="T", other="against"))
    assert text.startswith("T\n") and "against %" in text and "base" not in text
    assert "25.0 [15, 35] 75.0 [65, 85] +50.0" in " ".join(text.split())


def test_accuracy_table_cuts_and_folds_nothing_and_is_not_wider_than_it_needs():
    groups = ("simple", "all", "task/attribute_recognition")
    full = Evaluation((), {name: Score(1.0, (0.9, 1.0), 360) for name in groups}, {})
    gains = {name: Comparison(Score(0.9, (0.8, 1.0), 360), 108, 60, 0.0) for name in groups}
    table = accuracy_table(EvaluationResult((), {"base": full, "adapter": full}, {"base": gains}))
    shown = as_text(table)
    assert "…" not in shown and max(map(len, shown.splitlines())) <= 110
    for line in (line for line in shown.splitlines() if "[" in line):
        assert line.split()[-3:] == ["108/60", "<0.001", "–"]
    for name in ("simple", "all", "attribute_recognition"):
        assert f"\n{name} " in shown


@pytest.fixture
def opposed():
    """An adapter that loses on simple counting what it gains on hard counting, and reads less."""
    counts = {  # cell -> right answers of base and adapter, won, lost, examples, p
        "hard/object_counting": (2, 40, 38, 0, 90, 1e-9),
        "simple/object_counting": (40, 2, 1, 39, 90, 1e-9),
        "simple/text_extraction": (20, 12, 0, 8, 90, 0.0078),
        "hard/text_extraction": (3, 1, 0, 2, 9, 0.5),
    }

    def share(num, total):
        interval = (num / total - 0.1, num / total + 0.1) if total >= 10 else None
        return Score(num / total, interval, total)

    def groups(cells):
        return {"all": share(1, 2), "task/object_counting": share(1, 2), **cells}

    base = groups({cell: share(n[0], n[4]) for cell, n in counts.items()})
    adapter = groups({cell: share(n[1], n[4]) for cell, n in counts.items()})
    pairs = groups({})
    pairs = {name: Comparison(score, 0, 0, 1e-9) for name, score in pairs.items()} | {
        cell: Comparison(share(n[1] - n[0], n[4]), n[2], n[3], n[5]) for cell, n in counts.items()
    }
    models = {"base": Evaluation((), base, {}), "adapter": Evaluation((), adapter, {})}
    return EvaluationResult((), models, {"base": pairs})


def test_the_grid_has_a_row_for_each_difficulty_and_task_worst_first(opposed):
    grid = grid_of(opposed)
    lines = as_text(grid_table(grid, title="T")).splitlines()
    assert lines[0] == "T"
    rows = [" ".join(line.split()) for line in lines if "/" in line]
    assert rows == [
        "n base % adapter % gain in points won/lost p chance %",
        "simple/object_counting 90 44.4 [34, 55] 2.2 [-8, 13] -42.2 [-53, -32] 1/39 <0.001 –",
        "hard/text_extraction 9 33.3 – 11.1 – -22.2 – 0/2 0.500 –",
        "simple/text_extraction 90 22.2 [12, 33] 13.3 [3, 24] -8.9 [-19, +2] 0/8 0.016 –",
        "hard/object_counting 90 2.2 [-8, 13] 44.4 [34, 55] +42.2 [+32, +53] 38/0 <0.001 –",
    ]
    note = "p: McNemar's exact test, two-sided, with Holm's correction for 4 cells"
    assert lines[-1] == note
    found = grid_rows(grid)
    assert [row["group"] for row in found] == [line.split()[0] for line in rows[1:]]
    assert (found[2]["gain"], found[2]["p_value"]) == pytest.approx((-8 / 90, 0.0156))
    # The table of all groups is without the correction.
    uncorrected = {row["group"]: row["p_value"] for row in result_rows(opposed)}
    assert uncorrected["simple/text_extraction"] == 0.0078


def test_each_significant_loss_in_the_grid_is_a_line(opposed, result):
    assert loss_lines(grid_of(opposed)) == [
        "Significant loss on simple/object_counting: 44.4 -> 2.2 % of 90 examples "
        "(p <0.001 with Holm's correction for 4 cells)",
        "Significant loss on simple/text_extraction: 22.2 -> 13.3 % of 90 examples "
        "(p 0.016 with Holm's correction for 4 cells)",
    ]
    assert loss_lines(grid_of(result)) == []  # only gains


def test_the_grid_without_a_base_is_sorted_by_accuracy(opposed):
    alone = EvaluationResult((), {"adapter": opposed.adapter})
    grid = grid_of(alone)
    assert [row["group"] for row in grid_rows(grid)][0] == "simple/object_counting"
    assert loss_lines(grid) == [] and "McNemar" not in as_text(grid_table(grid, title="T"))


@pytest.mark.parametrize(
    ("p", "text"), [(0.0, "<0.001"), (0.00099, "<0.001"), (0.001, "0.001"), (1, "1.000")]
)
def test_a_p_value_has_three_digits(p, text):
    assert format_p_value(p) == text


@pytest.mark.parametrize(
    ("value", "interval", "sign", "text"),
    [
        (0.41, (0.3549, 0.4651), "", "41.0 [35, 47]"),
        (0.41, (0.35, 0.47), "", "41.0 [35, 47]"),
        (0.29, (0.29, 0.57), "", "29.0 [29, 57]"),  # 100 * .29 is a little less than 29
        (0.0, (0.0, 0.0043), "", "0.0 [0, 1]"),  # of 900 examples
        (0.999, (0.9953, 0.9998), "", "99.9 [99, 100]"),
        (0.0, (-0.004, 0.004), "+", "+0.0 [-1, +1]"),
        (-0.0001, (-0.0302, -0.0001), "+", "+0.0 [-4, +0]"),
        (-0.0, (-0.02, 0.02), "+", "+0.0 [-2, +2]"),
        (-0.0, None, "", "0.0 –"),
        (0.5, None, "+", "+50.0 –"),
    ],
)
def test_percentages_with_ends_rounded_outwards_and_no_minus_0(value, interval, sign, text):
    assert format_percent(Score(value, interval, 40), sign).strip() == text


def test_a_mean_has_two_digits():
    assert format_number(Score(2.5, (2.414, 2.586), 40)).strip() == "2.50 [2.41, 2.59]"
    assert format_number(Score(2.5, None, 9)).strip() == "2.50 –"


@pytest.fixture
def few():
    """An evaluation of nine examples, which have no intervals."""
    measures = {"all": {"diagnosis_rate": Score(1.0, None, 9)}}
    short = Evaluation((), {"all": Score(0.0, None, 9)}, {}, measures)
    gain = Comparison(Score(0.0, None, 9), 0, 0, 1.0)
    return EvaluationResult((), {"base": short, "adapter": short}, {"base": {"all": gain}})


def test_a_dash_is_in_place_of_an_interval_of_few_examples(few):
    lines = [" ".join(line.split()) for line in as_text(accuracy_table(few)).splitlines()]
    assert "all 9 0.0 – 0.0 – +0.0 – 0/0 1.000 –" in lines
    shown = as_text(measures_table(few, title="T"))
    lines = [" ".join(line.split()) for line in shown.splitlines()]
    assert "diagnosis rate 9 100.0 – 100.0 –" in lines
    (row,) = result_rows(few)
    assert {key for key, value in row.items() if value is None} == {
        *("base_low", "base_high", "adapter_low", "adapter_high", "gain_low", "gain_high", "chance")
    }
    assert {(row["low"], row["high"]) for row in measure_rows(few)} == {(None, None)}
    # A metric has to be a number: the ends are left out.
    values = result_values(few, "test")
    assert values["test/gain/all"] == 0 and values["test/gain/all_p_value"] == 1
    assert not [key for key in values if key.endswith(("_low", "_high"))]


def test_rows_hold_every_group_and_are_json(result, alone):
    rows = result_rows(result)
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
        "chance": None,
    }
    assert json.loads(json.dumps(rows)) == rows
    columns = {"group", "n", "adapter_accuracy", "adapter_low", "adapter_high", "chance"}
    assert set(result_rows(alone)[0]) == columns


def test_chance_levels_are_means_over_the_examples_of_a_group():
    numbers = {"hard": [2, 4], "simple": [2, 0], "own": [3, None]}
    examples = [
        make_example(f"{name}{i}", task=name, difficulty=name, provenance={"num_options": num})
        for name, options in numbers.items()
        for i, num in enumerate(options)
    ]
    evaluated = EvaluationResult(
        tuple(examples), {"adapter": evaluation(0.5, groups=group_indices(examples))}
    )
    expected = {"simple": 0.25, "hard": 0.375, "own": None, "all": None}
    by_task = {f"task/{name}": level for name, level in expected.items() if name != "all"}
    rows = {row["group"]: row["chance"] for row in result_rows(evaluated)}
    assert (expected | by_task).items() <= rows.items()
    measured = {row["group"]: row for row in measure_rows(evaluated)}
    assert set(measured) == {"simple", "hard", "task/simple", "task/hard"}
    assert measured["task/hard"] == {
        "model": "chance",
        "group": "task/hard",
        "measure": "answer_accuracy",
        "value": 0.375,
        "low": None,
        "high": None,
        "n": 40,
    }
    lines = as_text(accuracy_table(evaluated)).splitlines()
    cells = {tuple(line.split()[i] for i in (0, -1)) for line in lines if "[" in line}
    assert cells == {("simple", "25.0"), ("hard", "37.5"), ("own", "–"), ("all", "–")}


def test_a_long_name_does_not_break_a_row_outside_of_a_terminal():
    name = "task/" + "x" * 300
    made = EvaluationResult((), {"adapter": evaluation(0.5, groups=("all", name))})
    assert len([line for line in as_text(accuracy_table(made)).splitlines() if "[" in line]) == 2


def test_rows_of_a_second_adapter(against):
    row = result_rows(against)[1]
    assert [key for key in row if key.startswith("against")] == [
        *("against_accuracy", "against_low", "against_high"),
    ]
    assert {key: value for key, value in row.items() if key.endswith("_over_against")} == {
        "gain_over_against": -0.025,
        "gain_low_over_against": -0.1,
        "gain_high_over_against": 0.05,
        "gained_over_against": 1,
        "lost_over_against": 2,
        "p_value_over_against": 1.0,
    }


def test_rows_of_measures(result):
    rows = measure_rows(result)
    assert {(row["model"], row["group"]) for row in rows} == {
        (model, group) for model in ("base", "adapter") for group in ("all", "type/positive")
    }
    assert rows[0] == {
        "model": "base",
        "group": "all",
        "measure": "operation_precision",
        "value": 0.25,
        "low": 0.15,
        "high": 0.35,
        "n": 9,
    }


def test_names_of_metrics(result, against, alone):
    values = result_values(result, "test")
    expected = {
        "test/adapter/simple/answer_accuracy": 0.75,
        "test/adapter/simple/answer_accuracy_low": 0.65,
        "test/adapter/simple/answer_accuracy_high": 0.85,
        "test/base/simple/object_counting/answer_accuracy": 0.25,
        "test/adapter/all/mean_operations": 2.5,
        "test/gain/all": 0.5,
        "test/gain/hard": -0.025,
        "test/gain/hard_low": -0.1,
        "test/gain/hard_high": 0.05,
        "test/gain/hard_p_value": 1.0,
        "test/base/all/operation_precision": 0.25,
        "test/base/all/operation_precision_low": 0.15,
        "test/base/all/operation_precision_high": 0.35,
        "test/adapter/type/positive/steps_to_answer": 0.75,
    }
    assert expected.items() <= values.items()
    assert all(isinstance(value, float) for value in values.values())
    # Of other groups these are in the rows.
    assert "test/adapter/type/positive/steps_to_answer_low" not in values
    assert "test/adapter/task/object_counting/mean_operations" not in values
    values = result_values(against, "test")
    assert values["test/against/all/answer_accuracy"] == 0.25
    assert values["test/gain_over_against/hard"] == -0.025
    assert {name.split("/")[1] for name in result_values(alone, "validation")} == {"adapter"}


def test_table_of_measures(result):
    for group in ("all", "type/positive"):
        lines = as_text(measures_table(result, title="T", group=group)).splitlines()
        assert lines[0] == "T"
        rows = [" ".join(line.split()) for line in lines if "[" in line]
        assert rows == [
            "operation precision 10 25.0 [15, 35] 75.0 [65, 85]",
            "steps to answer 8 0.75 [0.65, 0.85]",
        ]
