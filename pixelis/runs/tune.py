"""One run of `tune`: run the workers of a search, record its best settings and its verdict."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markdown import Markdown
from tqdm import tqdm

from pixelis.config import flatten, to_yaml
from pixelis.errors import UserError
from pixelis.experiments.tune.results import Verdict, compute_verdict
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
    final_name,
    first_number,
    open_phases,
    value_of,
)
from pixelis.files import write_atomic
from pixelis.runs.inputs import link_data_run, record_inputs, record_split
from pixelis.runs.jobs import Job, log_above_bar, run_jobs
from pixelis.runs.training_checks import check_training
from pixelis.runs.tuning_record import record_search, record_verdict, write_best
from pixelis.tracking import MlflowRecorder, nested_environment, open_run
from pixelis.training.inputs import data_digest

MAX_STARTS = 4  # of workers, some of which were killed
POLL_SECONDS = 1.0  # each look reads the studies
WORKER_MODULE = "pixelis.cli.tune_worker"
RUN_ID = "pixelis.run_id"  # attribute of the study


@storage_errors()
def run_search(spec: SearchSpec) -> Verdict | None:
    """Run the study to its end, write the best settings and compare them, in one MLflow run.

    Raises:
        UserError: When the storage cannot be used, or no trial could be trained.
    """
    config, data_dir = spec.config, Path(spec.config.data.path)
    digests = data_digest(data_dir)
    first = spec.training({}, config.training.seed, spec.root)
    check_training(first.config, first.model, first.curriculum)
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
        record_split(recorder, data_dir, digests, "validation")
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
    for seed in spec.final_seeds:
        for name, values in contestants.items():
            final.enqueue(final_name(name, seed), {}, overrides=dict(values), seed=seed)
    _run_workers(spec, [final], recorder, title="tune: verdict")
    tried = [*phases[TRIALS].finished_trials(), *phases[BASELINES].finished_trials()]
    searched = {name: value_of(tried, name) for name in spec.baselines}
    searched[best_name] = float(best.values[0])
    trials = final.finished_trials()
    test: dict[str, list[float]] = {}
    failed: dict[str, str] = {}
    for name in contestants:
        by_seed = {seed: value_of(trials, final_name(name, seed)) for seed in spec.final_seeds}
        complete = [value for value in by_seed.values() if value is not None]
        if len(complete) == len(by_seed):  # without a mean if one of them diverged
            test[name] = complete
        else:
            seed = next(seed for seed, value in by_seed.items() if value is None)
            failed[name] = f"seed {seed} ({_failure(trials, final_name(name, seed))})"
    if best_name not in test:
        raise UserError(f"{best_name} could not be trained on every fresh seed (logs: {spec.root})")
    return compute_verdict(test, searched, failed)


def _failure(trials: Sequence[Any], name: str) -> str:
    errors = [error_of(trial) for trial in trials if trial.user_attrs.get(BASELINE) == name]
    return next(filter(None, errors), "it did not end").replace("|", "/")


def _run_workers(
    spec: SearchSpec, studies: Sequence[SearchStudy], recorder: MlflowRecorder, *, title: str
) -> None:
    """Start workers for the remaining trials of some studies, and show their progress."""
    num_trials = sum(study.num_trials for study in studies)
    with tqdm(
        total=num_trials, initial=_count(studies), unit="trial", desc=title, mininterval=1
    ) as bar:
        progress = partial(_show_progress, studies, bar, {key for key, _ in _finished(studies)})
        failures: list[str] = []
        for _ in range(MAX_STARTS):
            if (num_left := num_trials - _count(studies)) <= 0:
                return
            for reason in failures:
                log_above_bar(reason)
            failures = _start_workers(spec, num_left, recorder, progress)
            if not all("exit code -" in reason for reason in failures):
                break  # one was not killed, but ended with an error
        if _count(studies) < num_trials:
            raise UserError(
                f"the study has {_count(studies)} of {num_trials} trials and its workers have "
                f"ended: {failures[-1] if failures else 'the rest failed elsewhere'}"
            )


def _start_workers(
    spec: SearchSpec, num_left: int, recorder: MlflowRecorder, progress: Callable[[], None]
) -> list[str]:
    """Run workers until all have ended; return why some of them failed."""
    config, model = spec.root / "tune.yaml", spec.root / "model_arch.yaml"
    write_atomic(config, to_yaml(spec.config))
    write_atomic(model, to_yaml(spec.model))
    argv = ("--config", str(config), "--model", str(model))
    num = min(spec.config.num_workers, num_left)
    jobs = [
        Job(f"worker {i}", WORKER_MODULE, argv, spec.root / f"worker-{i}.log") for i in range(num)
    ]
    failures = []
    for _, reason, _ in run_jobs(
        jobs,
        num_workers=spec.config.num_workers,
        environment=nested_environment(recorder),
        on_poll=progress,
        poll_seconds=POLL_SECONDS,
    ):
        if reason is not None:
            failures.append(reason)
    progress()
    return failures


def _count(studies: Sequence[SearchStudy]) -> int:
    return sum(study.num_finished() for study in studies)


def _show_progress(
    studies: Sequence[SearchStudy], bar: "tqdm[Any]", known: set[tuple[str, int]]
) -> None:
    """Log a line for each trial that ended, and show the best value so far."""
    for key, trial in _finished(studies):
        if key not in known:
            known.add(key)
            log_above_bar(describe_trial(trial))
            bar.update(1)
    for study in studies:
        if study.space and (best := study.best_trial()) is not None:
            bar.set_postfix_str(f"best {best.values[0]:.4f} (trial {first_number(best)})")


def _finished(studies: Sequence[SearchStudy]) -> list[tuple[tuple[str, int], Any]]:
    return [
        ((study.phase, trial.number), trial)
        for study in studies
        for trial in study.finished_trials()
    ]


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
