"""One run of `tune`: run the workers of a search, record its best settings and its verdict."""

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markdown import Markdown

from pixelis.config import ModelFileConfig, flatten, load_config, to_yaml
from pixelis.errors import ConfigError, UserError
from pixelis.experiments.tune.results import (
    Verdict,
    compute_importances,
    compute_verdict,
    draw_page,
    draw_pictures,
    replay,
    saved_share,
)
from pixelis.experiments.tune.spec import SearchSpec
from pixelis.experiments.tune.storage import storage_errors
from pixelis.experiments.tune.study import (
    BASELINE,
    BASELINES,
    FINAL,
    REASON,
    TRIALS,
    SearchStudy,
    error_of,
    first_number,
    open_phases,
)
from pixelis.files import write_atomic
from pixelis.progress import ProgressBar
from pixelis.runs.inputs import link_data_run, record_inputs, record_validation
from pixelis.runs.jobs import Job, run_jobs
from pixelis.runs.training_checks import check_training
from pixelis.tracking import MlflowRecorder, nested_environment, open_run
from pixelis.training.inputs import data_digest

logger = logging.getLogger(__name__)

MAX_STARTS = 4  # of workers, some of which were killed
POLL_SECONDS = 1.0  # each look reads the studies
WORKER_MODULE = "pixelis.cli.tune_worker"
RUN_ID = "pixelis.run_id"  # attribute of the study
FOLDER = "tune"  # folder of the artifacts
HEADER = "# The best of "  # beginning of each file that `write_best` writes
DEFAULT_MODEL = "configs/model_arch.yaml"  # sft's default


@storage_errors()
def run_search(spec: SearchSpec) -> Verdict | None:
    """Run the study to its end, write the best settings and compare them, in one MLflow run.

    Raises:
        UserError: When the storage cannot be used, or no trial could be trained.
    """
    config, data_dir = spec.config, Path(spec.config.data.path)
    digests = data_digest(data_dir)
    first = spec.training({}, config.training.seed, spec.root)
    # Trials are measured on the mix of the files, which data of one difficulty do not have.
    check_training(first.config, first.model, first.curriculum.replace(enabled=True))
    phases = open_phases(spec)
    search, study = phases[TRIALS], phases[TRIALS].study
    spec.root.mkdir(parents=True, exist_ok=True)
    with open_run(
        entry_point="tune",
        experiment=config.exp_name,
        run_name=f"{config.exp_name} {config.study}",
        params=flatten(config) | flatten(spec.model),
        tags={"pixelis.base_model": first.model.model_name, "pixelis.study": config.study},
        # A second start, on this or another machine, resumes the run of the first one.
        resume_run_id=study.user_attrs.get(RUN_ID),
        output_dir=spec.root,
        system_metrics=False,
        shared=True,
    ) as recorder:
        study.set_user_attr(RUN_ID, recorder.run_id)
        record_inputs(recorder, data_dir, digests, context="training")
        record_validation(recorder, data_dir, digests, config.data.trusted_path)
        links = link_data_run(recorder, digests)
        _run_workers(spec, list(phases.values()), recorder, title="tune")
        if search.best_trial() is None:
            errors = [error_of(trial) for trial in search.finished_trials()]
            reason = next(filter(None, errors), "every one was stopped early")
            raise UserError(
                f"none of the study's {len(errors)} trials was trained to its end: {reason}"
            )
        best_file = write_best(spec, search)
        record_search(recorder, spec, search, links)
        verdict = _find_verdict(spec, phases, recorder) if config.final_seeds else None
        if verdict is not None:
            record_verdict(recorder, spec, search, verdict, links)
            Console(width=120).print(Markdown(verdict.as_markdown()))
        print(f"best settings: {best_file}", flush=True)
        print(recorder.url_hint(), flush=True)
    return verdict


def _find_verdict(
    spec: SearchSpec, phases: Mapping[str, SearchStudy], recorder: MlflowRecorder
) -> Verdict:
    """Train the best and each baseline on fresh seeds and compare them on the test split."""
    best, final = phases[TRIALS].best_trial(), phases[FINAL]
    assert best is not None
    best_name = f"best (trial {first_number(best)})"
    contestants: dict[str, Mapping[str, Any]] = {best_name: best.params, **spec.baselines}
    queue = {
        f"{name} seed {seed}": (name, seed) for seed in spec.final_seeds for name in contestants
    }
    for title, (name, seed) in queue.items():
        final.enqueue(title, {}, overrides=dict(contestants[name]), seed=seed)
    _run_workers(spec, [final], recorder, title="tune: verdict")
    test: dict[str, list[float]] = {name: [] for name in contestants}
    failed: dict[str, str] = {}
    trials = _by_name(final)
    for title, (name, seed) in queue.items():
        trial = trials.get(title)
        if (value := _value(trial)) is not None:
            test[name].append(value)
        else:  # without a mean if one of them diverged
            reason = (error_of(trial) if trial else None) or "it did not end"
            failed.setdefault(name, f"seed {seed} ({reason.replace('|', '/')})")
    if best_name in failed:
        raise UserError(f"{best_name} could not be trained on every fresh seed (logs: {spec.root})")
    tried = _by_name(phases[TRIALS]) | _by_name(phases[BASELINES])
    searched = {name: _value(tried.get(name)) for name in spec.baselines}
    searched[best_name] = float(best.values[0])
    whole = {name: values for name, values in test.items() if name not in failed}
    return compute_verdict(whole, searched, failed)


