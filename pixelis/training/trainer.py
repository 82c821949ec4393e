"""CurriculumTrainer: transformers' Trainer with the curriculum's loader, validation and state."""

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel, set_peft_model_state_dict
from safetensors.torch import load_file, save_file
from torch import nn
from torch.distributed.tensor import DTensor
from transformers import TrainingArguments

from pixelis.curriculum import Visit, draw_scored
from pixelis.data.loader import CurriculumLoader
from pixelis.evaluation.batches import Batches, by_length
from pixelis.evaluation.validation import Validation, compute_losses
from pixelis.models.changed_base import split_plain
from pixelis.models.feed import feed, output_head, supervised_logits
from pixelis.recorder import visit_name
from pixelis.training.adapter import write_adapter
from pixelis.training.bad_steps import BadSteps, GuardedTrainer
from pixelis.training.callback import CurriculumCallback, check_finite
from pixelis.training.checkpoint import (
    ADAPTER_FILE,
    CURRICULUM_FILE,
    check_same_config,
    delete_older,
    laid_out,
    load_optimizer,
    load_rng,
    optimizer_tensors,
    read_json,
    replace_folder,
    restore_optimizer,
    rng_file,
    rng_state,
    save_optimizer,
    seal,
    whole,
    write_json,
)
from pixelis.training.loss import compute_token_loss
from pixelis.training.processes import ALONE, Processes
from pixelis.training.sharding import shard_on_cpu
from pixelis.training.taking_up import told_of_damage

SNAPSHOT_FILE = "trial_snapshot.safetensors"
VISITS = "visits"  # below output_dir: the adapter that each stage's visit ended with


