"""Supervised fine-tuning: build one training from its settings, start or resume it, save it."""

from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch
from accelerate.utils.memory import clear_device_cache
from transformers import PrinterCallback, TrainerState, TrainingArguments, set_seed
from transformers.trainer import TRAINER_STATE_NAME

from pixelis.config import ModelConfig, TrainingConfig
from pixelis.curriculum import (
    CurriculumConfig,
    CurriculumEvent,
    CurriculumManager,
    MixtureSampler,
    final_statistics,
)
from pixelis.data.encode import Encoder
from pixelis.data.loader import CurriculumLoader
from pixelis.evaluation.validation import Validation
from pixelis.models.load import silence_libraries
from pixelis.recorder import NullRecorder, Recorder
from pixelis.training.adapter import build_adapter, load_base, load_trained
from pixelis.training.batch_size import fit_batch_size
from pixelis.training.caches import TRUSTED, left_out, load_data, use_vision_cache
from pixelis.training.callback import CurriculumCallback, Evaluations, ProgressCallback
from pixelis.training.checkpoint import (
    CURRICULUM_FILE,
    EVENTS_FILE,
    FINAL,
    convert_errors,
    explain_full_disk,
    read_json,
    write_json,
)
from pixelis.training.distributed import (
    ALONE,
    Processes,
    Stopped,
    ignore_signals,
    stop_on_signals,
)
from pixelis.training.inputs import check_model
from pixelis.training.precision import BF16, halve_base, resolve_precision, skip_input_casts
from pixelis.training.trainer import BadSteps, CurriculumTrainer, score_losses
from pixelis.training.weights import TrainedWeights

# Distance between the seeds of two processes, so that runs with neighbouring seeds share no seed.
RANK_STRIDE = 1_000_003
# Settings that have the same name in transformers' arguments.
SAME_NAMES = (
    *("output_dir", "seed", "max_steps", "gradient_accumulation_steps", "learning_rate"),
    *("warmup_steps", "lr_scheduler_type", "weight_decay", "max_grad_norm", "logging_steps"),
    *("save_steps", "torch_compile", "use_liger_kernel"),
)


@dataclass(frozen=True)
class TrainingSettings:
    """The settings of one training."""

    training: TrainingConfig  # section `training`
    model: ModelConfig  # section `model`
    curriculum: CurriculumConfig  # the checked section `curriculum`
    data_dir: Path  # folder of the three parquet files
    exclude: tuple[str, ...] = ()  # ids of examples that are left out
    trusted: Path | None = None  # file or folder that strata are measured on, not the validation
    # JSON that every checkpoint keeps (the configuration, the tracker's run).
    run_state: Mapping[str, Any] = field(default_factory=dict)
    # A complete checkpoint of the same configuration; None for a fresh start.
    resume_from: Path | None = None

    @property
    def output_dir(self) -> Path:
        """Folder of checkpoints and adapters."""
        return Path(self.training.output_dir)


@dataclass(frozen=True)
class TrainingResult:
    """The result of a finished training."""

    model: Any
    encoder: Encoder
    events: list[CurriculumEvent]
    evaluations: list[tuple[int, dict[str, float]]]
    losses: list[tuple[int, float]]
    best: dict[str, float]
    num_tokens: int
    num_bad_steps: int
    final_dir: Path
    statistics: str


