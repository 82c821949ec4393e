"""The decisions of the curriculum, without trainer, loader and tracker.

The manager decides, the callback applies a decision, and the recorder records it.
"""

import copy
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from pixelis.curriculum.config import CurriculumConfig
from pixelis.curriculum.event import TRIAL_KINDS, CurriculumEvent, compute_numbers
from pixelis.curriculum.performance import Examples, compute_performance
from pixelis.curriculum.state import CurriculumState
from pixelis.curriculum.strategies import Decision
from pixelis.curriculum.strategies.base import Losses, Mix, Pool, Scores, compute_average
from pixelis.curriculum.strategies.staged import is_held
from pixelis.errors import ConfigError


class CurriculumManager:
    """The curriculum of one training: its stage, the mix of each step, and the events."""

    def __init__(self, config: CurriculumConfig, max_steps: int | None = None) -> None:
        """Begin in the first stage; `max_steps` is the end of training, None where unknown."""
        self.config = config
        self._strategy = config.strategy_class(config, max_steps)
        self._state = CurriculumState(self._strategy.first_stage, config.advancement_interval)
        self._events: list[CurriculumEvent] = []
        self._record("start", 0, examples_seen=0)

    # The current state

    @property
    def stage_index(self) -> int:
        """The index of the stage; while a trial is open, the index of the stage before it."""
        return self._state.stage_index

    @property
    def stage(self) -> str:
        """The name of the stage; for a strategy without stages, the strategy's name."""
        return self._stage_name(self._state.stage_index)

    @property
    def interval(self) -> int:
        """The steps between attempts, back-off included."""
        return self._state.interval

    @property
    def cooldown_until(self) -> int:
        """The first step after which an attempt may be made again."""
        return self._state.cooldown_until

    @property
    def rollback_count(self) -> int:
        """The number of rollbacks since training began."""
        return self._state.rollback_count

    @property
    def visit(self) -> int:
        """The number of the visit; the sampler starts a new quota when it changes."""
        return self._state.visit

    @property
    def trial(self) -> dict[str, Any] | None:
        """The open trial: what it began with, and whether it was extended; None without one."""
        return copy.deepcopy(self._state.trial)

    @property
    def events(self) -> list[CurriculumEvent]:
        """All events so far, oldest first."""
        return list(self._events)

    @property
    def required_difficulties(self) -> tuple[str, ...]:
        """Every difficulty that an evaluation must measure."""
        return self.config.required_difficulties

    # Mix and pool of the next steps

    @property
    def mix(self) -> Mix:
        """The mix that the next optimiser step draws from."""
        return self.mix_at(self._state.steps + 1)

    @property
    def pool(self) -> Pool | None:
        """The examples, by difficulty, that the next optimiser step draws from; None is all."""
        return self.pool_at(self._state.steps + 1)

    def mix_at(self, step: int) -> Mix:
        """Return the mix that a later step draws from, unless a decision comes before it."""
        return self._strategy.mix(self._state, step)

    def pool_at(self, step: int) -> Pool | None:
        """Return the examples that a later step draws from, unless a decision comes before it."""
        return self._strategy.pool(self._state, step)

    def describe(self) -> str | None:
        """Return a short text about the pool or mix of the next step; the stage may be enough."""
        return self._strategy.describe(self._state, self._state.steps + 1)

    def bind(self, scores: Scores) -> None:
        """Store the difficulty score of every training example; called once, before training."""
        self._strategy.bind(scores)
        if len(self._events) == 1 and self._state.steps == 0:
            self._events = []  # the first mix of some strategies depends on the scores
            self._record("start", 0, examples_seen=0)

    # Decisions

    def step(self) -> None:
        """Count one optimiser step."""
        self._state.steps += 1
        self._state.steps_since_advance += 1

    def attempt_due(self, step: int) -> bool:
        """Return whether an attempt, or the end of a trial, falls after this step."""
        return self._is_due(step) and self._strategy.wants(self._state, step) == "strata"

    def needs_losses(self, step: int) -> bool:
        """Return whether the strategy needs the losses of training examples after this step."""
        return self._is_due(step) and self._strategy.wants(self._state, step) == "losses"

    def _is_due(self, step: int) -> bool:
        is_now = self._strategy.wait(self._state, step) == 0
        return is_now and self._strategy.fits(self._state, step)

    def steps_to_next_decision(self, step: int) -> int | None:
        """Return the number of steps that a loader can plan ahead without a decision.

        It is the smallest n >= 1 such that `attempt_due` or `needs_losses` can be true after n more
        optimiser steps; None if neither can ever be true.
        """
        wait = self._strategy.wait(self._state, step)
        if wait is None:
            return None
        wait = max(1, wait)
        return wait if self._strategy.fits(self._state, step + wait) else None

    def observe(self, step: int, strata: Mapping[str, float]) -> None:
        """Add a scheduled evaluation to the window.

        Raises:
            ConfigError: when a difficulty that a stage uses has no performance in [0, 1].
        """
        for name in self.required_difficulties:
            if not 0 <= (value := strata.get(name, -1.0)) <= 1:
                raise ConfigError(
                    f"strata must have a performance in [0, 1] for '{name}', got {value}"
                )
        state = self._state
        if state.history_steps[-1:] == [step]:
            del state.history[-1:], state.history_steps[-1:]
        state.history.append({name: float(value) for name, value in strata.items()})
        state.history_steps.append(step)
        for window in (state.history, state.history_steps):
            del window[: -self.config.performance_window]

    def attempt(
        self,
        step: int,
        strata: Mapping[str, float],
        counts: Mapping[str, int] | None = None,
        examples_seen: int | None = None,
        examples: Examples | None = None,
    ) -> CurriculumEvent:
        """Make the attempt, or end or extend the trial, that is due after this step.

        Args:
            step: the optimiser step.
            strata: difficulty -> performance.
            counts: difficulty -> examples that it was measured on, for the standard error.
            examples_seen: training examples so far.
            examples: difficulty -> the performance of each of its examples, in one order at every
                evaluation, for progress and forgetting.

        Returns:
            Its event.

        Raises:
            ValueError: when none is due, or the strata or examples cannot be used.
        """
        if not self.attempt_due(step):
            raise ValueError(f"no attempt is due at step {step}")
        known = None if examples is None else self._read_examples(examples)
        self.observe(step, strata)
        stage, self._state.examples = self.stage, known
        decision = self._strategy.decide(self._state, step)
        self._state.examples = None
        event = self._record(decision.kind, step, stage, decision, counts, examples_seen)
        if decision.kind == "rollback" and is_held(self.config, self._state):
            self._record("hold", step, stage, reason="max_rollbacks", examples_seen=examples_seen)
        return event

    def _read_examples(self, examples: Examples) -> dict[str, list[float]]:
        """Return the checked performances of examples by difficulty, as plain JSON.

        Raises:
            ConfigError: when one is not in [0, 1], or a difficulty has another number of them than
                at the open trial's beginning.
        """
        before = (self._state.trial or {}).get("examples") or {}
        for name, values in examples.items():
            if wrong := [value for value in values if not 0 <= value <= 1]:
                raise ConfigError(
                    f"examples must have performances in [0, 1] for '{name}', got {wrong[0]}"
                )
            if name in before and len(values) != len(before[name]):
                raise ConfigError(
                    f"examples must have {len(before[name])} performances for '{name}', as at the "
                    f"trial's beginning, got {len(values)}"
                )
        return {name: [float(value) for value in values] for name, values in examples.items()}

    def observe_losses(
        self, step: int, losses: Losses, examples_seen: int | None = None
    ) -> CurriculumEvent | None:
        """Choose the pool by the losses `{difficulty: {index: loss}}`, and return the event.

        Before the first step this is the `start` event, with the first mix of the training. None if
        the strategy also needs strata: then the attempt returns the event.
        """
        if not self.needs_losses(step):
            raise ValueError(f"no losses are needed at step {step}")
        decision = self._strategy.select(self._state, step, losses)
        if self._state.steps == 0:
            self._events = []
            return self._record("start", 0, None, decision, examples_seen=0)
        if decision is None:
            return None
        return self._record("advance", step, self.stage, decision, examples_seen=examples_seen)

    def finish(
        self,
        step: int,
        strata: Mapping[str, float] | None = None,
        examples_seen: int | None = None,
    ) -> CurriculumEvent:
        """Record the end of training, with the strata of the last weights if they are known."""
        reason = None if self._state.trial is None else "trial_open"
        decision = None
        if strata is not None:
            self.observe(step, strata)
            mix, history = self.mix, self._state.history
            performance = compute_performance(mix, history[-1])
            average = compute_average(mix, history)
            decision = Decision("end", mix, mix, reason, perf_after=performance, average=average)
        return self._record("end", step, None, decision, None, examples_seen, reason)

    # Checkpoints

    def state_dict(self) -> dict[str, Any]:
        """Return the complete state, events included, as plain JSON."""
        return {**asdict(self._state), "events": [event.to_dict() for event in self._events]}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore a `state_dict` exactly."""
        values = copy.deepcopy(dict(state))
        self._events = [CurriculumEvent(**event) for event in values.pop("events")]
        self._state = CurriculumState(**values)

    # Events

    def _record(
        self,
        kind: str,
        step: int,
        from_stage: str | None = None,
        decision: Decision | None = None,
        counts: Mapping[str, int] | None = None,
        examples_seen: int | None = None,
        reason: str | None = None,
    ) -> CurriculumEvent:
        """Append an event, with the state after it."""
        state = self._state
        strata = state.history[-1] if state.history else None
        reason = decision.reason if decision else reason
        if not self._strategy.rolls_back:
            reason = "; ".join(filter(None, [f"{self._name()} does not roll back", reason]))
        event = CurriculumEvent(
            step=step,
            kind=kind,
            reason=reason,
            from_stage=from_stage or self.stage,
            to_stage=self._stage_name(state.stage_index + (kind in TRIAL_KINDS)),
            mix=self.mix_at(step + 1),
            **compute_numbers(decision, strata, counts),
            interval=state.interval,
            cooldown_until=state.cooldown_until,
            rollback_count=state.rollback_count,
            examples_seen=examples_seen,
        )
        self._events.append(event)
        return event

    def _name(self) -> str:
        return self.config.strategy if self.config.enabled else "disabled"

    def _stage_name(self, index: int) -> str:
        has_stages = self._strategy.uses_stages
        return self.config.stages[index].name if has_stages else self.config.strategy
