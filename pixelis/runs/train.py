"""One sft run: start or resume the training, evaluate its adapter, record both in MLflow."""

import logging
import os
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from pixelis.config import ModelConfig, TrainingFileConfig, dump_yaml, to_yaml
from pixelis.curriculum import CurriculumConfig
from pixelis.data.encode import Encoder
from pixelis.data.example import DIFFICULTIES
from pixelis.data.store import load_split
from pixelis.errors import CheckpointError
from pixelis.evaluation.cases import build_cases, choose_example
from pixelis.evaluation.evaluate import EvaluationSettings, choose_examples
from pixelis.evaluation.metrics import ALL
from pixelis.recorder import NullRecorder
from pixelis.runs.evaluation_record import (
    FOLDER,
    RecordSettings,
    evaluate_and_record,
    record_rollouts,
)
from pixelis.runs.evaluation_set import EvaluationSet
from pixelis.runs.inputs import (
    link_data_run,
    link_parent,
    record_inputs,
    record_split,
    record_validation,
)
from pixelis.runs.live_figures import LiveFigures, curriculum_rules
from pixelis.runs.missing_data import is_missing, load_prep
from pixelis.runs.prepare import make_data
from pixelis.runs.run_params import place_tags, run_params
from pixelis.runs.training_checks import (
    check_training,
    free_settings,
    resolved_params,
    training_identity,
)
from pixelis.runs.training_record import (
    RunText,
    describe_model,
    describe_result,
    record_result,
    record_status,
)
from pixelis.tracking import (
    MlflowRecorder,
    Origin,
    Past,
    data_tag,
    deliver_journals,
    final_model,
    find_journals,
    name_opened_run,
    open_run,
)
from pixelis.training.callback import Evaluations
from pixelis.training.checkpoint import (
    AUTO,
    CURRICULUM_FILE,
    FINAL,
    FINISHED_FILE,
    Start,
    check_whole,
    choose_start,
    convert_errors,
    read_json,
    write_json,
)
from pixelis.training.distributed import ALONE, Processes
from pixelis.training.inputs import check_model, data_digest, trusted_digests
from pixelis.training.sft import TrainingResult, TrainingSettings, run_training

logger = logging.getLogger(__name__)

BATCH_SIZE_TAG = "pixelis.batch_size"  # found by training.auto_batch_size: "8 x 2"


@dataclass(frozen=True)
class Search:
    """Additional settings for a training that is part of a search."""

    label: str = ""  # prefix of the run's name
    tags: Mapping[str, str] = field(default_factory=dict)  # tags of the run
    on_evaluation: Callable[[Evaluations], None] | None = None  # see `run_training`


@dataclass(frozen=True)
class _Sft:
    """The configuration of one run, and values derived from it."""

    config: TrainingFileConfig
    model: ModelConfig
    curriculum: CurriculumConfig
    processes: Processes
    search: Search

    @property
    def data_dir(self) -> Path:
        return Path(self.config.data.path)

    @property
    def output_dir(self) -> Path:
        return Path(self.config.training.output_dir)

    @cached_property
    def params(self) -> dict[str, Any]:
        return resolved_params(self.config, self.model, self.curriculum)

    @cached_property
    def digests(self) -> dict[str, str]:
        return data_digest(self.data_dir)

    @cached_property
    def identity(self) -> dict[str, Any]:
        digests = self.digests | trusted_digests(self.config.data.trusted_path)
        return training_identity(self.params, self.model, digests)

    def text(self, links: str = "") -> RunText:
        """Return what the run's name and description say, with links in Markdown."""
        given = self.config.training
        return RunText(self.curriculum, given.seed, given.max_steps, links, self.search.label)

    def settings(self, resume_from: Path | None, run_id: str | None = None) -> TrainingSettings:
        """Return the settings of the training itself."""
        return TrainingSettings(
            self.config.training,
            self.model,
            self.curriculum,
            self.data_dir,
            exclude=self.config.data.exclude,
            trusted=self.config.data.trusted_path,
            run_state={
                "identity": self.identity,
                "settings": free_settings(self.params),
                "run_id": run_id,
            },
            resume_from=resume_from,
        )


def make_missing_data(
    config: TrainingFileConfig, model: ModelConfig, processes: Processes = ALONE
) -> None:
    """Make the data folder if it is missing, after checking the model and the checkpoint.

    Raises:
        UserError: when the file of `data.prep`, the model, the checkpoint or `data.trusted` cannot
            be used.
    """
    data_dir = Path(config.data.path)
    if not processes.run_on_main(partial(is_missing, data_dir)):
        return
    prep = load_prep(data_dir, config.data.prep)
    check_model(model)
    if config.resume not in (None, AUTO):
        check_whole(Path(str(config.resume)))
    trusted_digests(config.data.trusted_path)  # an error before the minutes of making data
    processes.run_on_main(partial(name_opened_run, f"making data · seed {config.training.seed}"))
    processes.run_on_main(partial(make_data, prep, data_dir, missing_from=config.data.prep))


