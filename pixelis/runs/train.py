"""One sft run from its checked configuration: where it begins, what it leaves in MLflow."""

import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from filelock import FileLock, Timeout

from pixelis.config import ModelConfig, TrainingFileConfig, dump_yaml, to_yaml
from pixelis.curriculum import CurriculumConfig
from pixelis.data.encode import Encoder
from pixelis.data.example import DIFFICULTIES
from pixelis.data.store import load_split
from pixelis.errors import CheckpointError
from pixelis.evaluation.evaluate import EvaluationSettings, choose_examples
from pixelis.evaluation.metrics import ALL
from pixelis.recorder import NullRecorder
from pixelis.runs.evaluation_record import evaluate_and_record
from pixelis.runs.evaluation_set import EvaluationSet
from pixelis.runs.inputs import link_data_run, link_parent, record_inputs, record_split
from pixelis.runs.live_figures import LiveFigures, curriculum_rules
from pixelis.runs.training_checks import check_training, resolved_params, training_identity
from pixelis.runs.training_record import record_evaluation, record_result, record_test, tell_story
from pixelis.tracking import (
    MlflowRecorder,
    Origin,
    Past,
    data_tag,
    deliver_journals,
    end_finished,
    find_journals,
    open_run,
)
from pixelis.training.checkpoint import CURRICULUM_FILE, read_json, write_json
from pixelis.training.inputs import data_digest
from pixelis.training.processes import ALONE, Processes
from pixelis.training.resume import FINISHED_FILE, Start, choose_start
from pixelis.training.sft import Evaluations, run_training
from pixelis.training.taking_up import told_of_damage
from pixelis.training.workbench import Workbench

BATCH_SIZE_TAG = "pixelis.batch_size"  # found by training.auto_batch_size: "8 x 2"


@dataclass(frozen=True)
class Search:
    """What a search over trainings gives to one of them.

    Attributes:
        label: stands before the run's name.
        tags: of the run.
        workbench: what the trainings of one process share.
        on_evaluation: see `run_training`.
    """

    label: str = ""
    tags: Mapping[str, str] = field(default_factory=dict)
    workbench: Workbench | None = None
    on_evaluation: Callable[[Evaluations], None] | None = None


def run_sft(
    config: TrainingFileConfig,
    model: ModelConfig,
    curriculum: CurriculumConfig,
    processes: Processes = ALONE,
    search: Search | None = None,
) -> None:
    """Train, evaluate and record; says so and returns where the training is already finished.

    Of several processes the main one does all of it, with the help of the others in training.

    Raises:
        CheckpointError: when another training writes to the same output_dir, or none can.
    """
    if not processes.is_main:
        _train_along(config, model, curriculum, processes)
        return
    check_training(config, model, curriculum)  # before anything is written, be it a lock
    output_dir = Path(config.training.output_dir)
    lock = FileLock(lock_file(output_dir), timeout=0)
    try:
        output_dir.parent.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except Timeout as error:
        raise CheckpointError(
            f"training.output_dir {output_dir} is in use by another training; name another folder"
        ) from error
    except OSError as error:
        raise CheckpointError(
            f"training.output_dir {output_dir} cannot be written: {error}"
        ) from error
    try:
        _run_sft(config, model, curriculum, processes, search or Search())
    except (FileExistsError, NotADirectoryError, PermissionError) as error:
        raise CheckpointError(
            f"training.output_dir {output_dir} cannot be written: {error}"
        ) from error
    finally:
        lock.release()


def _train_along(
    config: TrainingFileConfig,
    model: ModelConfig,
    curriculum: CurriculumConfig,
    processes: Processes,
) -> None:
    """Wait until the main process has begun, begin where it does, train, and leave it the rest."""
    finished, resume_from = processes.on_main(lambda: (False, ""))
    if not finished:
        run_training(
            training=config.training,
            model_config=model,
            curriculum=curriculum,
            data_dir=Path(config.data.path),
            recorder=NullRecorder(),
            run_state={},
            resume_from=Path(resume_from) if resume_from else None,
            processes=processes,
        )


def lock_file(output_dir: Path) -> Path:
    """What a training holds while it writes to its folder; beside it, since the folder may move."""
    return output_dir.with_name(f".{output_dir.name}.lock")


