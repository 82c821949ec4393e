"""What is said of trainings side by side."""

import pytest

from pixelis.evaluation.intervals import Score
from pixelis.experiments.compare import (
    ComparedTraining,
    compute_facts,
    describe_furthest,
    differing_params,
    trainings_markdown,
    trainings_rows,
)
from pixelis.figures import FigureSettings, build_history

MIX = {"simple": 1.0, "hard": 0.0}


def _event(step, kind, to, **more):
    return {"step": step, "kind": kind, "from_stage": "easy", "to_stage": to, "mix": MIX} | more


@pytest.fixture
def make():
    """Builds a training that was entered, rolled back at 10, and reached a stage, or did not."""

    def make(name="a", *, full_at=None, params=None, tests=None, **rules):
        events = [_event(0, "start", "easy")]
        events.append(_event(10, "rollback", "easy", reason="drop", delta=-0.2))
        events += [_event(full_at, "advance", "full")] if full_at else []
        events.append(_event(40, "end", "full" if full_at else "easy"))
        history = {
            "eval/simple/performance": [(0, 0.2), (20, 0.9), (40, 0.8)],
            "eval/hard/performance": [(0, 0.1), (40, 0.3)],
        }
        course = build_history(events, history, max_steps=40, rules=FigureSettings(**rules))
        return ComparedTraining(
            name, f"id of {name}", f"#/{name}", params or {}, tests or {}, course
        )

    return make


def row(accuracy, gain=None, *, num=300, half=0.05):
    """A row of an evaluation's table."""
    ends = {"adapter_low": accuracy - half, "adapter_high": accuracy + half}
    made = {"n": num, "adapter_accuracy": accuracy, **ends}
    if gain is not None:
        made |= {"gain": gain, "gain_low": gain - half, "gain_high": gain + half}
    return made


def test_the_facts_of_a_training(make):
    few = row(0.4, num=9) | {"adapter_low": None, "adapter_high": None}
    params = {"curriculum.eval_samples_per_difficulty": "128"}
    tests = {"hard": few, "all": row(0.75, 0.1)}
    training = make(full_at=30, params=params, tests=tests, metric="performance")
    (facts,) = compute_facts([training])
    assert list(facts.items()) == [
        ("stage reached", "full"),
        ("steps to full", 30),
        ("rollbacks", 1),
        ("rolled back", "step 10: drop (-0.2000)"),
        ("final simple: validation performance (n <= 128)", 0.8),
        ("final hard: validation performance (n <= 128)", 0.3),
        ("best simple: validation performance (n <= 128)", 0.9),
        ("best hard: validation performance (n <= 128)", 0.3),
        ("test hard: answer accuracy", Score(0.4, None, 9)),
        ("test all: answer accuracy", Score(0.75, (0.7, 0.8), 300)),
        ("test all: gain over the base", Score(0.1, (0.05, pytest.approx(0.15)), 300)),
    ]


def test_a_result_has_its_number_of_examples_and_its_interval(make):
    first = make(tests={"all": row(0.75, 0.1)})
    lines = trainings_markdown([first, make("b", tests={"all": row(0.5, -0.1)})]).splitlines()
    assert "| test all: answer accuracy in % (n = 300) | 75.0 [70, 80] | 50.0 [45, 55] |" in lines
    gains = "| +10.0 [+5, +15] | -10.0 [-15, -5] |"
    assert f"| test all: gain over the base in points (n = 300) {gains}" in lines
    lines = trainings_markdown([first, make("b", tests={"all": row(0.5, num=90)})]).splitlines()
    accuracies = "| 75.0 [70, 80] | 50.0 [45, 55] |"
    assert f"| test all: answer accuracy in % (n = 300 / 90) {accuracies}" in lines
    assert "| test all: gain over the base in points (n = 300) | +10.0 [+5, +15] | – |" in lines


def test_two_measures_of_validation_are_two_rows(make):
    text = trainings_markdown([make(metric="performance"), make("b", metric="likelihood")])
    assert "| final simple: validation performance | 0.800 | – |" in text
    assert "final simple: validation likelihood" not in text  # b has no such measurements


