"""A progress bar that shows the curriculum: stage, strata, loss, next attempt."""

import sys
from collections.abc import Mapping
from typing import Any

from tqdm import tqdm
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from pixelis.training.callback import CurriculumCallback

# Without a terminal (a log file, a CI job) a line every few seconds is enough.
LOG_INTERVAL_SECONDS = 15.0


class ProgressCallback(TrainerCallback):
    """A progress bar of the optimiser steps, followed by the curriculum's state."""

    def __init__(self, curriculum: CurriculumCallback) -> None:
        """Read everything from the curriculum's callback."""
        self.curriculum = curriculum
        self.bar: Any = None
        self.loss: float | None = None

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Open the bar at the step where training starts or resumes."""
        interactive = sys.stderr.isatty()
        self.bar = tqdm(
            total=state.max_steps,
            initial=state.global_step,
            unit="step",
            dynamic_ncols=interactive,
            mininterval=0.2 if interactive else LOG_INTERVAL_SECONDS,
            maxinterval=LOG_INTERVAL_SECONDS,
        )

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Advance the bar."""
        self._write(state)
        self.bar.update(1)

    def on_evaluate(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Show new strata, and the stage after a decision."""
        self._write(state)
        self.bar.refresh()

    def _write(self, state: TrainerState) -> None:
        self.bar.set_description_str(self.curriculum.manager.stage, refresh=False)
        self.bar.set_postfix_str(self.describe(state.global_step, state.max_steps), refresh=False)

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: Mapping[str, float] | None = None,
        **_: Any,
    ) -> None:
        """Remember the newest loss."""
        if logs and "loss" in logs:
            self.loss = logs["loss"]

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Close the bar."""
        self.close()

    def close(self) -> None:
        """End the bar's line, so that the next output begins on a new one; also after an error."""
        if self.bar is not None:
            self.bar.close()
            self.bar = None

    def describe(self, step: int, max_steps: int) -> str:
        """Return the text behind the bar, such as `loss 0.41, simple .91, next attempt 300`."""
        parts = [] if self.loss is None else [f"loss {self.loss:.3f}"]
        if self.curriculum.num_bad_steps:
            parts.append(f"bad steps {self.curriculum.num_bad_steps}")
        strata = self.curriculum.strata
        if strata:
            parts.append(" ".join(f"{name} {value:.3f}" for name, value in strata.items()))
        manager = self.curriculum.manager
        if outlook := manager.describe():
            parts.append(outlook)
        awaits = manager.config.strategy_class.awaits if manager.config.enabled else None
        ahead = 0 if manager.attempt_due(step) else manager.steps_to_next_decision(step)
        if manager.trial is not None and ahead is not None:
            parts.append(f"trial ends {step + ahead}")
        elif awaits is not None and (ahead is None or step + ahead >= max_steps):
            parts.append(f"no more {awaits}{'es' if awaits.endswith('x') else 's'}")
        elif awaits is not None:
            parts.append(f"next {awaits} {step + (ahead or 0)}")
        return ", ".join(parts)