def run_sft(
    config: TrainingFileConfig,
    model: ModelConfig,
    curriculum: CurriculumConfig,
    processes: Processes = ALONE,
    search: Search | None = None,
) -> None:
    """Train, evaluate and record; return at once if the training is already finished.

    The main process does all of it; other processes only take part in training.

    Raises:
        CheckpointError: when another training uses output_dir.
    """
    sft = _Sft(config, model, curriculum, processes, search or Search())
    if not processes.is_main:
        is_finished, resume_from = processes.run_on_main(lambda: (False, ""))
        if not is_finished:
            settings = sft.settings(Path(resume_from) if resume_from else None)
            run_training(settings, NullRecorder(), processes=processes)
        return
    check_training(config, model, curriculum)  # before anything is written, even a lock
    output_dir = sft.output_dir
    output_dir.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(lock_file(output_dir), timeout=0)
    try:
        lock.acquire()
    except Timeout as error:
        raise CheckpointError(
            f"training.output_dir {output_dir} is in use by another training; name another folder"
        ) from error
    try:
        _run(sft)
    finally:
        lock.release()


def lock_file(output_dir: Path) -> Path:
    """Return the path of the lock of a training's folder: next to it, as the folder may move."""
    return output_dir.with_name(f".{output_dir.name}.lock")


def _run(sft: _Sft) -> None:
    """Start or resume, train, evaluate, record."""
    start = choose_start(
        sft.config.resume,
        sft.output_dir,
        sft.identity,
        sft.processes.world_size,
        free_settings(sft.params),
    )
    sft.processes.run_on_main(lambda: (start.finished, str(start.resume_from or "")))
    if start.finished:
        # It may have been killed while it sent its last records.
        for line in deliver_journals(find_journals([], [sft.output_dir]))[1]:
            logger.info("%s", line)
        if register := sft.config.register:
            logger.info("register=%s has no effect on a training that is finished", register)
        return
    began = time.monotonic()
    with _open_run(sft, start) as recorder, sft.processes.fail_together():
        # Before the first system metric: MLflow's comparison opens with the runs' first metric.
        recorder.summary({"rollbacks": 0})
        text = sft.text(_record_configuration(sft, recorder))
        result = _train(sft, start, recorder, text)
        print(result.statistics, flush=True)
        record_result(recorder, result, text, sft.config.register)
        describe_result(recorder, result, text)
        trained = time.monotonic()
        logger.info("training took %.0f s, with start-up", trained - began)
        accuracy: dict[str, float] = {}
        if sft.config.evaluation.enabled:
            accuracy = _evaluate(sft, recorder, result, text)
            logger.info("evaluation took %.0f s", time.monotonic() - trained)
        finished = {
            "step": sft.config.training.max_steps,
            "run_id": recorder.run_id,
            "identity": sft.identity,
            "results": {
                "test": accuracy,
                "strata": result.evaluations,
                "num_tokens": result.num_tokens,
                "seconds": time.monotonic() - began,
            },
        }
        write_json(finished, sft.output_dir / FINISHED_FILE)
        print(f"adapter: {os.path.relpath(result.final_dir)}")
        print("".join(f"{line}\n" for line in describe_model(recorder)), end="")
        print(recorder.url_hint(), flush=True)


def _open_run(sft: _Sft, start: Start) -> AbstractContextManager[MlflowRecorder]:
    past = None
    if start.resume_from is not None and start.run_id is not None:
        length = read_json(start.resume_from / CURRICULUM_FILE)["journal"]
        past = Past(start.resume_from.parent, start.run_id, length)
    seed = sft.config.training.seed
    parts = (sft.search.label, sft.curriculum.strategy_label, f"seed {seed}")
    return open_run(
        entry_point="sft",
        experiment=sft.config.exp_name,
        run_name=" · ".join(filter(None, parts)),
        params=run_params(sft.params),
        tags={
            **place_tags(sft.params),
            "pixelis.seed": str(seed),
            "pixelis.base_model": sft.model.model_name,
            **sft.search.tags,
        },
        resume_run_id=start.run_id,
        # The journal is kept with the checkpoints: the working folder may be a temporary clone.
        output_dir=sft.output_dir,
        past=past,
    )


