"""One sft run from its checked configuration: where it begins, what it leaves in MLflow."""

import hashlib
import os
import time
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from pixelis.cli.live_figures import LiveFigures, curriculum_rules
from pixelis.cli.making import link_data_run, link_parent, record_inputs, record_validation
from pixelis.cli.rollouts import evaluate_and_record
from pixelis.cli.training_record import record_result, record_test, tell_story
from pixelis.config import ModelConfig, TrainingFileConfig, flatten, to_yaml
from pixelis.curriculum import CurriculumConfig
from pixelis.data.encode import Encoder
from pixelis.data.example import DIFFICULTIES
from pixelis.data.store import load_split
from pixelis.errors import CheckpointError
from pixelis.evaluation.evaluate import choose_examples
from pixelis.evaluation.metrics import ALL
from pixelis.models.load import EMBEDDED, EMBEDDED_DIR, check_weights, load_processor
from pixelis.recorder import NullRecorder
from pixelis.strict_yaml import dump_yaml
from pixelis.tracking import Origin, data_tag, deliver_spools, find_spools, open_run
from pixelis.training.checkpoint import CURRICULUM_FILE, read_json, write_json
from pixelis.training.inputs import check_inputs, check_model, data_digest
from pixelis.training.processes import ALONE, Processes
from pixelis.training.resume import FINISHED_FILE, choose_start
from pixelis.training.sft import run_training

# Where work goes and how it is taken up again says nothing about what is trained.
# Checkpoints have the number of processes on their own, and one layout, sharded or not.
NOT_IDENTITY = (
    *("resume", "register", "training.output_dir"),
    *("num_processes", "accelerate_config"),
)


def resolved_params(
    config: TrainingFileConfig, model: ModelConfig, curriculum: CurriculumConfig
) -> dict[str, Any]:
    """The whole configuration as dotted keys, curriculum defaults filled in."""
    params: dict[str, Any] = {
        key: value for key, value in flatten(config).items() if not key.startswith("curriculum.")
    }
    params |= _flat("curriculum", curriculum.to_dict())
    params |= {f"model.{key}": value for key, value in flatten(model).items()}
    return params


def training_identity(
    params: Mapping[str, Any], model: ModelConfig, digests: Mapping[str, str]
) -> dict[str, Any]:
    """What makes two trainings the same one: configuration, data, and the embedded base's weights.

    Args:
        params: of `resolved_params`.
        model: section `model`.
        digests: file name -> SHA-256 of the data.
    """
    identity = {key: value for key, value in params.items() if key not in NOT_IDENTITY}
    identity |= {f"data {name}": digest for name, digest in digests.items()}
    if model.model_name == EMBEDDED:  # its name stays when `make base` rebuilds it
        weights = (EMBEDDED_DIR / "model.safetensors").read_bytes()
        identity["model weights"] = hashlib.sha256(weights).hexdigest()
    return identity


def _flat(prefix: str, tree: Mapping[str, Any]) -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        if isinstance(value, Mapping):
            flat |= _flat(f"{prefix}.{key}", value)
        else:
            flat[f"{prefix}.{key}"] = str(value) if isinstance(value, list) else value
    return flat


def run_sft(
    config: TrainingFileConfig,
    model: ModelConfig,
    curriculum: CurriculumConfig,
    processes: Processes = ALONE,
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
        _run_sft(config, model, curriculum, processes)
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


def check_training(
    config: TrainingFileConfig, model: ModelConfig, curriculum: CurriculumConfig
) -> None:
    """Check what can be known before anything is written: base, data, enough test examples.

    Raises:
        UserError: naming what is wrong.
    """
    data_dir = Path(config.data.path)
    check_model(model)
    load_processor(
        model.model_name,
        min_pixels=model.min_pixels,
        max_pixels=model.max_pixels,
        trust_remote_code=model.trust_remote_code,
    )
    check_weights(model.model_name)
    check_inputs(data_dir, curriculum)
    if config.evaluation.enabled:  # else it would be noticed after hours of training
        wanted = config.evaluation.samples_per_difficulty
        choose_examples(load_split(data_dir, "test"), wanted, config.training.seed, split="test")
    data_digest(data_dir)


def _run_sft(
    config: TrainingFileConfig,
    model: ModelConfig,
    curriculum: CurriculumConfig,
    processes: Processes,
) -> None:
    data_dir, output_dir = Path(config.data.path), Path(config.training.output_dir)
    params = resolved_params(config, model, curriculum)
    resolved = replace(config, curriculum=curriculum.to_dict())
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
        # Stopped in the moment after its last word, it has left the last of its records on disk.
        deliver_spools(find_spools([], [output_dir]), _say)
        return
    began = time.monotonic()
    run = open_run(
        entry_point="sft",
        experiment=config.exp_name,
        run_name=f"{config.exp_name} {curriculum.strategy_label} seed {config.training.seed}",
        params=params,
        tags={"pixelis.seed": str(config.training.seed), "pixelis.base_model": model.model_name},
        resume_run_id=start.run_id,
        # Beside the checkpoints: the working folder may be a temporary clone.
        spool_dir=output_dir,
    )
    with run as recorder, processes.together():
        record_inputs(recorder, data_dir, digests, context="training")
        record_validation(recorder, data_dir, digests)
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
            tell_story, recorder, curriculum=curriculum, links=links, max_steps=training.max_steps
        )
        live = LiveFigures(recorder, max_steps=training.max_steps, rules=rules, story=story)
        with live as figures:
            if start.resume_from is not None:
                _restore_events(figures, start.resume_from)
            result = run_training(
                training=training,
                model_config=model,
                curriculum=curriculum,
                data_dir=data_dir,
                recorder=figures,
                run_state={"identity": identity, "run_id": recorder.run_id},
                resume_from=start.resume_from,
                processes=processes,
            )
        print(result.statistics, flush=True)
        record_result(recorder, result, config, curriculum, links)
        trained = time.monotonic()
        print(f"training took {trained - began:.0f} s, with start-up", flush=True)
        test: dict[str, float] = {}
        if config.evaluation.enabled:
            evaluation = evaluate_and_record(
                recorder,
                result.model,
                # Without training's max_length: a long test question is no reason to stop here.
                Encoder(result.encoder.processor),
                data_dir=data_dir,
                split="test",
                samples_per_difficulty=config.evaluation.samples_per_difficulty,
                max_operations=config.evaluation.max_operations,
                compare_base=config.evaluation.compare_base,
                seed=config.training.seed,
                step=config.training.max_steps,
            )
            accuracy = evaluation.adapter.accuracy
            test = {name: accuracy[name].value for name in (*DIFFICULTIES, ALL) if name in accuracy}
            record_test(recorder, result, config.training.max_steps, test)
            print(f"evaluation took {time.monotonic() - trained:.0f} s", flush=True)
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


def _restore_events(figures: LiveFigures, checkpoint: Path) -> None:
    state = read_json(checkpoint / CURRICULUM_FILE)
    figures.restore_events(state["callback"]["manager"]["events"])
