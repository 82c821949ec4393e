"""Strategy `reverse`: hard first, from the last stage back to the first, one an interval."""

from pixelis.curriculum.state import CurriculumState
from pixelis.curriculum.strategies.base import Decision, Strategy


class Reverse(Strategy):
    name = "reverse"
    first_stage = 2

    def wait(self, state: CurriculumState, step: int) -> int | None:
        return max(0, state.interval - state.steps_since_advance) if state.stage_index else None

    def decide(self, state: CurriculumState, step: int) -> Decision:
        return self.move(state, state.stage_index - 1)