def _record_configuration(sft: _Sft, recorder: MlflowRecorder) -> str:
    """Record data and configuration; return links to the parent and the data's run in Markdown."""
    record_inputs(recorder, sft.data_dir, sft.digests, context="training")
    record_validation(recorder, sft.data_dir, sft.digests, sft.config.data.trusted_path)
    data_link = link_data_run(recorder, sft.digests)
    resolved = sft.config.replace(curriculum=sft.curriculum.to_dict())
    recorder.text(to_yaml(resolved), "config/training_params.yaml")
    recorder.text(to_yaml(sft.model), "config/model_arch.yaml")
    recorder.origin = Origin(
        base_model=sft.model.model_name,
        min_pixels=sft.model.min_pixels,
        max_pixels=sft.model.max_pixels,
        trust_remote_code=sft.model.trust_remote_code,
        data=f"{data_link} Digest: `{data_tag(sft.digests)}`.",
        curriculum=dump_yaml(sft.curriculum.to_dict()),
        seed=sft.config.training.seed,
    )
    return "\n\n".join(filter(None, [link_parent(recorder), data_link]))


def _train(sft: _Sft, start: Start, recorder: MlflowRecorder, text: RunText) -> TrainingResult:
    training = sft.config.training
    examples = training.batch_size * training.gradient_accumulation_steps
    if start.resume_from is not None:
        _record_missing_events(recorder, start.resume_from)
    live = LiveFigures(
        recorder,
        output_dir=sft.output_dir,
        max_steps=training.max_steps,
        rules=curriculum_rules(sft.curriculum, examples * sft.processes.world_size),
        # Not the run's name, which changes while it trains: a resume draws the same figures.
        about=f"{sft.search.label or sft.config.exp_name} · curriculum "
        f"{sft.curriculum.strategy_label} · seed {training.seed} · date {recorder.date}",
        on_event=partial(record_status, recorder, text),
    )
    with live as figures:
        return run_training(
            sft.settings(start.resume_from, recorder.run_id),
            figures,
            processes=sft.processes,
            on_evaluation=sft.search.on_evaluation,
            on_batch_size=lambda text: recorder.tags({BATCH_SIZE_TAG: text}),
        )


def _record_missing_events(recorder: MlflowRecorder, checkpoint: Path) -> None:
    """Record events that the journal lacks because a checkpoint was moved without it."""
    with convert_errors(checkpoint):
        events = read_json(checkpoint / CURRICULUM_FILE)["callback"]["manager"]["events"]
        for event in events[len(recorder.journal.events()) :]:
            recorder.event(event)


def _evaluate(
    sft: _Sft, recorder: MlflowRecorder, result: TrainingResult, text: RunText
) -> dict[str, float]:
    """Roll out the final adapter on the test split; return its answer accuracy by difficulty."""
    training, rules = sft.config.training, sft.config.evaluation
    # Without training's max_length: a long test question is no reason to stop here.
    encoder = Encoder(result.encoder.processor)
    examples = choose_examples(
        load_split(sft.data_dir, "test"),
        rules.samples_per_difficulty,
        training.seed,
        split="test",
        encoder=encoder,
    )
    evaluation_set = EvaluationSet(examples, "test", "the test split", path=sft.config.data.path)
    evaluation = evaluate_and_record(
        recorder,
        result.model,
        encoder,
        evaluation_set,
        EvaluationSettings(
            max_operations=rules.max_operations,
            compare_base=rules.compare_base,
            seed=training.seed,
        ),
        step=training.max_steps,
    )
    describe_result(recorder, result, text, evaluation)
    measured = evaluation.adapter.accuracy
    accuracy = {name: measured[name].value for name in (*DIFFICULTIES, ALL) if name in measured}
    keys = [f"summary/{FINAL}/{d}" for d in result.evaluations[-1][1]]
    shown = choose_example(build_cases(evaluation))
    recorder.model(  # again, for its card and its example
        result.final_dir,
        FINAL,
        training.max_steps,
        keys,
        results=accuracy,
        example=(shown.images[0], shown.question) if shown else None,
    )
    record_rollouts(
        recorder,
        evaluation,
        evaluation_set,
        RecordSettings(
            adapter="the final adapter",
            base=sft.model.model_name,
            seed=training.seed,
            num_traces=rules.num_traces,
            num_reported=rules.num_reported,
            report_folder=sft.output_dir / FOLDER,
            curriculum=sft.curriculum.strategy_label,
            step=training.max_steps,
        ),
        model=final_model(FINAL),
        dataset=record_split(recorder, sft.data_dir, sft.digests, "test"),
    )
    return accuracy
