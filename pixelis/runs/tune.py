"""The parent of a search: its run, its workers, its verdict."""

import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markdown import Markdown
from tqdm import tqdm

from pixelis.config import flatten, to_yaml
from pixelis.errors import UserError
from pixelis.experiments.tune import (
    BASELINE,
    RUN_ID,
    Part,
    Plan,
    Verdict,
    best_trial,
    enqueue_final,
    error_of,
    final_key,
    finished_trials,
    first_number,
    is_running,
    judge,
    open_parts,
    storage_errors,
    value_of,
)
from pixelis.files import write_whole
from pixelis.runs.inputs import link_data_run, record_inputs, record_split
from pixelis.runs.jobs import Job, run_jobs
from pixelis.runs.training_checks import check_training
from pixelis.runs.tuning_record import record_search, record_verdict, write_best
from pixelis.tracking import MlflowRecorder, nested_environment, open_run
from pixelis.training.inputs import data_digest

# A worker that was killed is started again, so often.
MAX_RESTARTS = 3
OTHERS_SECONDS = 150.0  # that workers of a killed start, or of other machines, are waited for
BEST = "best"
WORKER_MODULE = "pixelis.cli.tune_worker"


@storage_errors()
def run_search(plan: Plan) -> Verdict | None:
    """Run the study to its end, write the best settings, judge them; all in one run of MLflow.

    Raises:
        UserError: when the storage cannot be used, or no trial could be trained.
    """
    config, data_dir = plan.config, Path(plan.config.data.path)
    digests = data_digest(data_dir)
    first = plan.training({}, config.training.seed, plan.root)
    check_training(first.config, first.model, first.curriculum)
    plan.root.mkdir(parents=True, exist_ok=True)
    search, *others = open_parts(plan)
    with open_run(
        entry_point="tune",
        experiment=config.exp_name,
        run_name=f"{config.exp_name} {config.study}",
        params=flatten(config) | flatten(plan.model),
        tags={"pixelis.base_model": first.model.model_name, "pixelis.study": config.study},
        # Of whoever began: a second start, here or elsewhere, goes on in the same run.
        resume_run_id=search.study.user_attrs.get(RUN_ID),
        spool_dir=plan.root,
        system_metrics=False,
        shared=True,
    ) as recorder:
        search.study.set_user_attr(RUN_ID, recorder.run_id)
        record_inputs(recorder, data_dir, digests, context="training")
        record_split(recorder, data_dir, digests, "validation")
        links = link_data_run(recorder, digests)
        _run_workers(plan, [search, *others], recorder)
        _check_any(search)
        best_file = write_best(plan, search.study)
        record_search(recorder, plan, search, links)
        verdict = _judge(plan, search, others, recorder) if config.final_seeds else None
        if verdict is not None:
            record_verdict(recorder, plan, search, verdict, best_file, links)
            Console(width=120).print(Markdown(verdict.as_markdown()))
        print(f"best settings: {best_file}", flush=True)
        print(recorder.url_hint(), flush=True)
    return verdict


def _check_any(search: Part) -> None:
    if best_trial(search.study) is None:
        errors = [error_of(trial) for trial in finished_trials(search.study)]
        said = next(filter(None, errors), "every one was stopped early")
        raise UserError(f"none of the study's {len(errors)} trials was trained to its end: {said}")


def _judge(plan: Plan, search: Part, others: list[Part], recorder: MlflowRecorder) -> Verdict:
    """Train the best and each baseline on fresh seeds and compare them on the test split."""
    best = best_trial(search.study)
    assert best is not None
    name = f"{BEST} (trial {first_number(best)})"
    contestants: dict[str, Mapping[str, Any]] = {name: best.params, **plan.baselines}
    enqueue_final(plan, others[-1], contestants)
    parts = open_parts(plan)  # whose last one now says how many trainings the verdict takes
    _run_workers(plan, [parts[-1]], recorder)
    baselines, final = (finished_trials(part.study) for part in parts[1:])
    tried = [*finished_trials(search.study), *baselines]
    searched = {name: float(best.values[0])}
    searched |= {
        key: value for key in plan.baselines if (value := value_of(tried, key)) is not None
    }
    test: dict[str, list[float]] = {}
    failed: dict[str, str] = {}
    for contestant in contestants:
        found = [value_of(final, final_key(contestant, seed)) for seed in plan.final_seeds]
        if None not in found:  # one that diverges has no mean
            test[contestant] = [value for value in found if value is not None]
        else:
            seed = plan.final_seeds[found.index(None)]
            failed[contestant] = f"seed {seed} ({_why(final, final_key(contestant, seed))})"
    if name not in test:
        raise UserError(f"{name} could not be trained on every fresh seed (logs: {plan.root})")
    return judge(test, searched, failed)


