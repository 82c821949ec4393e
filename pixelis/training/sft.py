"""Build one training from its configuration and run it, or go on with one that was stopped."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from transformers import PrinterCallback, TrainingArguments, set_seed

from pixelis.config import ModelConfig, TrainingConfig
from pixelis.curriculum import (
    CurriculumConfig,
    CurriculumEvent,
    CurriculumManager,
    MixtureSampler,
    final_statistics,
)
from pixelis.data.dataset import CurriculumDataset
from pixelis.data.encode import Encoder
from pixelis.data.loader import CurriculumLoader
from pixelis.evaluation.validation import Validation
from pixelis.models.quiet import quiet_libraries
from pixelis.recorder import NullRecorder, Recorder
from pixelis.training.adapter import build_adapter, load_trained
from pixelis.training.batch_size import Split, fit_batch_size
from pixelis.training.caches import left_out, look_once
from pixelis.training.callback import CurriculumCallback
from pixelis.training.checkpoint import (
    CURRICULUM_FILE,
    read_json,
    told_of_full_disk,
    write_json,
)
from pixelis.training.inputs import check_kernels, check_model
from pixelis.training.precision import BF16, resolve_precision, spare_casts
from pixelis.training.processes import ALONE, Processes, ignore_signals
from pixelis.training.progress import ProgressCallback
from pixelis.training.resume import EVENTS_FILE, read_trainer_state
from pixelis.training.stopping import Stopped, stop_on_signals
from pixelis.training.taking_up import told_of_damage
from pixelis.training.trainer import CurriculumTrainer
from pixelis.training.workbench import Workbench

Evaluations = Sequence[tuple[int, Mapping[str, float]]]
# Between the seeds of two processes: runs with neighbouring seeds share none.
RANK_STRIDE = 1_000_003


@dataclass(frozen=True)
class TrainingResult:
    """What a finished training leaves to its caller."""

    model: Any
    encoder: Encoder
    events: list[CurriculumEvent]
    evaluations: list[tuple[int, dict[str, float]]]
    losses: list[tuple[int, float]]
    mixes: list[tuple[int, dict[str, float]]]
    best: dict[str, float]
    num_tokens: int
    num_bad_steps: int
    final_dir: Path
    statistics: str


def training_arguments(
    training: TrainingConfig, *, gradient_checkpointing: bool, bf16: bool = False
) -> Any:
    """Transformers' arguments for ours; evaluation is asked for by the callback."""
    return TrainingArguments(
        output_dir=training.output_dir,
        seed=training.seed,
        max_steps=training.max_steps,
        per_device_train_batch_size=training.batch_size,
        gradient_accumulation_steps=training.gradient_accumulation_steps,
        learning_rate=training.learning_rate,
        warmup_steps=training.warmup_steps,
        lr_scheduler_type=training.lr_scheduler_type,
        weight_decay=training.weight_decay,
        max_grad_norm=training.max_grad_norm,
        logging_steps=training.logging_steps,
        logging_nan_inf_filter=False,  # it would show a loss of 0 where training diverged
        include_num_input_tokens_seen="non_padding",
        save_steps=training.save_steps,
        activation_checkpointing=gradient_checkpointing,
        optim="adamw_torch",
        bf16=bf16,
        torch_compile=training.torch_compile,
        use_liger_kernel=training.use_liger_kernel,
        eval_strategy="no",
        report_to="none",
        disable_tqdm=True,
        remove_unused_columns=False,
        # The loader restores its own position.
        ignore_data_skip=True,
        use_cpu=not torch.cuda.is_available(),
        # Of several processes: every layer of the adapter is in every step.
        ddp_find_unused_parameters=False,
    )


