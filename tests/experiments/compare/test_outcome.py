from pixelis.experiments.compare.outcome import compute_outcome, differing_params


def test_the_facts_of_a_training(make):
    metrics = {"test/adapter/hard/answer_accuracy": 0.4, "test/gain/all": 0.1}
    assert compute_outcome(make(full_at=30, metrics=metrics)) == {
        "stage reached": "full",
        "steps to full": 30,
        "rollbacks": 1,
        "rolled back": "step 10: drop (-0.2000)",
        "final simple": 0.8,
        "final hard": 0.3,
        "best simple": 0.9,
        "best hard": 0.3,
        "test hard": 0.4,
        "test all: gain": 0.1,
    }


def test_without_stages_none_is_reached(make):
    assert "stage reached" not in compute_outcome(make(has_stages=False))


def test_only_settings_that_differ_are_listed_the_curriculums_first(make):
    first = make(params={"training.seed": "0", "curriculum.x": "1", "model.lora_r": "4"})
    second = make(params={"training.seed": "1", "curriculum.x": "2", "model.lora_r": "4"})
    assert list(differing_params([first, second]).items()) == [
        ("curriculum.x", ["1", "2"]),
        ("training.seed", ["0", "1"]),
    ]


def test_a_value_is_the_same_however_it_was_written(make):
    first = {"training.a": "1e-4", "training.b": "True", "data.c": "'two words'", "model.d": "None"}
    second = {
        "training.a": "0.0001",
        "training.b": "true",
        "data.c": "two words",
        "model.d": "null",
    }
    assert differing_params([make(params=first), make(params=second)]) == {}


def test_places_are_no_settings_and_a_missing_one_is_none(make):
    first = make(params={"training.output_dir": "a", "config": "x", "curriculum.new": "1"})
    second = make(params={"training.output_dir": "b", "config": "y"})
    assert differing_params([first, second]) == {"curriculum.new": ["1", None]}