def test_only_settings_that_differ_are_listed_the_curriculums_first(make):
    first = make(params={"training.seed": "0", "curriculum.x": "1", "model.lora_r": "4"})
    second = make(params={"training.seed": "1", "curriculum.x": "2", "model.lora_r": "4"})
    assert list(differing_params([first, second]).items()) == [
        ("curriculum.x", ["1", "2"]),
        ("training.seed", ["0", "1"]),
    ]


def test_a_value_is_the_same_however_it_was_written_and_folders_are_no_settings(make):
    one = {"training.a": "1e-4", "training.b": "True", "data.c": "'two words'", "model.d": "None"}
    two = {"training.a": "0.0001", "training.b": "true", "data.c": "two words", "model.d": "null"}
    one |= {"training.output_dir": "a", "config": "x", "curriculum.new": "1"}
    two |= {"training.output_dir": "b", "config": "y"}
    trainings = [make(params=one), make(params=two)]
    assert differing_params(trainings) == {"curriculum.new": ["1", None]}


def test_a_column_for_each_training(make):
    trainings = [make("a", params={"curriculum.x": "1"}), make("b|c", full_at=30)]
    lines = trainings_markdown(trainings).splitlines()
    assert lines[0] == "Furthest: b\\|c (stage full from step 30)."
    assert lines[2:6] == [
        "|  | a | b\\|c |",
        "| --- | --- | --- |",
        "| stage reached | easy | full |",
        "| steps to full | – | 30 |",
    ]
    assert "| final simple: validation performance | 0.800 | 0.800 |" in lines
    assert lines[-1] == "| `curriculum.x` | 1 | – |"
    assert "[a](#/a)" in trainings_markdown(trainings, links=True)


def test_a_gain_that_rounds_to_0_has_no_minus(make):
    gains = [make(tests={"all": row(0.5, gain)}) for gain in (-0.0004, -0.0, -0.0006)]
    cells = "(n = 300) | +0.0 [-6, +5] | +0.0 [-5, +5] | -0.1 [-6, +5] |"
    assert f"| test all: gain over the base in points {cells}" in trainings_markdown(gains)


def test_rows_have_the_same_keys(make):
    trainings = [make("a"), make("b", full_at=30, tests={"all": row(0.75)})]
    first, second = trainings_rows(trainings)
    assert second["test_all_answer_accuracy"] == 0.75
    assert (first["test_all_answer_accuracy_n"], second["test_all_answer_accuracy_n"]) == (
        None, 300
    )  # fmt: skip
    assert list(first) == list(second)
    assert (first["run"], first["run_id"], first["steps_to_full"]) == ("a", "id of a", None)
    assert second["rolled_back"] == "step 10: drop (-0.2000)"


def test_who_reached_the_last_stage_first(make):
    slow, fast, stuck = make("slow", full_at=30), make("fast", full_at=20), make("stuck")
    assert describe_furthest([slow, stuck, fast]) == "Furthest: fast (stage full from step 20)."
    again = make("again", full_at=20)
    assert describe_furthest([again, fast]) == "Furthest: again and fast (stage full from step 20)."
    assert (
        describe_furthest([stuck, make("too")])
        == "Furthest: stuck and too (stage easy from step 0)."
    )


def test_a_fixed_mix_goes_nowhere(make):
    fixed = make("fixed", full_at=5, params={"curriculum.enabled": "False"})
    slow = make("slow", full_at=30)
    assert describe_furthest([fixed, slow]) == "Furthest: slow (stage full from step 30)."
    assert "| stage reached | – | full |" in trainings_markdown([fixed, slow])
    assert describe_furthest([fixed, fixed]) == ""


def test_without_stages_none_is_reached_and_nobody_goes_further(make):
    assert "stage reached" not in compute_facts([make(has_stages=False)])[0]
    text = trainings_markdown([make(has_stages=False), make("b", has_stages=False)])
    assert text.startswith("|  | a | b |")


def test_a_long_setting_is_cut_in_the_table_only(make):
    trainings = [make(params={"curriculum.stages": "x" * 100}), make("b")]
    assert f"| {'x' * 77}... | – |" in trainings_markdown(trainings)
    assert trainings_rows(trainings)[0]["curriculum.stages"] == "x" * 100
