"""The results of a search: Optuna's plots, the effect of pruning, and the verdict."""

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import optuna
import plotly.io  # type: ignore[import-untyped]
from matplotlib.figure import Figure
from optuna.importance import FanovaImportanceEvaluator, get_param_importances
from optuna.trial import FrozenTrial, TrialState
from optuna.visualization import matplotlib as optuna_pictures

from pixelis.experiments.estimate import Estimate, estimate
from pixelis.experiments.tune.spec import SearchSpec
from pixelis.experiments.tune.study import BASELINE, build_pruner

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
    is_single = len(study.directions) == 1
    if not is_single:
        yield "pareto front", _draw(library.plot_pareto_front, study, target_names=[*OBJECTIVES])
    for number in range(len(study.directions)):
        suffix, kwargs = "", {}
        if not is_single:
            suffix = f" of {OBJECTIVES[number]}"
            kwargs = {"target": _value(number), "target_name": OBJECTIVES[number]}
        plots: dict[str, Callable[..., Any]] = {"history": library.plot_optimization_history}
        if len(complete) >= LEAST_TRIALS:
            if compute_importances(study, number):
                plots["importances"] = partial(
                    library.plot_param_importances, evaluator=FanovaImportanceEvaluator(seed=0)
                )
            plots["slices"] = library.plot_slice
            plots["parallel coordinates"] = library.plot_parallel_coordinate
            if len({name for trial in complete for name in trial.params}) > 1:
                plots["contour"] = library.plot_contour
        for name, plot in plots.items():
            yield f"{name}{suffix}", _draw(plot, study, **kwargs)
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


def saved_share(trials: Sequence[FrozenTrial], spec: SearchSpec) -> float:
    """Return the share of examples that pruning saved, compared with complete trials only.

    Complete and pruned trials count; pruning stops a trial in its first training.
    """
    whole = spec.examples * spec.config.seeds_per_trial
    seen = [whole for trial in trials if trial.state == TrialState.COMPLETE]
    seen += [
        max(trial.intermediate_values, default=0)
        for trial in trials
        if trial.state == TrialState.PRUNED
    ]
    return 1 - sum(seen) / (whole * len(seen)) if seen else 0.0


def replay(trials: Sequence[FrozenTrial], spec: SearchSpec, pruner: str) -> tuple[int, int, bool]:
    """Replay complete trials with a pruner, in the order in which they ran.

    As in the study, the pruner does not see later values of a trial that it stopped, and stops no
    baseline. Trials that were pruned in the study are left out, because their end is not known.

    Returns:
        The numbers of complete trials and of those that would have been stopped, and whether the
        best one would have been.
    """
    complete = [trial for trial in trials if trial.state == TrialState.COMPLETE]
    study = optuna.create_study(
        study_name="replay", direction="maximize", pruner=build_pruner(spec, pruner)
    )
    stopped = {trial.number: _is_stopped(study, trial, spec.warmup) for trial in complete}
    best = max(complete, key=lambda trial: trial.values[0])
    return len(complete), sum(stopped.values()), stopped[best.number]


def _is_stopped(study: optuna.Study, run: FrozenTrial, warmup: int) -> bool:
    study.enqueue_trial(run.params)
    trial = study.ask(run.distributions)
    for step, value in sorted(run.intermediate_values.items()):
        trial.report(value, step)
        if BASELINE not in run.user_attrs and step >= warmup and trial.should_prune():
            study.tell(trial, state=TrialState.PRUNED)
            return True
    study.tell(trial, run.value)
    return False


@dataclass(frozen=True)
class Verdict:
    """The comparison of the best settings with the baselines on fresh seeds."""

    # Name -> performance on the test split over fresh seeds, the best first.
    test: Mapping[str, Estimate]
    gains: Mapping[str, Estimate]  # baseline -> gain of the best over it, seed by seed
    # Name -> performance on the validation split in the search, or None.
    searched: Mapping[str, float | None]
    # Name -> seed and reason, for contestants without a mean.
    failed: Mapping[str, str] = field(default_factory=dict)

    @property
    def sentence(self) -> str:
        """The conclusion."""
        best, *_ = self.test
        searched, num = self.searched.get(best), self.test[best].num
        parts = [f"{_relation(gain)} {name} ({gain:+z.4f})" for name, gain in self.gains.items()]
        seeds = f"{num} fresh seed{'' if num == 1 else 's'}"
        sentence = f"On {seeds} of {best}: {'; '.join(parts) or 'nothing to compare it with'}."
        if searched is not None and searched > self.test[best].mean:
            sentence += (
                f" The search's own value of it, {searched:.4f}, is the luckiest of many and of "
                "another split."
            )
        for name, reason in self.failed.items():
            sentence += f" {name} is not compared: it failed on {reason}."
        return sentence

    def as_markdown(self) -> str:
        """Return the table, with intervals, and the sentence."""
        lines = [
            "| settings | in the search | fresh seeds, test split | the best is ahead by |",
            "| --- | --- | --- | --- |",
        ]
        for name, test in self.test.items():
            value, gain = self.searched.get(name), self.gains.get(name)
            searched = "" if value is None else f"{value:.4f}"
            ahead = "" if gain is None else f"{gain:+z.4f}"
            lines.append(f"| {name} | {searched} | {test:z.4f} | {ahead} |")
        lines += [
            f"| {name} | | failed on {reason} | not compared |"
            for name, reason in self.failed.items()
        ]
        return "\n".join([*lines, "", self.sentence])


def compute_verdict(
    test: Mapping[str, Sequence[float]],
    searched: Mapping[str, float | None],
    failed: Mapping[str, str] | None = None,
) -> Verdict:
    """Compare the best with each baseline on the same fresh seeds.

    A search takes the maximum of noisy values, so its own value of the winner is too high (the
    winner's curse); fresh seeds on a split that the search never saw do not share that bias.

    Args:
        test: Name -> performance on the test split by seed, the best first; all have equal seeds.
        searched: Name -> its value in the search.
        failed: Name -> seed and reason, for contestants without a mean.
    """
    best, *baselines = test
    gains = {
        name: estimate([a - b for a, b in zip(test[best], test[name], strict=True)])
        for name in baselines
    }
    return Verdict(
        {name: estimate(values) for name, values in test.items()}, gains, searched, failed or {}
    )


def _relation(gain: Estimate) -> str:
    if gain.low > 0:
        return "it is better than"
    return "it is worse than" if gain.high < 0 else "no difference can be told from"