def training_arguments(
    training: TrainingConfig, *, gradient_checkpointing: bool, bf16: bool = False
) -> Any:
    """Convert our settings to transformers' arguments; the callback requests evaluations."""
    return TrainingArguments(
        **{name: getattr(training, name) for name in SAME_NAMES},
        per_device_train_batch_size=training.batch_size,
        logging_nan_inf_filter=False,  # it would show a loss of 0 where training diverged
        include_num_input_tokens_seen="non_padding",
        activation_checkpointing=gradient_checkpointing,
        optim="adamw_torch",
        bf16=bf16,
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
    settings: TrainingSettings,
    recorder: Recorder,
    *,
    processes: Processes = ALONE,
    on_evaluation: Callable[[Evaluations], None] | None = None,
    on_batch_size: Callable[[str], None] = lambda text: None,
) -> TrainingResult:
    """Train an adapter on the curriculum and save it to `<output_dir>/final`.

    Args:
        settings: settings of the training.
        recorder: records metrics, events, adapters and figures.
        processes: the processes of this training; only the main one records.
        on_evaluation: called after each evaluation with all so far; it may raise to end training.
        on_batch_size: called with the result of `fit_batch_size`, if there is a search.

    Raises:
        Stopped: after SIGINT or SIGTERM, with a checkpoint saved.
        UserError: when the settings, the data or a checkpoint cannot be used, or training diverges.
    """
    check_model(settings.model, settings.training)
    settings.output_dir.mkdir(parents=True, exist_ok=True)
    if not processes.is_main:
        recorder = NullRecorder()
    elif not (settings.output_dir / EVENTS_FILE).exists():
        write_json([], settings.output_dir / EVENTS_FILE)  # from now on the folder is a training's
    trainer = _build(settings, recorder, processes, on_evaluation)
    if settings.training.auto_batch_size:
        resumed = settings.resume_from
        known = read_json(resumed / CURRICULUM_FILE).get("batch_size") if resumed else None
        difficulties = trainer.curriculum.manager.required_difficulties
        on_batch_size(fit_batch_size(trainer, difficulties, known=known))
    if settings.resume_from is None or not _resume(trainer, settings.resume_from):
        _train(trainer, settings)
    return _finish(trainer, settings)


def _build(
    settings: TrainingSettings,
    recorder: Recorder,
    processes: Processes,
    on_evaluation: Callable[[Evaluations], None] | None,
) -> CurriculumTrainer:
    training, model_config = settings.training, settings.model
    encoder, datasets = load_data(
        model_config,
        settings.data_dir,
        settings.curriculum,
        training.max_length,
        settings.exclude,
        settings.trusted,
    )
    if numbers := left_out(datasets):
        values = {f"data/{split}/{d}/left_out": number for (split, d), number in numbers.items()}
        recorder.metrics(values, 0)
    bf16 = resolve_precision(training.precision) == BF16
    silence_libraries()
    set_seed(training.seed)

    def load() -> Any:
        clear_device_cache(garbage_collection=True)  # of an earlier training in this process
        base = load_base(model_config)
        is_frozen = not (model_config.train_vision or model_config.train_merger)
        if training.vision_cache == "auto" and is_frozen:
            limit = training.vision_cache_gib
            use_vision_cache(datasets, base, encoder, settings.data_dir, limit_gib=limit)
        if bf16 and not model_config.load_in_4bit:
            halve_base(base)
        return base

    model, initial = build_adapter(
        model_config,
        datasets["train"],
        load,
        seed=training.seed,
        batch_size=training.batch_size,
        output_dir=settings.output_dir,
        recorder=recorder,
        resume_from=settings.resume_from,
    )
    arguments = training_arguments(
        training, gradient_checkpointing=model_config.gradient_checkpointing, bf16=bf16
    )
    if bf16 and arguments.use_cpu:
        skip_input_casts(model)
    assert (arguments.process_index, arguments.world_size) == (
        processes.rank,
        processes.world_size,
    ), "a process that a launcher started has to join the others"
    curriculum = settings.curriculum.fit_to_data(datasets["train"].rows)
    manager = CurriculumManager(curriculum, max_steps=training.max_steps)
    # `competence` ranks by the difficulty scores.
    rows = datasets["train"].rows
    manager.bind({name: list(rows[name]["difficulty_score"]) for name in rows})
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
    measured = datasets.get(TRUSTED, datasets["validation"])
    build_validation = partial(
        Validation,
        difficulties=manager.required_difficulties,
        samples_per_difficulty=curriculum.eval_samples_per_difficulty,
        batch_size=training.eval_batch_size,
        seed=training.seed,
        shard=processes.shard,
    )
    untrusted = None
    if TRUSTED in datasets:
        untrusted = build_validation(datasets["validation"], needs_all=False)
    weights = TrainedWeights(model, settings.output_dir, processes, initial)
    bad_steps = BadSteps(training.max_bad_steps, recorder)
    callback = CurriculumCallback(
        manager,
        recorder,
        weights,
        eval_steps=training.eval_steps,
        examples_per_step=loader.examples_per_step,
        score_losses=partial(
            score_losses,
            weights=weights,
            manager=manager,
            loader=loader,
            config=training,
            bf16=bf16,
        ),
        on_evaluation=on_evaluation,
    )
    trainer = CurriculumTrainer(
        weights,
        arguments,
        training,
        {
            **settings.run_state,
            "vision_features": datasets["train"].features is not None,
            "not_measured": [list(key) for key in sorted(measured.excluded)],
        },
        loader=loader,
        validation=build_validation(measured),
        untrusted=untrusted,
        curriculum=callback,
        bad_steps=bad_steps,
    )
    trainer.remove_callback(PrinterCallback)
    if not processes.is_main:
        # The adapter began alike in all; dropout must not be.
        torch.manual_seed(training.seed + processes.rank * RANK_STRIDE)
    return trainer


