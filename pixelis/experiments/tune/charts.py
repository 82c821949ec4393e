"""A study as Optuna draws it: one page for the browser, and a picture of each plot."""

import warnings
from collections.abc import Callable, Iterator
from typing import Any

import optuna
import plotly.io  # type: ignore[import-untyped]
from matplotlib.figure import Figure
from optuna.importance import FanovaImportanceEvaluator, get_param_importances
from optuna.trial import TrialState
from optuna.visualization import matplotlib as pictures

LEAST_TRIALS = 2  # whole ones, that most plots need
EVALUATOR = "fANOVA"  # Hutter, Hoos, Leyton-Brown 2014; others rank keys in another order


def _plots(study: optuna.Study, drawer: Any) -> Iterator[tuple[str, Callable[[], Any]]]:
    """Name and maker of each plot that the study has enough trials for."""
    whole = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    several = len({name for trial in whole for name in trial.params}) > 1
    objectives: list[tuple[str, dict[str, Any]]] = [("", {})]
    if len(study.directions) > 1:
        names = ("performance", "examples to target")
        yield "pareto front", _call(drawer.plot_pareto_front, study, {"target_names": list(names)})
        objectives = [
            (f" of {name}", {"target": _nth(place), "target_name": name})
            for place, name in enumerate(names)
        ]
    for suffix, words in objectives:
        yield f"history{suffix}", _call(drawer.plot_optimization_history, study, words)
        if len(whole) < LEAST_TRIALS:
            continue
        judged = {**words, "evaluator": FanovaImportanceEvaluator(seed=0)}
        if _shares(study, words.get("target")):
            yield f"importances{suffix}", _call(drawer.plot_param_importances, study, judged)
        yield f"slices{suffix}", _call(drawer.plot_slice, study, words)
        yield f"parallel coordinates{suffix}", _call(drawer.plot_parallel_coordinate, study, words)
        if several:
            yield f"contour{suffix}", _call(drawer.plot_contour, study, words)
    if len(study.directions) == 1:
        yield "intermediate values", _call(drawer.plot_intermediate_values, study, {})


def _nth(place: int) -> Callable[[Any], float]:
    return lambda trial: float(trial.values[place])


def _call(plot: Callable[..., Any], study: optuna.Study, words: dict[str, Any]) -> Any:
    def draw() -> Any:
        # Of a key that took one value only, Optuna's contours say so for each pair of keys, twice.
        before = optuna.logging.get_verbosity()
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        try:
            with warnings.catch_warnings():  # nor is its axis of no length worth a word
                warnings.filterwarnings("ignore", message="Attempting to set identical low and hi")
                return plot(study, **words)
        finally:
            optuna.logging.set_verbosity(before)

    return draw


def draw_page(study: optuna.Study) -> str:
    """All plots on one page that needs no network: plotly is inside, once."""
    bodies: list[str] = []
    for name, make in _plots(study, optuna.visualization):
        figure = make()
        title = f"importances ({EVALUATOR})" if name.startswith("importances") else name
        figure.update_layout(title=title, template="plotly_white", height=480)
        bodies.append(
            plotly.io.to_html(figure, full_html=False, include_plotlyjs=not bodies, div_id=None)
        )
    head = f'<meta charset="utf-8"><title>{study.study_name}</title>'.replace("&", "&amp;")
    return f"<!doctype html><html><head>{head}</head><body>{''.join(bodies)}</body></html>"


def draw_pictures(study: optuna.Study) -> Iterator[tuple[str, Figure]]:
    """Name and picture of each plot."""
    from matplotlib import pyplot

    for name, make in _plots(study, pictures):
        axes = make()
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


def importances(study: optuna.Study) -> dict[str, float]:
    """How much of the first objective's variance each key explains (fANOVA); they sum to 1."""
    whole = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    if len(whole) < LEAST_TRIALS or len({trial.values[0] for trial in whole}) < LEAST_TRIALS:
        return {}
    return _shares(study, _nth(0))


def _shares(study: optuna.Study, target: Callable[[Any], float] | None) -> dict[str, float]:
    """What each key explains; nothing where all trials came out alike, or as good as."""
    try:
        evaluator = FanovaImportanceEvaluator(seed=0)
        found = get_param_importances(study, evaluator=evaluator, target=target)
    except RuntimeError:  # of Optuna: no variance to explain
        return {}
    return {name: float(value) for name, value in found.items()}
