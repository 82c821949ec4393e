"""The Trainer's callbacks: one asks the curriculum's manager after every step, one shows a bar."""

import logging
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from transformers import TrainerCallback, TrainerState

from pixelis.curriculum import CurriculumEvent, CurriculumManager, Visit, event_line, visits
from pixelis.errors import UserError
from pixelis.progress import ProgressBar
from pixelis.recorder import ADAPTERS, Recorder
from pixelis.training.weights import TrainedWeights

logger = logging.getLogger(__name__)

MIX = "curriculum/mix/"
# Of the metric that decides. MLflow sorts charts by name: these come before `curriculum/`.
FIRST_CHARTS = "by_difficulty/"
CHARTED = ("loss", "token_accuracy", "answer_accuracy", "answer_likelihood")
STRATUM_METRICS = (*CHARTED, "likelihood")

Evaluations = Sequence[tuple[int, Mapping[str, float]]]


def check_finite(losses: Mapping[str, float], step: int) -> None:
    """Raise if a loss is not finite; the keys say what was measured.

    Raises:
        UserError: naming the step and the loss.
    """
    for name, loss in losses.items():
        if not math.isfinite(loss):
            raise UserError(
                f"training diverged: after step {step} the {name} is {loss}; "
                "lower training.learning_rate or training.max_grad_norm"
            )