def _resume(trainer: CurriculumTrainer, checkpoint: Path) -> bool:
    """Restore a checkpoint; return whether its training has reached the last step already.

    Such a training must not enter transformers' loop, which would make one more step.
    """
    trainer.restore_curriculum(checkpoint)
    with convert_errors(checkpoint):
        state = TrainerState.load_from_json(str(checkpoint / TRAINER_STATE_NAME))
        if trainer.curriculum.manager.events[-1].kind != "end":
            return False
        trainer.weights.load(checkpoint)
        trainer.state = state
    return True


def _train(trainer: CurriculumTrainer, settings: TrainingSettings) -> None:
    """Train to the last step.

    Raises:
        Stopped: when asked to stop before, with a checkpoint saved.
    """
    callback, processes, resumed = trainer.curriculum, trainer.processes, settings.resume_from
    progress = ProgressCallback(callback, trainer.bad_steps)
    if processes.is_main:
        trainer.add_callback(progress)
    with (
        closing(progress),
        stop_on_signals(callback.request_stop, processes),
        processes.fail_together(),
        explain_full_disk(settings.output_dir, trainer.weights.num_bytes),
    ):
        trainer.train(resume_from_checkpoint=str(resumed) if resumed else None)
        # A signal may have arrived in the last step, after the processes agreed on it.
        callback.stop_requested = processes.any(callback.stop_requested)
        if callback.stop_requested and processes.world_size > 1 and processes.is_main:
            ignore_signals()  # the launcher sends one as soon as another process has ended
    step = trainer.state.global_step
    if callback.stop_requested or step < settings.training.max_steps:
        raise Stopped(settings.output_dir / f"checkpoint-{step}", step)


def _finish(trainer: CurriculumTrainer, settings: TrainingSettings) -> TrainingResult:
    """Save the final adapter and return the result."""
    weights, callback = trainer.weights, trainer.curriculum
    final_dir = settings.output_dir / FINAL
    with explain_full_disk(settings.output_dir, weights.num_bytes):
        weights.save(final_dir)
    assert callback.best is not None
    model: Any = weights.model
    # The main process rolls out alone, with and without the adapter: it needs an unchanged base.
    is_rounded = bool(trainer.args.bf16) and trainer.args.use_cpu
    is_changed = weights.initial is not None or is_rounded
    if trainer.processes.is_main and (weights.is_sharded or is_changed):
        model = load_trained(settings.model, final_dir)
    num_examples = settings.training.max_steps * trainer.loader.examples_per_step
    return TrainingResult(
        model=model.eval(),
        encoder=trainer.loader.dataset.encoder,
        events=callback.manager.events,
        evaluations=callback.evaluations,
        losses=callback.losses,
        best=callback.best,
        num_tokens=int(trainer.state.num_input_tokens_seen),
        num_bad_steps=trainer.bad_steps.count,
        final_dir=final_dir,
        statistics=final_statistics(callback.manager, num_examples, trainer.bad_steps.count),
    )