class CurriculumTrainer(GuardedTrainer):
    """Trains on what the curriculum draws, evaluates its strata, saves and restores its state."""

    def __init__(
        self,
        model: PeftModel,
        args: TrainingArguments,
        *,
        loader: CurriculumLoader,
        validation: Validation,
        curriculum: CurriculumCallback,
        run_state: Mapping[str, Any],
        save_total_limit: int,
        max_bad_steps: int = 3,
        processes: Processes = ALONE,
        initial: Mapping[str, torch.Tensor] | None = None,
        operation_weight: float = 1.0,
    ) -> None:
        """Take the loader, the validation and the callback; `run_state` is kept in checkpoints.

        `initial`: what the adapter took from the base (`pixelis.models.changed_base`);
        `operation_weight`: of the tokens of a call in the loss.
        """
        self.adapted = model
        self.initial = initial
        self.head: nn.Module | None = output_head(model)
        self.operation_weight, self._kinds = operation_weight, torch.zeros(0)
        super().__init__(
            model=model,
            args=args,
            train_dataset=loader.dataset,
            compute_loss_func=self._token_loss,
            callbacks=[curriculum],
        )
        self.output_dir = Path(str(args.output_dir))
        self.loader, self.validation = loader, validation
        self.curriculum = curriculum
        self.run_state = dict(run_state)
        self.save_total_limit = save_total_limit
        self.processes, self.bad = processes, BadSteps(max_bad_steps)
        self.on_ids = loader.newest_step
        self._snapshot: dict[str, torch.Tensor] | None = None
        self._unlogged: tuple[float, int] | None = None
        curriculum.agree = processes.any
        curriculum.on_begin = self._restore_unlogged
        curriculum.on_step = self.after_step
        curriculum.on_score = self.score_if_needed
        curriculum.on_snapshot = self.take_snapshot
        curriculum.on_restore = self.restore_snapshot
        curriculum.on_improvement = self.save_best
        curriculum.on_visit_end = self.save_visit

    def create_accelerator_and_postprocess(self) -> None:
        """Let FSDP be what it is on a GPU on a CPU too: accelerate would quietly use DDP there."""
        super().create_accelerator_and_postprocess()
        if shard_on_cpu(self.accelerator.state):
            self.is_fsdp_enabled = True

    def get_train_dataloader(self) -> Any:
        """The curriculum's own loader; accelerate's wrapper would read one batch ahead."""
        return self.loader

    def compute_loss(self, model: nn.Module, inputs: Any, *args: Any, **kwargs: Any) -> Any:
        """The loss of a micro-batch; logits only where a supervised token is predicted."""
        labels, self._kinds = inputs["labels"], inputs["kinds"]
        with supervised_logits(self.head, labels), self.accelerator.autocast():  # FSDP's has none
            return super().compute_loss(model, {**feed(inputs), "labels": labels}, *args, **kwargs)

    def _token_loss(self, outputs: Any, labels: torch.Tensor, **words: Any) -> torch.Tensor:
        words |= {"kinds": self._kinds, "operation_weight": self.operation_weight}
        return compute_token_loss(outputs, labels, **words)

    def evaluate(self, *args: Any, **kwargs: Any) -> dict[str, float]:
        """Measure the strata in one pass and hand them to the callbacks as `eval_*` metrics."""
        self.mend_weights(self.state.global_step)
        with self.accelerator.autocast():
            strata = self.validation(self.model)
        metrics = {
            f"eval_{difficulty}_{name}": value
            for difficulty, stratum in strata.items()
            for name, value in {**asdict(stratum), "likelihood": stratum.likelihood}.items()
        }
        on_evaluate = self.callback_handler.on_evaluate
        self.control = on_evaluate(self.args, self.state, self.control, metrics)
        return metrics

    def score_if_needed(self, step: int) -> None:
        """Give a strategy that chooses by loss the losses of a pool of training examples."""
        manager = self.curriculum.manager
        if manager.needs_losses(step):
            dataset = self.loader.dataset
            sizes = {d: dataset.sizes[d] for d in manager.required_difficulties}
            pool_size = manager.config.scored_pool_size
            keys = draw_scored(sizes, pool_size, seed=self.args.seed, step=step)
            size = self.validation.batches.batch_size
            # Drawn anew each time, so not worth keeping.
            batches = Batches(dataset, by_length(dataset, keys), size, max_kept_bytes=0)
            with self.accelerator.autocast():  # before the first step, nothing else has seen to it
                losses = compute_losses(self.model, batches, shard=self.processes.deal)
            named = {
                f"loss of {d} example {i}": x for d, by in losses.items() for i, x in by.items()
            }
            check_finite(named, step)
            manager.observe_losses(step, losses, step * self.loader.examples_per_step)

    def _adapter_tensors(self) -> dict[str, torch.Tensor]:
        return {
            name: whole(parameter)
            for name, parameter in self.adapted.named_parameters()
            if parameter.requires_grad
        }

    def take_snapshot(self) -> None:
        """Remember adapter and optimiser moments of the open trial's beginning."""
        moments = optimizer_tensors(self.optimizer)
        self._snapshot = {f"adapter/{k}": v for k, v in self._adapter_tensors().items()}
        self._snapshot |= {f"optimizer/{k}": v for k, v in moments.items()}

    def restore_snapshot(self) -> None:
        """Put adapter and moments back; schedule, sampler, generators and counts go on."""
        assert self._snapshot is not None, "a rollback of weights needs the trial's snapshot"
        parameters = dict(self.adapted.named_parameters())
        with torch.no_grad():
            for key, value in self._snapshot.items():
                if key.startswith("adapter/"):
                    parameter = parameters[key.removeprefix("adapter/")]
                    parameter.copy_(laid_out(value, parameter))
        saved = self._snapshot.items()
        moments = {k.removeprefix("optimizer/"): v for k, v in saved if k.startswith("optimizer/")}
        restore_optimizer(self.optimizer, moments)

    def save_best(self) -> None:
        """Save the adapter as the best so far, whole or not at all."""
        self.save_adapter(self.output_dir / "best")

    def save_visit(self, visit: Visit) -> Path:
        """Save the adapter that a stage's visit ended with; returns its folder."""
        place = self.output_dir / VISITS / visit_name(visit.index, visit.stage)
        self.save_adapter(place)
        return place

    def save_adapter(self, place: Path) -> None:
        """Write the adapter in PEFT's own layout to a folder, whole or not at all."""
        staged = place.with_name(f".{place.name}.new")
        self._save(str(staged))
        if self.processes.is_main:
            replace_folder(staged, place)

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """Write the adapter alone; transformers would gather a sharded base as well."""
        self._save(output_dir)

    def _save(self, output_dir: str | None = None, state_dict: Any = None) -> None:
        # Every process has to ask for what is sharded; one writes.
        tensors = self._adapter_tensors() if self.is_sharded else None
        if self.processes.is_main:
            write_adapter(self.adapted, Path(str(output_dir)), tensors, self.initial)

    @property
    def is_sharded(self) -> bool:
        """Whether each process holds only a part of every weight (FSDP)."""
        return any(isinstance(parameter, DTensor) for parameter in self.adapted.parameters())

    def _save_checkpoint(self, model: nn.Module, trial: Any) -> None:
        super()._save_checkpoint(model, trial)
        self.note_good_checkpoint(self.output_dir, self.state.global_step)
        totals = self.processes.gather(self._tr_loss.item())
        if not self.processes.is_main:
            return
        folder = self.output_dir / f"checkpoint-{self.state.global_step}"
        state = {
            **self.run_state,
            "step": self.state.global_step,
            "num_processes": self.processes.world_size,
            "batch_size": self.loader.batch_size,
            "loader": self.loader.state_dict(),
            "callback": self.curriculum.state_dict(),
            # Up to here the recorder's journal belongs to this checkpoint.
            "journal": self.curriculum.recorder.position(),
            "bad_steps": self.bad.state_dict(),
            # A stop may fall between two logged steps: the next one averages over both sides of it.
            "unlogged_loss": [totals, self._globalstep_last_logged],
        }
        write_json(state, folder / CURRICULUM_FILE)
        if self._snapshot is not None and self.curriculum.manager.trial is not None:
            save_file(self._snapshot, folder / SNAPSHOT_FILE)
        seal(folder)
        # Only now: transformers would delete the last whole checkpoint before this one is whole.
        delete_older(folder, self.save_total_limit, spare=self.bad.good)

    def restore_curriculum(self, folder: Path) -> None:
        """Put loader, manager and an open trial's snapshot back from a checkpoint."""
        state = read_json(folder / CURRICULUM_FILE)
        check_same_config(
            {"cached vision features": state["vision_features"]},
            {"cached vision features": self.run_state["vision_features"]},
            folder,
            advice="go on where the cache can be written, or set training.vision_cache anew",
        )
        self.curriculum.load_state_dict(state["callback"])
        self.loader.load_state_dict(state["loader"])
        self.bad.load_state_dict(state["bad_steps"], folder)
        totals, since = state["unlogged_loss"]
        self._unlogged = (totals[self.processes.rank], since)
        if (folder / SNAPSHOT_FILE).is_file():
            self._snapshot = load_file(folder / SNAPSHOT_FILE)

    def _restore_unlogged(self) -> None:
        if self._unlogged is not None:
            total, self._globalstep_last_logged = self._unlogged
            self._tr_loss += total

    def load_weights(self, folder: Path) -> None:
        """Put a checkpoint's adapter on the model."""
        tensors = load_file(folder / ADAPTER_FILE)
        if self.initial is not None:
            tensors, _ = split_plain(tensors)
        if not self.is_sharded:
            set_peft_model_state_dict(self.adapted, tensors)
            return
        with torch.no_grad():
            for name, parameter in self.adapted.named_parameters():
                if parameter.requires_grad:
                    value = tensors[name.replace(".default.", ".")]  # the file names no adapter
                    parameter.copy_(laid_out(value.to(parameter.dtype), parameter))

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        with told_of_damage(Path(resume_from_checkpoint)):
            self.load_weights(Path(resume_from_checkpoint))

    def _save_optimizer_and_scheduler(self, output_dir: str) -> None:
        tensors = optimizer_tensors(self.optimizer)
        if self.processes.is_main:
            save_optimizer(self.optimizer, self.lr_scheduler, Path(output_dir), tensors=tensors)

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        if checkpoint is not None:
            load_optimizer(self.optimizer, self.lr_scheduler, Path(checkpoint))

    def _save_rng_state(self, output_dir: str) -> None:
        states = self.processes.gather(rng_state())  # dropout differs from process to process
        if self.processes.is_main:
            for rank, state in enumerate(states):
                write_json(state, Path(output_dir) / rng_file(rank))

    def _load_rng_state(self, checkpoint: str | None) -> None:
        if checkpoint is not None:
            load_rng(Path(checkpoint), self.processes.rank)
