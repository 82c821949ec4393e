"""Results of a search: the best settings as a file, and the study's record in its MLflow run."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from pixelis.config import ModelFileConfig, load_config, to_yaml
from pixelis.errors import ConfigError, UserError
from pixelis.experiments.tune.results import (
    Verdict,
    compute_importances,
    draw_page,
    draw_pictures,
    replay,
    saved_share,
)
from pixelis.experiments.tune.spec import SearchSpec
from pixelis.experiments.tune.study import (
    BASELINE,
    REASON,
    SearchStudy,
    error_of,
    first_number,
)
from pixelis.files import write_atomic
from pixelis.tracking import MlflowRecorder

FOLDER = "tune"  # folder of the artifacts
HEADER = "# The best of "  # beginning of each file that `write_best` writes
DEFAULT_MODEL = "configs/model_arch.yaml"  # sft's default


def check_best(spec: SearchSpec) -> None:
    """Refuse a path for the best settings that cannot be written or is another file.

    Raises:
        ConfigError: Naming the key, the rule and the value.
    """
    path = Path(spec.config.best_config)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        for file in _best_files(spec):
            if file.exists() and not _is_ours(file):
                raise ConfigError(
                    f"best_config must be a new file or one that tune wrote, got {str(path)!r}: "
                    f"{file} is there and does not begin with {HEADER.strip()!r}; move it, or name "
                    "another"
                )
    except OSError as error:
        raise ConfigError(
            f"best_config must be a file in a folder, got {str(path)!r}: {error}"
        ) from error


def _is_ours(file: Path) -> bool:
    with file.open("rb") as content:
        return content.read(len(HEADER)) == HEADER.encode()


def _best_files(spec: SearchSpec) -> list[Path]:
    """Return the files of the best settings: one for sft and, if necessary, one for the model.

    The model needs no file if none of its keys is searched and its settings are sft's default.
    """
    path = Path(spec.config.best_config)
    if not any(name.startswith("model.") for name in spec.space):
        try:
            if load_config(ModelFileConfig, Path(DEFAULT_MODEL)) == spec.model:
                return [path]
        except (UserError, OSError):  # without a default file, the model needs its own
            pass
    return [path, path.parent / f"{path.stem}_model.yaml"]


def write_best(spec: SearchSpec, search: SearchStudy) -> Path:
    """Write the settings of the best trial as a file for sft; return its path.

    Model settings that differ from sft's default are written to a second file next to it.
    """
    best = search.best_trial()
    assert best is not None
    training = spec.best(best.params)
    path, *model_files = _best_files(spec)
    searched = ", ".join(f"{name} = {value}" for name, value in best.params.items())
    num = len(search.finished_trials())
    header = f"{HEADER}{num} trials (trial {first_number(best)}): {searched}\n"
    command = f"#   mlflow run . -e sft -P config={path}"
    for model_file in model_files:
        write_atomic(model_file, header + to_yaml(ModelFileConfig(model=training.model)))
        command += f" -P model={model_file}"
    write_atomic(path, f"{header}{command}\n{to_yaml(training.config)}")
    return path


def record_search(
    recorder: MlflowRecorder, spec: SearchSpec, search: SearchStudy, links: str
) -> None:
    """Record the trials as a table, Optuna's plots, the best settings and the effect of pruning."""
    study, trials, best = search.study, search.finished_trials(), search.best_trial()
    assert best is not None
    for file in _best_files(spec):
        recorder.artifact(file, FOLDER)
    recorder.table([_row(trial) for trial in trials], f"{FOLDER}/trials.json")
    recorder.text(draw_page(study), f"{FOLDER}/study.html")
    for name, figure in draw_pictures(study):
        recorder.figure(f"{FOLDER}/{name}.png", figure)
    values = {"best": best.values[0], "best_trial": first_number(best), "trials": len(trials)}
    importances = compute_importances(study)
    values |= {f"importance/{name}": value for name, value in importances.items()}
    values["compute_saved"] = saved_share(trials, spec)
    # The step is the number of trials, so that a longer study's values follow the older ones.
    recorder.summary(values, len(trials))
    recorder.tags({f"best.{name}": str(value) for name, value in best.params.items()})
    name = f"tune {spec.config.study} · {len(trials)} trials · best {best.values[0]:.3f}"
    recorder.tags({"mlflow.runName": name})
    recorder.note(f"{_describe(spec, search)}\n\n{links}")


def record_verdict(
    recorder: MlflowRecorder,
    spec: SearchSpec,
    search: SearchStudy,
    verdict: Verdict,
    links: str,
) -> None:
    """Record the table that shows whether tuning helped."""
    text, file = verdict.as_markdown(), spec.root / "verdict.md"
    recorder.text(f"{text}\n", f"{FOLDER}/verdict.md")
    write_atomic(file, f"{text}\n")
    values = {f"verdict/{name.split(' ')[0]}": test.mean for name, test in verdict.test.items()}
    values |= {f"verdict/gain_over_{name}": gain.mean for name, gain in verdict.gains.items()}
    recorder.summary(values, len(search.finished_trials()))
    recorder.note(f"{text}\n\n{_describe(spec, search)}\n\n{links}")
    print(f"verdict: {file}", flush=True)


def _row(trial: Any) -> dict[str, Any]:
    return {
        "trial": first_number(trial),
        "state": trial.state.name,
        "name": trial.user_attrs.get(BASELINE) or "",
        "value": trial.values[0] if trial.state.name == "COMPLETE" else None,
        "why": trial.user_attrs.get(REASON) or error_of(trial) or "",
        **trial.params,
    }


def _describe(spec: SearchSpec, search: SearchStudy) -> str:
    """Return the best settings, the savings of pruning, and a replay of it on complete trials."""
    trials, best = search.finished_trials(), search.best_trial()
    assert best is not None
    num_pruned = sum(trial.state.name == "PRUNED" for trial in trials)
    lines = [
        f"Best: trial {first_number(best)}, {best.values[0]:.4f} on the last stage's mix.",
        "",
        *(f"- `{name}`: {value}" for name, value in best.params.items()),
        "",
        f"{num_pruned} of {len(trials)} trials were stopped early, which saved "
        f"{saved_share(trials, spec):.0%} of the examples.",
    ]
    if spec.config.target is None:
        lines += _replays(spec, trials, num_pruned)
    return "\n".join(lines)


def _replays(spec: SearchSpec, trials: Sequence[Any], num_pruned: int) -> Iterator[str]:
    """Yield the effect that pruning would have had; after a study without it, of each pruner."""
    pruner = spec.config.pruner
    for name in ("median", "hyperband") if pruner == "none" else (pruner,):
        num, num_stopped, winner_stopped = replay(trials, spec, name)
        winner = "would have been stopped too" if winner_stopped else "would not have been"
        yield (
            f"Replayed on the {num} whole trials in their order, {name} stops {num_stopped}; the "
            f"winner {winner}."
        )
    if num_pruned:
        yield (
            f"This is a replay of survivors only: where the {num_pruned} that were stopped would "
            "have ended is not known. Full runs (pruner: none) would tell."
        )
