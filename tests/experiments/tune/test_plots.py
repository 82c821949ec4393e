"""Plots of studies that have nothing to show."""

import optuna

from pixelis.experiments.tune.plots import compute_importances, draw_page, draw_pictures


def test_a_study_whose_trials_came_out_alike_has_plots_but_no_importances():
    study = optuna.create_study()
    space = {"x": optuna.distributions.FloatDistribution(0, 1)}
    for x in (0.1, 0.5, 0.9):
        study.add_trial(optuna.trial.create_trial(params={"x": x}, distributions=space, value=0.25))
    assert compute_importances(study) == {}
    assert "history" in draw_page(study).lower()
    names = [name for name, _ in draw_pictures(study)]
    assert "slices" in names and "importances" not in names


def test_choices_that_came_out_as_one_are_drawn_without_a_word(caplog, recwarn):
    study = optuna.create_study()
    space = {
        "x": optuna.distributions.FloatDistribution(0, 1),
        **{name: optuna.distributions.CategoricalDistribution([1, 2]) for name in "ab"},
    }
    for x in (0.1, 0.5, 0.9):
        values = {"x": x, "a": 1, "b": 2}
        study.add_trial(optuna.trial.create_trial(params=values, distributions=space, value=x))
    verbosity = optuna.logging.get_verbosity()
    assert "contour" in draw_page(study)
    assert "contour" in [name for name, _ in draw_pictures(study)]
    assert not [line for line in caplog.messages if "unique value" in line]
    assert not [each for each in recwarn.list if "identical" in str(each.message)]
    assert optuna.logging.get_verbosity() == verbosity