class CurriculumCallback(TrainerCallback):
    """The connection between the Trainer and the curriculum.

    The manager decides. This callback requests an evaluation where a decision or `eval_steps` is
    due, passes the strata to the manager, and records the results. The loader reads the mix from
    the manager.
    """

    def __init__(
        self,
        manager: CurriculumManager,
        recorder: Recorder,
        weights: TrainedWeights,
        *,
        eval_steps: int,
        examples_per_step: int,
        score_losses: Callable[[int], None] = lambda step: None,
        on_evaluation: Callable[[Evaluations], None] | None = None,
    ) -> None:
        """Set the parts that the callback connects; a step has its examples in all processes.

        `score_losses` is called with the number of steps before the first and after each step, and
        passes losses to the manager if its strategy wants them. `on_evaluation` is called with all
        evaluations so far after each, and may raise to stop the training.
        """
        self.manager = manager
        self.recorder = recorder
        self.eval_steps = eval_steps
        self.examples_per_step = examples_per_step
        self._weights = weights
        self._score_losses, self._on_evaluation = score_losses, on_evaluation
        self.evaluations: list[tuple[int, dict[str, float]]] = []
        self.losses: list[tuple[int, float]] = []
        self.best: dict[str, float] | None = None
        self.stop_requested = False
        self._num_recorded = self._num_visits_saved = 0

    def request_stop(self) -> None:
        """End training after the current step, with a checkpoint."""
        self.stop_requested = True

    def on_train_begin(self, args: Any, state: TrainerState, control: Any, **_: Any) -> None:
        """Score examples before the first step where the strategy wants it; record the start."""
        # A checkpoint's state has the steps between logs and saves that it was saved with.
        state.compute_steps(args, state.max_steps)
        if state.global_step == 0:
            self._score_losses(0)
        self._record_events()

    def on_step_end(self, args: Any, state: TrainerState, control: Any, **_: Any) -> None:
        """Count the step; request an evaluation where one is due."""
        step = state.global_step
        self.manager.step()
        self._score_losses(step)
        due = self.manager.attempt_due(step)
        if due or step % self.eval_steps == 0 or step == state.max_steps:
            control.should_evaluate = True
        else:
            self._record_events()
            self._record_stage_or_mix(step)
        if control.should_save:
            control.should_log = True  # so that a training's last step is logged as well
        # Never set back to False: a signal may arrive while the processes agree.
        if self._weights.processes.any(self.stop_requested):
            self.stop_requested = True
            control.should_save = control.should_training_stop = True

    def on_evaluate(
        self,
        args: Any,
        state: TrainerState,
        control: Any,
        metrics: Mapping[str, Any] | None = None,
        optimizer: Any = None,
        **_: Any,
    ) -> None:
        """Pass the strata to the manager, apply its decision, record both."""
        assert metrics is not None
        step, difficulties = state.global_step, self.manager.required_difficulties
        self._take_strata(step, metrics)
        self._keep_best(step)  # before a rollback can replace the weights that were measured
        seen = step * self.examples_per_step
        if self.manager.attempt_due(step):
            counts = {d: int(metrics[f"eval_{d}_num_examples"]) for d in difficulties}
            examples = {d: metrics[f"eval_{d}_examples"] for d in difficulties}
            trial = self.manager.trial
            event = self.manager.attempt(step, self.strata, counts, seen, examples)
            self._record_events()  # likewise before a rollback
            self._apply(event, trial, optimizer)
        else:
            self.manager.observe(step, self.strata)
        if step == state.max_steps:
            self.manager.finish(step, self.strata, seen)
        self._record_events()
        self._record_stage_or_mix(step)
        if self._on_evaluation is not None:
            self._on_evaluation(self.evaluations)

    def on_log(
        self, args: Any, state: TrainerState, control: Any, logs: Any = None, **_: Any
    ) -> None:
        """Record loss, gradient norm and learning rate."""
        if logs is None or "loss" not in logs:
            return
        self.losses.append((state.global_step, logs["loss"]))
        names = ("loss", "grad_norm", "learning_rate")
        values = {f"train/{name}": logs[name] for name in names if name in logs}
        self.recorder.metrics(values, state.global_step)

    @property
    def strata(self) -> dict[str, float]:
        """The strata of the current weights; empty before the first evaluation."""
        return dict(self.evaluations[-1][1]) if self.evaluations else {}

    def state_dict(self) -> dict[str, Any]:
        """Return the state for a checkpoint, as plain JSON."""
        return {
            "manager": self.manager.state_dict(),
            "evaluations": self.evaluations,
            "losses": self.losses,
            "best": self.best,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore the state of `state_dict`; events recorded before are not recorded again."""
        self.manager.load_state_dict(state["manager"])
        self.evaluations = [(step, strata) for step, strata in state["evaluations"]]
        self.losses = [(step, loss) for step, loss in state["losses"]]
        self.best = state["best"]
        self._num_recorded = len(self.manager.events)
        self._num_visits_saved = len(self._ended_visits())

    def _take_strata(self, step: int, metrics: Mapping[str, Any]) -> None:
        difficulties = self.manager.required_difficulties
        check_finite(
            {f"validation loss of {d}": metrics[f"eval_{d}_loss"] for d in difficulties}, step
        )
        name = self.manager.config.performance_metric
        strata = {d: metrics[f"eval_{d}_{name}"] for d in difficulties}
        self.evaluations.append((step, strata))
        # The likelihood is exp(-loss), and its chart says nothing new where no decision uses it.
        recorded = sorted({*CHARTED, name})
        values = {f"{FIRST_CHARTS}{d}": value for d, value in strata.items()}
        values |= {
            f"eval/{d}/{m}": metrics[f"eval_{d}_{m}"] for d in difficulties for m in recorded
        }
        values["eval/mix_performance"] = self._performance(self.manager.mix)
        self.recorder.metrics(values, step)

    def _apply(
        self, event: CurriculumEvent, trial: Mapping[str, Any] | None, optimizer: Any
    ) -> None:
        if self.manager.config.rollback_scope != "data+weights":
            return
        if event.kind == "trial":
            self._weights.take_snapshot(optimizer)
        if event.kind == "rollback":
            assert trial is not None
            self._weights.restore_snapshot(optimizer)
            # The weights are those from the trial's beginning again, and so are their strata.
            self.evaluations.append((event.step, dict(trial["strata"])))

    def _keep_best(self, step: int) -> None:
        """Choose the best adapter on the last stage's mix, never across different mixes."""
        performance = self._performance(self.manager.config.stages[-1].difficulty_mix)
        if self.best is None or performance > self.best["performance"]:
            self.best = {"step": step, "performance": performance}
            self._weights.save_best()

    def _performance(self, mix: Mapping[str, float]) -> float:
        strata = self.strata
        return sum(fraction * strata[d] for d, fraction in mix.items() if fraction > 0)

    def _ended_visits(self) -> list[Visit]:
        all_visits = visits([event.to_dict() for event in self.manager.events])
        return [visit for visit in all_visits if visit.end is not None]

    def _record_events(self) -> None:
        """Record new events, and the adapter of each visit that they end."""
        events = self.manager.events[self._num_recorded :]
        if not events:
            return
        for event in events:
            if line := event_line(event, self.manager.config):
                numbers = {"step": event.step, "delta": event.delta, **(event.strata or {})}
                logger.info("%s", line, extra={"numbers": numbers})
            self.recorder.event(event.to_dict())
        self._num_recorded = len(self.manager.events)
        ended = self._ended_visits()
        for visit in ended[self._num_visits_saved :]:
            folder = self._weights.save_visit(visit)
            self.recorder.artifact(folder, f"{ADAPTERS}/{folder.name}")
        self._num_visits_saved = len(ended)

    def _record_stage_or_mix(self, step: int) -> None:
        """Record the current stage, or a mix that changed without an event."""
        manager = self.manager
        if manager.config.strategy_class.uses_stages:
            self.recorder.metrics({"curriculum/stage": manager.stage_index}, step)
        elif manager.mix != manager.events[-1].mix:
            mix = {f"{MIX}{name}": part for name, part in manager.mix.items()}
            self.recorder.metrics(mix, step)


class ProgressCallback(TrainerCallback):
    """A progress bar of the optimiser steps, followed by the curriculum's state."""

    def __init__(self, curriculum: CurriculumCallback, bad_steps: Any) -> None:
        """Read everything from the curriculum's callback and the trainer's bad steps."""
        self.curriculum, self.bad_steps = curriculum, bad_steps
        self.bar: ProgressBar | None = None

    def on_train_begin(self, args: Any, state: TrainerState, control: Any, **_: Any) -> None:
        """Open the bar at the step where training starts or resumes."""
        stage = self.curriculum.manager.stage
        self.bar = ProgressBar(stage, state.max_steps, "step", initial=state.global_step)

    def on_step_end(self, args: Any, state: TrainerState, control: Any, **_: Any) -> None:
        """Advance the bar."""
        self._write(state).update(1)

    def on_evaluate(self, args: Any, state: TrainerState, control: Any, **_: Any) -> None:
        """Show new strata, and the stage after a decision."""
        self._write(state).refresh()

    def _write(self, state: TrainerState) -> ProgressBar:
        assert self.bar is not None
        self.bar.set_description_str(self.curriculum.manager.stage, refresh=False)
        losses = [("loss", loss) for _, loss in self.curriculum.losses[-1:]]
        numbers = dict([*losses, *self.curriculum.strata.items()])
        self.bar.show(self.describe(state.global_step, state.max_steps), **numbers)
        return self.bar

    def close(self) -> None:
        """End the bar's line, so that the next output begins on a new one; also after an error."""
        if self.bar is not None:
            self.bar.close()

    def describe(self, step: int, max_steps: int) -> str:
        """Return the text behind the bar, such as `loss 0.41, simple .91, next attempt 300`."""
        manager, losses = self.curriculum.manager, self.curriculum.losses
        parts = [f"loss {losses[-1][1]:.3f}"] if losses else []
        if self.bad_steps.count:
            parts.append(f"bad steps {self.bad_steps.count}")
        strata = " ".join(f"{name} {value:.3f}" for name, value in self.curriculum.strata.items())
        parts += filter(None, (strata, manager.describe()))
        awaits = manager.config.strategy_class.awaits if manager.config.enabled else None
        ahead = 0 if manager.attempt_due(step) else manager.steps_to_next_decision(step)
        if manager.trial is not None and ahead is not None:
            parts.append(f"trial ends {step + ahead}")
        elif awaits is not None and (ahead is None or step + ahead >= max_steps):
            parts.append(f"no more {awaits}{'es' if awaits.endswith('x') else 's'}")
        elif awaits is not None:
            parts.append(f"next {awaits} {step + (ahead or 0)}")
        return ", ".join(parts)
