"""Strategy `staged`: enter the next stage when the model is ready for it, else wait longer.

The guide's rule compares two mixes with the same weights (a readiness test); a trial measures the
effect of training in the next stage, by the two mixes or, with `decision: progress`, by each
difficulty compared with itself. Each is an engineering control with hysteresis and back-off, not an
established algorithm: no paper was found that uses exactly one of them.
"""

import math
from dataclasses import replace
from fractions import Fraction
from typing import TYPE_CHECKING

from pixelis.curriculum.performance import (
    as_fraction,
    compute_changes,
    compute_forgetting,
    compute_performance,
    compute_progress,
)
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
            length = self.config.trial_steps * (2 if state.trial["extended"] else 1)
            return max(0, int(state.trial["step"]) + length - step)
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
        """Begin or extend a trial, or keep or roll back the attempt or trial that ends here."""
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
        numbers = Decision("", old_mix, new_mix, None, perf_before, perf_after, average)
        if trial is not None:
            names = [d for d in {**old_mix, **new_mix} if old_mix.get(d) or new_mix.get(d)]
            changes = compute_changes(names, (before, now), (trial["examples"], state.examples))
            progress = compute_progress(old_mix, new_mix, changes)
            forgetting = compute_forgetting(old_mix, changes)
            numbers = replace(numbers, progress=progress, forgetting=forgetting)
        if trial is None and self.config.trial_steps > 0:
            state.trial = {
                "step": step,
                "interval": state.interval,
                "strata": dict(now),
                "examples": state.examples,
                "extended": False,
            }
            state.visit += 1
            kind, reason = "trial", None
        elif trial is not None and self._is_unclear(numbers, step, is_extended=trial["extended"]):
            trial["extended"] = True
            kind, reason = "extend", "unclear"
        else:
            kind, reason = self._judge(numbers, now)
            self._apply(state, step, kind)
        return replace(numbers, kind=kind, reason=reason)

    def _judge(self, numbers: Decision, now: Mix) -> tuple[str, str | None]:
        """Return kind and reason of the decision, by the values."""
        is_progress = self.config.decision == "progress"
        if is_progress:
            reason = self._progress_failure(numbers)
        else:
            reason = self._guide_failure(numbers, now)
        if not self.config.rollback_enabled:
            return "advance", "rollback_disabled" if reason or is_progress else None
        return "advance" if reason is None else "rollback", reason

    def _guide_failure(self, numbers: Decision, now: Mix) -> str | None:
        """Return the reason for a rollback by the guide's rule."""
        before, after, average = numbers.perf_before, numbers.perf_after, numbers.average
        assert before is not None and after is not None and average is not None
        threshold = as_fraction(self.config.rollback_threshold)
        if after - before <= threshold:
            return "drop"
        if average < as_fraction(self.config.min_performance_for_advance):
            return "low_performance"
        # Without a trial, both performances have the same strata: nothing can be forgotten.
        if self.config.trial_steps > 0:
            if before - compute_performance(numbers.old_mix, now) >= -threshold:
                return "forgetting"
        return None

    def _progress_failure(self, numbers: Decision) -> str | None:
        """Return the reason for a rollback by the rule `progress`."""
        assert numbers.progress is not None and numbers.average is not None
        (forgotten, _), (missing, _) = self._excesses(numbers)
        if forgotten >= 0:
            return "forgetting"
        if missing > 0:
            return ": ".join(filter(None, ["no_progress", numbers.progress.difficulty]))
        if numbers.average < as_fraction(self.config.min_performance_for_advance):
            return "low_performance"
        return None

    def _is_unclear(self, numbers: Decision, step: int, *, is_extended: bool) -> bool:
        """Return whether the rule `progress` extends a trial: noise could change its result."""
        config, end = self.config, step + self.config.trial_steps
        if config.decision != "progress" or not config.rollback_enabled or is_extended:
            return False
        if self.max_steps is not None and end > self.max_steps:
            return False
        # Squares with their signs: the comparison with two standard errors stays exact.
        squares = [(x * abs(x), 4 * v) for x, v in self._excesses(numbers) if v is not None]
        none_failed = all(square < limit for square, limit in squares)
        return none_failed and any(square >= -limit for square, limit in squares)

    def _excesses(self, numbers: Decision) -> list[tuple[Fraction, Fraction | None]]:
        """Return two pairs of an excess and its variance: of forgetting, and of progress.

        They are forgetting + rollback_threshold and min_progress - progress: above 0, the limit is
        missed.
        """
        progress, forgetting = numbers.progress, numbers.forgetting
        assert progress is not None and forgetting is not None
        return [
            (forgetting.value + as_fraction(self.config.rollback_threshold), forgetting.variance),
            (as_fraction(self.config.min_progress) - progress.value, progress.variance),
        ]

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
