"""What a search may set: baselines that can be judged beside trials, and searched batch sizes."""

import json

import pytest

from pixelis.errors import ConfigError, UserError
from pixelis.experiments.tune import trials
from pixelis.experiments.tune.study import TRIALS, open_phases
from tests.experiments.tune.worker import smoke_spec

GUIDE = "baselines.guide.curriculum."
EASY = "[{name: easy, difficulty_mix: {simple: 1.0}}]"


@pytest.fixture
def make(tmp_path):
    """Builds the smoke configuration's search with other values of some keys."""
    here = [("storage", f"sqlite:///{tmp_path / 'optuna.db'}")]
    here += [("training.output_dir", str(tmp_path / "tuned"))]
    return lambda *pairs: smoke_spec([*here, *pairs])


@pytest.mark.parametrize(
    ("key", "value", "rule"),
    [
        (
            "baselines.easy.curriculum.stages",
            EASY,
            "easy must have every difficulty .*, hard, medium",
        ),
        (GUIDE + "performance_metric", "token_accuracy", "cannot be set: it is what trials are"),
        (GUIDE + "eval_samples_per_difficulty", "3", "cannot be set: every trial is measured on"),
        ("baselines.guide.training.max_steps", "5", "cannot be set: every trial sees the same"),
        ("baselines.guide.model.model_name", "x", "cannot be set: the trials share the base"),
        ("baselines.guide.training.batch_size", "7", "must have steps that divide the 192 .*got 7"),
        ("baselines.guide.training.batch_size", "512", "must have steps that divide the 192 exam"),
        ("baselines.guide.curriculum.x", "1", "must be a key of training, curriculum, model"),
        ("baselines.guide", "3", "baselines.guide must be a section, got 3"),
    ],
)
def test_a_baseline_that_cannot_be_compared_with_trials_is_refused(make, key, value, rule):
    with pytest.raises(ConfigError, match=rule):
        make((key, value)).check()


def test_a_baseline_is_a_point_of_the_search_where_it_can_be(make):
    spec = make()
    assert spec.point_of("guide") == spec.baselines["guide"]
    assert spec.point_of("uniform") is None
    # A searched key that it does not set has the file's value.
    rate = "{low: 0.0005, high: 0.01, log: true}"
    more = make(("space.training.learning_rate", rate))
    assert more.point_of("guide") == {**spec.baselines["guide"], "training.learning_rate": 0.002}
    outside = make(("space.training.learning_rate", "{low: 0.003, high: 0.01}"))
    assert outside.point_of("guide") is None


def test_examples_to_a_target_are_counted_where_every_training_is_measured(make):
    spec = make(("target", "0.5"), ("pruner", "none"), ("training.eval_steps", "6"))
    good, bad = dict.fromkeys(spec.measured_mix, 0.6), dict.fromkeys(spec.measured_mix, 0.4)
    # Step 2 is an attempt's evaluation.
    assert spec.examples_to_target([(2, good), (6, bad), (12, good)], 8) == 12 * 8
    assert spec.examples_to_target([(2, good), (6, good)], 8) == 6 * 8
    assert spec.examples_to_target([(2, good), (24, bad)], 8) == spec.examples


def test_baselines_are_tried_before_the_search(make, monkeypatch):
    asked = []
    monkeypatch.setattr(
        trials, "run_trials", lambda search, _: asked.append(search.study.study_name) or 0
    )
    studies = open_phases(make())
    trials.run_phases(studies.values(), None)
    assert asked == ["smoke baselines", "smoke", "smoke final"]
    assert studies[TRIALS].trials[0].user_attrs["pixelis.baseline"] == "guide"


def test_the_folder_of_another_study_of_the_name_is_refused(make, tmp_path):
    spec = make()
    open_phases(spec)
    (spec.root / "trials").mkdir(parents=True)
    open_phases(spec)
    (tmp_path / "optuna.db").unlink()
    for _ in range(2):
        with pytest.raises(UserError, match="holds the trainings of another study 'smoke', whose"):
            open_phases(make())


def sizes(make, **section):
    """The space of batch sizes, on 192 examples, 48 between evaluations and steps of 8 x 1."""
    searched = {f"training.{key}": value for key, value in section.items()}
    return make(("space", json.dumps(searched))).space


def test_batch_sizes_that_divide_the_examples(make):
    sizes(make, batch_size={"choices": [1, 2, 4, 12]})
    sizes(make, batch_size={"choices": [2, 4]}, gradient_accumulation_steps={"choices": [1, 3]})
    sizes(make, batch_size={"low": 1, "high": 4})


@pytest.mark.parametrize(
    ("section", "message"),
    [
        (
            {"batch_size": {"choices": [4, 5]}},
            "space.training.batch_size must have steps that divide the 192 examples of a training "
            "and the 48 between evaluations, got 5 examples a step",
        ),
        ({"batch_size": {"low": 4, "high": 6}}, "got 5 examples a step"),
        ({"batch_size": {"choices": [0, 4]}}, "batch_size must be >= 1, got 0"),
        (
            {"batch_size": {"choices": [4, 8]}, "gradient_accumulation_steps": {"choices": [1, 4]}},
            "batch_size and training.gradient_accumulation_steps must .*, got 32 examples a step",
        ),
        ({"gradient_accumulation_steps": {"choices": [2, 4]}}, "got 32 examples a step"),
    ],
)
def test_batch_sizes_that_do_not_are_refused(make, section, message):
    with pytest.raises(ConfigError, match=message):
        sizes(make, **section)


def test_trusted_examples_are_part_of_what_a_study_compares(make, made_data, tmp_path):
    trusted, digests = tmp_path / "trusted.parquet", set()

    def add(*pairs):
        spec = make(("data.path", str(made_data)), *pairs)
        del spec.__dict__["digest"]  # the one of no data
        digests.add(spec.digest)
        return spec.training({}, 0, tmp_path).config.data.trusted

    assert add() is None
    for name in ("cota_simple.parquet", "cota_hard.parquet"):
        trusted.write_bytes((made_data / name).read_bytes())
        assert add(("data.trusted", str(trusted))) == str(trusted)
    assert len(digests) == 3