def _why(trials: Sequence[Any], name: str) -> str:
    said = [error_of(trial) for trial in trials if trial.user_attrs.get(BASELINE) == name]
    return next(filter(None, said), "it did not end").replace("|", "/")


def _run_workers(plan: Plan, parts: list[Part], recorder: MlflowRecorder) -> None:
    """Let workers run what is left of the parts, and show how far they are."""
    wanted = sum(part.settings.num_trials for part in parts)
    done = _count(parts)
    title = "tune: verdict" if parts[-1].is_final and len(parts) == 1 else "tune"
    with tqdm(total=wanted, initial=done, unit="trial", desc=title, mininterval=1) as bar:
        progress = _Progress(parts, bar)
        for attempt in range(MAX_RESTARTS + 1):
            failures: list[str] = []
            if _count(parts) < wanted:
                run_jobs(
                    _jobs(plan, wanted - _count(parts)),
                    num_workers=plan.config.num_workers,
                    environment=nested_environment(recorder),
                    on_failed=lambda job, why, to=failures: to.append(why),  # type: ignore[misc]
                    on_poll=progress.update,
                )
                progress.update(last=True)
            if _count(parts) >= wanted:
                return
            for why in failures:
                progress.say(why)
            if not failures:
                _wait_for_others(parts)
            if any("exit code -" not in why for why in failures) or attempt == MAX_RESTARTS:
                break
        raise UserError(
            f"the study has {_count(parts)} of {wanted} trials and its workers have ended: "
            f"{(failures or ['another machine has the rest'])[-1]}"
        )


def _wait_for_others(parts: list[Part]) -> None:
    """Let other processes end the trials that they are at: those of a killed start save them."""
    until = time.monotonic() + OTHERS_SECONDS
    while time.monotonic() < until and any(is_running(part.study) for part in parts):
        time.sleep(1)


def _jobs(plan: Plan, num_left: int) -> list[Job]:
    config, model = plan.root / "tune.yaml", plan.root / "model_arch.yaml"
    write_whole(config, to_yaml(plan.config))
    write_whole(model, to_yaml(plan.model))
    words = ("--config", str(config), "--model", str(model))
    num = min(plan.config.num_workers, num_left)
    return [
        Job(f"worker {i}", WORKER_MODULE, words, plan.root / f"worker-{i}.log") for i in range(num)
    ]


def _count(parts: list[Part]) -> int:
    return sum(min(len(finished_trials(part.study)), part.settings.num_trials) for part in parts)


class _Progress:
    """A line for each trial that ended, and a bar with the best so far."""

    def __init__(self, parts: list[Part], bar: "tqdm[Any]") -> None:
        self.parts, self.bar = parts, bar
        self._known = {self._key(part, t) for part in parts for t in finished_trials(part.study)}
        self._polls = 0

    @staticmethod
    def _key(part: Part, trial: Any) -> tuple[str, int]:
        return part.name, trial.number

    def update(self, last: bool = False) -> None:
        """Ask the studies, now and then."""
        self._polls += 1
        if not last and self._polls % 40:  # two seconds
            return
        for part in self.parts:
            for trial in finished_trials(part.study):
                if self._key(part, trial) not in self._known:
                    self._known.add(self._key(part, trial))
                    self.say(self._line(trial))
                    self.bar.update(1)
        best = best_trial(self.parts[0].study)
        if best is not None and not self.parts[0].is_final:
            self.bar.set_postfix_str(f"best {best.values[0]:.4f} (trial {first_number(best)})")

    def say(self, line: str) -> None:
        """Print above the bar."""
        with tqdm.external_write_mode(file=sys.stdout):
            print(line, flush=True)

    def _line(self, trial: Any) -> str:
        name = trial.user_attrs.get(BASELINE) or f"trial {first_number(trial)}"
        values = ", ".join(f"{k.rpartition('.')[2]} {_short(v)}" for k, v in trial.params.items())
        if trial.state.name == "COMPLETE":
            said = " ".join(f"{value:.4f}" for value in trial.values)
        else:
            notes = trial.user_attrs
            said = f"{trial.state.name.lower()}: {error_of(trial) or notes.get('pixelis.reason')}"
        return f"{name}{f' ({values})' if values else ''}: {said}"


def _short(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)
