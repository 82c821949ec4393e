"""Steps whose loss or gradient is not finite: not applied, counted, and what too many lead to.

What a bad step leaves: weights and moments as they were. What goes on: the count of steps, the
learning rate's schedule, the order of the examples and the generators, as after a rollback of
weights; so a bad step is where it was in a training that is killed and goes on.
"""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import DistributedType
from safetensors.torch import load_file
from torch import nn
from torch.distributed.tensor import DTensor
from transformers import Trainer

from pixelis.errors import UserError
from pixelis.training.callback import CurriculumCallback
from pixelis.training.checkpoint import OPTIMIZER_FILE, find_fault, restore_optimizer
from pixelis.training.processes import Processes

NUM_NAMED = 16  # example ids in a line; a step may have hundreds


class BadSteps:
    """The steps that were not applied, and the checkpoint that weights would be taken from.

    Attributes:
        limit: bad steps in a row that are borne.
        count: of the whole training.
        in_a_row: since the last step that was applied.
        good: the newest checkpoint of the schedule (`save_steps`) whose weights are finite and were
            not saved between bad steps; None before the first.
        gone_back_to: the step of the checkpoint that weights were last taken from.
        just_back: no step was applied since; a checkpoint of then holds nothing new.
        examples: ids of the newest bad step's: of the micro-batches without a finite loss, of all
            where every loss is finite and the gradient alone is not.
        what: its loss and gradient norm, in words.
    """

    def __init__(self, limit: int) -> None:
        """Begin with none."""
        self.limit = limit
        self.count = self.in_a_row = 0
        self.good: Path | None = None
        self.gone_back_to: int | None = None
        self.just_back = False
        self.examples: list[str] = []
        self.what = ""

    def add(self, examples: Sequence[str], what: str) -> None:
        """Count a bad step."""
        self.count += 1
        self.in_a_row += 1
        self.examples, self.what = list(examples), what

    def describe(self, step: int) -> str:
        """The console line of the newest bad step."""
        return (
            f"⚠️ Step {step} is not applied: {self.what}. Examples: {named(self.examples)}. "
            f"Bad steps: {self.count}, {self.in_a_row} in a row"
        )

    def take_good(self, step: int) -> Path:
        """Where the weights of before are.

        Raises:
            UserError: where there are none, or they led here before; names the examples.
        """
        if self.good is None:
            raise self.error(step, "there is no checkpoint to go back to")
        if self.gone_back_to == step_of(self.good):
            raise self.error(step, f"the weights of {self.good} led here once before")
        if fault := find_fault(self.good):
            raise self.error(step, f"{self.good}, to go back to, is not whole: {fault}")
        return self.good

    def error(self, step: int, why: str) -> UserError:
        """What ends a training that cannot go back: the last step, and what to do about it."""
        ids, mend = "", "Lower training.learning_rate"
        if self.in_a_row:
            ids = f"; its examples: {', '.join(self.examples)}"
            mend = "Mend these examples or leave them out, lower training.learning_rate,"
        return UserError(
            f"training diverged: {self._what_happened()} up to step {step}, where "
            f"training.max_bad_steps is {self.limit}, and {why}{ids}. {mend} or raise "
            "training.max_bad_steps and go on with resume=auto"
        )

    def went_back(self) -> str:
        """Note that the weights of `good` are back; returns the event's reason."""
        assert self.good is not None
        self.gone_back_to = step_of(self.good)
        ids = f"; examples {named(self.examples)}" if self.in_a_row else ""
        reason = f"{self._what_happened()}; weights of step {self.gone_back_to} are back{ids}"
        self.in_a_row, self.just_back = 0, True
        return reason

    def _what_happened(self) -> str:
        if self.in_a_row == 0:
            return "weights that are not finite"
        return f"{self.in_a_row} bad step{'s' * (self.in_a_row > 1)} in a row ({self.what})"

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint keeps, as plain JSON."""
        return {
            "count": self.count,
            "in_a_row": self.in_a_row,
            "good": None if self.good is None else step_of(self.good),
            "gone_back_to": self.gone_back_to,
            "just_back": self.just_back,
        }

    def load_state_dict(self, state: Mapping[str, Any], folder: Path) -> None:
        """Go on from the checkpoint `folder`; what to go back to lies beside it."""
        self.count, self.in_a_row = state["count"], state["in_a_row"]
        self.gone_back_to, self.just_back = state["gone_back_to"], state["just_back"]
        beside = folder.with_name(f"checkpoint-{state['good']}")
        if beside.is_dir():
            self.good = beside
        elif self.in_a_row == 0:  # brought here alone
            self.good = folder


def step_of(checkpoint: Path) -> int:
    """The step of a checkpoint folder, from its name."""
    return int(checkpoint.name.rpartition("-")[2])


def named(examples: Sequence[str]) -> str:
    """Some ids, and how many more there are."""
    left_out = len(examples) - NUM_NAMED
    more = f" and {left_out} more" if left_out > 0 else ""
    return ", ".join(examples[:NUM_NAMED]) + more


def all_finite(tensors: Iterable[torch.Tensor]) -> bool:
    """Whether every number of these tensors, of a sharded one of this process's part, is finite."""
    parts = [t.to_local() if isinstance(t, DTensor) else t for t in tensors]
    return all(bool(torch.isfinite(part).all()) for part in parts)