def _by_name(search: SearchStudy) -> dict[str, Any]:
    """Return the finished trials of baselines by their names."""
    trials = search.finished_trials()
    return {t.user_attrs[BASELINE]: t for t in trials if BASELINE in t.user_attrs}


def _value(trial: Any | None) -> float | None:
    return float(trial.values[0]) if trial and trial.state.name == "COMPLETE" else None


def _run_workers(
    spec: SearchSpec, studies: Sequence[SearchStudy], recorder: MlflowRecorder, *, title: str
) -> None:
    """Start workers for the remaining trials of some studies, and show their progress."""

    def finished() -> dict[tuple[str, int], Any]:
        return {(s.phase, trial.number): trial for s in studies for trial in s.finished_trials()}

    def count() -> int:
        return sum(study.num_finished() for study in studies)

    def show_progress() -> None:
        for key, trial in finished().items():
            if key not in known:
                known.add(key)
                logger.info("%s", describe_trial(trial))
                bar.update(1)
        for study in studies:
            if study.space and (best := study.best_trial()) is not None:
                value = best.values[0]
                bar.show(f"best {value:.4f} (trial {first_number(best)})", best=value)
        bar.refresh()

    num_trials, known = sum(study.num_trials for study in studies), set(finished())
    with ProgressBar(title, num_trials, "trial", initial=count()) as bar:
        failures: list[str] = []
        for _ in range(MAX_STARTS):
            if (num_left := num_trials - count()) <= 0:
                return
            for reason in failures:
                logger.info("%s", reason)
            failures = _start_workers(spec, num_left, recorder, show_progress)
            show_progress()
            if not all("exit code -" in reason for reason in failures):
                break  # one was not killed, but ended with an error
        if count() < num_trials:
            raise UserError(
                f"the study has {count()} of {num_trials} trials and its workers have "
                f"ended: {failures[-1] if failures else 'the rest failed elsewhere'}"
            )


def _start_workers(
    spec: SearchSpec, num_left: int, recorder: MlflowRecorder, on_poll: Callable[[], None]
) -> list[str]:
    """Run workers until all have ended; return why some of them failed."""
    config, model = spec.root / "tune.yaml", spec.root / "model_arch.yaml"
    write_atomic(config, to_yaml(spec.config))
    write_atomic(model, to_yaml(spec.model))
    argv = ("--config", str(config), "--model", str(model))
    num = min(spec.config.num_workers, num_left)
    ended = run_jobs(
        [
            Job(f"worker {i}", WORKER_MODULE, argv, spec.root / f"worker-{i}.log")
            for i in range(num)
        ],
        num_workers=spec.config.num_workers,
        environment=nested_environment(recorder),
        on_poll=on_poll,
        poll_seconds=POLL_SECONDS,
    )
    return [reason for _, reason, _ in ended if reason is not None]


def describe_trial(trial: Any) -> str:
    """Return a finished trial's line: name, values, and its performance or why it ended."""
    name = trial.user_attrs.get(BASELINE) or f"trial {first_number(trial)}"
    values = ", ".join(
        f"{key.rpartition('.')[2]} {value:.3g}"
        if isinstance(value, float)
        else f"{key.rpartition('.')[2]} {value}"
        for key, value in trial.params.items()
    )
    if trial.state.name == "COMPLETE":
        result = " ".join(f"{value:.4f}" for value in trial.values)
    else:
        reason = error_of(trial) or trial.user_attrs.get(REASON)
        result = f"{trial.state.name.lower()}: {reason}"
    return f"{name}{f' ({values})' if values else ''}: {result}"


def check_best(spec: SearchSpec) -> None:
    """Refuse a path for the best settings that cannot be written or is another file.

    Raises:
        ConfigError: Naming the key, the rule and the value.
    """
    path = Path(spec.config.best_config)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        for file in _best_files(spec):
            if file.exists() and not file.read_bytes().startswith(HEADER.encode()):
                raise ConfigError(
                    f"best_config must be a new file or one that tune wrote, got {str(path)!r}: "
                    f"{file} is there and does not begin with {HEADER.strip()!r}; move it, or name "
                    "another"
                )
    except OSError as error:
        raise ConfigError(
            f"best_config must be a file in a folder, got {str(path)!r}: {error}"
        ) from error


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
