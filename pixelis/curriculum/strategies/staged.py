"""Strategy `staged`: enter the next stage when the model is ready for it, else wait longer.

The guide's rule compares two mixes with the same weights (a readiness test); a trial measures the
effect of training in the next stage. Both are an engineering control with hysteresis and back-off,
not an established algorithm: no paper was found that uses exactly this rule.
"""

import math
from fractions import Fraction
from typing import TYPE_CHECKING

from pixelis.curriculum.performance import as_fraction, compute_performance
from pixelis.curriculum.state import CurriculumState
from pixelis.curriculum.strategies.base import Decision, Mix, Strategy, compute_average

if TYPE_CHECKING:  # the config checks its strategy against the table: it imports this package
    from pixelis.curriculum.config import CurriculumConfig

# Beyond this, floats no longer count in ones, and no training is that long.
LONGEST_INTERVAL = 2**53


class Staged(Strategy):
    """Stages that are entered by attempts, kept or rolled back on the performance of two mixes."""

    name = "staged"
    rolls_back = True
    awaits = "attempt"

    def wait(self, state: CurriculumState, step: int) -> int | None:
        """Return the steps until an attempt, or the end of the open trial, is due."""
        if state.trial is not None:
            end: int = state.trial["step"] + self.config.trial_steps
            return max(0, end - step)
        if is_held(self.config, state) or state.stage_index == len(self.config.stages) - 1:
            return None
        return max(0, state.interval - state.steps_since_advance, state.cooldown_until - step)

    def fits(self, state: CurriculumState, step: int) -> bool:
        """Return whether an attempt with its trial, or an open trial, ends in time."""
        if self.max_steps is None:
            return True
        if state.trial is not None:
            return step <= self.max_steps
        return step < self.max_steps and step + self.config.trial_steps <= self.max_steps

    def mix(self, state: CurriculumState, step: int) -> Mix:
        """Return the stage's mix; while a trial is open, the next stage's."""
        index = state.stage_index + (state.trial is not None)
        return dict(self.config.stages[index].difficulty_mix)

    def decide(self, state: CurriculumState, step: int) -> Decision:
        """Begin a trial, or keep or roll back the attempt or the trial that ends here."""
        stages, trial, now = self.config.stages, state.trial, state.history[-1]
        old_mix = dict(stages[state.stage_index].difficulty_mix)
        new_mix = dict(stages[state.stage_index + 1].difficulty_mix)
        before = now if trial is None else trial["strata"]
        # Evaluations before the trial do not show the effect of the trial's training.
        counted = [
            strata
            for at, strata in zip(state.history_steps, state.history, strict=True)
            if trial is None or at > trial["step"]
        ]
        perf_before = compute_performance(old_mix, before)
        perf_after = compute_performance(new_mix, now)
        average = compute_average(new_mix, counted)
        if trial is None and self.config.trial_steps > 0:
            state.trial = {"step": step, "interval": state.interval, "strata": dict(now)}
            state.visit += 1
            kind, reason = "trial", None
        else:
            forgetting = perf_before - compute_performance(old_mix, now)
            # Without a trial, both performances have the same strata: nothing can be forgotten.
            reason = self._failure(perf_after - perf_before, average, forgetting)
            if reason is not None and not self.config.rollback_enabled:
                kind, reason = "advance", "rollback_disabled"
            else:
                kind = "advance" if reason is None else "rollback"
            self._apply(state, step, kind)
        return Decision(kind, old_mix, new_mix, reason, perf_before, perf_after, average)

    def _failure(self, delta: Fraction, average: Fraction, forgetting: Fraction) -> str | None:
        threshold = as_fraction(self.config.rollback_threshold)
        if delta <= threshold:
            return "drop"
        if average < as_fraction(self.config.min_performance_for_advance):
            return "low_performance"
        if self.config.trial_steps > 0 and forgetting >= -threshold:
            return "forgetting"
        return None

    def _apply(self, state: CurriculumState, step: int, kind: str) -> None:
        trial, state.trial = state.trial, None
        state.steps_since_advance = 0
        if kind == "advance":
            state.stage_index += 1
            state.interval = self.config.advancement_interval
            state.rollbacks_in_a_row = 0
            state.visit += trial is None  # a kept trial continues the visit that it began
            return
        state.visit += trial is not None
        state.rollback_count += 1
        state.rollbacks_in_a_row += 1
        state.cooldown_until = step + self.config.rollback_cooldown
        interval = state.interval if trial is None else trial["interval"]
        product = interval * self.config.rollback_factor
        # Rounded first: 100 * 1.1 is 110.00000000000001 in floats, and 111 would be wrong.
        state.interval = min(math.ceil(round(min(product, LONGEST_INTERVAL), 9)), LONGEST_INTERVAL)


def is_held(config: "CurriculumConfig", state: CurriculumState) -> bool:
    """Return whether the rollbacks in a row have reached `max_rollbacks`."""
    most = config.max_rollbacks
    return most is not None and state.rollbacks_in_a_row >= most