class GuardedTrainer(Trainer):
    """A Trainer whose optimiser never sees a gradient that is not finite.

    It reads one number a step from the device, after the Trainer's own clipping has made it; of
    several processes it takes one small message more.
    """

    bad: BadSteps
    curriculum: CurriculumCallback
    processes: Processes
    # The ids of the examples of the step in hand, for a micro-batch of this process each.
    on_ids: Callable[[], list[list[str]]]

    def get_batch_samples(self, *args: Any, **kwargs: Any) -> Any:
        """Begin a step: what was summed up of losses may have to be put back."""
        self._step_losses: list[torch.Tensor] = []
        self._loss_before = self._tr_loss.clone()
        return super().get_batch_samples(*args, **kwargs)

    def training_step(self, *args: Any, **kwargs: Any) -> torch.Tensor:
        """Keep the loss of a micro-batch where it is."""
        loss = super().training_step(*args, **kwargs)
        if self.is_in_train:
            self._step_losses.append(loss.detach())
        return loss

    def _get_grad_norm(self, model: nn.Module, grad_norm: Any = None) -> Any:
        """The norm of a step's gradient; of a bad step None, with no gradient left to apply."""
        norm = super()._get_grad_norm(model, grad_norm=grad_norm)  # type: ignore[no-untyped-call]
        losses = torch.stack(self._step_losses).float()
        whole = norm.full_tensor() if isinstance(norm, DTensor) else norm
        size = torch.as_tensor(0.0 if whole is None else whole).to(losses)
        # Another process's loss may be infinite where the gradient that all share is finite.
        if not self.processes.any(not bool(torch.isfinite(torch.cat([losses, size[None]])).all())):
            self.bad.in_a_row, self.bad.just_back = 0, False
            return norm
        self._note(losses, float(size))
        model.zero_grad(set_to_none=True)  # an optimiser passes over what has no gradient
        # The logged loss is the mean of the steps that were applied.
        self._tr_loss.copy_(self._loss_before)
        self._globalstep_last_logged += 1
        return None

    def _note(self, losses: torch.Tensor, norm: float) -> None:
        told = self.processes.gather(list(zip(losses.tolist(), self.on_ids(), strict=True)))
        found = [micro_batch for theirs in told for micro_batch in theirs]
        chosen = [ids for loss, ids in found if not math.isfinite(loss)]
        chosen = chosen or [ids for _, ids in found]
        loss = sum(loss for loss, _ in found) / len(told)
        what = f"loss {loss:.4g}, gradient norm {norm:.4g}"
        self.bad.add([i for ids in chosen for i in ids], what)

    def after_step(self, step: int) -> None:
        """Tell of a bad step; take weights back where there were too many, or no step can help.

        Raises:
            UserError: naming the examples, where there are none to take; under DeepSpeed at once.
        """
        if self.bad.in_a_row == 0:
            return
        self.curriculum.tell_bad_step(step, self.bad.count, self.bad.describe(step))
        if self.accelerator.distributed_type == DistributedType.DEEPSPEED:
            raise self.bad.error(step, "DeepSpeed has applied it before its gradient was known")
        if self.bad.in_a_row >= self.bad.limit:
            self._go_back(step)
        else:
            self.mend_weights(step)

    def mend_weights(self, step: int) -> None:
        """Take weights back that are not finite: what is measured with them would not be either.

        Raises:
            UserError: where there are none to take.
        """
        if not self._weights_are_finite():
            self._go_back(step)

    def note_good_checkpoint(self, output_dir: Path, step: int) -> None:
        """Let a checkpoint that is being saved be the one to go back to, if it can be.

        Only one of the schedule: a training that is stopped in between goes back as far as one that
        is not.
        """
        is_due = step % int(self.args.save_steps) == 0 and not self.bad.just_back
        if is_due and self.bad.in_a_row == 0 and self._weights_are_finite():
            self.bad.good = output_dir / f"checkpoint-{step}"

    def load_weights(self, folder: Path) -> None:
        """Put a checkpoint's adapter on the model."""
        raise NotImplementedError

    def _go_back(self, step: int) -> None:
        folder = self.bad.take_good(step)
        self.load_weights(folder)
        # The learning rate stays that of the step.
        restore_optimizer(self.optimizer, load_file(folder / OPTIMIZER_FILE))
        if not self._weights_are_finite():
            raise self.bad.error(step, f"the weights of {folder} are not finite either")
        self.curriculum.tell_restored(step, self.bad.went_back())

    def _weights_are_finite(self) -> bool:
        assert self.model is not None
        trained = (p for p in self.model.parameters() if p.requires_grad)
        return not self.processes.any(not all_finite(trained))