def run_training(
    *,
    training: TrainingConfig,
    model_config: ModelConfig,
    curriculum: CurriculumConfig,
    data_dir: Path,
    recorder: Recorder,
    run_state: Mapping[str, Any],
    resume_from: Path | None = None,
    say: Callable[[str], None] = print,
    processes: Processes = ALONE,
    workbench: Workbench | None = None,
    on_evaluation: Callable[[Evaluations], None] | None = None,
    on_batch_size: Callable[[Split], None] = lambda split: None,
) -> TrainingResult:
    """Train an adapter on the curriculum and save it to `<output_dir>/final`.

    Args:
        training: section `training`.
        model_config: section `model`.
        curriculum: the checked section `curriculum`.
        data_dir: folder of the three parquet files.
        recorder: told metrics, events and figures.
        run_state: JSON that every checkpoint keeps (the configuration, the tracker's run).
        resume_from: a whole checkpoint of the same configuration.
        say: prints a line.
        processes: that train together; of all but the main one, nothing is recorded or said.
        workbench: has the data and the base of an earlier training; None loads them.
        on_evaluation: called with all evaluations so far after each; it may raise to end training.
        on_batch_size: told the batch size that was found, where it was to be found.

    Raises:
        Stopped: after SIGINT or SIGTERM, with a checkpoint saved.
    """
    check_model(model_config)
    check_kernels(training)
    output_dir = Path(training.output_dir)
    output_dir.mkdir(parents=True, exist_ok=True)
    if not processes.is_main:
        recorder, say = NullRecorder(), _say_nothing
    elif not (output_dir / EVENTS_FILE).exists():
        write_json([], output_dir / EVENTS_FILE)  # from now on the folder is a training's
    workbench = workbench or Workbench()
    encoder, datasets = workbench.load_data(
        model_config, data_dir, curriculum, max_length=training.max_length, say=say
    )
    if lacking := left_out(datasets):
        recorder.metrics(lacking, 0)
    precision = resolve_precision(training.precision)
    quiet_libraries()
    set_seed(training.seed)
    adapter = build_adapter(
        model_config,
        datasets["train"],
        seed=training.seed,
        batch_size=training.batch_size,
        output_dir=output_dir,
        recorder=recorder,
        resume_from=resume_from,
        load=partial(
            workbench.load_base,
            precision=precision,
            look=partial(look_once, datasets, encoder, training, model_config, data_dir, say),
        ),
    )
    model = adapter.model
    trained = sum(p.numel() * p.element_size() for p in model.parameters() if p.requires_grad)
    workbench.lend(model)
    arguments = training_arguments(
        training,
        gradient_checkpointing=model_config.gradient_checkpointing,
        bf16=precision == BF16,
    )
    if precision == BF16 and arguments.use_cpu:
        spare_casts(model)
    assert (arguments.process_index, arguments.world_size) == (
        processes.rank,
        processes.world_size,
    ), "a process that a launcher started has to join the others"
    manager = CurriculumManager(curriculum, max_steps=training.max_steps)
    _bind_scores(manager, datasets["train"])
    loader = CurriculumLoader(
        datasets["train"],
        MixtureSampler(datasets["train"].sizes, manager.mix, training.seed),
        manager,
        batch_size=training.batch_size,
        accumulation_steps=training.gradient_accumulation_steps,
        num_workers=training.num_workers,
        rank=processes.rank,
        world_size=processes.world_size,
    )
    validation = Validation(
        datasets["validation"],
        manager.required_difficulties,
        samples_per_difficulty=curriculum.eval_samples_per_difficulty,
        batch_size=training.eval_batch_size,
        seed=training.seed,
        shard=processes.deal,
    )
    callback = CurriculumCallback(
        manager,
        recorder,
        eval_steps=training.eval_steps,
        examples_per_step=loader.examples_per_step,
        say=say,
    )
    if on_evaluation is not None:
        callback.on_evaluation = on_evaluation
    progress = ProgressCallback(callback, say)
    callback.say = progress.say
    trainer = CurriculumTrainer(
        model,
        arguments,
        loader=loader,
        validation=validation,
        curriculum=callback,
        run_state={**run_state, "vision_features": datasets["train"].features is not None},
        save_total_limit=training.save_total_limit,
        max_bad_steps=training.max_bad_steps,
        processes=processes,
        initial=adapter.initial,
        operation_weight=training.operation_token_weight,
    )
    trainer.remove_callback(PrinterCallback)
    if processes.is_main:
        trainer.add_callback(progress)
    else:
        # The adapter began alike in all; dropout must not be.
        torch.manual_seed(training.seed + processes.rank * RANK_STRIDE)
    if training.auto_batch_size:
        known = read_json(resume_from / CURRICULUM_FILE).get("batch_size") if resume_from else None
        split = fit_batch_size(trainer, manager.required_difficulties, known=known, say=say)
        on_batch_size(split)
    if resume_from is not None:
        with told_of_damage(resume_from):
            trainer.restore_curriculum(resume_from)
        state = read_trainer_state(resume_from)
    else:
        trainer.score_if_needed(0)
    if resume_from is not None and manager.events[-1].kind == "end":
        # Stopped after the last step: transformers' loop would make one more.
        with told_of_damage(resume_from):
            trainer.load_weights(resume_from)
        trainer.state = state
    else:
        try:
            with (
                stop_on_signals(callback, processes),
                processes.together(),
                told_of_full_disk(output_dir, trained),
            ):
                trainer.train(resume_from_checkpoint=str(resume_from) if resume_from else None)
                # A signal in the last step, after that step's agreement.
                callback.stop_requested = processes.any(callback.stop_requested)
                if callback.stop_requested and processes.world_size > 1 and processes.is_main:
                    ignore_signals()  # of the launcher, as soon as the first one has ended
        finally:
            progress.close()
        step = trainer.state.global_step
        if callback.stop_requested or step < training.max_steps:
            raise Stopped(output_dir / f"checkpoint-{step}", step)
    with told_of_full_disk(output_dir, trained):
        trainer.save_adapter(output_dir / "final")
    assert callback.best is not None
    # For rollouts, by this process alone, beside a base as it was loaded.
    changed = adapter.initial is not None or (precision == BF16 and arguments.use_cpu)
    if processes.is_main and (trainer.is_sharded or changed):
        model = load_trained(model_config, output_dir / "final")
    return TrainingResult(
        model=model.eval(),
        encoder=encoder,
        events=manager.events,
        evaluations=callback.evaluations,
        losses=callback.losses,
        mixes=callback.mixes,
        best=callback.best,
        num_tokens=int(trainer.state.num_input_tokens_seen),
        num_bad_steps=callback.num_bad_steps,
        final_dir=output_dir / "final",
        statistics=final_statistics(
            manager, training.max_steps * loader.examples_per_step, callback.num_bad_steps
        ),
    )


def _say_nothing(line: str) -> None:
    """Leave the line to the main process."""


def _bind_scores(manager: CurriculumManager, dataset: CurriculumDataset) -> None:
    """Give the manager the training examples' difficulty scores, which `competence` ranks."""
    manager.bind({name: list(rows["difficulty_score"]) for name, rows in dataset.rows.items()})
