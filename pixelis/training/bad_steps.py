"""Bad steps: steps whose loss or gradient is not finite.

A bad step is counted but not applied: weights and moments stay as they were. The count of steps,
the learning rate's schedule, the order of the examples and the random generators advance as usual,
so that a training that is killed and resumed meets the same bad steps. Too many bad steps in a row
stop the training.
"""

import logging
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import nn
from torch.distributed.tensor import DTensor
from transformers import Trainer

from pixelis.errors import UserError
from pixelis.training.distributed import Processes

logger = logging.getLogger(__name__)

NUM_SHOWN = 16  # example ids in a line; a step may have hundreds


class BadSteps:
    """The steps that were not applied.

    Attributes:
        limit: number of bad steps in a row after which training stops.
        count: number of bad steps since training began.
        in_a_row: number of bad steps since the last step that was applied.
        examples: ids of the examples of the bad steps in a row: those in micro-batches without a
            finite loss, or all of them where only the gradient is not finite.
    """

    def __init__(self, limit: int) -> None:
        """Begin with a count of zero."""
        self.limit = limit
        self.count = self.in_a_row = 0
        self.examples: list[str] = []

    def add(self, step: int, examples: Sequence[str], numbers: str) -> None:
        """Count a bad step.

        Args:
            step: the optimiser step.
            examples: the ids of its examples.
            numbers: its loss and gradient norm, as text.

        Raises:
            UserError: when the limit is reached, naming the examples.
        """
        self.count += 1
        self.in_a_row += 1
        self.examples += [each for each in examples if each not in self.examples]
        logger.info(
            "⚠️ Step %d is not applied: %s. Examples: %s. Bad steps: %d, %d in a row",
            *(step, numbers, shorten(examples), self.count, self.in_a_row),
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


def shorten(examples: Sequence[str]) -> str:
    """Return the first ids as text, with the number of the others."""
    left_out = len(examples) - NUM_SHOWN
    more = f" and {left_out} more" if left_out > 0 else ""
    return ", ".join(examples[:NUM_SHOWN]) + more


class GuardedTrainer(Trainer):
    """A Trainer whose optimiser never sees a gradient that is not finite.

    The check costs little: one number per step is read from the device, which the Trainer's
    clipping has computed anyway, and several processes exchange one more small message.
    """

    def __init__(
        self,
        *args: Any,
        bad_steps: BadSteps,
        processes: Processes,
        example_ids: Callable[[], list[list[str]]],
        on_bad_step: Callable[[int, int], None],
        **kwargs: Any,
    ) -> None:
        """Pass the Trainer its own arguments and keep the others.

        Args:
            *args: arguments of the Trainer.
            bad_steps: counts the bad steps.
            processes: the processes of this training.
            example_ids: returns the ids of the examples of the current step, a list for each
                micro-batch of this process.
            on_bad_step: called with the step and the number of bad steps so far.
            **kwargs: keyword arguments of the Trainer.
        """
        self.bad_steps, self.processes = bad_steps, processes
        self._example_ids, self._on_bad_step = example_ids, on_bad_step
        self._step_losses: list[torch.Tensor] = []
        super().__init__(*args, **kwargs)

    def get_batch_samples(self, *args: Any, **kwargs: Any) -> Any:
        """Begin a step; remember the sum of the losses, because a bad step restores it."""
        self._step_losses = []
        self._loss_before = self._tr_loss.clone()
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
        self._record(losses, float(size))
        return None

    def _record(self, losses: torch.Tensor, norm: float) -> None:
        own = list(zip(losses.tolist(), self._example_ids(), strict=True))
        gathered = self.processes.gather(own)
        micro_batches = [micro_batch for theirs in gathered for micro_batch in theirs]
        chosen = [ids for loss, ids in micro_batches if not math.isfinite(loss)]
        chosen = chosen or [ids for _, ids in micro_batches]
        loss = sum(loss for loss, _ in micro_batches) / len(gathered)
        step = self.state.global_step + 1
        self._on_bad_step(step, self.bad_steps.count + 1)
        numbers = f"loss {loss:.4g}, gradient norm {norm:.4g}"
        self.bad_steps.add(step, [i for ids in chosen for i in ids], numbers)
