"""Strategy `schedule`: the stages begin at fixed steps, for comparison with `staged`."""

from pixelis.curriculum.state import CurriculumState
from pixelis.curriculum.strategies.base import Decision, Strategy


class Schedule(Strategy):
    """Stages that begin after the steps of `schedule.steps`, regardless of the strata."""

    name = "schedule"
    awaits = "stage"

    def wait(self, state: CurriculumState, step: int) -> int | None:
        """Return the steps until the next stage begins."""
        steps = self.config.schedule.steps or ()
        if state.stage_index >= len(steps):
            return None
        return max(0, steps[state.stage_index] - step)

    def decide(self, state: CurriculumState, step: int) -> Decision:
        """Enter the next stage."""
        return self.move(state, state.stage_index + 1)
