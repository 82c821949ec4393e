import pytest

from pixelis.curriculum import CurriculumConfig, CurriculumManager
from pixelis.curriculum.state import CurriculumState
from pixelis.curriculum.strategies import STRATEGIES, Decision, Strategy


def test_the_table_names_the_strategies_of_the_specification():
    assert list(STRATEGIES) == ["staged", "schedule", "competence", "self_paced", "adaptive"]


def test_a_strategy_that_decides_says_how():
    strategy, state = Strategy(CurriculumConfig()), CurriculumState(0, 1)
    with pytest.raises(NotImplementedError, match="Strategy does not decide on strata"):
        strategy.decide(state, 1)
    with pytest.raises(NotImplementedError, match="Strategy does not decide on losses"):
        strategy.select(state, 1, {})


class Reverse(Strategy):
    """Hard first: from the last stage back to the first, one stage an interval."""

    first_stage = 2

    def wait(self, state: CurriculumState, step: int) -> int | None:
        return max(0, state.interval - state.steps_since_advance) if state.stage_index else None

    def decide(self, state: CurriculumState, step: int) -> Decision:
        return self.move(state, state.stage_index - 1)


def test_a_user_adds_a_strategy_with_one_class(monkeypatch):
    monkeypatch.setitem(STRATEGIES, "reverse", Reverse)
    settings = {"strategy": "reverse", "advancement_interval": 3}
    manager = CurriculumManager(CurriculumConfig.from_dict(settings))
    stages = []
    for step in range(1, 10):
        stages.append(manager.stage)
        manager.step()
        if manager.attempt_due(step):
            manager.attempt(step, {"simple": 0.9, "medium": 0.5, "hard": 0.1})
    assert stages == ["full"] * 3 + ["balanced"] * 3 + ["simple"] * 3
    assert {event.reason for event in manager.events} == {"reverse does not roll back"}
