"""Plots of studies that have nothing to show."""

import optuna

from pixelis.tuning import draw_page, draw_pictures, importances


def test_a_study_whose_trials_came_out_alike_has_plots_but_no_importances():
    study = optuna.create_study()
    space = {"x": optuna.distributions.FloatDistribution(0, 1)}
    for x in (0.1, 0.5, 0.9):
        study.add_trial(optuna.trial.create_trial(params={"x": x}, distributions=space, value=0.25))
    assert importances(study) == {}
    assert "history" in draw_page(study).lower()
    names = [name for name, _ in draw_pictures(study)]
    assert "slices" in names and "importances" not in names
