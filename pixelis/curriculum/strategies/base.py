"""The base class of every strategy: when it decides, what it decides, what a step draws from."""

from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING, Literal

from pixelis.curriculum.performance import Change, compute_performance
from pixelis.curriculum.state import CurriculumState
from pixelis.errors import ConfigError

if TYPE_CHECKING:  # the config checks its strategy against the table: it imports this package
    from pixelis.curriculum.config import CurriculumConfig

Mix = dict[str, float]
Pool = dict[str, list[int]]
Losses = Mapping[str, Mapping[int, float]]
Scores = Mapping[str, list[float]]


@dataclass(frozen=True)
class Decision:
    """The kind of a decision, with the measured numbers behind it."""

    kind: str
    old_mix: Mix
    new_mix: Mix
    reason: str | None = None
    perf_before: Fraction | None = None
    perf_after: Fraction | None = None
    average: Fraction | None = None
    progress: Change | None = None  # at the end of a trial
    forgetting: Change | None = None


class Strategy:
    """A curriculum that never decides anything: the fixed mix of its stage.

    A subclass overrides the methods that differ, and has a `name` for `curriculum.strategy`. Its
    own state is in `state.memory` (plain JSON), so that checkpoints include it.
    """

    name: str
    rolls_back = False
    uses_stages = True  # False: the stages are used only for the names of the difficulties
    awaits: str | None = "decision"  # the next event, for the progress bar

    def __init__(self, config: "CurriculumConfig", max_steps: int | None = None) -> None:
        """Keep the settings; `max_steps` is the end of training, None where it is unknown."""
        self.config = config
        self.max_steps = max_steps

    @property
    def first_stage(self) -> int:
        """The index of the stage that training begins in."""
        has_stages = self.uses_stages and self.config.enabled
        return 0 if has_stages else len(self.config.stages) - 1

    def wait(self, state: CurriculumState, step: int) -> int | None:
        """Return the optimiser steps until the next decision: 0 is now, None is never."""
        return None

    def fits(self, state: CurriculumState, step: int) -> bool:
        """Return whether a decision after this step ends before the training does."""
        return self.max_steps is None or step < self.max_steps

    def wants(self, state: CurriculumState, step: int) -> Literal["strata", "losses"]:
        """Return the measurement that the due decision needs next: losses, then maybe strata."""
        return "strata"

    def decide(self, state: CurriculumState, step: int) -> Decision:
        """Decide by the evaluations in `state.history`, the last of which is of this step."""
        raise NotImplementedError(f"{type(self).__name__} does not decide on strata")

    def select(self, state: CurriculumState, step: int, losses: Losses) -> Decision | None:
        """Decide by the losses of training examples; None if strata are needed as well."""
        raise NotImplementedError(f"{type(self).__name__} does not decide on losses")

    def bind(self, scores: Scores) -> None:
        """Store the difficulty scores of the training examples, if the strategy uses them."""

    def mix(self, state: CurriculumState, step: int) -> Mix:
        """Return the mix that this step draws from, unless a decision comes before it."""
        return dict(self.config.stages[state.stage_index].difficulty_mix)

    def pool(self, state: CurriculumState, step: int) -> Pool | None:
        """Return the examples that this step draws from; None is all of them."""
        return None

    def describe(self, state: CurriculumState, step: int) -> str | None:
        """Return a short text about the pool or mix of this step; empty if the stage is enough."""
        return None

    def move(self, state: CurriculumState, stage_index: int) -> Decision:
        """Enter a stage regardless of the strata, and return the `advance` that records it."""
        old_mix = self.config.stages[state.stage_index].difficulty_mix
        new_mix = self.config.stages[stage_index].difficulty_mix
        state.stage_index = stage_index
        return self.change(state, old_mix, new_mix)

    def change(self, state: CurriculumState, old_mix: Mix, new_mix: Mix) -> Decision:
        """Begin a visit with a new mix, and return the `advance` that records it."""
        state.steps_since_advance = 0
        state.visit += 1
        strata = state.history[-1]
        return Decision(
            "advance",
            dict(old_mix),
            dict(new_mix),
            perf_before=compute_performance(old_mix, strata),
            perf_after=compute_performance(new_mix, strata),
            average=compute_average(new_mix, state.history),
        )


def compute_average(mix: Mapping[str, float], history: list[dict[str, float]]) -> Fraction:
    """Compute the mean performance of a mix over the strata of several evaluations."""
    total = sum((compute_performance(mix, strata) for strata in history), Fraction(0))
    return total / len(history)


def scored_examples(losses: Losses, difficulty: str) -> list[tuple[int, float]]:
    """Return the (index, loss) pairs of a difficulty.

    Raises:
        ConfigError: when there is none.
    """
    scored = [(index, float(loss)) for index, loss in losses.get(difficulty, {}).items()]
    if not scored:
        raise ConfigError(f"the losses must hold an example of difficulty '{difficulty}', got none")
    return scored
