"""Why no decision falls due: the words behind a call that came too early or too late."""

from pixelis.curriculum.state import CurriculumState
from pixelis.curriculum.strategies import Strategy
from pixelis.curriculum.strategies.staged import is_held


def why_nothing_is_due(
    strategy: Strategy, name: str, stage: str, state: CurriculumState, step: int
) -> str:
    """Say why a strategy called `name`, in this stage, does not decide after this step."""
    wait = strategy.wait(state, step)
    if wait is None and strategy.rolls_back and is_held(strategy.config, state):
        return f"held after {state.rollbacks_in_a_row} rollbacks in a row (max_rollbacks)"
    if wait is None:
        place = f" in stage '{stage}'" if strategy.uses_stages else ""
        return f"strategy '{name}' makes no more decisions{place}"
    if wait == 0 and strategy.fits(state, step):
        return f"strategy '{name}' decides on {strategy.wants(state, step)}"
    if wait == 0:
        return f"it would come at, or its trial end after, max_steps {strategy.max_steps}"
    if state.trial is not None:
        return f"the trial that began at step {state.trial.step} ends in {wait} steps"
    return (
        f"the next is {wait} steps away (steps_since_advance {state.steps_since_advance}, "
        f"interval {state.interval}, cooldown_until {state.cooldown_until})"
    )
