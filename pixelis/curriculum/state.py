"""The state of a curriculum between steps: plain JSON, so that a checkpoint holds it as it is."""

from dataclasses import dataclass, field
from typing import Any


@dataclass
class CurriculumState:
    """The state that strategies decide on."""

    stage_index: int
    interval: int
    steps: int = 0  # optimiser steps so far
    steps_since_advance: int = 0
    cooldown_until: int = 0
    rollback_count: int = 0
    rollbacks_in_a_row: int = 0
    visit: int = 1  # the number of the visit; the sampler starts a new quota when it changes
    # Strata of the last evaluations, oldest first.
    history: list[dict[str, float]] = field(default_factory=list)
    history_steps: list[int] = field(default_factory=list)  # the step of each of them
    # The open trial: step, interval, strata and examples that it began with, and whether it was
    # extended; None without one.
    trial: dict[str, Any] | None = None
    # The performance of each example by difficulty, while a decision is made; else None.
    examples: dict[str, list[float]] | None = None
    memory: dict[str, Any] = field(default_factory=dict)  # a strategy's own state
