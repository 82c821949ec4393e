"""Optuna's plots of a study: one page for the browser, and a picture of each plot."""

import warnings
from collections.abc import Callable, Iterator
from typing import Any

import optuna
import plotly.io  # type: ignore[import-untyped]
from matplotlib.figure import Figure
from optuna.importance import FanovaImportanceEvaluator, get_param_importances
from optuna.trial import TrialState
from optuna.visualization import matplotlib as optuna_pictures

LEAST_TRIALS = 2  # number of complete trials that most plots need
EVALUATOR = "fANOVA"  # Hutter, Hoos, Leyton-Brown 2014; other methods rank keys differently
OBJECTIVES = ("performance", "examples to target")


def draw_page(study: optuna.Study) -> str:
    """Return all plots as one HTML page with plotly in it, so that it needs no network."""
    bodies: list[str] = []
    for name, figure in _draw_plots(study, optuna.visualization):
        title = f"importances ({EVALUATOR})" if name.startswith("importances") else name
        figure.update_layout(title=title, template="plotly_white", height=480)
        bodies.append(
            plotly.io.to_html(figure, full_html=False, include_plotlyjs=not bodies, div_id=None)
        )
    head = f'<meta charset="utf-8"><title>{study.study_name}</title>'.replace("&", "&amp;")
    return f"<!doctype html><html><head>{head}</head><body>{''.join(bodies)}</body></html>"


def draw_pictures(study: optuna.Study) -> Iterator[tuple[str, Figure]]:
    """Yield the file name and the picture of each plot."""
    from matplotlib import pyplot

    for name, axes in _draw_plots(study, optuna_pictures):
        first = axes.flat[0] if hasattr(axes, "flat") else axes
        figure = first.figure
        figure.set_size_inches(11, 5)
        if name.startswith("importances"):
            first.set_title(f"{first.get_title()} ({EVALUATOR})")
        with warnings.catch_warnings():  # the axes of parallel coordinates stay where they are
            warnings.filterwarnings("ignore", message=".*tight_layout.*")
            figure.tight_layout()
        yield name.replace(" ", "_"), figure
        pyplot.close(figure)


def compute_importances(study: optuna.Study, objective: int = 0) -> dict[str, float]:
    """Return how much of an objective's variance each key explains (fANOVA); they sum to 1.

    The result is empty if there are too few trials, or if all have (almost) the same value.
    """
    complete = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    if len({trial.values[objective] for trial in complete}) < LEAST_TRIALS:
        return {}
    evaluator = FanovaImportanceEvaluator(seed=0)
    try:
        shares = get_param_importances(study, evaluator=evaluator, target=_value(objective))
    except RuntimeError:  # Optuna found no variance to explain
        return {}
    return {name: float(share) for name, share in shares.items()}


def _draw_plots(study: optuna.Study, library: Any) -> Iterator[tuple[str, Any]]:
    """Draw each plot that the study has enough trials for, with plotly or matplotlib."""
    complete = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    has_several_keys = len({name for trial in complete for name in trial.params}) > 1
    is_single = len(study.directions) == 1
    if not is_single:
        yield "pareto front", _draw(library.plot_pareto_front, study, target_names=[*OBJECTIVES])
    for number in range(len(study.directions)):
        suffix, kwargs = "", {}
        if not is_single:
            suffix = f" of {OBJECTIVES[number]}"
            kwargs = {"target": _value(number), "target_name": OBJECTIVES[number]}
        yield f"history{suffix}", _draw(library.plot_optimization_history, study, **kwargs)
        if len(complete) < LEAST_TRIALS:
            continue
        if compute_importances(study, number):
            evaluator = FanovaImportanceEvaluator(seed=0)
            figure = _draw(library.plot_param_importances, study, evaluator=evaluator, **kwargs)
            yield f"importances{suffix}", figure
        yield f"slices{suffix}", _draw(library.plot_slice, study, **kwargs)
        figure = _draw(library.plot_parallel_coordinate, study, **kwargs)
        yield f"parallel coordinates{suffix}", figure
        if has_several_keys:
            yield f"contour{suffix}", _draw(library.plot_contour, study, **kwargs)
    if is_single:
        yield "intermediate values", _draw(library.plot_intermediate_values, study)


def _draw(plot: Callable[..., Any], study: optuna.Study, **kwargs: Any) -> Any:
    # If all trials have the same value of a key, Optuna's contours warn twice for each pair of
    # keys, and matplotlib warns of an axis without a length.
    verbosity = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Attempting to set identical low and hi")
            return plot(study, **kwargs)
    finally:
        optuna.logging.set_verbosity(verbosity)


def _value(objective: int) -> Callable[[Any], float]:
    return lambda trial: float(trial.values[objective])
