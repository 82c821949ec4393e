"""The trainer: transformers' Trainer with the curriculum's loader, validation and state."""

import logging
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.distributed.tensor import DTensor
from transformers import Trainer, TrainingArguments

from pixelis.config import TrainingConfig
from pixelis.curriculum import CurriculumManager, draw_scored
from pixelis.data.encode import IGNORE_INDEX, OPERATION
from pixelis.data.loader import CurriculumLoader
from pixelis.errors import UserError
from pixelis.evaluation.validation import Batches, Validation, compute_losses
from pixelis.models.forward import model_inputs, output_head, supervised_logits
from pixelis.recorder import UNTRUSTED, Recorder
from pixelis.training.callback import STRATUM_METRICS, CurriculumCallback, check_finite
from pixelis.training.checkpoint import (
    CURRICULUM_FILE,
    check_same_config,
    convert_errors,
    delete_older,
    read_json,
    seal,
    write_json,
)
from pixelis.training.distributed import shard_on_cpu
from pixelis.training.precision import autocast
from pixelis.training.weights import TrainedWeights, complete_state

logger = logging.getLogger(__name__)

NUM_SHOWN = 16  # example ids in a line; a step may have hundreds


class BadSteps:
    """The steps whose loss or gradient is not finite.

    A bad step is counted but not applied: weights and moments stay as they were. The count of
    steps, the learning rate's schedule, the order of the examples and the random generators advance
    as usual, so that a training that is killed and resumed meets the same bad steps.

    Attributes:
        limit: number of bad steps in a row after which training stops.
        count: number of bad steps since training began.
        in_a_row: number of bad steps since the last step that was applied.
        examples: ids of the examples of the bad steps in a row: those in micro-batches without a
            finite loss, or all of them where only the gradient is not finite.
    """

    def __init__(self, limit: int, recorder: Recorder) -> None:
        """Begin with a count of zero."""
        self.limit, self.recorder = limit, recorder
        self.count = self.in_a_row = 0
        self.examples: list[str] = []

    def add(self, step: int, examples: Sequence[str], numbers: str) -> None:
        """Count and record a bad step, with the ids of its examples, and loss and norm as text.

        Raises:
            UserError: when the limit is reached, naming the examples.
        """
        self.count += 1
        self.in_a_row += 1
        self.examples += [each for each in examples if each not in self.examples]
        self.recorder.metrics({"train/bad_steps": self.count}, step)
        more = f" and {len(examples) - NUM_SHOWN} more" if len(examples) > NUM_SHOWN else ""
        logger.info(
            "⚠️ Step %d is not applied: %s. Examples: %s%s. Bad steps: %d, %d in a row",
            *(step, numbers, ", ".join(examples[:NUM_SHOWN]), more, self.count, self.in_a_row),
        )
        if self.in_a_row >= self.limit:
            raise UserError(
                f"training diverged: {self.in_a_row} bad step{'s' * (self.in_a_row > 1)} in a row "
                f"({numbers}) up to step {step}, where training.max_bad_steps is {self.limit}; "
                f"its examples: {', '.join(self.examples)}. Mend these examples or leave them out "
                "with data.exclude, lower training.learning_rate, or raise training.max_bad_steps "
                "and go on with resume=auto"
            )

    def end_row(self) -> None:
        """Note a step that was applied."""
        self.in_a_row, self.examples = 0, []

    def state_dict(self) -> dict[str, Any]:
        """Return the state for a checkpoint, as plain JSON."""
        return {"count": self.count, "in_a_row": self.in_a_row, "examples": self.examples}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore the state from a checkpoint."""
        self.count, self.in_a_row = int(state["count"]), int(state["in_a_row"])
        self.examples = [str(each) for each in state["examples"]]


class CurriculumTrainer(Trainer):
    """A Trainer that trains on the curriculum's mix, evaluates its strata and saves its state.

    Its optimiser never sees a gradient that is not finite (`BadSteps`). The check costs little: one
    number per step is read from the device, which the Trainer's clipping has computed anyway.
    """

    def __init__(
        self,
        weights: TrainedWeights,
        args: TrainingArguments,
        config: TrainingConfig,
        run_state: Mapping[str, Any],
        *,
        loader: CurriculumLoader,
        validation: Validation,
        untrusted: Validation | None = None,
        curriculum: CurriculumCallback,
        bad_steps: BadSteps,
    ) -> None:
        """Set the parts of a training; every checkpoint keeps `run_state`, which is JSON.

        `untrusted` is measured too at every scheduled evaluation, and only recorded.
        """
        self.weights, self.config, self.run_state = weights, config, dict(run_state)
        self.processes = weights.processes
        self.loader, self.validation, self.untrusted = loader, validation, untrusted
        self.curriculum, self.bad_steps = curriculum, bad_steps
        self.head: nn.Module | None = output_head(weights.model)
        self._kinds = torch.zeros(0)
        self._step_losses: list[torch.Tensor] = []
        self._unlogged: tuple[float, int] | None = None
        super().__init__(
            model=weights.model,
            args=args,
            train_dataset=loader.dataset,
            compute_loss_func=self._token_loss,
            callbacks=[curriculum],
        )
        self.output_dir = Path(str(args.output_dir))

    def create_accelerator_and_postprocess(self) -> None:
        """Use FSDP on CPUs too if it was asked for; accelerate would use DDP there."""
        super().create_accelerator_and_postprocess()
        if shard_on_cpu(self.accelerator):
            self.is_fsdp_enabled = True

    def get_train_dataloader(self) -> Any:
        """Return the curriculum's own loader; accelerate's wrapper would read one batch ahead."""
        return self.loader

    def get_batch_samples(self, *args: Any, **kwargs: Any) -> Any:
        """Begin a step; the first one after a resume restores the losses not yet logged."""
        if self._unlogged is not None:
            total, self._globalstep_last_logged = self._unlogged
            self._tr_loss += total
            self._unlogged = None
        self._step_losses = []
        self._loss_before = self._tr_loss.clone()  # a bad step restores it
        return super().get_batch_samples(*args, **kwargs)

    def training_step(self, *args: Any, **kwargs: Any) -> torch.Tensor:
        """Keep the loss of a micro-batch, without waiting for the device."""
        loss = super().training_step(*args, **kwargs)
        if self.is_in_train:
            self._step_losses.append(loss.detach())
        return loss

    def _get_grad_norm(self, model: nn.Module, grad_norm: Any = None) -> Any:
        """Return the norm of a step's gradient; after a bad step, drop the gradient."""
        norm = super()._get_grad_norm(model, grad_norm=grad_norm)  # type: ignore[no-untyped-call]
        losses = torch.stack(self._step_losses).float()
        full = norm.full_tensor() if isinstance(norm, DTensor) else norm
        size = torch.as_tensor(0.0 if full is None else full).to(losses)
        # The shared gradient may be finite although the loss of another process is infinite.
        if not self.processes.any(not bool(torch.isfinite(torch.cat([losses, size[None]])).all())):
            self.bad_steps.end_row()
            return norm
        model.zero_grad(set_to_none=True)  # an optimiser skips weights without a gradient
        # The logged loss is the mean of the steps that were applied.
        self._tr_loss.copy_(self._loss_before)
        self._globalstep_last_logged += 1
        own = list(zip(losses.tolist(), self.loader.newest_step(), strict=True))
        gathered = self.processes.gather(own)
        micro_batches = [micro_batch for theirs in gathered for micro_batch in theirs]
        not_finite = [ids for loss, ids in micro_batches if not math.isfinite(loss)]
        chosen = not_finite or [ids for _, ids in micro_batches]
        loss = sum(loss for loss, _ in micro_batches) / len(gathered)
        self.bad_steps.add(
            self.state.global_step + 1,
            [each for ids in chosen for each in ids],
            f"loss {loss:.4g}, gradient norm {float(size):.4g}",
        )
        return None

    def compute_loss(self, model: nn.Module, inputs: Any, *args: Any, **kwargs: Any) -> Any:
        """Return the loss of a micro-batch; logits only where a supervised token is predicted."""
        labels, self._kinds = inputs["labels"], inputs["kinds"]
        # Under FSDP the model does not enter autocast itself.
        with supervised_logits(self.head, labels), self.accelerator.autocast():
            return super().compute_loss(
                model, {**model_inputs(inputs), "labels": labels}, *args, **kwargs
            )

    def _token_loss(self, outputs: Any, labels: torch.Tensor, **kwargs: Any) -> torch.Tensor:
        weight = self.config.operation_token_weight
        return compute_token_loss(
            outputs, labels, kinds=self._kinds, operation_weight=weight, **kwargs
        )

    def evaluate(self, *args: Any, **kwargs: Any) -> dict[str, float]:
        """Measure the strata in one pass and pass them to the callbacks as `eval_*` metrics."""
        with self.accelerator.autocast():
            strata = self.validation(self.model)
            self._record_untrusted()
        metric = self.curriculum.manager.config.performance_metric
        metrics: dict[str, Any] = {}
        for difficulty, stratum in strata.items():
            values = {name: getattr(stratum, name) for name in ("num_examples", *STRATUM_METRICS)}
            values["examples"] = stratum.performances(metric)
            metrics |= {f"eval_{difficulty}_{name}": value for name, value in values.items()}
        on_evaluate = self.callback_handler.on_evaluate
        self.control = on_evaluate(self.args, self.state, self.control, metrics)
        return metrics

    def _record_untrusted(self) -> None:
        """Measure and record the validation split where `data.trusted` has taken its place."""
        step, steps = self.state.global_step, self.config.eval_steps
        if self.untrusted is None or (step % steps and step != self.state.max_steps):
            return
        values = {
            f"{UNTRUSTED}{difficulty}/{name}": getattr(stratum, name)
            for difficulty, stratum in self.untrusted(self.model).items()
            for name in ("loss", self.curriculum.manager.config.performance_metric)
        }
        self.curriculum.recorder.metrics(values, step)

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """Write only the adapter; transformers would also gather a sharded base."""
        self.weights.write(Path(str(output_dir)))

    def _save_checkpoint(self, model: nn.Module, trial: Any) -> None:
        step = self.state.global_step
        if not self.weights.are_finite():
            raise UserError(
                f"training diverged: after step {step} the weights are not finite, so they are not "
                "saved; lower training.learning_rate and go on with resume=auto"
            )
        super()._save_checkpoint(model, trial)
        # Also waits until each process has written the state of its generators.
        totals = self.processes.gather(self._tr_loss.item())
        if not self.processes.is_main:
            return
        folder = self.output_dir / f"checkpoint-{step}"
        state = {
            **self.run_state,
            "step": step,
            "num_processes": self.processes.world_size,
            "batch_size": self.loader.batch_size,
            "loader": self.loader.state_dict(),
            "callback": self.curriculum.state_dict(),
            # A resume keeps the recorder's journal up to this position.
            "journal": self.curriculum.recorder.position(),
            "bad_steps": self.bad_steps.state_dict(),
            # A stop may fall between two logged steps; the next one averages over all of them.
            "unlogged_loss": [totals, self._globalstep_last_logged],
        }
        write_json(state, folder / CURRICULUM_FILE)
        if self.curriculum.manager.trial is not None:
            self.weights.save_snapshot(folder)
        seal(folder)
        # transformers would delete older ones earlier, before this checkpoint is complete.
        delete_older(folder, self.config.save_total_limit)

    def restore_curriculum(self, folder: Path) -> None:
        """Restore loader, manager and an open trial's snapshot from a checkpoint.

        Raises:
            CheckpointError: when its content is damaged, or only one of the two trainings reads
                cached vision features.
        """
        with convert_errors(folder):
            state = read_json(folder / CURRICULUM_FILE)
            check_same_config(
                {"cached vision features": state["vision_features"]},
                {"cached vision features": self.run_state["vision_features"]},
                folder,
                advice="go on where the cache can be written, or set training.vision_cache anew",
            )
            if state["not_measured"] != self.run_state["not_measured"]:  # by data.exclude
                # A trial's `before` is of other examples: it is compared by the strata.
                (state["callback"]["manager"]["trial"] or {})["examples"] = None
            self.curriculum.load_state_dict(state["callback"])
            self.loader.load_state_dict(state["loader"])
            self.bad_steps.load_state_dict(state["bad_steps"])
            totals, since = state["unlogged_loss"]
            self._unlogged = (totals[self.processes.rank], since)
            self.weights.load_snapshot(folder)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        with convert_errors(Path(resume_from_checkpoint)):
            self.weights.load(Path(resume_from_checkpoint))

    def _save_optimizer_and_scheduler(self, output_dir: str) -> None:
        with self._whole_optimizer():
            if self.weights.is_sharded and not self.args.should_save:
                assert self.optimizer is not None
                self.optimizer.state_dict()  # every process takes part in gathering the state
            super()._save_optimizer_and_scheduler(output_dir)

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        if checkpoint is not None:
            with convert_errors(Path(checkpoint)), self._whole_optimizer():
                super()._load_optimizer_and_scheduler(checkpoint)

    def _load_rng_state(self, checkpoint: str | None) -> None:
        if checkpoint is not None:
            with convert_errors(Path(checkpoint)):
                super()._load_rng_state(checkpoint)

    @contextmanager
    def _whole_optimizer(self) -> Iterator[None]:
        """Make the Trainer write and read a sharded model's optimiser as a single process would."""
        was_enabled, self.is_fsdp_enabled = self.is_fsdp_enabled, False
        try:
            with complete_state(self.optimizer):
                yield
        finally:
            self.is_fsdp_enabled = was_enabled