def _run_sft(
    config: TrainingFileConfig,
    model: ModelConfig,
    curriculum: CurriculumConfig,
    processes: Processes,
    search: Search,
) -> None:
    data_dir, output_dir = Path(config.data.path), Path(config.training.output_dir)
    params = resolved_params(config, model, curriculum)
    resolved = config.replace(curriculum=curriculum.to_dict())
    digests = data_digest(data_dir)
    identity = training_identity(params, model, digests)
    start = choose_start(
        config.resume,
        output_dir,
        identity,
        _say,
        processes.world_size,
    )
    processes.on_main(lambda: (start.finished, str(start.resume_from or "")))
    if start.finished:
        if config.register is not None:
            _say(f"register={config.register} has no effect on a training that is finished")
        # Stopped in the moment after its last word, it has left the last of its records on disk.
        for line in deliver_journals(find_journals([], [output_dir]))[1]:
            _say(line)
        end_finished(start.run_id or "")
        return
    began = time.monotonic()
    run = open_run(
        entry_point="sft",
        experiment=config.exp_name,
        run_name=" ".join(
            [
                search.label or config.exp_name,
                f"{curriculum.strategy_label} seed {config.training.seed}",
            ]
        ),
        params=params,
        tags={
            "pixelis.seed": str(config.training.seed),
            "pixelis.base_model": model.model_name,
            **search.tags,
        },
        resume_run_id=start.run_id,
        # Beside the checkpoints: the working folder may be a temporary clone.
        output_dir=output_dir,
        past=_past(start),
    )
    with run as recorder, processes.together():
        record_inputs(recorder, data_dir, digests, context="training")
        record_split(recorder, data_dir, digests, "validation")
        data_line = link_data_run(recorder, digests)
        links = "\n\n".join(filter(None, [link_parent(recorder), data_line]))
        recorder.text(to_yaml(resolved), "config/training_params.yaml")
        recorder.text(to_yaml(model), "config/model_arch.yaml")
        recorder.origin = Origin(
            base_model=model.model_name,
            min_pixels=model.min_pixels,
            max_pixels=model.max_pixels,
            trust_remote_code=model.trust_remote_code,
            data=f"{data_line} Digest: `{data_tag(digests)}`.",
            curriculum=dump_yaml(curriculum.to_dict()),
            seed=config.training.seed,
        )
        training = config.training
        num_examples = training.batch_size * training.gradient_accumulation_steps
        rules = curriculum_rules(curriculum, num_examples * processes.world_size)
        story = partial(
            tell_story,
            recorder,
            curriculum=curriculum,
            links=links,
            max_steps=training.max_steps,
            label=search.label,
        )
        if start.resume_from is not None:
            _record_missing_events(recorder, start.resume_from)
        live = LiveFigures(
            recorder,
            output_dir=output_dir,
            max_steps=training.max_steps,
            rules=rules,
            on_event=story,
        )
        with live as figures:
            result = run_training(
                training=training,
                model_config=model,
                curriculum=curriculum,
                data_dir=data_dir,
                recorder=figures,
                run_state={"identity": identity, "run_id": recorder.run_id},
                resume_from=start.resume_from,
                processes=processes,
                workbench=search.workbench,
                on_evaluation=search.on_evaluation,
                on_batch_size=lambda found: recorder.tags({BATCH_SIZE_TAG: str(found)}),
            )
        print(result.statistics, flush=True)
        record_result(recorder, result, config, curriculum, links, search.label)
        trained = time.monotonic()
        print(f"training took {trained - began:.0f} s, with start-up", flush=True)
        test: dict[str, float] = {}
        if config.evaluation.enabled:
            test_rules = config.evaluation
            examples = choose_examples(
                load_split(data_dir, "test"),
                test_rules.samples_per_difficulty,
                training.seed,
                split="test",
            )
            evaluation = evaluate_and_record(
                recorder,
                result.model,
                # Without training's max_length: a long test question is no reason to stop here.
                Encoder(result.encoder.processor),
                EvaluationSet(examples, "test", "the test split"),
                EvaluationSettings(
                    max_operations=test_rules.max_operations,
                    compare_base=test_rules.compare_base,
                    seed=training.seed,
                ),
                step=training.max_steps,
            )
            accuracy = evaluation.adapter.accuracy
            test = {name: accuracy[name].value for name in (*DIFFICULTIES, ALL) if name in accuracy}
            record_test(recorder, result, config.training.max_steps, test)
            record_evaluation(recorder, evaluation, config, model.model_name, digests)
            print(f"evaluation took {time.monotonic() - trained:.0f} s", flush=True)
        recorder.secure()  # what is finished is not taken up again
        write_json(
            {
                "step": config.training.max_steps,
                "run_id": recorder.run_id,
                "identity": identity,
                "results": {
                    "test": test,
                    "strata": result.evaluations,
                    "num_tokens": result.num_tokens,
                    "seconds": time.monotonic() - began,
                },
            },
            output_dir / FINISHED_FILE,
        )
        print(f"adapter: {os.path.relpath(result.final_dir)}")
        print(recorder.url_hint(), flush=True)


def _say(line: str) -> None:
    print(line, flush=True)


def _past(start: Start) -> Past | None:
    """Return where the journal goes on, of a training that is resumed."""
    if start.resume_from is None or start.run_id is None:
        return None
    length = read_json(start.resume_from / CURRICULUM_FILE)["journal"]
    return Past(start.resume_from.parent, start.run_id, length)


def _record_missing_events(recorder: MlflowRecorder, checkpoint: Path) -> None:
    """Record the events that the journal lacks: a checkpoint may have been moved without it."""
    state = read_json(checkpoint / CURRICULUM_FILE)
    with told_of_damage(checkpoint):
        for event in state["callback"]["manager"]["events"][len(recorder.journal.events()) :]:
            recorder.event(event)
