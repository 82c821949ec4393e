"""CurriculumCallback: asks the manager after every step, applies its events, tells the recorder."""

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from pixelis.curriculum import CurriculumEvent, CurriculumManager, Visit, event_line, visits
from pixelis.errors import UserError
from pixelis.recorder import ADAPTERS, Recorder

MIX = "curriculum/mix/"
BAD_STEPS = "train/bad_steps"  # so far
STRATUM_METRICS = ("loss", "token_accuracy", "answer_accuracy", "likelihood")


def check_finite(losses: Mapping[str, float], step: int) -> None:
    """Refuse to go on with weights that give no finite loss; the keys say of what."""
    for name, loss in losses.items():
        if not math.isfinite(loss):
            raise UserError(
                f"training diverged: after step {step} the {name} is {loss}; "
                "lower training.learning_rate or training.max_grad_norm"
            )


def _nothing() -> None:
    """Stand in where nobody listens."""


class CurriculumCallback(TrainerCallback):
    """Joins the Trainer to the curriculum.

    The manager decides. This callback asks for an evaluation where a decision or `eval_steps` falls
    due, hands the strata over, and tells the recorder; the loader reads the mix from the manager.
    """

    def __init__(
        self,
        manager: CurriculumManager,
        recorder: Recorder,
        *,
        eval_steps: int,
        examples_per_step: int,
        say: Callable[[str], None] = print,
    ) -> None:
        """Record the events that the manager already has (the start)."""
        self.manager = manager
        self.recorder = recorder
        self.eval_steps = eval_steps
        self.examples_per_step = examples_per_step
        self.say = say
        self.agree: Callable[[bool], bool] = bool
        self.on_begin: Callable[[], None] = _nothing
        self.on_step: Callable[[int], None] = lambda step: None
        self.on_score: Callable[[int], None] = lambda step: None
        self.on_snapshot: Callable[[], None] = _nothing
        self.on_restore: Callable[[], None] = _nothing
        self.on_improvement: Callable[[], None] = _nothing
        self.on_visit_end: Callable[[Visit], Path | None] = lambda visit: None
        self.on_evaluation: Callable[[list[tuple[int, dict[str, float]]]], None] = (
            lambda evaluations: None
        )
        self.strata: dict[str, float] = {}
        self.evaluations: list[tuple[int, dict[str, float]]] = []
        self.losses: list[tuple[int, float]] = []
        self.best: dict[str, float] | None = None
        self.num_bad_steps = 0
        self.stop_requested = False
        self.drifts: list[tuple[int, dict[str, float]]] = []  # mixes that changed without an event
        self._num_recorded = 0
        self._visits_ended = 0
        self._kept: list[Path] = []

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Record the start, once."""
        self.on_begin()
        self._record_events()

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        """Count the step; ask for an evaluation where one is due."""
        step = state.global_step
        self.manager.step()
        self.on_step(step)
        self.on_score(step)
        due = self.manager.attempt_due(step)
        if due or step % self.eval_steps == 0 or step == state.max_steps:
            control.should_evaluate = True
        else:
            self._record_events()
            self._tell_place(step)
        if control.should_save:
            control.should_log = True  # so that a training's last step is logged as well
        # Not assigned: a signal may come while the processes agree.
        if self.agree(self.stop_requested):
            self.stop_requested = True
            control.should_save = control.should_training_stop = True

    def on_evaluate(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        metrics: Mapping[str, float] | None = None,
        **_: Any,
    ) -> None:
        """Hand the strata to the manager, apply what it decides, record both."""
        assert metrics is not None
        step = state.global_step
        difficulties = self.manager.required_difficulties
        check_finite(
            {f"validation loss of {d}": metrics[f"eval_{d}_loss"] for d in difficulties}, step
        )
        name = self.manager.config.performance_metric
        self.strata = {d: metrics[f"eval_{d}_{name}"] for d in difficulties}
        counts = {d: int(metrics[f"eval_{d}_num_examples"]) for d in difficulties}
        self.evaluations.append((step, dict(self.strata)))
        self._tell(
            {
                f"eval/{d}/{m}": metrics[f"eval_{d}_{m}"]
                for d in difficulties
                for m in STRATUM_METRICS
            }
            | {"eval/mix_performance": self._performance(self.manager.mix)},
            step,
        )
        self._keep_best(step)  # of the weights that were measured: a rollback may replace them
        seen = step * self.examples_per_step
        if self.manager.attempt_due(step):
            trial = self.manager.trial
            event = self.manager.attempt(step, self.strata, counts, seen)
            self._keep_visit()  # likewise of the weights that were measured
            self._apply(event, trial)
        else:
            self.manager.observe(step, self.strata)
        if step == state.max_steps:
            self.manager.finish(step, self.strata, seen)
            self._keep_visit()
        self._record_events()
        self._tell_place(step)
        self.on_evaluation(self.evaluations)

    def _tell_place(self, step: int) -> None:
        """Tell where the curriculum stands: its stage, or a mix that changed without an event."""
        manager = self.manager
        if manager.config.strategy_class.uses_stages:
            self._tell({"curriculum/stage": manager.stage_index}, step)
        elif manager.mix != manager.events[-1].mix:
            self.drifts.append((step, dict(manager.mix)))
            self._tell({f"{MIX}{name}": part for name, part in manager.mix.items()}, step)

    def _tell(self, values: Mapping[str, float], step: int) -> None:
        self.recorder.metrics(values, step)

    def tell_bad_step(self, step: int, num_bad_steps: int, line: str) -> None:
        """Tell of a step that was not applied, how many there are now, and say a line."""
        self.num_bad_steps = num_bad_steps
        self._tell({BAD_STEPS: num_bad_steps}, step)
        self.say(line)

    def tell_restored(self, step: int, reason: str) -> None:
        """Let an event say that the weights of before are back."""
        self.manager.restored(step, reason, step * self.examples_per_step)

    def _apply(self, event: CurriculumEvent, trial: Mapping[str, Any] | None) -> None:
        if self.manager.config.rollback_scope != "data+weights":
            return
        if event.kind == "trial":
            self.on_snapshot()
        if event.kind == "rollback":
            assert trial is not None
            self.on_restore()
            # The weights are again those that the trial began with, and so are their strata.
            self.strata = dict(trial["strata"])
            self.evaluations.append((event.step, dict(self.strata)))

    def _record_events(self) -> None:
        for event in self.manager.events[self._num_recorded :]:
            line = event_line(event, self.manager.config)
            if line:
                self.say(line)
            self.recorder.event(event.to_dict())
        self._num_recorded = len(self.manager.events)
        for folder in self._kept:
            self.recorder.artifact(folder, f"{ADAPTERS}/{folder.name}")
        self._kept = []

    def _ended_visits(self) -> list[Visit]:
        found = visits([event.to_dict() for event in self.manager.events])
        return [visit for visit in found if visit.end is not None]

    def _keep_visit(self) -> None:
        """Save the adapter of a visit that ends here; it is told after the event that ended it."""
        ended = self._ended_visits()
        for visit in ended[self._visits_ended :]:
            if folder := self.on_visit_end(visit):
                self._kept.append(folder)
        self._visits_ended = len(ended)

    @property
    def mixes(self) -> list[tuple[int, dict[str, float]]]:
        """The mix that held after a step, wherever it was told that it changed."""
        at_events = {event.step: dict(event.mix) for event in self.manager.events}
        return sorted((at_events | dict(self.drifts)).items())

    def _performance(self, mix: Mapping[str, float]) -> float:
        return sum(fraction * self.strata[d] for d, fraction in mix.items() if fraction > 0)

    def _keep_best(self, step: int) -> None:
        """The best adapter is chosen on the last stage's mix, never across different mixes."""
        performance = self._performance(self.manager.config.stages[-1].difficulty_mix)
        if self.best is None or performance > self.best["performance"]:
            self.best = {"step": step, "performance": performance}
            self.on_improvement()

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: Mapping[str, float] | None = None,
        **_: Any,
    ) -> None:
        """Record loss, gradient norm and learning rate."""
        if logs is None or "loss" not in logs:
            return
        self.losses.append((state.global_step, logs["loss"]))
        names = ("loss", "grad_norm", "learning_rate")
        values = {f"train/{name}": logs[name] for name in names if name in logs}
        self._tell(values, state.global_step)

    def state_dict(self) -> dict[str, Any]:
        """Everything that decides what comes next, as plain JSON."""
        return {
            "manager": self.manager.state_dict(),
            "evaluations": self.evaluations,
            "losses": self.losses,
            "best": self.best,
            "num_bad_steps": self.num_bad_steps,
            "drifts": self.drifts,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on exactly where `state_dict` was taken; what was recorded is not recorded again."""
        self.manager.load_state_dict(state["manager"])
        self.evaluations = [(step, strata) for step, strata in state["evaluations"]]
        self.losses = [(step, loss) for step, loss in state["losses"]]
        self.strata = dict(self.evaluations[-1][1]) if self.evaluations else {}
        self.best = state["best"]
        self.num_bad_steps = state["num_bad_steps"]
        self.drifts = [(step, mix) for step, mix in state["drifts"]]
        self._num_recorded = len(self.manager.events)
        self._visits_ended = len(self._ended_visits())