def score_losses(
    step: int,
    *,
    weights: TrainedWeights,
    manager: CurriculumManager,
    loader: CurriculumLoader,
    config: TrainingConfig,
    bf16: bool,
) -> None:
    """Pass the losses of a pool of training examples to the manager, if its strategy wants them.

    Raises:
        UserError: when a loss is not finite.
    """
    if not manager.needs_losses(step):
        return
    dataset = loader.dataset
    sizes = {d: dataset.sizes[d] for d in manager.required_difficulties}
    keys = draw_scored(sizes, manager.config.scored_pool_size, seed=config.seed, step=step)
    keys = [key for key in keys if key not in dataset.excluded]
    # The examples are drawn anew each time, so the batches are not worth keeping.
    batches = Batches(dataset, keys, config.eval_batch_size, max_kept_bytes=0)
    with autocast(bf16, next(weights.model.parameters()).device):
        losses = compute_losses(weights.model, batches, shard=weights.processes.shard)
    named = {f"loss of {d} example {i}": x for d, by in losses.items() for i, x in by.items()}
    check_finite(named, step)
    manager.observe_losses(step, losses, step * loader.examples_per_step)


def compute_token_loss(
    outputs: Any,
    labels: torch.Tensor,
    num_items_in_batch: torch.Tensor | int | None = None,
    *,
    kinds: torch.Tensor | None = None,
    operation_weight: float = 1.0,
) -> torch.Tensor:
    """Return the cross-entropy over supervised tokens, summed and divided by those of the step.

    The model's own loss is a mean over each micro-batch; with accumulation, the weight of a token
    would then depend on the length of its micro-batch. The tokens of a call may weigh more than
    other tokens, like operation and argument tokens in the Pixelis paper (arXiv 2603.25091); the
    sum is still divided by the number of tokens.

    Args:
        outputs: with `logits` of shape (B, T, V), or (N, V) for the N supervised tokens, in nats.
        labels: (B, T); position t is predicted from t - 1.
        num_items_in_batch: supervised tokens in all micro-batches of the step.
        kinds: (B, T); OPERATION on the tokens of a call.
        operation_weight: weight of the tokens of a call; other tokens weigh 1.
    """
    targets = labels[:, 1:].flatten()
    is_supervised = targets != IGNORE_INDEX
    logits = outputs["logits"]
    if logits.dim() == 3:
        logits = logits[:, :-1].flatten(0, 1)[is_supervised]
    targets = targets[is_supervised]
    if operation_weight == 1 or kinds is None:
        loss = nn.functional.cross_entropy(logits.float(), targets, reduction="sum")
    else:
        each = nn.functional.cross_entropy(logits.float(), targets, reduction="none")
        in_call = kinds[:, 1:].flatten()[is_supervised] == OPERATION
        loss = torch.where(in_call, operation_weight * each, each).sum()
    count = len(targets) if num_items_in_batch is None else num_items_in_batch
    return loss / count
