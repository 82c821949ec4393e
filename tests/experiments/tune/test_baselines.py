"""Baselines: points of the search where they can be, trained and measured as trials are."""

from pathlib import Path

import optuna
import pytest

import pixelis.runs.tuning_worker as worker
from pixelis.config import ModelFileConfig, TuneFileConfig, load_config
from pixelis.errors import ConfigError, UserError
from pixelis.experiments.tune import Plan, open_parts, open_study, run_trials
from pixelis.experiments.tune.settings import Settings

ROOT = Path(__file__).parents[3]
GUIDE = "baselines.guide.curriculum."


@pytest.fixture
def make(tmp_path):
    """A plan of the smoke configuration with other values of some keys; of no data."""

    def plan(*pairs):
        here = [("storage", f"sqlite:///{tmp_path / 'optuna.db'}")]
        here += [("training.output_dir", str(tmp_path / "tuned")), *pairs]
        config = load_config(TuneFileConfig, ROOT / "configs/smoke/tune.yaml", here)
        made = Plan(config, load_config(ModelFileConfig, ROOT / "configs/model_arch.yaml", []))
        made.__dict__["digest"] = "of no data"
        return made

    return plan


EASY = "[{name: easy, difficulty_mix: {simple: 1.0}}]"


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
def test_what_could_not_be_judged_beside_trials_is_refused(make, key, value, rule):
    with pytest.raises(ConfigError, match=rule):
        make((key, value)).check()


def test_a_baseline_is_a_point_of_the_search_where_it_can_be(make):
    plan = make()
    assert plan.point_of("guide") == plan.baselines["guide"]
    assert plan.point_of("uniform") is None
    # What it does not say of what is searched is what the file says.
    rate = "{low: 0.0005, high: 0.01, log: true}"
    more = make(("space.training.learning_rate", rate))
    assert more.point_of("guide") == {**plan.baselines["guide"], "training.learning_rate": 0.002}
    outside = make(("space.training.learning_rate", "{low: 0.003, high: 0.01}"))
    assert outside.point_of("guide") is None


def test_examples_to_a_target_are_counted_where_every_training_is_measured(make):
    plan = make(("target", "0.5"), ("pruner", "none"), ("training.eval_steps", "6"))
    good, bad = dict.fromkeys(plan.measured_mix, 0.6), dict.fromkeys(plan.measured_mix, 0.4)
    # Step 2 is an attempt's evaluation.
    assert plan.examples_to_target([(2, good), (6, bad), (12, good)], 8) == 12 * 8
    assert plan.examples_to_target([(2, good), (6, good)], 8) == 6 * 8
    assert plan.examples_to_target([(2, good), (24, bad)], 8) == plan.examples


def test_baselines_are_tried_before_the_search(make, monkeypatch):
    asked = []
    monkeypatch.setattr(
        worker, "run_trials", lambda study, *_, **__: asked.append(study.study_name) or 0
    )
    plan = make()
    worker._run_all(plan, worker.Bench(plan))
    assert asked == ["smoke baselines", "smoke", "smoke final"]
    (search, *_) = open_parts(plan)
    assert search.study.trials[0].user_attrs["pixelis.baseline"] == "guide"


def test_the_folder_of_another_study_of_the_name_is_not_taken(make, tmp_path):
    plan = make()
    open_parts(plan)
    open_parts(plan)
    (tmp_path / "optuna.db").unlink()
    with pytest.raises(UserError, match="holds the trainings of another study 'smoke', whose stor"):
        open_parts(make())


def test_a_gaussian_process_learns_from_trials_that_were_stopped(url, space, tmp_path):
    settings = Settings("gp", seed=0, pruner="median", warmup=20, examples=100, num_trials=16)
    study = open_study(url, "search", settings, identity={})

    def one(trial):
        far = abs(trial.params["curriculum.advancement_interval"] - 10) / 90
        value = 0.9 - far - abs(trial.params["curriculum.rollback_threshold"] + 0.2)
        for step in (20, 40):
            if reason := trial.report(step, value):
                raise trial.pruned(reason)
        return value

    run_trials(study, space, settings, one, tmp_path)
    trials = study.trials
    assert optuna.trial.TrialState.PRUNED in {trial.state for trial in trials}
    assert len({tuple(trial.params.values()) for trial in trials}) == len(trials)
