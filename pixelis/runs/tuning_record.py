"""What a search leaves: the best settings as a file, and the study in its MLflow run."""

import dataclasses
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from pixelis.config import ModelFileConfig, load_config, to_yaml
from pixelis.errors import ConfigError, UserError
from pixelis.experiments.tune import (
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
    first_number,
    importances,
    replay,
    saved_share,
)
from pixelis.files import write_whole
from pixelis.tracking import MlflowRecorder

FOLDER = "tune"
HEAD = "# The best of "  # how what `write_best` writes begins: by that it is known again
DEFAULT_MODEL = "configs/model_arch.yaml"  # that sft takes where no other is named
PRUNED, COMPLETE = "PRUNED", "COMPLETE"


def check_best(plan: Plan) -> None:
    """Refuse a place for the best settings that cannot be written, or that holds something else.

    Raises:
        ConfigError: naming the key, the rule and the value.
    """
    place = Path(plan.config.best_config)
    if not place.name or place.is_dir():
        raise ConfigError(f"best_config must be a file, got the folder {str(place)!r}")
    above = next(each for each in place.parents if each.exists())
    if not above.is_dir():
        raise ConfigError(
            f"best_config must be a file in a folder, got {str(place)!r}: {above} is none"
        )
    for file in _files(plan):
        if file.is_dir() or (file.exists() and not _is_ours(file)):
            raise ConfigError(
                f"best_config must be a new file or one that tune wrote, got {str(place)!r}: "
                f"{file} is there and does not begin with {HEAD.strip()!r}; move it, or name "
                "another"
            )


def _is_ours(file: Path) -> bool:
    if not file.is_file():  # a device is no file of ours, and may have no end
        return False
    with file.open("rb") as content:
        return content.read(len(HEAD)) == HEAD.encode()


def _files(plan: Plan) -> list[Path]:
    """The files of the best settings: sft's and, where sft's default is another, the model's."""
    place = Path(plan.config.best_config)
    if _is_default_model(plan):
        return [place]
    return [place, place.with_name(f"{place.stem}_model.yaml")]


def _is_default_model(plan: Plan) -> bool:
    """Whether sft trains the best trial's adapter without a word on the model."""
    if any(each.name.startswith("model.") for each in plan.space):
        return False
    try:
        return load_config(ModelFileConfig, Path(DEFAULT_MODEL)) == plan.model
    except (UserError, OSError):  # none here: then it has to be named
        return False


def write_best(plan: Plan, study: Any) -> Path:
    """Write the settings of the best trial as a file that sft takes; returns its path.

    Where the model's are not those that sft takes by itself, they are written beside it.
    """
    best = best_trial(study)
    assert best is not None
    training = plan.best(best.params)
    place = Path(plan.config.best_config)
    place.parent.mkdir(parents=True, exist_ok=True)
    searched = ", ".join(f"{name} = {value}" for name, value in best.params.items())
    num = len(finished_trials(study))
    head = f"{HEAD}{num} trials (trial {first_number(best)}): {searched}\n"
    model_words = ""
    for model_file in _files(plan)[1:]:
        _write(model_file, head + to_yaml(ModelFileConfig(model=training.model)))
        model_words = f" -P model={model_file}"
    head += f"#   mlflow run . -e sft -P config={place}{model_words}\n"
    _write(place, head + to_yaml(training.config))
    return place


def _write(place: Path, text: str) -> None:
    write_whole(place, text)


def record_search(recorder: MlflowRecorder, plan: Plan, search: Part, links: str) -> None:
    """Leave the trials as a table, Optuna's plots, the best settings and what pruning did."""
    study, trials = search.study, finished_trials(search.study)
    best = best_trial(study)
    assert best is not None
    for file in _files(plan):
        recorder.artifact(file, FOLDER)
    recorder.table([_row(trial) for trial in trials], f"{FOLDER}/trials.json")
    recorder.text(draw_page(study), f"{FOLDER}/study.html")
    for name, figure in draw_pictures(study):
        recorder.figure(f"{FOLDER}/{name}.png", figure)
    # A step counts once: a study that grows has its newest values at its newest size.
    values = {"best": best.values[0], "best_trial": first_number(best), "trials": len(trials)}
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
        "trial": first_number(trial),
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
    lines = [f"Best: trial {first_number(best)}, {best.values[0]:.4f} on the last stage's mix.", ""]
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
