from pixelis.experiments.compare.table import as_markdown, as_rows, furthest


def test_a_column_for_each_training(make):
    trainings = [make("a", params={"curriculum.x": "1"}), make("b|c", full_at=30)]
    lines = as_markdown(trainings).splitlines()
    assert lines[0] == "Furthest: b\\|c (stage full from step 30)."
    assert lines[2:6] == [
        "|  | a | b\\|c |",
        "| --- | --- | --- |",
        "| stage reached | easy | full |",
        "| steps to full | – | 30 |",
    ]
    assert "| final simple | 0.800 | 0.800 |" in lines
    assert lines[-1] == "| `curriculum.x` | 1 | – |"
    assert "[a](#/a)" in as_markdown(trainings, links=True)


def test_rows_have_the_same_keys(make):
    first, second = as_rows([make("a"), make("b", full_at=30)])
    assert list(first) == list(second)
    assert (first["run"], first["run_id"], first["steps_to_full"]) == ("a", "id of a", None)
    assert second["rolled_back"] == "step 10: drop (-0.2000)"


def test_who_reached_the_last_stage_first(make):
    slow, fast, stuck = make("slow", full_at=30), make("fast", full_at=20), make("stuck")
    assert furthest([slow, stuck, fast]) == "Furthest: fast (stage full from step 20)."
    again = make("again", full_at=20)
    assert furthest([again, fast]) == "Furthest: again and fast (stage full from step 20)."
    assert furthest([stuck, make("too")]) == "Furthest: stuck and too (stage easy from step 0)."


def test_without_stages_nobody_goes_further(make):
    text = as_markdown([make(has_stages=False), make("b", has_stages=False)])
    assert text.startswith("|  | a | b |")


def test_a_long_setting_is_cut_in_the_table_only(make):
    trainings = [make(params={"curriculum.stages": "x" * 100}), make("b")]
    assert f"| {'x' * 77}... | – |" in as_markdown(trainings)
    assert as_rows(trainings)[0]["curriculum.stages"] == "x" * 100
