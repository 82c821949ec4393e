"""What a search leaves: the best settings as a file, and the study in its MLflow run."""

import dataclasses
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from pixelis.config import ModelFileConfig, to_yaml
from pixelis.files import write_whole
from pixelis.tracking import MlflowRecorder
from pixelis.tuning import (
    BASELINE,
    REASON,
    Part,
    Plan,
    Verdict,
    best_trial,
    draw_page,
    draw_pictures,
    error_of,
    finished_trials,
    importances,
    replay,
    saved_share,
)

FOLDER = "tune"
PRUNED, COMPLETE = "PRUNED", "COMPLETE"


def write_best(plan: Plan, study: Any) -> Path:
    """Write the settings of the best trial as a file that sft takes; returns its path.

    Where keys of the model were searched, the model's file is written beside it.
    """
    best = best_trial(study)
    assert best is not None
    training = plan.best(best.params)
    place = Path(plan.config.best_config)
    place.parent.mkdir(parents=True, exist_ok=True)
    searched = ", ".join(f"{name} = {value}" for name, value in best.params.items())
    head = f"# The best of {len(finished_trials(study))} trials (trial {best.number}): {searched}\n"
    model_words = ""
    if any(each.name.startswith("model.") for each in plan.space):
        model_file = place.with_name(f"{place.stem}_model.yaml")
        _write(model_file, head + to_yaml(ModelFileConfig(training.model)))
        model_words = f" -P model={model_file}"
    head += f"#   mlflow run . -e sft -P config={place}{model_words}\n"
    _write(place, head + to_yaml(training.config))
    return place


def _write(place: Path, text: str) -> None:
    write_whole(place, text)


def record_search(
    recorder: MlflowRecorder, plan: Plan, search: Part, best_file: Path, links: str
) -> None:
    """Leave the trials as a table, Optuna's plots, the best settings and what pruning did."""
    study, trials = search.study, finished_trials(search.study)
    best = best_trial(study)
    assert best is not None
    recorder.artifact(best_file, FOLDER)
    recorder.table([_row(trial) for trial in trials], f"{FOLDER}/trials.json")
    recorder.text(draw_page(study), f"{FOLDER}/study.html")
    for name, figure in draw_pictures(study):
        recorder.figure(f"{FOLDER}/{name}.png", figure)
    # A step counts once: a study that grows has its newest values at its newest size.
    values = {"best": best.values[0], "best_trial": best.number, "trials": len(trials)}
    values |= {f"importance/{name}": value for name, value in importances(study).items()}
    values |= {"compute_saved": saved_share(trials, plan.examples, plan.config.seeds_per_trial)}
    recorder.summary(values, len(trials))
    recorder.tags({f"best.{name}": str(value) for name, value in best.params.items()})
    recorder.tags({"mlflow.runName": _run_name(plan, search)})
    recorder.note(f"{_describe(plan, search)}\n\n{links}")


def record_verdict(
    recorder: MlflowRecorder,
    plan: Plan,
    search: Part,
    verdict: Verdict,
    best_file: Path,
    links: str,
) -> None:
    """Leave the table that says whether tuning helped."""
    text = verdict.as_markdown()
    recorder.text(text + "\n", f"{FOLDER}/verdict.md")
    write_whole(plan.root / "verdict.md", text + "\n")
    values = {f"verdict/{row.name.split(' ')[0]}": row.test.mean for row in verdict.rows}
    values |= {f"verdict/gain_over_{row.name}": row.gain.mean for row in verdict.rows if row.gain}
    recorder.summary(values, len(finished_trials(search.study)))
    recorder.note(f"{text}\n\n{_describe(plan, search)}\n\n{links}")
    print(f"verdict: {plan.root / 'verdict.md'}", flush=True)


def _row(trial: Any) -> dict[str, Any]:
    return {
        "trial": trial.number,
        "state": trial.state.name,
        "name": trial.user_attrs.get(BASELINE) or "",
        "value": trial.values[0] if trial.state.name == COMPLETE else None,
        "why": trial.user_attrs.get(REASON) or error_of(trial) or "",
        **trial.params,
    }


def _run_name(plan: Plan, search: Part) -> str:
    best = best_trial(search.study)
    assert best is not None
    num = len(finished_trials(search.study))
    return f"tune {plan.config.study} · {num} trials · best {best.values[0]:.3f}"


def _describe(plan: Plan, search: Part) -> str:
    """The best, what pruning saved, and what it would have done to the runs that are whole."""
    trials = finished_trials(search.study)
    best = best_trial(search.study)
    assert best is not None
    lines = [f"Best: trial {best.number}, {best.values[0]:.4f} on the last stage's mix.", ""]
    lines += [f"- `{name}`: {value}" for name, value in best.params.items()]
    num_pruned = sum(trial.state.name == PRUNED for trial in trials)
    lines += ["", f"{num_pruned} of {len(trials)} trials were stopped early, which saved "]
    lines[-1] += (
        f"{saved_share(trials, plan.examples, plan.config.seeds_per_trial):.0%} of the examples."
    )
    if plan.config.target is None:
        lines += _replays(plan, trials, num_pruned)
    return "\n".join(lines)


def _replays(plan: Plan, trials: Sequence[Any], num_pruned: int) -> Iterator[str]:
    """What pruning would have done; after a study without it that is known of every trial."""
    named = plan.config.pruner
    for pruner in ("median", "hyperband") if named == "none" else (named,):
        settings = dataclasses.replace(plan.settings, pruner=pruner)
        again = replay(trials, settings.build_pruner(), settings.warmup, BASELINE)
        kept = "would have been stopped too" if again.winner_pruned else "would not have been"
        yield (
            f"Replayed on the {again.num} whole trials in their order, {pruner} stops "
            f"{again.num_pruned}; the winner {kept}."
        )
    if num_pruned:
        yield (
            f"This is a replay of survivors only: where the {num_pruned} that were stopped would "
            "have ended is not known. Full runs (pruner: none) would tell."
        )
